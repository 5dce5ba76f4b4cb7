"""One attempt read from its batch Job, its pod and its report."""

from typing import Any

import pytest

from finetune_api.exit_codes import REASON_OF_EXIT_CODE
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_api.trainer import termination_message
from finetune_operator.decide.job.attempt_pods import end_of, is_live, newest
from finetune_operator.decide.job.run import with_log
from finetune_operator.decide.job.steps import decide
from finetune_operator.decide.pods.containers import obstacle
from finetune_operator.decide.transient import RETRIED
from tests.unit.finetune_operator.decide.given import (
    NOW,
    at,
    batch_job,
    condition,
    ended,
    failed,
    pod,
    report,
    run,
    running,
    stamp,
    succeeded,
    verdict,
    view,
    waiting,
)
from tests.unit.finetune_operator.decide.job.given_pods import (
    BACKOFF,
    EARLIER,
    LARGER,
    LOW,
    OVER_A_CONTAINERS,
    OVER_A_VOLUME,
    OVER_ITS_LIMIT,
    PRESSED,
    evicted,
    read,
    target,
)

NO_CLAIM = '0/1 nodes are available: persistentvolumeclaim "data" not found. preemption: not helpful'

LOST_CLAIM = '0/1 nodes are available: persistentvolumeclaim "a" bound to non-existent persistentvolume "b".'


def unplaced(message: str) -> dict[str, Any]:
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}


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


@pytest.mark.parametrize(("posted", "told"), [(report(), False), (None, True)])
def test_an_attempt_that_never_ran_is_not_said_to_have_run_for_too_long_alone(posted: Any, told: bool) -> None:
    failure = read(batch_job(("Failed", "DeadlineExceeded")), [], posted).failure
    assert failure is not None
    assert ("kubectl get events" in failure.message) is told


