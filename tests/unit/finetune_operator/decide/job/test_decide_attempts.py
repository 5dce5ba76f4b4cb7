"""What is done about a job's attempts and what their pods report, and what status says of it."""

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.job_status import Failure, FineTuneJobStatus, ProviderEvaluation, ProviderFile
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import timestamp
from finetune_operator.decide.job.attempts import LAST_POD_CHECK_SECONDS, LATE_POD_CHECK_SECONDS, next_attempt
from finetune_operator.decide.job.retries import RETRY_DELAYS
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.steps import decide
from tests.unit.finetune_operator.decide.given import (
    NOW,
    at,
    condition,
    connection,
    failed,
    job_spec,
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

# Attempts.


def test_the_first_attempt() -> None:
    decision = decide(view())
    assert decision.start
    told = decision.status.provider
    assert told is not None
    assert (told.name, told.attempt, told.artifact_uri) == ("huggingFace", 1, view().artifact_uri)
    assert decision.status.start_time == timestamp(NOW)


def test_an_attempt_that_was_started_before_a_crash_is_taken_over_with_all_that_start_records() -> None:
    taken = decide(view(run("Queued", awaiting_pod=True), spec=job_spec(retryNonce="1")))
    assert (taken.start, taken.requeue_after) == (False, LATE_POD_CHECK_SECONDS), "what is queued says all already"
    told = taken.status.provider
    assert told is not None
    assert (told.attempt, told.job_id, told.artifact_uri) == (1, "sentiment-1-1", view().artifact_uri)
    assert taken.status.observed_retry_nonce == "1"
    assert taken.status.start_time


MADE = {"made_at": NOW}
AWAITS_POD = run("Queued", awaiting_pod=True, since=NOW, **MADE)
HAS_JUST_BEGUN = run("Active", starting=True, **MADE)
MANY, IN_SECONDS = 150, 30
"""So many jobs of which nothing is said, and within which time it is said of each that it has begun."""
UNRECORDED: dict[str, tuple[Run, float, str | None]] = {
    "waits for its pod": (AWAITS_POD, 10, None),
    "its trainer has just begun": (HAS_JUST_BEGUN, 10, None),
    "waits for its pod for long": (AWAITS_POD, 30, "Queued"),
    "its trainer has just begun, and its pod came late": (HAS_JUST_BEGUN, 30, "Queued"),
    "is held by its queue": (run("Queued", note="suspended", **MADE), 10, "Queued"),
    "its image cannot be pulled": (
        run("Queued", failure=Failure.because(Reason.IMAGE_PULL_FAILED, "not found"), **MADE),
        10,
        "Queued",
    ),
    "its trainer has said something": (run("Active", report=report("Validating"), **MADE), 10, "Validating"),
    "its trainer is at work": (run("Active", **MADE), 10, "Validating"),
    "has ended, and may begin again": (failed(Reason.EVICTED, **MADE), 10, "Pending"),
    "has failed for good": (failed(Reason.DATASET_INVALID, **MADE), 10, "Failed"),
}


@pytest.mark.parametrize("name", UNRECORDED)
def test_of_an_attempt_that_status_does_not_speak_of_is_said_at_once_what_has_come_of_it(name: str) -> None:
    its_run, seconds, phase = UNRECORDED[name]
    given = view(its_run, now=at(seconds), unrecorded_jobs=MANY)
    decision = decide(given)
    assert decision.later == (phase is None)
    assert decision.status.phase == phase
    if decision.later:
        assert decision.status == given.status
        assert decision.requeue_after == min(LATE_POD_CHECK_SECONDS, IN_SECONDS - seconds)
    else:
        assert (decision.status.provider.attempt, decision.status.start_time) == (1 + (phase == "Pending"), stamp())


@pytest.mark.parametrize(
    ("unrecorded_jobs", "seconds"),
    [(1, 0), (4, 0), (5, 1), (50, 10), (MANY, IN_SECONDS), (1000, 200), (1500, 300), (10**6, 300)],
)
@pytest.mark.parametrize("its_run", [AWAITS_POD, HAS_JUST_BEGUN])
def test_the_more_jobs_have_begun_in_silence_the_later_that_is_said_of_each_and_within_five_minutes(
    its_run: Run, unrecorded_jobs: int, seconds: int
) -> None:
    begun = decide(view(unrecorded_jobs=unrecorded_jobs))
    assert (begun.start, begun.later) == (True, seconds > 0)
    assert begun.requeue_after == (min(seconds, LATE_POD_CHECK_SECONDS) or LATE_POD_CHECK_SECONDS)
    if seconds:
        assert decide(view(its_run, unrecorded_jobs=unrecorded_jobs, now=at(seconds - 0.5))).later
    said = decide(view(its_run, unrecorded_jobs=unrecorded_jobs, now=at(seconds)))
    assert (said.later, said.status.phase) == (False, "Queued")


def looks(uid: str) -> list[float]:
    """When a job is looked at that has begun in silence among very many, until its status speaks."""
    found, now = [], 0.0
    while (decision := decide(view(AWAITS_POD, uid=uid, unrecorded_jobs=10**6, now=at(now)))).later:
        assert decision.requeue_after is not None
        now += decision.requeue_after
        found.append(round(now, 3))
    return found


def test_what_has_begun_in_silence_among_thousands_is_looked_at_early_and_then_hardly_ever() -> None:
    of_all = [looks(f"uid-{number}") for number in range(400)]
    assert {(first, last) for first, *_, last in of_all} == {(15, 300)}
    assert all(75 <= second <= 300 for _, second, *_ in of_all)
    assert all(len(one) == 3 for one in of_all), "6 where each is looked at once a minute"


def test_looks_at_many_that_have_begun_in_silence_at_once_are_spread_over_all_the_time() -> None:
    """Each finds what Events tell of any of them: somebody looks within seconds."""
    moments = sorted(moment for number in range(400) for moment in looks(f"uid-{number}") if moment > 15)
    assert max(later - earlier for earlier, later in itertools.pairwise([75, *moments])) <= 10


def test_a_trainer_that_has_just_begun_among_thousands_is_looked_at_soon() -> None:
    begun = decide(view(HAS_JUST_BEGUN, unrecorded_jobs=10**6, now=at(200)))
    assert begun.requeue_after == LATE_POD_CHECK_SECONDS, "by then the trainer has spoken, or is at work without a word"


@pytest.mark.parametrize(
    "status", [running(provider=None), running(phase="Pending", provider=provider(2, job_id=None))]
)
def test_what_status_has_said_before_it_takes_back_at_once_however_many_jobs_begin(status: FineTuneJobStatus) -> None:
    assert not decide(view(status=status, unrecorded_jobs=10**6)).later
    number = status.provider.attempt if status.provider else 1
    assert decide(view(run("Queued", number, **MADE), status, unrecorded_jobs=10**6)).status.phase == "Queued"


def test_an_attempt_of_several_nodes_is_recorded_at_once_however_many_jobs_begin() -> None:
    decision = decide(view(spec=job_spec(resources={"nodes": 2}), unrecorded_jobs=10**6))
    assert (decision.start, decision.later) == (True, False)


def test_what_an_unsaid_attempt_has_made_is_a_version_and_is_said_with_all_that_its_start_records() -> None:
    done = run("Succeeded", report=succeeded(), **MADE)
    offered = decide(view(done, now=at(20)))
    assert offered.register
    told = decide(view(done, now=at(20), version=3)).status
    assert (told.phase, told.model_version, told.start_time) == ("Succeeded", 3, stamp())
    for status in (offered.status, told):
        assert (status.provider.job_id, status.provider.artifact_uri) == ("sentiment-1-1", view().artifact_uri)


def test_an_unsaid_attempt_of_a_job_that_is_deleted_or_suspended_is_ended() -> None:
    its_run = run("Queued", **MADE)
    assert decide(view(its_run, deleting=True)).stop
    assert decide(view(its_run, spec=job_spec(suspend=True))).stop


def test_an_attempt_whose_job_somebody_deleted_counts_as_one_and_the_next_follows() -> None:
    decision = decide(view(status=running()))
    assert not decision.start
    told = decision.status.provider
    assert told is not None
    assert (told.attempt, told.retries, told.job_id) == (2, 1, None)
    brought = running(provider=provider(files=[ProviderFile(split="train", id="f", bytes=1, sha256="a" * 64)]))
    anew = decide(view(status=brought)).status.provider
    assert anew is not None
    assert anew.files is None, "each attempt brings its own"
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


def test_nothing_that_is_of_one_attempt_is_taken_for_the_next_ones() -> None:
    file = ProviderFile(split="train", id="file-1", bytes=1, sha256="a" * 64)
    own = {
        "files": [file],
        "files_at": stamp(),
        "asked_at": stamp(),
        "nameless_since": stamp(),
        "stop_asked_at": stamp(),
    }
    measured = ProviderEvaluation(tries=2)
    after = next_attempt(view(failed(Reason.EVICTED), running(2, provider=provider(2, evaluation=measured, **own))))
    assert (after.attempt, after.job_id, after.evaluation) == (3, None, None)
    assert [getattr(after, field) for field in own] == [None] * len(own)


def test_a_pod_of_the_attempt_before_is_told_to_end_and_waited_for() -> None:
    decision = decide(view(live_pods=True))
    assert (decision.start, decision.stop) == (False, True)
    assert decision.requeue_after == LAST_POD_CHECK_SECONDS


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
    beside = decide(view(run("Succeeded", report=succeeded()), running(), version=3, live_pods=True))
    assert (registered.requeue_after, beside.requeue_after) == (None, 0), "what goes on beside the trainer is ended"


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


@pytest.mark.parametrize(
    ("waits", "again"), [(timedelta(0), 15), (timedelta(seconds=40), 40), (timedelta(hours=1), 60)]
)
def test_a_pod_that_is_long_in_coming_is_looked_for_the_more_seldom(waits: timedelta, again: float) -> None:
    queued = run("Queued", awaiting_pod=True, since=NOW - waits)
    assert decide(view(queued, running())).requeue_after == again
    assert decide(view(replace(queued, ending=True), running())).requeue_after == 15, "a lost node tells nothing"


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
        ([PUSHED, UNPUSHED], "False", "PushFailed", "hf://team/a: the hub does not take it. The version exists."),
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


@pytest.mark.parametrize("phase", ["Running", "Succeeded"])
def test_a_tracker_that_misses_something_is_a_condition_of_its_own(phase: str) -> None:
    trackers = [{"name": "mlflow"}, {"name": "wandb", "problem": "the Secret of trackers.wandb has no WANDB_API_KEY"}]
    body = (succeeded() if phase == "Succeeded" else report("Running", progress=progress())).wire()
    state = "Succeeded" if phase == "Succeeded" else "Active"

    def tracked(told: list[dict[str, str]]) -> tuple[str, str, str]:
        said = run(state, report=type(succeeded()).model_validate(body | {"trackers": told}))
        found = condition(decide(view(said, running(), version=3)).status, "Tracked")
        return found.status, found.reason, found.message

    status, reason, message = tracked(trackers)
    assert (status, reason) == ("False", "TrackerFailed")
    assert message.startswith(
        "wandb: the Secret of trackers.wandb has no WANDB_API_KEY. The training continues, and metrics"
    )
    assert tracked(trackers[:1]) == ("True", "Succeeded", "followed by mlflow")


def test_how_trackers_are_doing_is_in_status_and_stays_there() -> None:
    tracked = [{"name": "mlflow", "url": "https://mlflow.example.com/#/experiments/1/runs/a", "problem": "too slow"}]
    said = decide(view(run("Active", report=report(trackers=tracked, progress=progress())), running())).status
    assert [one.wire() for one in said.trackers or ()] == tracked
    again = decide(view(run("Active", report=report(progress=progress(20, 60))), said)).status
    assert again.trackers == said.trackers


def test_a_long_next_step_makes_room_for_the_way_on_without_half_a_command() -> None:
    step = f"{'a' * 900} `jq -c '{'.[]|' * 20}' FILE > ROWS.jsonl`."
    failure = failed(Reason.DATASET_INVALID, "a row cannot be used")
    failure = replace(failure, failure=failure.failure.model_copy(update={"next_step": step}))
    told = decide(view(failure, running())).status.failure
    assert told is not None
    assert told.next_step.startswith(f"{'a' * 900}... Then set spec.retryNonce")


@pytest.mark.parametrize(("seconds", "own"), [(60, True), (None, False)])
def test_a_deadline_that_a_policy_has_put_on_the_batch_job_is_not_called_the_jobs_own(
    seconds: int | None, own: bool
) -> None:
    late = failed(Reason.DEADLINE_EXCEEDED, "the job ran longer than spec.activeDeadlineSeconds")
    spec = job_spec(activeDeadlineSeconds=seconds) if seconds else job_spec()
    failure = decide(view(late, running(), spec=spec)).status.failure
    assert failure is not None
    assert failure.reason is Reason.DEADLINE_EXCEEDED
    assert ("longer than spec.activeDeadlineSeconds" in failure.message) is own
    assert ("a larger activeDeadlineSeconds" in failure.next_step) is own
    assert ("set spec.retryNonce" in failure.next_step) is not own
    assert ("a policy" in failure.message) is not own
