"""One attempt read from its batch Job, its pod and its report."""

from datetime import datetime
from typing import Any

import pytest

from finetune_api.exit_codes import REASON_OF_EXIT_CODE
from finetune_api.reasons import Reason
from finetune_api.trainer import termination_message
from finetune_operator.decide.run import RETRIED, is_live, newest, read_run, with_log
from tests.unit.finetune_operator.decide.given import (
    NOW,
    at,
    batch_job,
    ended,
    failed,
    pod,
    report,
    run,
    stamp,
    succeeded,
    verdict,
    waiting,
)

BACKOFF = ("Failed", "BackoffLimitExceeded")


NO_CLAIM = '0/1 nodes are available: persistentvolumeclaim "data" not found. preemption: not helpful'


def unplaced(message: str) -> dict[str, Any]:
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}


def target(reason: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]}


def read(job: dict[str, Any] | None, pods: list[dict[str, Any]], posted: Any = None, now: datetime = NOW) -> Any:
    return read_run(job, pods, posted, now)


@pytest.mark.parametrize(
    ("job", "pods", "posted", "state"),
    [
        pytest.param(None, [], None, "Absent", id="no Job"),
        pytest.param(None, [pod()], report(), "Absent", id="no Job but a pod"),
        pytest.param(batch_job(), [], None, "Queued", id="no pod yet"),
        pytest.param(batch_job(spec={"suspend": True}), [], None, "Queued", id="held back by Kueue"),
        pytest.param(batch_job(("Suspended", "JobSuspended")), [], None, "Queued", id="suspended by Kueue again"),
        pytest.param(batch_job(), [pod("Pending")], None, "Queued", id="pod pending"),
        pytest.param(batch_job(), [pod("Running")], None, "Active", id="pod running"),
        pytest.param(batch_job(), [pod("Unknown")], None, "Active", id="node does not answer"),
        pytest.param(batch_job(), [pod("Failed", **ended(65))], None, "Active", id="Job has not seen the pod's end"),
        pytest.param(batch_job(("Complete", "")), [pod("Running")], None, "Active", id="pod's end not seen yet"),
        pytest.param(batch_job(BACKOFF), [pod("Running")], None, "Active", id="failed, pod's end not seen yet"),
        pytest.param(batch_job(("FailureTarget", "")), [pod("Running", 60)], None, "Active", id="still ending"),
        pytest.param(batch_job(("Complete", "")), [], None, "ResultUnknown", id="complete, pod gone, no report"),
        pytest.param(
            batch_job(("Complete", "")), [pod("Succeeded", **ended(0))], report(), "ResultUnknown", id="no result told"
        ),
        pytest.param(batch_job(("Complete", "")), [], succeeded(), "Succeeded", id="posted report alone"),
        pytest.param(
            batch_job(("Complete", "")),
            [pod("Succeeded", **ended(0, message=termination_message(succeeded())))],
            None,
            "Succeeded",
            id="termination message alone",
        ),
        pytest.param(batch_job(BACKOFF), [], None, "Failed", id="failed, pod gone"),
    ],
)
def test_state(job: Any, pods: Any, posted: Any, state: str) -> None:
    assert read(job, pods, posted).state == state


