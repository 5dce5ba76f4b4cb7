"""What is decided between a provider's model and its version: one row for each state of the pod that asks it."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.catalogue import AnswerPrices, ModelFacts, Price, estimate
from finetune_api.job import Budget
from finetune_api.job_status import (
    ComparedVersion,
    Failure,
    FineTuneJobStatus,
    Progress,
    ProviderEvaluation,
    TokenUsage,
)
from finetune_api.reasons import Reason
from finetune_api.trainer import EvaluationSize
from finetune_operator.decide.cloud_job import asking_cost, measuring
from finetune_operator.decide.cloud_job.steps import decide
from finetune_operator.decide.job import change
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.versions import comparison_of
from finetune_operator.decide.job.view import Active, JobView
from finetune_operator.decide.pods.grace import GRACE
from tests.unit.finetune_operator.decide.given import (
    condition,
    job_spec,
    kstatus,
    openai_connection,
    progress,
    report,
    stamp,
    view,
)

DATASET = {"train": {"uri": "pvc://d/t.jsonl"}, "test": {"uri": "pvc://d/e.jsonl"}}
RESULT = {"artifact": {"providerModelID": "ft:a"}, "steps": 3, "tokens": 1000}
EVALUATION = {"rows": 12, "tuned": {"exactMatch": 1.0}, "baselines": {}, "verdict": "Better"}
ACTIVE = Active(version=4, connection="local", provider_model_id="ft:old")


def made(pod: Run | None = None, evaluation: Any = None, **fields: Any) -> Run:
    """The provider's job has ended well."""
    told = report("Succeeded", result=RESULT, evaluation=evaluation)
    return Run("Succeeded", report=told, job_id="ftjob-1", measuring=pod, **fields)


def status(**evaluation: Any) -> FineTuneJobStatus:
    """Of a job whose evaluation was prepared."""
    provider = {"name": "openAI", "attempt": 1, "jobID": "ftjob-1", "askedAt": stamp()}
    if evaluation.pop("prepared", True):
        provider["evaluation"] = {"jobID": "sentiment-1-1-eval1"} | evaluation
    body = {"phase": "Evaluating", "observedGeneration": 1, "provider": provider, "result": RESULT}
    return FineTuneJobStatus.model_validate(body)


def given(run: Run, before: FineTuneJobStatus, **fields: Any) -> JobView:
    spec = job_spec(**({"dataset": DATASET} | fields.pop("spec", {})))
    return view(run, before, **({"spec": spec, "connection": openai_connection(), "remote": True} | fields))


def pod(state: Any, **fields: Any) -> Run:
    return Run(state, **({"job_id": "sentiment-1-1-eval1"} | fields))


def evaluation(made: FineTuneJobStatus) -> ProviderEvaluation:
    assert made.provider is not None
    assert made.provider.evaluation is not None
    return made.provider.evaluation


def test_the_order_of_the_steps() -> None:
    assert [step.__name__ for step in measuring.STEPS] == [
        "record", "prepare", "enforce_deadline", "enforce_limits", "pause", "wait_before_retry", "deploy", "begin",
        "recreate", "wait_for_pod", "follow", "retry_or_give_up",
    ]  # fmt: skip


def test_before_anybody_is_asked_status_names_model_and_active_version() -> None:
    decision = decide(given(made(), status(prepared=False), if_better=True, active=ACTIVE))
    assert (decision.measure, decision.register, decision.requeue_after) == (None, False, 0)
    assert evaluation(decision.status).active_version == ComparedVersion(version=4, model="ft:old")
    assert decision.status.result is not None
    assert kstatus(decision.status) == "InProgress"


