"""What people ask of a job that was applied: to wait, to go on, to begin anew."""

from typing import Any

import pytest

from finetune_api.job_status import Failure, FineTuneJobStatus
from finetune_api.reasons import Reason
from finetune_operator.decide.job.change import fail
from finetune_operator.decide.job.retries import RETRY_DELAYS
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.steps import decide
from finetune_operator.decide.job.view import JobView
from tests.unit.finetune_operator.decide.given import (
    condition,
    connection,
    ended_as,
    failed,
    job_spec,
    kstatus,
    progress,
    provider,
    report,
    run,
    running,
    stamp,
    succeeded,
    view,
)

# retryNonce.


@pytest.mark.parametrize("step", ["its own", None])
@pytest.mark.parametrize(
    "reason", [Reason.SPEC_INVALID, Reason.MODEL_UNUSABLE, Reason.MODEL_RETIRED, Reason.FINE_TUNING_CLOSED]
)
def test_what_only_another_job_mends_is_not_told_to_be_tried_again(reason: Reason, step: str | None) -> None:
    said = Failure.because(reason, "spec.baseModel: no such model")
    failure = fail(view(), said if step else said.model_copy(update={"next_step": None})).status.failure
    assert failure is not None
    assert str(failure.next_step).endswith("apply the job under a new name.")
    assert "retryNonce" not in str(failure.next_step)


def test_a_new_nonce_starts_a_failed_job_again_as_the_next_attempt_with_all_its_retries() -> None:
    exhausted = running(provider=provider(3, retries=2, retry_after=None))
    status = decide(view(failed(Reason.EVICTED, attempt=3), exhausted, connection=connection({"maxRetries": 2}))).status
    decision = decide(view(failed(Reason.EVICTED, attempt=3), status, spec=job_spec(retryNonce="again")))
    assert decision.stop
    assert decision.requeue_after == 0
    after = decision.status
    assert after.provider is not None
    assert (after.provider.attempt, after.provider.retries, after.provider.job_id) == (4, 0, None)
    assert (after.failure, after.completion_time, after.observed_retry_nonce) == (None, None, "again")
    assert condition(after, "Failed").status == "False"
    assert kstatus(after) == "InProgress"
    assert decide(view(status=after, spec=job_spec(retryNonce="again"))).start


def test_an_empty_nonce_as_templates_leave_it_is_none_and_asks_for_nothing() -> None:
    ended = decide(view(status=decide(view(connection=connection(fineTuning={"enabled": False}))).status)).status
    for before in (None, "2"):
        status = ended.model_copy(update={"observed_retry_nonce": before})
        assert not view(status=status, spec=job_spec(retryNonce="")).retry_asked
        assert view(status=status, spec=job_spec(retryNonce="1")).retry_asked


def test_a_job_that_was_refused_before_its_first_attempt_begins_with_the_first() -> None:
    off = connection(fineTuning={"enabled": False})
    refused = decide(view(connection=off)).status
    again = decide(view(status=refused, spec=job_spec(retryNonce="1"))).status
    started = decide(view(status=again, spec=job_spec(retryNonce="1")))
    assert started.start
    assert started.status.provider is not None
    assert started.status.provider.attempt == 1


def test_a_new_nonce_on_a_succeeded_job_is_only_noted() -> None:
    given = view(status=ended_as("Complete"), spec=job_spec(retryNonce="again"))
    decision = decide(given)
    assert decision.status.phase == "Succeeded"
    assert decision.status.observed_retry_nonce == "again"
    assert decision.requeue_after == 0, "its time to live goes on, and nothing else tells of its end"
    assert (decision.start, decision.stop) == (False, False)
    settled = decide(view(status=decision.status, spec=given.spec))
    assert settled.status == decision.status


@pytest.mark.parametrize("after", [failed(Reason.DATASET_INVALID), failed(Reason.TRAINER_CRASHED)])
def test_a_nonce_that_was_there_from_the_start_restarts_nothing(after: Run) -> None:
    spec = job_spec(retryNonce="1")
    started = decide(view(spec=spec)).status
    assert started.observed_retry_nonce == "1"
    ended = decide(view(after, running(observed_retry_nonce="1"), spec=spec)).status
    assert decide(view(status=ended, spec=spec)).status == ended


def test_a_nonce_that_is_taken_away_restarts_nothing() -> None:
    ended = decide(view(failed(Reason.EVICTED), running(), spec=job_spec(retryNonce="1"), connection=None)).status
    assert not decide(view(status=ended, spec=job_spec())).start


# Suspension.