@pytest.mark.parametrize(
    ("condition", "its_pod", "posted", "reason"),
    [
        (("Failed", "DeadlineExceeded"), pod("Failed", **ended(75)), report(), Reason.DEADLINE_EXCEEDED),
        (("Failed", "DeadlineExceeded"), None, None, Reason.DEADLINE_EXCEEDED),
        (BACKOFF, pod("Failed", **ended(137, "OOMKilled")), None, Reason.OUT_OF_MEMORY),
        (BACKOFF, pod("Failed", **ended(79)), None, Reason.OUT_OF_MEMORY),
        (BACKOFF, pod("Failed", **ended(85)), None, Reason.GPU_UNAVAILABLE),
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
        (
            BACKOFF,
            pod("Failed", **ended(128, "StartError", "init was OOM-killed (memory limit too low?)")),
            None,
            Reason.INSUFFICIENT_MEMORY,
        ),
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


@pytest.mark.parametrize(
    ("condition", "its_pod"),
    [
        pytest.param(BACKOFF, pod("Failed", **ended(143)), id="ended while it tidied up"),
        pytest.param(BACKOFF, pod("Failed", 30, **ended(143)), id="deleted while it tidied up"),
        pytest.param(BACKOFF, pod("Failed", 30, **ended(137)), id="deleted, and not quick enough"),
        pytest.param(BACKOFF, pod("Failed", **ended(75)), id="its agent waited for others"),
        pytest.param(BACKOFF, pod("Failed", **ended(139)), id="a library crashed in its own end"),
        pytest.param(BACKOFF, pod("Failed", **target("EvictionByEvictionAPI"), **ended(143)), id="drained then"),
        pytest.param(("FailureTarget", ""), pod("Running", -61), id="its node does not answer any more"),
        pytest.param(BACKOFF, None, id="its pod is gone"),
    ],
)
def test_what_was_made_and_told_stands_however_the_process_ended(condition: Any, its_pod: Any) -> None:
    """It is told once it is whole and kept: another attempt would find it, and could fail for reasons of its own."""
    its_pods = [its_pod] if its_pod else []
    found = read(batch_job(condition), its_pods, succeeded())
    assert (found.state, found.failure) == ("Succeeded", None)
    if code := end_of(its_pod).get("exitCode"):
        told = ended(code, message=termination_message(succeeded()))
        by_message = read(batch_job(condition), [pod("Failed", **told)], report())
        assert by_message.state == "Succeeded"
    assert read(batch_job(("Failed", "DeadlineExceeded")), its_pods, succeeded()).state == "Failed"


@pytest.mark.parametrize(
    ("its_pod", "interrupted"),
    [
        pytest.param(pod("Failed", **target("EvictionByEvictionAPI")), True, id="drained"),
        pytest.param(pod("Failed", **target("PreemptionByScheduler")), True, id="preempted"),
        pytest.param(pod("Failed", **target("TerminationByKubelet")), True, id="its node shuts down, or is short"),
        pytest.param(pod("Failed", **target("DeletionByPodGC")), True, id="its node is gone"),
        pytest.param(pod("Running", -61), True, id="its node does not answer"),
        pytest.param(None, True, id="the pod is gone"),
        pytest.param(pod("Failed", **ended(75)), True, id="asked to stop, by its own word"),
        pytest.param(pod("Failed", 30, **ended(137)), True, id="deleted, and not quick enough"),
        pytest.param(pod("Failed", reason="UnexpectedAdmissionError"), True, id="not run by its node"),
        pytest.param(pod("Failed", **ended(137)), False, id="killed, perhaps for want of memory on the node"),
        pytest.param(pod("Failed", **ended(143)), False, id="ended by whoever is in the container"),
        pytest.param(pod("Failed", **ended(137, "OOMKilled")), False, id="out of memory"),
        pytest.param(evicted(OVER_ITS_LIMIT), False, id="over its own limit on its node's disk"),
        pytest.param(evicted(OVER_A_CONTAINERS), False, id="over its container's limit, by its log"),
        pytest.param(evicted(OVER_A_VOLUME), False, id="over a limit that a policy has put on its scratch folder"),
        pytest.param(evicted(EARLIER), True, id="its node is short of memory, in the words of earlier kubelets"),
        pytest.param(evicted(PRESSED), True, id="not let in by a node that is short"),
        pytest.param(evicted(f"{LOW} {LARGER}"), True, id="its node's disk is full, and it had asked for less"),
        pytest.param(evicted(LOW), True, id="its node's disk is full, by others"),
        pytest.param(pod("Failed", **ended(1)), False, id="crash"),
        pytest.param(pod("Failed", **ended(85)), True, id="its node's GPU has failed, or shows none"),
    ],
)
def test_an_interruption_is_no_fault_of_the_job(its_pod: Any, interrupted: bool) -> None:
    job = batch_job(BACKOFF if its_pod is None or its_pod["status"]["phase"] == "Failed" else ("FailureTarget", ""))
    assert read(job, [its_pod] if its_pod else []).interrupted is interrupted


@pytest.mark.parametrize(
    ("its_pod", "said"),
    [
        (
            pod("Failed", 30, **target("EvictionByEvictionAPI", "Eviction API: evicting")),
            "the training pod was evicted: Eviction API: evicting",
        ),
        (
            pod("Failed", 30, **target("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")),
            "the training pod has lost its node: Taint manager: deleting due to NoExecute taint",
        ),
        (
            pod("Failed", 30, **target("DeletionByDeviceTaintManager", "Device Taint manager: deleting")),
            "the training pod was evicted: Device Taint manager: deleting",
        ),
        (pod("Failed", 30, **target("EvictionByEvictionAPI")), "the training pod was evicted"),
        (pod("Failed", 30, reason="Evicted"), "the training pod was evicted"),
        (pod("Failed", 30, **ended(75)), "the training pod was deleted"),
        (pod("Failed", **ended(75)), "the trainer ended with exit code 75 (INTERRUPTED)"),
        (
            pod("Failed", reason="DeadlineExceeded", message="Pod was active for longer than it may", **ended(75)),
            "the training pod was ended: DeadlineExceeded: Pod was active for longer than it may",
        ),
    ],
)
def test_what_was_done_to_a_pod_is_told_in_a_sentence(its_pod: Any, said: str) -> None:
    assert read(batch_job(BACKOFF), [its_pod]).failure.message == said


def test_an_eviction_with_no_step_of_its_own_has_that_of_its_reason() -> None:
    drained = pod("Failed", 30, **target("EvictionByEvictionAPI", "Eviction API: evicting"))
    assert read(batch_job(BACKOFF), [drained]).failure.next_step == NEXT_STEP[Reason.EVICTED]


def test_a_trainer_whose_pod_has_been_told_to_end_is_not_called_at_work() -> None:
    """On a node that does not answer this lasts for minutes."""
    lost = pod("Running", 60, **target("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"))
    found = read(batch_job(("FailureTarget", "")), [lost], report())
    status = decide(view(found, running())).status
    assert condition(status, "Ready").message == (
        f"the training pod is being stopped, by {stamp(60)} at the latest: the training pod has lost its node: "
        "Taint manager: deleting due to NoExecute taint"
    )
    assert read(batch_job(), [pod("Running", 30)]).note == (
        f"the training pod is being stopped, by {stamp(30)} at the latest"
    )


def test_nobody_waits_for_the_start_of_a_pod_that_has_been_told_to_end() -> None:
    """It was given to a node that was silent already: two minutes of grace, and one more, in which it never starts."""
    lost = pod("Pending", 60, **target("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"))
    found = read(batch_job(("FailureTarget", "")), [lost])
    assert found.state == "Queued"
    assert condition(decide(view(found, running())).status, "Ready").message == (
        f"the training pod is being stopped, by {stamp(60)} at the latest: the training pod has lost its node: "
        "Taint manager: deleting due to NoExecute taint"
    )


SHELL = "/usr/local/bin/finetune-trainer: 2: exec: python3: Exec format error"
RUNTIME = "exec /usr/local/bin/finetune-trainer: exec format error"


@pytest.mark.parametrize(("code", "log", "foreign"), [(126, SHELL, True), (255, RUNTIME, True), (1, SHELL, False)])
def test_an_image_for_another_processor_is_no_bug_of_the_trainer(code: int, log: str, foreign: bool) -> None:
    failure = read(batch_job(BACKOFF), [pod("Failed", **ended(code, message=log))]).failure
    assert (failure.reason is Reason.CONTAINER_CONFIG_INVALID) is foreign
    assert ("kubernetes.io/arch" in failure.next_step) is foreign


@pytest.mark.parametrize(("code", "said"), [(132, "SIGILL: its node's processor"), (135, "SIGBUS: a file that it was")])
def test_a_signal_of_the_processor_is_told_as_what_it_means(code: int, said: str) -> None:
    found = read(batch_job(BACKOFF), [pod("Failed", **ended(code))])
    assert (found.failure.reason, found.wants_log) == (Reason.TRAINER_CRASHED, True)
    assert found.failure.message.startswith(f"the trainer was ended by {said}")
    assert "nodes" in found.failure.next_step or "volume" in found.failure.next_step


def test_a_pod_that_was_deleted_and_not_quick_enough_is_told_so() -> None:
    failure = read(batch_job(BACKOFF), [pod("Failed", 30, **ended(137))]).failure
    assert failure.message == "the training pod was deleted, and did not end in time (SIGKILL)"


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
    for phase in ("Failed", "Succeeded"):
        posted = report(phase, attempt=1, loss={"train": [{"step": 1, "value": 9.0}]})
        assert read(batch_job(("Complete", "")), [its_pod], posted).report == last


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
    assert passing | {Reason.SIDECAR_FAILED, Reason.GPU_UNAVAILABLE} == RETRIED


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
        (batch_job(BACKOFF), termination_message(succeeded()), "Succeeded"),
        (batch_job(("Failed", "DeadlineExceeded")), termination_message(succeeded()), "Failed"),
        (batch_job(BACKOFF), termination_message(report()), "Failed"),
    ],
)
def test_a_pod_that_has_made_its_artifact_is_believed_before_its_job_says_so(
    job: dict[str, Any], message: str, state: str
) -> None:
    assert read(job, [pod("Succeeded", **ended(0, message=message))]).state == state