@pytest.mark.parametrize(
    ("told", "recorded"), [(True, False), (False, True)], ids=["the provider has just said it", "status has it already"]
)
def test_the_models_result_is_in_status_while_it_is_measured(told: bool, recorded: bool) -> None:
    before = status(prepared=False)
    run = made() if told else replace(made(), report=report("Succeeded"))
    result = decide(given(run, before if recorded else before.model_copy(update={"result": None}))).status.result
    assert result is not None
    assert result.artifact is not None
    assert result.artifact.provider_model_id == "ft:a"


COMPARED = {
    "nobody asks for it": ({}, False, None),
    "its activation rests on it": ({}, True, "ft:old"),
    "the job names it": ({"evaluation": {"baselines": [{"activeVersion": {}}]}}, False, "ft:old"),
}


@pytest.mark.parametrize("name", COMPARED)
def test_whether_the_active_version_is_compared(name: str) -> None:
    spec, if_better, model = COMPARED[name]
    decision = decide(given(made(), status(prepared=False), spec=spec, if_better=if_better, active=ACTIVE))
    compared = evaluation(decision.status).active_version
    assert (compared.model if compared else None) == model


def test_a_version_of_another_connection_is_not_asked() -> None:
    elsewhere = replace(ACTIVE, connection="azure")
    decision = decide(given(made(), status(prepared=False), if_better=True, active=elsewhere))
    assert evaluation(decision.status).active_version == ComparedVersion(version=4)


def test_the_active_version_is_read_though_another_release_has_written_more_of_it() -> None:
    version = {"version": 4, "connection": "local", "artifact": {"providerModelID": "ft:old", "new": 1}, "alsoNew": {}}
    model = {"spec": {"activation": "IfBetter"}, "status": {"activeVersion": 4, "versions": [{"version": 3}, version]}}
    found = comparison_of(model)
    assert (found.if_better, found.active) == (True, ACTIVE)
    assert comparison_of({"status": {"activeVersion": 5, "versions": [version]}}).active is None


def test_the_pod_is_started_once_the_last_one_has_ended() -> None:
    fresh = status(jobID=None)
    assert decide(given(made(), fresh, live_pods=True)).measure is None
    assert decide(given(made(), fresh)).measure == "Start"
    waiting = decide(given(made(), status(jobID=None, retryAfter=stamp(30))))
    assert (waiting.measure, waiting.requeue_after) == (None, 30)


def test_progress_is_followed() -> None:
    told = report("Evaluating", progress=progress() | {"answers": 3, "totalAnswers": 24})
    decision = decide(given(made(pod("Active", report=told)), status(), asked_tuned=TokenUsage(answers=3)))
    assert (decision.status.phase, decision.status.progress.answers) == ("Evaluating", 3)
    assert evaluation(decision.status).tuned == TokenUsage(answers=3)


def test_a_new_process_goes_on_counting_where_the_last_one_was() -> None:
    before = status(tuned={"answers": 9})
    decision = decide(given(made(pod("Active")), before))
    assert evaluation(decision.status).tuned == TokenUsage(answers=9)


@pytest.mark.parametrize(
    ("recorded", "counted"), [(5, 9), (9, 5)], ids=["it went on asking", "it began to count again"]
)
def test_of_what_was_asked_the_larger_count_stays(recorded: int, counted: int) -> None:
    run = made(pod("Active", report=report("Evaluating", progress=progress() | {"answers": 9, "totalAnswers": 24})))
    decision = decide(given(run, status(tuned={"answers": recorded}), asked_tuned=TokenUsage(answers=counted)))
    assert evaluation(decision.status).tuned == TokenUsage(answers=9)


def test_a_pod_that_asks_after_all_ends_what_was_said_of_it_at_once() -> None:
    failure = Failure.because(Reason.UNSCHEDULABLE, "0/2 nodes")
    before = status().model_copy(update={"failure": failure})
    assert decide(given(made(pod("Active")), before)).status.failure is None
    validating = status().model_copy(update={"phase": "Running"})
    assert decide(given(made(pod("Active")), validating)).status.phase == "Evaluating"