@pytest.mark.parametrize(
    ("its_run", "status", "attempt", "stop"),
    [
        (Run("Absent"), FineTuneJobStatus(), None, False),
        (run("Queued"), running(phase="Queued"), 2, True),
        (run("Active"), running(), 2, True),
        (failed(Reason.EVICTED), running(), 2, True),
        (run("ResultUnknown"), running(), 2, True),
        # Started, and the operator ended before it could write so.
        (run("Queued"), FineTuneJobStatus(), 2, True),
        # Stopped, and the operator ended before it could write so.
        (Run("Absent"), running(), 2, False),
        # Between two attempts.
        (Run("Absent"), running(provider=provider(2, job_id=None, retry_after=stamp(60))), 2, False),
    ],
)
def test_suspending_uses_up_an_attempt_that_was_started(
    its_run: Run, status: FineTuneJobStatus, attempt: int | None, stop: bool
) -> None:
    decision = decide(view(its_run, status, spec=job_spec(suspend=True)))
    assert decision.status.phase == "Suspended"
    assert decision.stop == stop
    assert not decision.start
    assert (decision.status.provider.attempt if decision.status.provider else None) == attempt
    assert condition(decision.status, "Suspended").status == "True"


def test_a_stopping_pod_is_looked_at_until_it_has_ended() -> None:
    spec = job_spec(suspend=True)
    stopping = decide(view(run("Active"), running(), spec=spec))
    assert stopping.requeue_after is not None
    waits = decide(view(status=stopping.status, spec=spec, live_pods=True))
    assert waits.requeue_after is not None
    assert "stopping" in condition(waits.status, "Suspended").message
    rests = decide(view(status=waits.status, spec=spec))
    assert rests.requeue_after is None
    assert "stopping" not in condition(rests.status, "Suspended").message
    assert rests.status.provider == stopping.status.provider


def test_suspending_clears_what_a_pod_waited_for() -> None:
    status = running(phase="Queued", failure=Failure.because(Reason.UNSCHEDULABLE, "0/2 nodes"))
    assert decide(view(run("Queued"), status, spec=job_spec(suspend=True))).status.failure is None


def test_a_job_that_has_made_its_artifact_is_not_suspended_any_more() -> None:
    given = view(run("Succeeded", report=succeeded()), running(), spec=job_spec(suspend=True), version=1)
    assert decide(given).status.phase == "Succeeded"


@pytest.mark.parametrize("kind", ["Complete", "Failed"])
def test_suspending_an_ended_job_changes_nothing(kind: str) -> None:
    status = ended_as(kind)
    assert decide(view(status=status, spec=job_spec(suspend=True))).status == status


@pytest.mark.parametrize(
    ("fields", "phase"),
    [
        ({}, "Queued"),
        ({"live_pods": True}, "Pending"),
        ({"connection": None}, "Pending"),
        ({"connection": connection(fineTuning={"enabled": False})}, "Failed"),
    ],
)
def test_a_resumed_job_says_so_at_once_whatever_it_waits_for(fields: Any, phase: str) -> None:
    suspended = decide(view(run("Active"), running(), spec=job_spec(suspend=True))).status
    resumed = decide(view(status=suspended, generation=2, **fields))
    assert resumed.status.phase == phase
    assert condition(resumed.status, "Suspended").status == "False"
    assert resumed.status.observed_generation == 2


def test_a_job_resumed_within_its_pause_says_that_it_is_retrying() -> None:
    retrying = decide(view(failed(Reason.EVICTED), running())).status
    suspended = decide(view(status=retrying, spec=job_spec(suspend=True), generation=2)).status
    resumed = decide(view(status=suspended, generation=3))
    assert (resumed.status.phase, resumed.requeue_after) == ("Pending", RETRY_DELAYS[0])
    assert condition(resumed.status, "Suspended").status == "False"
    assert condition(resumed.status, "Reconciling").reason == "Retrying"


def test_a_resumed_job_goes_on_in_the_same_folder_as_another_attempt() -> None:
    folder = "pvc://before/folder"
    at_work = running(provider=provider(1, artifact_uri=folder), progress=report(progress=progress()).progress)
    suspended = decide(view(run("Active"), at_work, spec=job_spec(suspend=True))).status
    resumed = decide(view(status=suspended))
    assert resumed.start
    assert resumed.status.provider is not None
    assert (resumed.status.provider.attempt, resumed.status.provider.artifact_uri) == (2, folder)


LEFT = {"step": 60, "totalSteps": 100, "percent": 60, "etaSeconds": 95, "tokensPerSecond": 412, "updatedAt": stamp()}
AT_REST: dict[str, JobView] = {
    "suspended": view(run("Active", report=report(progress=LEFT)), running(), spec=job_spec(suspend=True)),
    "failed": view(failed(Reason.TRAINER_CRASHED, report=report("Failed", progress=LEFT)), running()),
    "to be retried": view(failed(Reason.NODE_LOST, report=report(progress=LEFT)), running()),
}


@pytest.mark.parametrize("name", AT_REST)
def test_nobody_is_told_how_long_it_takes_where_nothing_is_at_work(name: str) -> None:
    progress = decide(AT_REST[name]).status.progress
    assert progress is not None
    assert (progress.step, progress.tokens_per_second, progress.eta_seconds) == (60, 412, None)