@pytest.mark.parametrize(
    ("condition", "its_pod", "posted", "reason"),
    [
        (("Failed", "DeadlineExceeded"), pod("Failed", **ended(75)), report(), Reason.DEADLINE_EXCEEDED),
        (("Failed", "DeadlineExceeded"), None, None, Reason.DEADLINE_EXCEEDED),
        (BACKOFF, pod("Failed", **ended(137, "OOMKilled")), None, Reason.OUT_OF_MEMORY),
        (BACKOFF, pod("Failed", **ended(79)), None, Reason.OUT_OF_MEMORY),
        (BACKOFF, pod("Failed", **target("EvictionByEvictionAPI")), None, Reason.EVICTED),
        (BACKOFF, pod("Failed", **target("PreemptionByScheduler")), None, Reason.EVICTED),
        (BACKOFF, pod("Failed", **target("TerminationByKubelet")), None, Reason.EVICTED),
        (BACKOFF, pod("Failed", reason="Evicted", message="disk"), None, Reason.EVICTED),
        (BACKOFF, pod("Failed", **target("DeletionByTaintManager")), None, Reason.NODE_LOST),
        (BACKOFF, pod("Failed", **target("DeletionByPodGC")), None, Reason.NODE_LOST),
        (BACKOFF, pod("Failed", reason="NodeLost"), None, Reason.NODE_LOST),
        (("FailureTarget", "BackoffLimitExceeded"), pod("Running", -61), None, Reason.NODE_LOST),
        (BACKOFF, None, None, Reason.INTERRUPTED),
        (BACKOFF, pod("Failed", **ended(75)), report("Interrupted"), Reason.INTERRUPTED),
        (BACKOFF, pod("Failed", **ended(137)), None, Reason.INTERRUPTED),
        (BACKOFF, pod("Failed", **ended(143)), None, Reason.INTERRUPTED),
        (BACKOFF, pod("Failed", reason="UnexpectedAdmissionError"), None, Reason.INTERRUPTED),
        (BACKOFF, pod("Failed", **ended(128, "StartError", "no such file")), None, Reason.CONTAINER_CONFIG_INVALID),
        (BACKOFF, pod("Failed", **ended(1)), None, Reason.TRAINER_CRASHED),
        (BACKOFF, pod("Failed", **ended(2)), None, Reason.TRAINER_CRASHED),
        (BACKOFF, pod("Failed", **ended(0)), None, Reason.TRAINER_CRASHED),
        *((BACKOFF, pod("Failed", **ended(int(code))), None, reason) for code, reason in REASON_OF_EXIT_CODE.items()),
    ],
)
def test_why_an_attempt_failed(condition: Any, its_pod: Any, posted: Any, reason: Reason) -> None:
    found = read(batch_job(condition), [its_pod] if its_pod else [], posted)
    assert found.state == "Failed"
    assert found.failure.reason is reason
    assert found.failure.message
    assert found.wants_log == (reason in {Reason.TRAINER_CRASHED, Reason.CODE_FAILED})


def test_what_the_trainer_said_is_the_failure_and_carries_the_exit_code() -> None:
    told = report("Failed", failure={"reason": "DatasetInvalid", "message": "train.jsonl line 17: completion is empty"})
    found = read(batch_job(BACKOFF), [pod("Failed", **ended(65, message=termination_message(told)))])
    assert (found.failure.reason, found.failure.exit_code) == (Reason.DATASET_INVALID, 65)
    assert "line 17" in found.failure.message


def test_what_the_cluster_did_comes_before_what_the_trainer_said() -> None:
    told = report("Failed", failure={"reason": "TrainerCrashed", "message": "allocation failed"})
    found = read(batch_job(BACKOFF), [pod("Failed", **ended(137, "OOMKilled"))], told)
    assert found.failure.reason is Reason.OUT_OF_MEMORY


def test_the_termination_message_has_the_last_word_and_the_posted_report_the_curves() -> None:
    points = [{"step": step, "value": 1.0} for step in range(50)]
    posted = report("Running", loss={"train": points})
    last = succeeded(loss={"train": points[:2]}, dataset=verdict())
    found = read(batch_job(("Complete", "")), [pod("Succeeded", **ended(0, message=termination_message(last)))], posted)
    assert found.report.phase == "Succeeded"
    assert len(found.report.loss.train) == 50
    assert found.report.dataset.valid, "the posted report had no verdict yet"


def test_the_peak_of_memory_comes_from_the_end_and_the_estimate_from_whoever_has_it() -> None:
    parts = {"weights": 1, "gradients": 1, "optimizer": 1, "activations": 1, "overhead": 1}
    thought = {"device": "GPU", "estimatedBytes": 5, "leastBytes": 4, "parts": parts, "passTokens": 64}
    thought |= {"activationCheckpointing": False}
    posted = report("Running", memory=thought)
    for ended_with, peak in ((succeeded(memory={**thought, "peakBytes": 6}), 6), (succeeded(), None)):
        told = termination_message(ended_with)
        found = read(batch_job(("Complete", "")), [pod("Succeeded", **ended(0, message=told))], posted)
        assert (found.report.memory.estimated_bytes, found.report.memory.peak_bytes) == (5, peak)


@pytest.mark.parametrize("text", ["", "Traceback (most recent call last)", '{"phase": "Succeeded"}', '{"cut of'])
def test_a_termination_message_that_is_none_leaves_the_posted_report(text: str) -> None:
    posted = succeeded()
    found = read(batch_job(("Complete", "")), [pod("Succeeded", **ended(0, message=text))], posted)
    assert found.report == posted


def test_a_posted_report_of_another_attempt_does_not_count_beside_a_termination_message() -> None:
    last = succeeded(attempt=2)
    its_pod = pod("Succeeded", **ended(0, message=termination_message(last)))
    assert read(batch_job(("Complete", "")), [its_pod], report("Failed", attempt=1)).report == last