@pytest.mark.parametrize(
    ("reason", "state"), [(Reason.PROVIDER_BUSY, "Reconciling"), (Reason.CREDENTIALS_INVALID, "Stalled")]
)
def test_what_cannot_be_deployed_for_now_waits_or_needs_somebody(reason: Reason, state: str) -> None:
    decision = change.trouble(given(made(), status()), Failure.because(reason, "no"), 0.1)
    assert (condition(decision.status, state).reason, decision.requeue_after) == (reason.value, 1.0)


@pytest.mark.parametrize("told", [progress() | {"answers": 24, "totalAnswers": 24}, None])
def test_the_last_pods_progress_stays_where_its_last_report_has_none(told: dict[str, Any] | None) -> None:
    before = status().model_copy(update={"progress": Progress.model_validate(progress() | {"answers": 20})})
    ended = pod("Measured", report=report("Measured", evaluation=EVALUATION, progress=told))
    after = decide(given(made(ended), before)).status
    assert after.progress is not None
    assert after.progress.answers == (24 if told else 20)


def test_what_came_out_is_in_status_before_the_version_is_made() -> None:
    told = report("Measured", evaluation=EVALUATION)
    decision = decide(given(made(pod("Measured", report=told)), status()))
    assert (decision.register, decision.status.evaluation.verdict) == (False, "Better")
    assert evaluation(decision.status).ended
    after = decide(given(made(), decision.status))
    assert after.register
    done = decide(given(made(evaluation=EVALUATION), decision.status, version=1)).status
    assert (done.phase, condition(done, "Evaluated").status) == ("Succeeded", "True")


