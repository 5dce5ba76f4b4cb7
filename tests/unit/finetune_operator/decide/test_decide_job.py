"""What is done about a job: each step of the chain, and what status says of it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.job_status import Failure, FineTuneJobStatus
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import timestamp
from finetune_operator.decide.job import CONNECTION_GRACE, RETRY_DELAYS, STEPS, decide
from finetune_operator.decide.job_view import Decision, JobView
from finetune_operator.decide.run import Run
from tests.unit.finetune_operator.decide.given import (
    NOW,
    at,
    condition,
    connection,
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
    verdict,
    view,
)


def ended_as(kind: str, **fields: Any) -> FineTuneJobStatus:
    """Status of a job that has ended."""
    its_run = run("Succeeded", report=succeeded()) if kind == "Complete" else failed(Reason.DATASET_INVALID)
    return decide(view(its_run, running(), version=1, **fields)).status


def test_the_order_of_the_chain() -> None:
    assert [step.__name__ for step in STEPS] == [
        "leave_deleted",
        "keep_finished",
        "refuse_invalid_spec",
        "restart",
        "suspend",
        "notice_loss",
        "wait_for_connection",
        "refuse_by_policy",
        "wait_for_last_pod",
        "wait_before_retry",
        "start",
        "adopt",
        "wait_for_pod",
        "follow",
        "retry_or_fail",
        "complete",
    ]


ENDPOINT = {"name": "rag", "url": "https://rag.example.com", "model": "m"}

# What decides, with the phase, the reason of Ready, and what kstatus makes of it: one row per state of a job.
STATES: dict[str, tuple[JobView, str | None, str, str]] = {
    "just applied": (view(), "Queued", "Queued", "InProgress"),
    "spec that models do not know": (view(spec=None, spec_error="spec.x"), "Failed", "SpecInvalid", "Failed"),
    "uri that cannot be read": (
        view(spec=job_spec(dataset={"train": {"uri": "https://host/?q"}})),
        "Failed",
        "SpecInvalid",
        "Failed",
    ),
    "connection not there yet": (view(connection=None), "Pending", "ConnectionNotFound", "InProgress"),
    "connection not there": (
        view(connection=None, now=NOW + CONNECTION_GRACE),
        "Pending",
        "ConnectionNotFound",
        "Failed",
    ),
    "namespace not allowed": (
        view(connection=connection(namespaceSelector={"matchLabels": {"team": "b"}})),
        "Failed",
        "NamespaceNotAllowed",
        "Failed",
    ),
    "model not allowed": (
        view(connection=connection(fineTuning={"allowedModels": ["other/*"]})),
        "Failed",
        "ModelNotAllowed",
        "Failed",
    ),
    "endpoint not allowed": (
        view(
            spec=job_spec(evaluation={"baselines": [{"endpoint": ENDPOINT}]}),
            connection=connection(fineTuning={"allowedEndpoints": []}),
        ),
        "Failed",
        "EndpointNotAllowed",
        "Failed",
    ),
    "fine-tuning off": (
        view(connection=connection(fineTuning={"enabled": False})),
        "Failed",
        "FineTuningDisabled",
        "Failed",
    ),
    "own code that is not allowed": (
        view(spec=job_spec(code={"configMapRef": {"name": "my-recipe", "key": "train.py"}})),
        "Failed",
        "CodeNotAllowed",
        "Failed",
    ),
    "last pod still there": (view(live_pods=True), "Pending", "Pending", "InProgress"),
    "pod waits for room": (
        view(run("Queued", failure=Failure.because(Reason.UNSCHEDULABLE, "0/2 nodes")), running()),
        "Queued",
        "Unschedulable",
        "InProgress",
    ),
    "image cannot be pulled": (
        view(run("Queued", failure=Failure.because(Reason.IMAGE_PULL_FAILED, "not found")), running()),
        "Queued",
        "ImagePullFailed",
        "Failed",
    ),
    "pod refused by a quota": (
        view(run("Queued", failure=Failure.because(Reason.POD_REJECTED, "quota")), running()),
        "Queued",
        "PodRejected",
        "Failed",
    ),
    "Secret missing": (
        view(run("Queued", failure=Failure.because(Reason.CONTAINER_CONFIG_INVALID, "secret")), running()),
        "Queued",
        "ContainerConfigInvalid",
        "Failed",
    ),
    "at work without a report": (
        view(run("Active"), running(phase="Queued")),
        "Validating",
        "Validating",
        "InProgress",
    ),
    "reading the data": (
        view(run("Active", report=report("Validating")), running(phase="Queued")),
        "Validating",
        "Validating",
        "InProgress",
    ),
    "tuning": (view(run("Active", report=report("Running")), running()), "Running", "Running", "InProgress"),
    "measuring": (
        view(run("Active", report=report("Evaluating")), running()),
        "Evaluating",
        "Evaluating",
        "InProgress",
    ),
    "done, the pod not ended": (
        view(run("Active", report=succeeded()), running(phase="Queued")),
        "Running",
        "Running",
        "InProgress",
    ),
    "retrying": (view(failed(Reason.EVICTED), running()), "Pending", "Retrying", "InProgress"),
    "suspended before the start": (view(spec=job_spec(suspend=True)), "Suspended", "Suspended", "InProgress"),
    "suspended while running": (
        view(run("Active"), running(), spec=job_spec(suspend=True)),
        "Suspended",
        "Suspended",
        "InProgress",
    ),
    "failed": (view(failed(Reason.DATASET_INVALID), running()), "Failed", "DatasetInvalid", "Failed"),
    "succeeded": (
        view(run("Succeeded", report=succeeded()), running(), version=3),
        "Succeeded",
        "Succeeded",
        "Current",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_every_state_has_its_phase_reason_and_kstatus(name: str) -> None:
    given, phase, reason, for_tools = STATES[name]
    status = decide(given).status
    assert status.phase == phase
    assert condition(status, "Ready").reason == reason
    assert kstatus(status) == for_tools
    assert status.observed_generation == given.generation
    assert [c.status for c in status.conditions or () if c.type in {"Ready", "Reconciling", "Stalled"}].count(
        "True"
    ) == (0 if phase == "Suspended" else 1)


CHANGES_THE_WORLD = {
    "just applied",
    "spec that models do not know",
    "uri that cannot be read",
    "namespace not allowed",
    "model not allowed",
    "fine-tuning off",
    "provider of another release",
    "retrying",
    "suspended while running",
    "failed",
}
"""Decisions that start, stop or end something: the next one meets another world (see test_decide_simulation)."""


@pytest.mark.parametrize("name", sorted(STATES.keys() - CHANGES_THE_WORLD))
def test_deciding_again_on_the_same_world_changes_nothing(name: str) -> None:
    first = decide(STATES[name][0])
    assert decide(replace(STATES[name][0], status=first.status)).status == first.status


@pytest.mark.parametrize("reason", [*Reason])
def test_a_failure_of_any_reason_is_told_with_its_reason_and_attempt(reason: Reason) -> None:
    decision = decide(view(failed(reason), running(), connection=connection({"maxRetries": 0})))
    assert decision.status.phase == "Failed"
    assert decision.status.failure is not None
    assert (decision.status.failure.reason, decision.status.failure.attempt) == (reason, 1)
    assert condition(decision.status, "Failed").reason == reason.value


# Ended jobs.


def test_a_job_on_its_way_out_is_left_alone() -> None:
    given = view(run("Active"), running(), deleting=True)
    assert decide(given) == Decision(given.status)


@pytest.mark.parametrize("its_run", [Run("Absent"), run("Active"), run("Queued"), failed(Reason.EVICTED)])
def test_a_failed_job_stays_failed_and_keeps_no_pod(its_run: Run) -> None:
    status = ended_as("Failed")
    decision = decide(view(its_run, status))
    assert decision.status == status
    assert decision.stop == (its_run.state != "Absent")
    assert not decision.start


def test_a_succeeded_job_keeps_its_pod_and_is_never_started_again() -> None:
    status = ended_as("Complete")
    for its_run in (Run("Absent"), run("Succeeded", report=succeeded())):
        assert decide(view(its_run, status, version=1)) == Decision(status)


def test_a_failure_is_written_before_its_pod_is_stopped() -> None:
    decision = decide(view(failed(Reason.DATASET_INVALID), running()))
    assert not decision.stop
    assert decision.requeue_after == 0


@pytest.mark.parametrize(
    ("ttl", "seconds", "delete", "again"),
    [(None, 0, False, None), (60, 0, False, 60), (60, 59, False, 1), (60, 60, True, None), (0, 0, True, None)],
)
@pytest.mark.parametrize("kind", ["Complete", "Failed"])
def test_time_to_live(kind: str, ttl: int | None, seconds: float, delete: bool, again: float | None) -> None:
    given = view(status=ended_as(kind), spec=job_spec(ttlSecondsAfterFinished=ttl), now=at(seconds))
    assert (decide(given).delete, decide(given).requeue_after) == (delete, again)


def test_a_change_of_ttl_on_an_ended_job_is_observed_and_keeps_its_conditions() -> None:
    status = ended_as("Complete")
    after = decide(view(status=status, generation=2, now=at(60))).status
    assert after.observed_generation == 2
    assert after.conditions == status.conditions
    assert kstatus(after, 2) == "Current"


# retryNonce.


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


# Connections.


def test_a_missing_connection_is_no_alarm_for_a_minute_then_one_and_forgotten_when_it_comes() -> None:
    early = decide(view(connection=None, now=at(59)))
    assert early.status.failure is None
    assert early.requeue_after == pytest.approx(1)
    late = decide(view(status=early.status, connection=None, now=at(60)))
    assert late.status.failure is not None
    assert late.status.failure.reason is Reason.CONNECTION_NOT_FOUND
    assert condition(late.status, "Stalled").status == "True"
    found = decide(view(status=late.status, now=at(600)))
    assert found.start
    assert found.status.failure is None
    assert kstatus(found.status) == "InProgress"


@pytest.mark.parametrize(
    "change", [connection(fineTuning={"enabled": False}), connection(namespaceSelector=None), None]
)
def test_a_running_attempt_does_not_mind_what_becomes_of_the_connection(change: Any) -> None:
    decision = decide(view(run("Active", report=report()), running(), connection=change))
    assert decision.status.phase == "Running"
    assert not decision.stop


def test_the_next_attempt_does_mind() -> None:
    waiting = running(provider=provider(2, job_id=None, retry_after=stamp(0)))
    off = connection(fineTuning={"enabled": False})
    assert decide(view(status=waiting, connection=off)).status.phase == "Failed"


def test_a_connection_that_is_gone_for_the_moment_takes_no_retries_away() -> None:
    decision = decide(view(failed(Reason.NODE_LOST), running(), connection=None))
    assert condition(decision.status, "Reconciling").reason == "Retrying"


# Attempts.


def test_the_first_attempt() -> None:
    decision = decide(view())
    assert decision.start
    told = decision.status.provider
    assert told is not None
    assert (told.name, told.attempt, told.artifact_uri) == ("huggingFace", 1, view().artifact_uri)
    assert decision.status.start_time == timestamp(NOW)


def test_an_attempt_that_was_started_before_a_crash_is_taken_over_with_all_that_start_records() -> None:
    taken = decide(view(run("Queued"), spec=job_spec(retryNonce="1")))
    assert (taken.start, taken.requeue_after) == (False, 0)
    told = taken.status.provider
    assert told is not None
    assert (told.attempt, told.job_id, told.artifact_uri) == (1, "sentiment-1-1", view().artifact_uri)
    assert taken.status.observed_retry_nonce == "1"
    assert taken.status.start_time
    follows = decide(view(run("Active"), taken.status))
    assert follows.status.phase == "Validating"


def test_an_attempt_whose_job_somebody_deleted_counts_as_one_and_the_next_follows() -> None:
    decision = decide(view(status=running()))
    assert not decision.start
    told = decision.status.provider
    assert told is not None
    assert (told.attempt, told.retries, told.job_id) == (2, 1, None)
    given_up = decide(view(status=running(provider=provider(4, retries=3))))
    assert given_up.status.phase == "Failed"
    assert given_up.status.failure is not None
    assert given_up.status.failure.reason is Reason.INTERRUPTED


@pytest.mark.parametrize("reason", [Reason.OUT_OF_MEMORY, Reason.EVICTED, Reason.NODE_LOST, Reason.INTERRUPTED])
def test_retries_come_later_and_later_and_end_with_the_limit(reason: Reason) -> None:
    status, delays, now = running(), [], 0.0
    for attempt in range(1, 8):
        decision = decide(
            view(failed(reason, attempt=attempt), status, connection=connection({"maxRetries": 6}), now=at(now))
        )
        if decision.status.phase == "Failed":
            break
        assert decision.requeue_after is not None
        delays.append(decision.requeue_after)
        waits = decide(view(status=decision.status, now=at(now + decision.requeue_after - 1)))
        assert not waits.start
        assert waits.requeue_after == pytest.approx(1)
        now += decision.requeue_after
        started = decide(view(status=decision.status, now=at(now)))
        assert started.start
        assert started.status.provider is not None
        assert started.status.provider.attempt == attempt + 1
        told = started.status.provider.model_copy(update={"job_id": f"sentiment-1-{attempt + 1}"})
        status = started.status.model_copy(update={"provider": told})
    assert delays == [*RETRY_DELAYS, RETRY_DELAYS[-1]]
    assert decision.status.failure is not None
    assert decision.status.failure.reason is reason
    assert decision.status.failure.message.endswith("given up after 6 retries")


def test_a_lost_result_is_asked_for_again() -> None:
    decision = decide(view(run("ResultUnknown"), running()))
    assert condition(decision.status, "Reconciling").reason == "Retrying"


@pytest.mark.parametrize("reason", [Reason.DATASET_INVALID, Reason.TRAINER_CRASHED, Reason.DEADLINE_EXCEEDED])
def test_what_the_next_attempt_would_meet_again_is_not_retried(reason: Reason) -> None:
    assert decide(view(failed(reason), running())).status.phase == "Failed"


def test_retrying_forgets_what_the_last_pod_waited_for() -> None:
    status = running(failure=Failure.because(Reason.UNSCHEDULABLE, "0/2 nodes"))
    assert decide(view(failed(Reason.EVICTED), status)).status.failure is None


def test_a_long_message_stays_within_its_field_when_retries_are_told() -> None:
    long = run("Failed", attempt=4, failure=Failure.because(Reason.EVICTED, "x" * 5000))
    spent = running(provider=provider(4, retries=3))
    failure = decide(view(long, spent)).status.failure
    assert failure is not None
    assert len(failure.message) == 4096
    assert failure.message.endswith("given up after 3 retries")


@pytest.mark.parametrize(("progressed", "kept"), [(True, "pvc://old/folder"), (False, view().artifact_uri)])
def test_a_folder_that_may_hold_a_checkpoint_is_kept_when_the_connection_moves(progressed: bool, kept: str) -> None:
    made = report(progress=progress()).progress if progressed else None
    waiting = running(provider=provider(2, job_id=None, artifact_uri="pvc://old/folder"), progress=made)
    started = decide(view(status=waiting)).status.provider
    assert started is not None
    assert started.artifact_uri == kept


# Reports.


def test_progress_is_written_every_five_seconds_and_a_new_phase_at_once() -> None:
    def told(phase: str, step: int, seconds: float, before: FineTuneJobStatus) -> FineTuneJobStatus:
        return decide(view(run("Active", report=report(phase, progress=progress(step, seconds))), before)).status

    first = told("Running", 1, 0, running())
    assert first.progress is not None
    assert told("Running", 2, 4, first) == first
    later = told("Running", 3, 5, first)
    assert later.progress is not None
    assert later.progress.step == 3
    assert told("Evaluating", 4, 6, later).phase == "Evaluating"


def test_a_node_whose_clock_is_behind_does_not_stop_progress() -> None:
    first = running(progress=report(progress=progress(50, seconds=3600)).progress)
    decision = decide(view(run("Active", report=report(progress=progress(51, seconds=0))), first))
    assert decision.status.progress is not None
    assert decision.status.progress.step == 51


def test_a_change_of_spec_while_running_is_observed_at_once() -> None:
    first = running(progress=report(progress=progress(1, 0)).progress)
    given = view(run("Active", report=report(progress=progress(2, 1))), first, generation=2)
    assert decide(given).status.observed_generation == 2


def test_what_a_report_does_not_say_stays_as_it_was() -> None:
    full = report("Running", progress=progress(), dataset=verdict(), loss={"train": [{"step": 1, "value": 0.7}]})
    first = decide(view(run("Active", report=full), running())).status
    assert (first.train_loss, condition(first, "DatasetValid").status) == (0.7, "True")
    after = decide(view(run("Active", report=None), first)).status
    assert after == first


def test_invalid_data_is_a_condition_of_its_own() -> None:
    failure = {"reason": "DatasetInvalid", "message": "train.jsonl line 17: completion is empty"}
    told = report("Failed", dataset=verdict(valid=False), failure=failure)
    status = decide(view(failed(Reason.DATASET_INVALID, report=told), running())).status
    assert condition(status, "DatasetValid").status == "False"
    assert condition(status, "DatasetValid").reason == "DatasetInvalid"


def test_a_result_is_registered_before_the_job_is_complete() -> None:
    unregistered = decide(view(run("Succeeded", report=succeeded()), running()))
    assert unregistered.register
    assert unregistered.status.phase == "Running"
    registered = decide(view(run("Succeeded", report=succeeded()), running(), version=3))
    assert not registered.register
    status = registered.status
    assert (status.model_version, status.train_loss, status.eval_loss) == (3, 0.4, 0.5)
    assert condition(status, "Complete").status == "True"
    assert status.completion_time == timestamp(NOW)


def test_a_condition_that_stays_keeps_its_time_and_one_that_changes_gets_a_new_one() -> None:
    first = decide(view()).status
    second = decide(view(run("Active"), running(conditions=first.conditions), now=at(60))).status
    assert condition(second, "Reconciling").last_transition_time == stamp(0)
    assert condition(second, "Reconciling").reason == "Running"
    third = decide(view(failed(Reason.DATASET_INVALID), second, now=at(120))).status
    assert condition(third, "Reconciling").last_transition_time == stamp(120)
    assert condition(third, "Stalled").last_transition_time == stamp(120)


def test_a_late_pod_is_looked_for_again() -> None:
    assert decide(view(run("Queued", awaiting_pod=True), running())).requeue_after == 15
    assert decide(view(run("Queued"), running())).requeue_after is None
    assert decide(view(run("Active", ending=True), running())).requeue_after == 15


def test_the_artifact_is_where_the_operator_put_it_whatever_the_pod_says() -> None:
    elsewhere = succeeded().model_dump()
    elsewhere["result"]["artifact"]["uri"] = "pvc://somebody-elses/secrets/model"
    status = FineTuneJobStatus(provider=provider(artifact_uri="pvc://models/team-a/m/j-1"))
    found = decide(view(run("Succeeded", report=type(succeeded()).model_validate(elsewhere)), status, version=1))
    assert found.status.result is not None
    assert found.status.result.artifact.uri == "pvc://models/team-a/m/j-1/model"


def test_that_a_container_runs_is_not_written_before_its_trainer_has_spoken_or_been_silent_for_long() -> None:
    queued = decide(view()).status.model_copy(update={"provider": running().provider})
    waits = decide(view(run("Active", starting=True), queued))
    assert (waits.status, waits.requeue_after) == (queued, 15)
    assert decide(view(run("Active", report=report("Validating")), queued)).status.phase == "Validating"
    assert decide(view(run("Active"), queued)).status.phase == "Validating"


def test_a_container_that_runs_at_last_ends_the_alarm_at_once() -> None:
    status = running(phase="Queued", failure=Failure.because(Reason.UNSCHEDULABLE, "0/2 nodes"))
    alarmed = decide(view(run("Queued", failure=status.failure), status)).status
    assert decide(view(run("Active", starting=True), alarmed)).status.failure is None


def test_an_attempt_that_was_started_is_looked_at_though_nothing_tells_of_it() -> None:
    assert decide(view()).start
    assert decide(view()).requeue_after == 15


@pytest.mark.parametrize(
    ("told", "recorded"),
    [
        ("s3://tuned/team-a/m/j-1/model-2", "model-2"),
        ("s3://tuned/team-a/m/j-1/model-1", "model-1"),  # of an attempt that died before it could say so
        ("s3://elsewhere/x/model-2", "model-2"),
        ("s3://tuned/team-a/m/j-1/model-3", "model"),
        ("s3://tuned/team-a/other/j-9", "model"),
    ],
)
def test_in_a_store_the_artifact_is_that_of_one_of_the_attempts(told: str, recorded: str) -> None:
    said = succeeded(2).model_dump()
    said["result"]["artifact"]["uri"] = told
    status = FineTuneJobStatus(provider=provider(2, artifact_uri="s3://tuned/team-a/m/j-1"))
    found = decide(view(run("Succeeded", 2, report=type(succeeded()).model_validate(said)), status, version=1))
    assert found.status.result is not None
    assert found.status.result.artifact.uri == f"s3://tuned/team-a/m/j-1/{recorded}"


PUSHED = {"target": "oci://ghcr.io/team/a:1", "revision": "sha256:ab"}
UNPUSHED = {"target": "hf://team/a", "message": "the hub does not take it", "nextStep": "Check the token."}


@pytest.mark.parametrize(
    ("pushes", "status", "reason", "said"),
    [
        ([PUSHED], "True", "Succeeded", "oci://ghcr.io/team/a:1 is sha256:ab"),
        ([PUSHED, UNPUSHED], "False", "PushFailed", "hf://team/a: the hub does not take it. The version stands."),
    ],
)
def test_a_push_that_fails_is_said_and_the_version_stands(pushes: Any, status: str, reason: str, said: str) -> None:
    body = succeeded().wire()
    body["result"]["pushes"] = pushes
    found = decide(view(run("Succeeded", report=type(succeeded()).model_validate(body)), running(), version=3)).status
    assert (found.phase, found.model_version) == ("Succeeded", 3)
    pushed = condition(found, "Pushed")
    assert (pushed.status, pushed.reason) == (status, reason)
    assert said in pushed.message
    assert condition(found, "Complete").status == "True"


@pytest.mark.parametrize(("interval", "written"), [(5, False), (2, True)])
def test_how_often_progress_is_written_is_a_setting(interval: float, written: bool) -> None:
    first = decide(view(run("Active", report=report("Running", progress=progress(1, 0))), running())).status
    told = run("Active", report=report("Running", progress=progress(2, 3)))
    later = decide(view(told, first, report_interval=timedelta(seconds=interval))).status
    assert (later != first) is written


def test_how_trackers_are_doing_is_in_status_and_stays_there() -> None:
    tracked = [{"name": "mlflow", "url": "https://mlflow.example.com/#/experiments/1/runs/a", "problem": "too slow"}]
    said = decide(view(run("Active", report=report(trackers=tracked, progress=progress())), running())).status
    assert [one.wire() for one in said.trackers or ()] == tracked
    again = decide(view(run("Active", report=report(progress=progress(20, 60))), said)).status
    assert again.trackers == said.trackers
