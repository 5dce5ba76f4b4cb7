"""What a job outside of the cluster costs, and whether that is within its budget: in the budget's own currency."""

from typing import Any

import pytest

from finetune_api.catalogue import ProviderFacts
from finetune_api.job_status import Cost, ProviderEvaluation, TokenUsage
from finetune_api.reasons import Reason
from finetune_api.trainer import Checked
from finetune_operator.decide.cloud_job import cloud_cost
from finetune_operator.decide.cloud_job.steps import decide
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.view import JobView
from tests.unit.finetune_operator.decide.cloud_job.given_cloud_jobs import (
    FILE,
    at_provider,
    checked,
    checking,
    facts,
    given,
    spec,
    status,
)
from tests.unit.finetune_operator.decide.given import azure_connection, job_spec, report, sagemaker_connection, verdict


def test_costs_are_what_the_provider_billed_once_it_has() -> None:
    run = at_provider("Succeeded", model="ft:a", tokens=2_000_000)
    before = decide(given(checked(), checking())).status.model_copy(update={"provider": status().provider})
    done = decide(given(run, before, version=1)).status
    assert (done.phase, done.cost.actual, done.cost.estimated) == ("Succeeded", "6.00", "0.01")


EUROS = {"gpt-*": {"training": {"perMillionTokens": "3.00", "asOf": "2026-11-01", "currency": "EUR"}}}
BUDGETS: dict[str, tuple[dict[str, Any], Reason | None]] = {
    "none": ({}, None),
    "within": ({"budget": {"maxCost": "9.00", "currency": "USD"}}, None),
    "above": ({"budget": {"maxCost": "8.99", "currency": "USD"}}, Reason.BUDGET_EXCEEDED),
    "of another currency": ({"budget": {"maxCost": "9.00", "currency": "EUR"}}, Reason.PRICE_UNKNOWN),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_a_job_is_made_only_within_its_budget(name: str) -> None:
    fields, reason = BUDGETS[name]
    decision = decide(given(checked(1_000_000), checking(), spec=spec(**fields)))
    failure = decision.status.failure
    assert (decision.submit, failure and failure.reason) == (reason is None, reason)


FREE = {"gpt-*": {"training": {"perMillionTokens": "0", "asOf": "2026-11-01"}}}


@pytest.mark.parametrize(
    ("max_cost", "tokens", "models", "made"),
    [
        pytest.param("0", 1, None, False, id="nothing may be paid, and a token is"),
        pytest.param("0.00", 1_000_000, FREE, True, id="nothing may be paid, and nothing is"),
        pytest.param("0", 0, None, True, id="nothing may be paid, and there is nothing to pay for"),
        pytest.param("0.01", 1, None, True, id="a part of a cent is estimated as one"),
        pytest.param("0.009999", 1, None, False, id="less than a cent"),
    ],
)
def test_a_budget_of_nothing_allows_what_costs_nothing(
    max_cost: str, tokens: int, models: dict[str, Any] | None, made: bool
) -> None:
    known = facts(models=models) if models else facts()
    budget = spec(budget={"maxCost": max_cost})
    decision = decide(given(checked(tokens), checking(), spec=budget, facts=known))
    failure = decision.status.failure
    assert (decision.submit, failure and failure.reason) == (made, None if made else Reason.BUDGET_EXCEEDED)


def test_a_bill_in_another_currency_than_the_estimate_is_not_added_to_it() -> None:
    estimated = decide(given(checked(), checking())).status.model_copy(update={"provider": status().provider})
    done = given(at_provider("Succeeded", model="ft:a", tokens=2_000_000), estimated, facts=facts(models=EUROS))
    assert cloud_cost.with_bill(done) == estimated.cost


@pytest.mark.parametrize(
    ("deadline", "seconds"), [(None, 86_400), (3600, 3600), (31_536_000, cloud_cost.LONGEST_RUN_SECONDS)]
)
def test_an_instance_runs_no_longer_than_its_provider_lets_any(deadline: int | None, seconds: int) -> None:
    settings = sagemaker_connection().sage_maker
    assert settings is not None
    assert cloud_cost.longest_seconds(job_spec(activeDeadlineSeconds=deadline), settings) == seconds


@pytest.mark.parametrize(
    ("asked", "currency", "unknown"),
    [
        pytest.param({}, "USD", None, id="known"),
        pytest.param({"instanceType": "ml.g5.2xlarge"}, "USD", "an hour of ml.g5.2xlarge in USD", id="unknown"),
        pytest.param({}, "EUR", "an hour of ml.g5.xlarge in EUR", id="of another currency"),
    ],
)
def test_a_budget_needs_the_price_of_an_hour_of_the_jobs_instance(
    asked: dict[str, str], currency: str, unknown: str | None
) -> None:
    wanted = spec(budget={"maxCost": "9.00", "currency": currency}, resources=asked)
    view = given(spec=wanted, connection=sagemaker_connection(), facts=facts(hosting={"ml.g5.xlarge": "1.41"}))
    failure = cloud_cost.unpriced(view)
    assert (failure is None) == (unknown is None)
    if failure is not None:
        message = f"spec.budget: no price of {unknown} is known"
        assert (failure.reason, failure.message) == (Reason.PRICE_UNKNOWN, message)


TEST_SET = {"train": {"uri": "pvc://d/t.jsonl"}, "test": {"uri": "pvc://d/e.jsonl"}}
TRAINING = {"perMillionTokens": "3.00", "asOf": "2026-11-01"}
ANSWERS = {"base": {"input": "1", "output": "2"}, "tuned": {"input": "10", "output": "20"}, "asOf": "2026-11-01"}
PRICED = facts(models={"gpt-*": {"training": TRAINING, "answers": ANSWERS}})
IN_EUROS = facts(models={"gpt-*": {"training": TRAINING, "answers": ANSWERS | {"currency": "EUR"}}})
ZERO_SHOT, EXAMPLES, ACTIVE = {"zeroShot": {}}, {"fewShot": {"examples": 4}}, {"activeVersion": {}}


def to_be_measured(prices: ProviderFacts, *baselines: dict[str, Any], **fields: Any) -> JobView:
    """A million tokens in 20,000 rows, three epochs; a test set of 1,000 rows."""
    size = {"rows": 1000, "promptTokens": 1_000_000, "completionTokens": 100_000}
    train = {"file": "t.jsonl", "format": "JSON Lines", "rows": 20_000}
    found = {"files": [FILE.wire()], "tokens": 1_000_000, "evaluation": size}
    run = Run("Checked", report=report("Checked", dataset=verdict(train=train), checked=found), job_id="sentiment-1-1")
    asked = {"dataset": TEST_SET, "evaluation": {"baselines": list(baselines or [ZERO_SHOT])}} | fields.pop("spec", {})
    return given(run, checking(), spec=spec(**asked), facts=prices, **fields)


def estimated(view: JobView) -> Cost:
    assert view.run.report is not None
    assert view.run.report.checked is not None
    cost = cloud_cost.expected(view, view.run.report.checked)
    assert cost is not None
    return cost


ESTIMATES: dict[str, tuple[JobView, str | None, str | None, str]] = {
    # the job, the estimate, what of it is the evaluation's, and what its basis says
    "answers": (to_be_measured(PRICED, ZERO_SHOT), "22.20", "13.20", "evaluation of 1,000 rows 13.20 USD"),
    "examples": (to_be_measured(PRICED, ZERO_SHOT, EXAMPLES), "23.60", "14.60", "evaluation of 1,000 rows 14.60 USD"),
    "versions": (to_be_measured(PRICED, ACTIVE), "33.00", "24.00", "evaluation of 1,000 rows 24.00 USD"),
    "by activation": (to_be_measured(PRICED, if_better=True), "34.20", "25.20", "evaluation of 1,000 rows 25.20 USD"),
    "no price of answers": (to_be_measured(facts(), ZERO_SHOT), "9.00", None, "; without the evaluation"),
    "answers in another currency": (to_be_measured(IN_EUROS, ZERO_SHOT), "9.00", None, "; without the evaluation"),
    "no price of tuning": (
        to_be_measured(facts(models={}), ZERO_SHOT),
        None,
        None,
        "and of its answers to the test set",
    ),
    "nothing is measured": (given(checked(1_000_000), checking(), facts=PRICED), "9.00", None, "list price"),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_an_estimate_has_what_asking_costs_or_says_that_it_has_not(name: str) -> None:
    view, amount, evaluation, said = ESTIMATES[name]
    cost = estimated(view)
    assert (cost.estimated, cost.evaluation) == (amount, evaluation)
    assert said in cost.basis


def at_azure(prices: ProviderFacts, currency: str = "USD") -> JobView:
    budget = {"budget": {"maxCost": "99.00", "currency": currency}}
    return to_be_measured(prices, ZERO_SHOT, spec=budget, connection=azure_connection())


HOURS = {"hosting": {"Standard": "1.70"}}
MODELS = {"models": PRICED.wire()["models"]}
UNPRICED: dict[str, tuple[JobView, str | None]] = {
    # the job, what has no price
    "all is known": (at_azure(facts(**MODELS, **HOURS)), None),
    "tuning": (at_azure(facts(models={}, **HOURS)), "tuning gpt-4o-mini in USD"),
    "answers": (at_azure(facts(**HOURS)), "asking gpt-4o-mini in USD"),
    "hours": (at_azure(facts(**MODELS)), "an hour of the evaluation's deployments in USD"),
    "hours in another currency": (
        at_azure(facts(**MODELS, **HOURS, hostingCurrency="EUR")),
        "an hour of the evaluation's deployments in USD",
    ),
    "hours that nobody asks for": (
        to_be_measured(facts(**MODELS), spec={"budget": {"maxCost": "99.00", "currency": "USD"}}),
        None,
    ),
    "tuning in another currency": (at_azure(facts(**MODELS, **HOURS), "EUR"), "tuning gpt-4o-mini in EUR"),
}


@pytest.mark.parametrize("name", UNPRICED)
def test_a_budget_needs_the_price_of_all_that_the_job_is_to_pay(name: str) -> None:
    view, what = UNPRICED[name]
    failure = cloud_cost.unpriced(view)
    assert (failure and failure.message) == (what and f"spec.budget: no price of {what} is known")
    if failure is not None:
        assert "spec.retryNonce when the operator has read it" in (failure.next_step or "")


@pytest.mark.parametrize(
    ("hours_in", "actual", "hosting"), [("USD", "8.90", "1.70"), ("EUR", "7.20", None)], ids=["all", "tuning, answers"]
)
def test_a_bill_has_what_was_asked_and_what_stood_for_it(hours_in: str, actual: str, hosting: str | None) -> None:
    cost = {"estimated": "20.00", "currency": "USD", "basis": "list price"}
    asked = ProviderEvaluation(
        tuned=TokenUsage(answers=1, prompt_tokens=100_000, completion_tokens=10_000), hosting="1.7000", ended=True
    )
    before = status(evaluation=asked).model_copy(update={"cost": Cost.model_validate(cost)})
    done = at_provider("Succeeded", model="ft:a", tokens=2_000_000)
    bill = cloud_cost.with_bill(given(done, before, facts=facts(**MODELS, hostingCurrency=hours_in)))
    assert bill is not None
    assert (bill.actual, bill.hosting) == (actual, hosting)


@pytest.mark.parametrize(("seconds", "actual"), [(3600, "2.82"), (None, None)], ids=["billed", "not told yet"])
def test_a_bill_by_the_time_is_of_all_instances(seconds: int | None, actual: str | None) -> None:
    two = given(
        Run("Succeeded", billed_seconds=seconds),
        status().model_copy(update={"cost": Cost(estimated="9.00", currency="USD", basis="b")}),
        spec=spec(resources={"nodes": 2}),
        connection=sagemaker_connection(),
        facts=facts(hosting={"ml.g5.xlarge": "1.41"}),
    )
    bill = cloud_cost.with_bill(two)
    assert bill is not None
    assert bill.actual == actual


BEFORE = Cost(estimated="0.01", currency="USD", basis="list price", earlier="1.00")
LEFT: dict[str, tuple[Run, dict[str, Any], tuple[str | None, int | None]]] = {
    "billed": (at_provider("Failed", tokens=2_000_000), {}, ("7.00", None)),
    "cancelled, and billed": (at_provider("Cancelled", tokens=1_000_000), {}, ("4.00", None)),
    "not told": (at_provider("Cancelled"), {}, ("1.00", 1)),
    "at work, so not all is told": (at_provider("Active", tokens=500_000), {}, ("1.00", 1)),
    "another one not told": (at_provider("Failed"), {"unknown_attempts": 2}, ("1.00", 3)),
    "long over": (Run("Unseen"), {"actual": "5.00"}, ("5.00", None)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_an_attempt_has_cost_goes_along_with_the_next_one(name: str) -> None:
    run, fields, (earlier, unknown) = LEFT[name]
    view = given(run, status().model_copy(update={"cost": BEFORE.model_copy(update=fields)}))
    left = cloud_cost.left_behind(view)
    assert left is not None
    assert (left.earlier, left.unknown_attempts, left.actual) == (earlier, unknown, None)
    after = cloud_cost.after(left, cloud_cost.expected(view, Checked(files=[FILE], tokens=1_000)))
    assert after is not None
    assert (after.earlier, after.unknown_attempts) == (earlier, unknown)


def test_what_was_billed_in_another_currency_is_told_and_not_added() -> None:
    euros = Cost(estimated="0.01", currency="EUR", basis="list price", earlier="1.00", unknown_attempts=1)
    after = cloud_cost.after(euros, BEFORE.model_copy(update={"earlier": None}))
    assert after is not None
    assert (after.earlier, after.unknown_attempts) == (None, 1)
    assert after.basis.endswith("; without earlier attempts, 1.00 EUR")
