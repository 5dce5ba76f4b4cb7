"""What is decided between a provider's model and its version where the model answers in a deployment: at Azure."""

from decimal import Decimal
from typing import Any

import pytest

from finetune_api.catalogue import ProviderFacts
from finetune_api.job_status import EvaluationDeployment, Failure, FineTuneJobStatus, ProviderEvaluation
from finetune_api.reasons import Reason
from finetune_operator.decide.cloud_job import evaluation_hosts, evaluation_record
from finetune_operator.decide.cloud_job.evaluation_hosts import LIFETIME, WAIT_LIMIT, TearDown
from finetune_operator.decide.cloud_job.steps import decide
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.view import Decision, JobView
from tests.unit.finetune_operator.decide.given import at, azure_connection, condition, job_spec, report, stamp, view

DATASET = {"train": {"uri": "pvc://d/t.jsonl"}, "test": {"uri": "pvc://d/e.jsonl"}}
ZERO_SHOT = {"baselines": [{"zeroShot": {}}]}
RESULT = {"artifact": {"providerModelID": "gpt.ft-a"}, "steps": 3, "tokens": 1_000_000}
COST = {"estimated": "3.00", "currency": "USD", "basis": "list price"}
FACTS = ProviderFacts.model_validate(
    {"models": {"gpt-*": {"training": {"perMillionTokens": "3.00", "asOf": "2026-11-01"}}}}
)
POD = "sentiment-1-1-eval1"


def host(candidate: str = "tuned", **fields: Any) -> EvaluationDeployment:
    body = {"candidate": candidate, "name": f"md-e1{candidate[0]}", "created_at": stamp(), "borrowed": False}
    return EvaluationDeployment.model_validate(body | fields)


ANSWERS = host(address="md-e1t", ready_at=stamp(), per_hour="1.70")
BASE_ANSWERS = host("base", address="md-e1b", ready_at=stamp())


def status(*hosts: EvaluationDeployment, **evaluation: Any) -> FineTuneJobStatus:
    """Of a job whose evaluation was prepared, and has these deployments."""
    provider: dict[str, Any] = {"name": "azureOpenAI", "attempt": 1, "jobID": "ftjob-1", "askedAt": stamp()}
    provider["evaluation"] = evaluation | {"deployments": [one.wire() for one in hosts] or None}
    body = {"phase": "Evaluating", "observedGeneration": 1, "provider": provider, "result": RESULT, "cost": COST}
    return FineTuneJobStatus.model_validate(body)


def given(before: FineTuneJobStatus, pod: Run | None = None, **fields: Any) -> JobView:
    spec = job_spec(**({"dataset": DATASET, "baseModel": "gpt-4o", "evaluation": ZERO_SHOT} | fields.pop("spec", {})))
    done = Run("Succeeded", report=report("Succeeded", result=RESULT), job_id="ftjob-1", measuring=pod)
    around = {"spec": spec, "connection": azure_connection(), "remote": True, "has_finalizer": True, "facts": FACTS}
    return view(done, before, **(around | fields))


def evaluation(decision: Decision) -> ProviderEvaluation:
    assert decision.status.provider is not None
    assert decision.status.provider.evaluation is not None
    return decision.status.provider.evaluation


def test_no_pod_asks_before_what_it_asks_answers() -> None:
    first = decide(given(status(), now=at(5)))
    assert (first.host, first.measure, evaluation(first).deploying_since) == ("Up", None, stamp(5))
    assert first.requeue_after
    assert condition(first.status, "Reconciling").reason == "Deploying"
    waits = decide(given(status(ANSWERS, deployingSince=stamp()), now=at(60)))
    assert (waits.host, waits.measure, evaluation(waits).deploying_since) == ("Up", None, stamp())
    begun = decide(given(status(ANSWERS, BASE_ANSWERS, deployingSince=stamp()), now=at(60)))
    assert (begun.host, begun.measure, evaluation(begun).deploying_since) == (None, "Start", None)


def test_a_baseline_that_does_not_come_is_given_up_and_a_tuned_model_that_failed_ends_it() -> None:
    late = at(WAIT_LIMIT.total_seconds())
    left = decide(given(status(ANSWERS, host("base"), deployingSince=stamp()), now=late))
    assert (left.host, left.requeue_after) == (None, 0)
    assert [bool(one.failure) for one in evaluation(left).deployments or ()] == [False, True]
    over = decide(given(status(host(failure="no quota"), BASE_ANSWERS)))
    failure = evaluation(over).failure
    assert evaluation(over).ended
    assert failure is not None
    assert (failure.reason, failure.message) == (Reason.DEPLOYMENT_FAILED, "no quota")


LIMITS: dict[str, tuple[float, dict[str, Any], tuple[EvaluationDeployment, ...], str | None]] = {
    # after so many hours, what the job says, what stands, why it ends
    "within its budget": (1, {"budget": {"maxCost": "5.00"}}, (ANSWERS, BASE_ANSWERS), None),
    "its budget is spent": (1.2, {"budget": {"maxCost": "5.00"}}, (ANSWERS, BASE_ANSWERS), "BudgetExceeded"),
    "it has no budget": (1.2, {}, (ANSWERS, BASE_ANSWERS), None),
    "nothing is billed by the hour": (1.2, {"budget": {"maxCost": "2.00"}}, (), None),
    "it stands for long": (LIFETIME.total_seconds() / 3600, {}, (ANSWERS, BASE_ANSWERS), "DeploymentFailed"),
    "it is paused": (1.2, {"budget": {"maxCost": "5.00"}, "suspend": True}, (ANSWERS, BASE_ANSWERS), None),
}


