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