ENDS = {
    "interrupted": (Reason.INTERRUPTED, 0, False),
    "the provider does not answer": (Reason.PROVIDER_UNAVAILABLE, 1, False),
    "for the third time": (Reason.RATE_LIMITED, 2, True),
    "the test set has changed": (Reason.DATASET_INVALID, 0, True),
    "a bug": (Reason.TRAINER_CRASHED, 0, True),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_pod_without_a_result(name: str) -> None:
    reason, failures, over = ENDS[name]
    ended = pod("Failed", failure=Failure.because(reason, "because"))
    after = evaluation(decide(given(made(ended), status(failures=failures))).status)
    assert (after.ended, after.failure.reason) == (over, reason)
    if not over:
        assert (after.tries, after.job_id, after.failures) == (2, None, failures + 1)
        assert after.retry_after is not None


def test_a_pod_that_is_gone_is_replaced() -> None:
    after = evaluation(decide(given(made(Run("Absent")), status())).status)
    assert (after.tries, after.failure.reason) == (2, Reason.INTERRUPTED)


def test_the_deadline_ends_the_asking_and_not_the_job() -> None:
    late = given(made(pod("Active")), status(), spec={"activeDeadlineSeconds": 1}, now=view().now.replace(hour=13))
    decision = decide(late)
    assert (decision.measure, decision.status.phase) == ("Stop", "Evaluating")
    done = decide(given(made(), decision.status, version=1)).status
    told = condition(done, "Evaluated")
    assert (done.phase, told.status, told.reason) == ("Succeeded", "False", "DeadlineExceeded")
    assert told.message.endswith("a job under a new name is evaluated again.")


def test_a_pod_that_cannot_start_says_why() -> None:
    stuck = pod("Queued", failure=Failure.because(Reason.IMAGE_PULL_FAILED, "no such image"))
    made_of_it = decide(given(made(stuck), status())).status
    assert (condition(made_of_it, "Stalled").reason, made_of_it.failure.message) == ("ImagePullFailed", "no such image")


def test_a_pod_that_finds_no_room_is_no_failure_before_that_has_lasted_for_a_while() -> None:
    waits = pod("Queued", failure=Failure.because(Reason.UNSCHEDULABLE, "0/2 nodes"), since=view().now)
    early = decide(given(made(waits), status()))
    assert (early.status.failure, early.requeue_after) == (None, GRACE.total_seconds())
    assert condition(early.status, "Reconciling").reason == "Unschedulable"
    late = decide(given(made(waits), early.status, now=view().now + GRACE)).status
    assert late.failure.reason is Reason.UNSCHEDULABLE


def test_without_a_test_set_a_model_is_a_version_at_once() -> None:
    assert decide(given(made(), status(prepared=False), spec={"dataset": {"train": {"uri": "pvc://d/t"}}})).register


PRICES = AnswerPrices.model_validate(
    {"base": {"input": "1", "output": "2"}, "tuned": {"input": "10", "output": "20"}, "asOf": "2026-11-01"}
)
SIZE = EvaluationSize(rows=1000, prompt_tokens=1_000_000, completion_tokens=100_000)
EXPECTED = {
    "zero-shot": ([{"zeroShot": {}}], False, "13.2"),
    "with examples": ([{"zeroShot": {}}, {"fewShot": {"examples": 4}}], False, "14.6"),
    "with the active version": ([{"activeVersion": {}}], True, "24"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_asking_is_expected_to_cost(name: str) -> None:
    baselines, versions, amount = EXPECTED[name]
    spec = job_spec(dataset=DATASET, evaluation={"baselines": baselines})
    found = asking_cost.expected(spec, SIZE, 50.0, PRICES, versions=versions)
    assert found == pytest.approx(asking_cost.Decimal(amount))


def test_the_estimate_names_its_parts() -> None:
    price = Price.model_validate({"perMillionTokens": "3.00", "asOf": "2026-11-01"})
    tuning, asking = estimate(1_000_000, 1, price), asking_cost.Decimal("13.2")
    cost = asking_cost.with_expected(tuning, asking, asking_cost.Decimal(0), SIZE, PRICES)
    assert (cost.estimated, cost.evaluation) == ("16.20", "13.20")
    assert "evaluation of 1,000 rows 13.20 USD" in cost.basis
    assert "hour" not in cost.basis
    cost = asking_cost.with_expected(tuning, asking, asking_cost.Decimal("1.70"), SIZE, PRICES)
    assert (cost.estimated, cost.evaluation) == ("17.90", "14.90")
    assert "an hour of its deployments 1.70" in cost.basis


def test_an_estimate_is_rounded_up_and_a_budget_is_spent_to_the_cent() -> None:
    price = Price.model_validate({"perMillionTokens": "3.00", "asOf": "2026-11-01"})
    cent = asking_cost.Decimal("0.001")
    cost = asking_cost.with_expected(estimate(1_000_000, 1, price), cent, cent, SIZE, PRICES)
    assert (cost.estimated, cost.evaluation) == ("3.01", "0.01")
    priced = ModelFacts(training=price)
    for asked, spent in (("1.99", False), ("2.00", True)):
        budget = Budget.model_validate({"maxCost": "5.00", "currency": "USD"})
        assert asking_cost.is_spent(budget, cost, 1_000_000, priced, asking_cost.Decimal(asked)) is spent
    assert not asking_cost.is_spent(budget, cost, None, priced, asking_cost.Decimal("1.99"))
    assert asking_cost.is_spent(budget, cost, None, priced, asking_cost.Decimal("2.00")), "by the training's estimate"


def test_what_has_no_known_price_is_said_not_to_be_in_the_estimate() -> None:
    price = Price.model_validate({"perMillionTokens": "3.00", "asOf": "2026-11-01"})
    cost = asking_cost.with_expected(estimate(1_000_000, 1, price), asking_cost.Decimal("13.2"), None, SIZE, PRICES)
    assert (cost.estimated, cost.evaluation) == ("16.20", "13.20")
    assert cost.basis.endswith("; without the hours of its deployments, of which no price is known")
    long = cost.model_copy(update={"basis": "x" * 512})
    assert len(asking_cost.without(long, "much").basis) == 512