@pytest.mark.parametrize("name", LIMITS)
def test_what_is_billed_by_the_hour_ends_with_the_budget_or_after_a_day(name: str) -> None:
    hours, asked, hosts, reason = LIMITS[name]
    decision = decide(given(status(*hosts, jobID=POD), Run("Active", job_id=POD), spec=asked, now=at(3600 * hours)))
    failure = evaluation(decision).failure
    assert (failure.reason.value if failure else None) == reason
    assert evaluation(decision).ended is (reason is not None)
    assert (decision.measure == "Stop") is (reason is not None or "suspend" in asked)


@pytest.mark.parametrize(
    ("hosts", "gone", "pod", "measure", "down", "again"),
    [
        ((ANSWERS,), False, Run("Active", job_id=POD), "Stop", None, True),
        ((ANSWERS,), False, None, None, "Down", True),
        ((), False, Run("Active", job_id=POD), "Stop", None, True),
        ((), False, None, None, "Down", True),
        ((), True, None, None, None, False),
    ],
    ids=["pod and deployment", "deployment", "pod", "none that status tells of", "nothing, as was looked"],
)
def test_a_paused_evaluation_ends_its_pod_and_then_what_is_billed(
    hosts: tuple[EvaluationDeployment, ...],
    gone: bool,
    pod: Run | None,
    measure: str | None,
    down: str | None,
    again: bool,
) -> None:
    decision = decide(given(status(*hosts, jobID=POD, deploymentsGone=gone), pod, spec={"suspend": True}))
    assert (decision.measure, decision.host, decision.requeue_after is not None) == (measure, down, again)
    assert decision.status.phase == "Suspended"
    assert (evaluation(decision).job_id, evaluation(decision).tries) == (None, 2), "the next one has another number"


@pytest.mark.parametrize(
    ("hosts", "down"),
    [((ANSWERS,), True), ((ANSWERS.model_copy(update={"released": True}),), False), ((), False)],
    ids=["stands", "was asked to go", "none"],
)
def test_what_was_deployed_is_asked_to_go_before_the_version_is_made(
    hosts: tuple[EvaluationDeployment, ...], down: bool
) -> None:
    decision = decide(given(status(*hosts, ended=True)))
    assert (decision.host == "Down", decision.register) == (down, not down)


def test_what_deployments_have_cost_is_summed_up_as_they_go() -> None:
    left = host("base", released=True)
    before = status(ANSWERS, left, hosting="0.5000")
    after = evaluation_record.torn_down(before, TearDown((left,), (), Decimal("1.23456")))
    assert after.provider is not None
    assert after.provider.evaluation is not None
    assert (after.provider.evaluation.hosting, after.provider.evaluation.deployments) == ("1.7346", [left])
    free = evaluation_record.torn_down(before, TearDown((), (), None))
    assert free.provider is not None
    assert free.provider.evaluation is not None
    assert (free.provider.evaluation.hosting, free.provider.evaluation.deployments) == ("0.5000", None)
    nothing = FineTuneJobStatus()
    assert evaluation_record.torn_down(nothing, TearDown((), (), None)) == nothing
    assert evaluation_record.released(nothing) == nothing


def test_what_was_borrowed_stays_when_the_rest_is_released() -> None:
    released = evaluation_record.released(status(ANSWERS, host("base", borrowed=True)))
    assert released.provider is not None
    assert released.provider.evaluation is not None
    assert [one.released for one in released.provider.evaluation.deployments or ()] == [True, False]


def test_a_deployment_that_cannot_be_deleted_is_told_until_it_is_gone() -> None:
    before = status(ANSWERS)
    kept = evaluation_record.not_released(
        given(before), before, ["md-e1t"], Failure.because(Reason.CREDENTIALS_INVALID, "no")
    )
    told = condition(kept.status, "Released")
    assert (told.status, told.reason) == ("False", "CredentialsInvalid")
    assert "md-e1t may exist at the provider, and be billed: no" in told.message
    assert kept.requeue_after == evaluation_record.ASK_AGAIN_SECONDS
    assert [fact.status for fact in evaluation_record.nothing_left(given(kept.status))] == ["True"]
    assert evaluation_record.nothing_left(given(before)) == []


def test_what_could_not_be_asked_for_is_paused_in_status() -> None:
    busy = Failure.because(Reason.RATE_LIMITED, "later")
    put_off = evaluation_record.not_deployed(given(status()), status(), busy, 30)
    assert (evaluation(put_off).retry_after, put_off.requeue_after) == (stamp(30), 30)
    assert put_off.status.failure == busy


@pytest.mark.parametrize(
    ("fields", "may"),
    [({}, True), ({"spec": {"dataset": {"train": {"uri": "pvc://d/t"}}}}, False)],
    ids=["with a test set", "without"],
)
def test_only_an_evaluation_leaves_deployments(fields: dict[str, Any], may: bool) -> None:
    assert evaluation_record.may_have_deployed(given(status(), **fields)) is may
    unread = status()
    assert not evaluation_record.may_have_deployed(given(unread.model_copy(update={"result": None}), **fields))


def test_the_price_of_an_hour_is_asked_for_all_that_are_billed_by_it() -> None:
    by_the_hour = ProviderFacts.model_validate({"hosting": {"Standard": "1.70"}})
    assert evaluation_hosts.price_of_an_hour(given(status(), facts=by_the_hour)) == Decimal("1.70")
    assert evaluation_hosts.price_of_an_hour(given(status(), facts=by_the_hour, if_better=True)) == Decimal("3.40")
    assert evaluation_hosts.price_of_an_hour(given(status())) is None
