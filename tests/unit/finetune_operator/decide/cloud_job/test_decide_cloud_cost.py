"""What a job outside of the cluster costs, and whether that is within its budget: in the budget's own currency."""

from typing import Any

import pytest

from finetune_api.reasons import Reason
from finetune_operator.decide.cloud_job import cloud_cost
from finetune_operator.decide.cloud_job.steps import decide
from tests.unit.finetune_operator.decide.cloud_job.given_cloud_jobs import (
    at_provider,
    checked,
    checking,
    facts,
    given,
    spec,
    status,
)
from tests.unit.finetune_operator.decide.given import job_spec, sagemaker_connection


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


HOURS = {"ml.g5.xlarge": "1.41"}


@pytest.mark.parametrize(
    ("prices", "currency", "reason"),
    [
        pytest.param(HOURS, "USD", None, id="known"),
        pytest.param({}, "USD", Reason.PRICE_UNKNOWN, id="unknown"),
        pytest.param({"ml.g5.2xlarge": "1.52"}, "USD", Reason.PRICE_UNKNOWN, id="of another instance"),
        pytest.param(HOURS, "EUR", Reason.PRICE_UNKNOWN, id="of another currency"),
    ],
)
def test_a_budget_needs_the_price_of_the_instances_hour(
    prices: dict[str, str], currency: str, reason: Reason | None
) -> None:
    view = given(
        spec=spec(budget={"maxCost": "9.00", "currency": currency}),
        connection=sagemaker_connection(),
        facts=facts(hosting=prices),
    )
    failure = cloud_cost.unpriced(view)
    assert (failure and failure.reason) == reason
    assert failure is None or "an hour of ml.g5.xlarge" in failure.message