@pytest.mark.parametrize(
    ("its_pod", "reason"),
    [
        (pod("Pending", **waiting("ErrImagePull", "not found")), Reason.IMAGE_PULL_FAILED),
        (pod("Pending", **waiting("ImagePullBackOff")), Reason.IMAGE_PULL_FAILED),
        (pod("Pending", **waiting("InvalidImageName")), Reason.IMAGE_PULL_FAILED),
        (pod("Pending", **waiting("ErrImageNeverPull")), Reason.IMAGE_PULL_FAILED),
        (pod("Pending", **waiting("CreateContainerConfigError", "secret x")), Reason.CONTAINER_CONFIG_INVALID),
        (pod("Pending", **waiting("CreateContainerError")), Reason.CONTAINER_CONFIG_INVALID),
        (pod("Pending", **waiting("RunContainerError")), Reason.CONTAINER_CONFIG_INVALID),
        (
            pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/2 nodes"}]),
            Reason.UNSCHEDULABLE,
        ),
        (pod("Pending", conditions=[unplaced(NO_CLAIM)]), Reason.CONTAINER_CONFIG_INVALID),
        (pod("Pending", **waiting("ContainerCreating")), None),
        (pod("Pending", conditions=[{"type": "PodScheduled", "status": "True"}]), None),
        (pod("Pending"), None),
    ],
)
def test_what_keeps_a_pod_from_starting(its_pod: Any, reason: Reason | None) -> None:
    found = read(batch_job(), [its_pod])
    assert found.state == "Queued"
    assert (found.failure.reason if found.failure else None) is reason


def test_data_errors_and_crashes_are_not_retried() -> None:
    passing = {Reason.OUT_OF_MEMORY, Reason.EVICTED, Reason.NODE_LOST, Reason.INTERRUPTED, Reason.NO_CAPACITY}
    assert passing == RETRIED


@pytest.mark.parametrize(
    ("its_pod", "live"),
    [
        (pod("Pending"), True),
        (pod("Running"), True),
        (pod("Running", deleted=-59), True),
        (pod("Running", deleted=-60), False),
        (pod("Failed"), False),
        (pod("Succeeded"), False),
    ],
)
def test_a_pod_is_live_until_it_has_ended_or_its_node_is_long_silent(its_pod: Any, live: bool) -> None:
    assert is_live(its_pod, NOW) is live


def test_a_pod_that_is_told_to_end_is_looked_at_again() -> None:
    assert read(batch_job(), [pod("Running", deleted=30)]).ending
    assert not read(batch_job(), [pod("Running")]).ending


def test_the_newest_pod_speaks() -> None:
    old, new = pod("Failed"), pod("Running")
    new["metadata"]["creationTimestamp"] = stamp(5)
    assert newest([new, old]) is new
    assert newest([]) is None
    assert read(batch_job(), [old, new], now=at(10)).state == "Active"


def test_the_log_in_a_failure_is_its_end_and_within_the_field() -> None:
    found = with_log(failed(Reason.TRAINER_CRASHED), "a" * 5000 + "the end")
    assert found.failure is not None
    assert found.failure.log_tail is not None
    assert found.failure.log_tail.endswith("the end")
    assert len(found.failure.log_tail) == 4096
    assert with_log(run("Active"), "text").failure is None


def started(seconds_ago: float) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "trainer", "state": {"running": {"startedAt": stamp(-seconds_ago)}}}]}


@pytest.mark.parametrize(
    ("seconds_ago", "posted", "starting"),
    [(0, None, True), (15, None, True), (16, None, False), (5, report(), False), (-1, None, True), (-60, None, False)],
)
def test_a_trainer_that_has_just_begun_is_given_time_to_speak(seconds_ago: float, posted: Any, starting: bool) -> None:
    read_now = read(batch_job(), [pod("Running", **started(seconds_ago))], posted)
    assert (read_now.state, read_now.starting) == ("Active", starting)


@pytest.mark.parametrize(
    ("job", "message", "state"),
    [
        (batch_job(), termination_message(succeeded()), "Succeeded"),
        (batch_job(), "", "Active"),
        (batch_job(BACKOFF), termination_message(succeeded()), "Failed"),
    ],
)
def test_a_pod_that_has_made_its_artifact_is_believed_before_its_job_says_so(
    job: dict[str, Any], message: str, state: str
) -> None:
    assert read(job, [pod("Succeeded", **ended(0, message=message))]).state == state