# Containers that a policy of the cluster has put beside the trainer.


def test_a_trainer_that_knew_no_job_is_quoted_from_its_log() -> None:
    line = "SpecInvalid: FINETUNE_JOB holds no job for this image: spec.lora. In a pod: take both of one release."
    found = read(batch_job(BACKOFF), [pod("Failed", **ended(78, message=f"INFO\n{line}\n"))]).failure
    assert (found.reason, found.message) == (Reason.SPEC_INVALID, line.removeprefix("SpecInvalid: "))
    other = read(batch_job(BACKOFF), [pod("Failed", **ended(78, message="a row said SpecInvalid: x"))]).failure
    assert other.message == "the trainer ended with exit code 78 (SPEC_INVALID)"


@pytest.mark.parametrize(
    "its_pod",
    [
        pod("Failed", **ended(128, "StartError", "exec: no\nsuch file")),
        pod("Pending", **waiting("CreateContainerError")),
    ],
)
def test_an_image_that_cannot_be_started_is_a_matter_of_the_admin(its_pod: Any) -> None:
    job = batch_job(BACKOFF) if its_pod["status"]["phase"] == "Failed" else batch_job()
    failure = read(job, [its_pod]).failure
    assert failure.reason is Reason.CONTAINER_CONFIG_INVALID
    assert "\n" not in failure.message
    assert "image" in failure.next_step
    assert "Secret" not in failure.next_step


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (f"{NO_CLAIM[:-24]}", 'persistentvolumeclaim "data" not found'),
        (
            '0/1 nodes are available: persistentvolumeclaim "dta" not found. not found',
            'persistentvolumeclaim "dta" not found',
        ),
        (LOST_CLAIM, LOST_CLAIM),
    ],
)
def test_a_claim_that_is_missing_is_said_without_the_count_of_nodes(scheduler: str, said: str) -> None:
    found = obstacle(pod("Pending", conditions=[unplaced(scheduler)]))
    assert found is not None
    assert (found.reason, found.message) == (Reason.CONTAINER_CONFIG_INVALID, said)
