"""What a training pod's Job, pod and report say together: the state of one attempt on the cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from finetune_api.exit_codes import REASON_OF_EXIT_CODE, ExitCode
from finetune_api.job_status import Failure, Progress
from finetune_api.names import TRAINER_CONTAINER
from finetune_api.reasons import Reason
from finetune_api.trainer import Report, read_termination_message
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.pods.containers import (
    crashed_by_signal,
    failed_beside,
    held_up,
    memory_limit,
    never_ran,
    obstacle,
    outlives,
    terminated,
)
from finetune_operator.decide.pods.disruption import disruption, is_over_a_limit

Manifest = Mapping[str, Any]
RunState = Literal[
    "Absent", "Queued", "Active", "Checked", "Measured", "Succeeded", "Failed", "ResultUnknown", "Unseen", "Unreachable"
]

RETRIED = frozenset(
    {
        Reason.OUT_OF_MEMORY,
        Reason.GPU_UNAVAILABLE,
        Reason.EVICTED,
        Reason.NODE_LOST,
        Reason.INTERRUPTED,
        Reason.SIDECAR_FAILED,
        Reason.NO_CAPACITY,
    }
)
"""Failures that the next attempt may not meet again. A data error or a crash is met again: it is not retried."""

INTERRUPTIONS = frozenset({Reason.EVICTED, Reason.NODE_LOST, Reason.INTERRUPTED, Reason.GPU_UNAVAILABLE})

CHANGES_BY_ITSELF = frozenset({Reason.PROVIDER_UNAVAILABLE, Reason.RATE_LIMITED, Reason.PROVIDER_BUSY})
"""Obstacles that pass without anybody doing something."""

STARTING = timedelta(seconds=15)
"""A trainer has its say within this time: that its container runs is not worth a write of status before."""

LONG_BEFORE = timedelta(minutes=10)
"""What runs before the trainer for longer holds it up, and does not come to its end by itself."""

_MEMORY_AFTER_TRAINING = (
    "Ask an admin for more memory in the connection's podTemplate and set spec.retryNonce; "
    "where spec.resources.memory is the limit, apply the job under a new name with more, or without what it did then: "
    "dataset.test or artifact.merge."
)

_MEMORY_BEFORE_TRAINING = (
    "Ask for more memory: apply the job under a new name with more spec.resources.memory, or ask an admin for more in "
    "the connection's podTemplate and set spec.retryNonce."
)

_SIGNALS = {137: "SIGKILL", 143: "SIGTERM"}
"""Exit codes that the shell's rule gives to a program that a signal has ended."""

COMPLETION_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""By which the Job controller tells the pods of several nodes apart."""

_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class Run:
    """The state of the present attempt, whatever provider runs it.

    Some states are of providers outside of the cluster: Checked, the data are there and the job can be made; Measured,
    a pod here has asked the tuned model the test set; Unseen, nothing has been heard of the job since this process
    began; Unreachable, the provider cannot be asked (`failure`).
    """

    state: RunState
    report: Report | None = None
    failure: Failure | None = None
    """Why it failed; while Queued, what keeps it from starting; of an Active check, its data from the provider."""
    job_id: str | None = None
    """The provider's name of the attempt."""
    interrupted: bool = False
    """Whether it failed by no fault of its own: the cluster, or somebody who may delete its pod, ended it."""
    at_its_limit: bool = False
    """Whether it was ended at a limit of its own pod, of memory or of disk, which the next attempt has as well."""
    wants_log: bool = False
    """Whether the reason alone does not explain the failure."""
    awaiting_pod: bool = False
    """Whether its pod is still to be made, or the pod's volumes to be mounted: nothing tells of it, so look again."""
    since: datetime | None = None
    """Since when it waits for that, where it is known."""
    ending: bool = False
    """Whether the pod is told to end, or has ended and its Job has yet to say so: nothing may tell, so look again."""
    starting: bool = False
    """Whether its pod has just begun and nothing has been heard of the trainer yet: it will speak, so wait."""
    made_by: str = ""
    """What of its connection the batch Job was made by (`training_job.made_by`); empty where that is not known."""
    made_at: datetime | None = None
    """When its batch Job was made, where it has one."""
    started_at: datetime | None = None
    """When its trainer began, by its node's clock."""
    billed_seconds: int | None = None
    """Time that the provider bills, once it is known, where it bills by the time."""
    billed_tokens: int | None = None
    """Tokens that the provider bills, once they are known, where it bills by them; also of what came to nothing."""
    measuring: "Run | None" = None
    """The pod that asks the tuned model the test set, where the model stays at a provider."""
    note: str = ""
    """What it is doing, where the state alone does not say it."""
    nameless: bool = False
    """Whether its provider calls it done, and has not named its model."""
    base: str = ""
    """What a provider says that it is tuned from."""


def read_run(job: Manifest | None, pods: Sequence[Manifest], report: Report | None, now: datetime) -> Run:
    """One attempt, from its batch Job, the Job's pods, one for each node, and the last report that came by HTTPS.

    Jobs and pods are watched apart: a Job that has ended beside a pod that has not is seen before its pod's last
    state, which alone tells how it ended.
    """
    if job is None:
        return _of_its_word(report)
    report = _latest(report, _termination_report(_first(pods)))
    live = [pod for pod in _present(pods) if is_live(pod, now)]
    if not all(map(outlives, live)):
        return _of_live_pods(live, report, now)
    pod = telling(pods)
    # Failed waits for every pod to end, and a pod on a lost node never does: FailureTarget comes before.
    failed = _job_condition(job, "Failed") or _job_condition(job, "FailureTarget")
    if _trainers_are_done(pods, failed):
        return Run(_end(report), report=report)
    if failed or live:
        return _failed(failed or {}, pod, report)
    if _job_condition(job, "Complete") or _has_done_it_all(pods, report):
        return Run(_end(report), report=report)
    return Run("Active" if pod is not None else "Queued", report=report, ending=pod is not None)


def _of_its_word(report: Report | None) -> Run:
    """A batch Job that is gone, by a TTL that a policy puts on all of them: what was heard at its very end stands."""
    if report is not None and report.phase == "Failed" and report.failure is not None:
        interrupted = _is_interruption(report.failure, None)
        return Run("Failed", report=report, failure=report.failure, interrupted=interrupted)
    end = _end(report)
    return Run("Absent" if end == "ResultUnknown" else end, report=report)


def _trainers_are_done(pods: Sequence[Manifest], failed: Manifest | None) -> bool:
    """Whether all trainers have ended well, and a container beside one goes on, or ended badly: that spoils nothing."""
    if (failed or {}).get("reason") == "DeadlineExceeded":
        return False
    present = _present(pods)
    beside = any(outlives(pod) or failed_beside(pod) for pod in present)
    return beside and all(_terminated(pod).get("exitCode") == ExitCode.OK for pod in present)


def _has_done_it_all(pods: Sequence[Manifest], report: Report | None) -> bool:
    """Whether the one pod has ended well, and its trainer too: the Job's own word of it may be much later."""
    ended = [pod.get("status", {}).get("phase") for pod in pods]
    return ended == ["Succeeded"] and _end(report) != "ResultUnknown"


def _end(report: Report | None) -> RunState:
    """What a pod that ended well has done, by its own word."""
    if report is not None and report.phase == "Checked" and report.checked is not None:
        return "Checked"
    if report is not None and report.phase == "Measured" and report.evaluation is not None:
        return "Measured"
    finished = report is not None and report.phase == "Succeeded" and report.result is not None
    return "Succeeded" if finished else "ResultUnknown"


def has_ended(job: Manifest) -> bool:
    """Whether a batch Job says that its pods are at their end."""
    return any(_job_condition(job, kind) for kind in ("Complete", "Failed", "FailureTarget"))


def _of_live_pods(pods: Sequence[Manifest], report: Report | None, now: datetime) -> Run:
    """Pods of several nodes begin together: what keeps one of them from starting keeps all."""
    ending = any(pod["metadata"].get("deletionTimestamp") is not None for pod in pods)
    note = next((said for pod in pods if (said := _told_to_end(pod))), "")
    pending = [pod for pod in pods if pod.get("status", {}).get("phase") == "Pending"]
    if pending:
        failure = next((found for pod in pending if (found := obstacle(pod))), None)
        since = max(moment(pod["metadata"]["creationTimestamp"]) for pod in pending)
        queued = Run("Queued", report=report, failure=failure, ending=ending, awaiting_pod=failure is None, since=since)
        before = next((one for pod in pending if (one := held_up(pod))), None)
        return replace(queued, note=note) if ending or failure or before is None else _behind(before, queued, now)
    starting = report is None and any(_has_just_started(pod, now) for pod in pods)
    began = [started for pod in pods if (started := _started(pod))]
    return Run(
        "Active", report=report, ending=ending, starting=starting, started_at=min(began, default=None), note=note
    )


def _told_to_end(pod: Manifest) -> str:
    """That a trainer has no more than some minutes, and why: on a node that does not answer they pass in silence."""
    due = pod["metadata"].get("deletionTimestamp")
    if due is None:
        return ""
    why = disruption(pod)
    return f"the training pod has been told to end, by {due} at the latest{f': {why.message}' if why else ''}"


def _behind(container: Manifest, queued: Run, now: datetime) -> Run:
    """What a pod waits for that cannot begin before a container of somebody else's has ended, or is up."""
    began = str(container["state"]["running"]["startedAt"])
    said = f"container {container['name']}, which a policy of the cluster has put before the trainer, has run"
    said = f"{said} since {began}, and the trainer starts only after it has ended or is ready"
    if now - moment(began) < STARTING:
        return queued
    if now - moment(began) < LONG_BEFORE:
        return replace(queued, note=said)
    return replace(queued, failure=Failure.because(Reason.SIDECAR_FAILED, said))


def _started(pod: Manifest) -> datetime | None:
    started = ((_container(pod).get("state") or {}).get("running") or {}).get("startedAt")
    return moment(started) if started else None


def _has_just_started(pod: Manifest, now: datetime) -> bool:
    """By the node's clock: one that is far ahead of ours says nothing."""
    started = _started(pod)
    return started is not None and timedelta(seconds=-1) <= now - started <= STARTING


def newest(pods: Sequence[Manifest]) -> Manifest | None:
    """The pod that was made last."""
    return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)


def telling(pods: Sequence[Manifest]) -> Manifest | None:
    """The pod whose end tells most of why an attempt failed: the ends of the others may only be its echo."""
    return min(_present(pods), key=_echo, default=None)


def _present(pods: Sequence[Manifest]) -> list[Manifest]:
    """The newest pod of each node, in the nodes' order."""
    by_node: dict[int, list[Manifest]] = {}
    for pod in pods:
        by_node.setdefault(_node(pod), []).append(pod)
    found = (newest(of_node) for _, of_node in sorted(by_node.items()))
    return [pod for pod in found if pod is not None]


def _first(pods: Sequence[Manifest]) -> Manifest | None:
    """The pod of the first node, whose trainer speaks for all."""
    return newest([pod for pod in pods if _node(pod) == 0])


def _node(pod: Manifest) -> int:
    """Which node's pod it is; the only one has no such label."""
    return int((pod["metadata"].get("labels") or {}).get(COMPLETION_INDEX_LABEL, 0))


def _echo(pod: Manifest) -> int:
    """How likely a pod's end is only the echo of another's, from 0 for an end that explains itself."""
    if _by_cluster(pod) is not None:
        return 0
    told = _termination_report(pod)
    failure = told.failure if told and told.failure else _by_container(pod)
    if failure.reason not in {Reason.INTERRUPTED, Reason.TRAINER_CRASHED}:
        return 0
    if pod["metadata"].get("deletionTimestamp") is not None or _terminated(pod).get("exitCode") == ExitCode.OK:
        return 4  # it was told to end, or had done its part
    if told is None and _terminated(pod).get("exitCode") in _SIGNALS:
        return 1  # somebody ended it from outside
    return 2 if failure.reason is Reason.TRAINER_CRASHED else 3


def is_live(pod: Manifest, now: datetime) -> bool:
    """Whether the pod may still write to its volumes.

    A pod that should have been gone for a minute stands on a node that does not answer. The next attempt does not
    wait for it: the trainer's own fence (the attempt's number in the output folder) keeps the old one from writing.
    """
    if pod.get("status", {}).get("phase") in _ENDED:
        return False
    due = pod["metadata"].get("deletionTimestamp")
    return due is None or now < moment(due) + timedelta(seconds=60)


def _latest(posted: Report | None, terminated: Report | None) -> Report | None:
    """The termination message has the last word on the end, the posted report has the longer curves."""
    if terminated is None:
        return posted
    if posted is None or posted.attempt != terminated.attempt:
        return terminated
    if posted.phase == terminated.phase:
        return posted
    longer = {
        "loss": posted.loss or terminated.loss,
        "dataset": posted.dataset or terminated.dataset,
        "memory": terminated.memory or posted.memory,
    }
    return terminated.model_copy(update=longer)


def _job_condition(job: Manifest, condition_type: str) -> Manifest | None:
    conditions: list[Manifest] = job.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == condition_type and c["status"] == "True"), None)


def _container(pod: Manifest | None) -> Manifest:
    """The trainer's container; a policy may have put others beside it."""
    statuses: list[Manifest] = (pod or {}).get("status", {}).get("containerStatuses") or []
    return next((status for status in statuses if status.get("name", TRAINER_CONTAINER) == TRAINER_CONTAINER), {})


def _terminated(pod: Manifest | None) -> Manifest:
    return terminated(_container(pod))


def _termination_report(pod: Manifest | None) -> Report | None:
    return read_termination_message(str(_terminated(pod).get("message", "")))


def _failed(condition: Manifest, pod: Manifest | None, report: Report | None) -> Run:
    ended = _terminated(pod)
    exit_code = ended.get("exitCode")
    # What the first node's trainer reports is its own end; that of another node has left a message, or none.
    word = report if pod is None or _node(pod) == 0 else _termination_report(pod)
    found = _cause(condition, pod, word)
    wants_log = found.reason in {Reason.TRAINER_CRASHED, Reason.CODE_FAILED}
    return Run(
        "Failed",
        report=report,
        failure=found.model_copy(update={"exit_code": exit_code}),
        interrupted=_is_interruption(found, pod),
        at_its_limit=_is_at_its_limit(found, pod),
        wants_log=wants_log,
    )


def _is_at_its_limit(found: Failure, pod: Manifest | None) -> bool:
    """By the kernel for memory, or by the kubelet for what it has written."""
    if found.reason is Reason.EVICTED:
        return is_over_a_limit(found)
    return _was_short_of_memory(pod) and memory_limit(_container(pod)) != ""


def _is_interruption(found: Failure, pod: Manifest | None) -> bool:
    """A signal of which the cluster knows nothing may be the kernel's, for want of memory on the node."""
    if found.reason not in INTERRUPTIONS or (found.reason is Reason.EVICTED and is_over_a_limit(found)):
        return False
    if found.reason is not Reason.INTERRUPTED or pod is None:
        return True
    deleted = pod["metadata"].get("deletionTimestamp") is not None
    return deleted or _terminated(pod).get("exitCode") not in _SIGNALS


def _cause(condition: Manifest, pod: Manifest | None, report: Report | None) -> Failure:
    """Why an attempt failed: what the cluster did to the pod comes before what the trainer said of it."""
    if condition.get("reason") == "DeadlineExceeded":
        return Failure.because(Reason.DEADLINE_EXCEEDED, "the job ran longer than spec.activeDeadlineSeconds")
    found = _by_cluster(pod)
    if found is None and report is not None:
        found = report.failure
    found = found or _by_container(pod)
    if found.reason is not Reason.OUT_OF_MEMORY:
        return found
    if report is not None and report.progress is not None and report.progress.step >= report.progress.total_steps > 0:
        return _after_training(found, report.progress)
    begins = report is not None and report.phase == "Validating" and _was_short_of_memory(pod)
    return _before_training(found) if begins else found


def _before_training(failure: Failure) -> Failure:
    """It read the data or loaded the model: what a step takes had no part in it."""
    message = f"{failure.message}, before its first training step"
    return failure.model_copy(update={"message": message, "next_step": _MEMORY_BEFORE_TRAINING})


def _after_training(failure: Failure, progress: Progress) -> Failure:
    """It was measured, merged or written by then: smaller steps would change nothing.

    In a store the last checkpoint may have come to its end with the pod: the steps after the one before are made again.
    """
    message, saved = f"{failure.message}, after its last training step", progress.saved_step or 0
    kept = "Training is done and kept." if saved >= progress.total_steps else f"Training is kept up to step {saved}."
    return failure.model_copy(update={"message": message, "next_step": f"{kept} {_MEMORY_AFTER_TRAINING}"})


def _by_cluster(pod: Manifest | None) -> Failure | None:
    """What was done to the pod: memory, eviction, node."""
    if pod is None:
        return None
    if _was_short_of_memory(pod):
        limit = memory_limit(_container(pod))
        more = f"it used more memory than its limit{f' of {limit}' if limit else ''}"
        return Failure.because(Reason.OUT_OF_MEMORY, f"the kernel ended the trainer: {more}")
    found = disruption(pod)
    if found is None and pod.get("status", {}).get("phase") not in _ENDED and not outlives(pod):
        return Failure.because(Reason.NODE_LOST, "the training pod was told to end and its node does not answer")
    return found


def _was_short_of_memory(pod: Manifest | None) -> bool:
    return _terminated(pod).get("reason") == "OOMKilled"


def _by_container(pod: Manifest | None) -> Failure:
    """What the container's end says where the trainer itself said nothing."""
    if pod is None:
        return Failure.because(Reason.INTERRUPTED, "the training pod is gone: it was deleted, or its node was")
    ended = _terminated(pod)
    if found := never_ran(ended):
        return found
    if found := crashed_by_signal(ended):
        return found.model_copy(update={"message": f"the trainer was ended by {found.message}"})
    if "exitCode" not in ended:
        interrupted = Failure.because(Reason.INTERRUPTED, f"the training pod ended before the trainer did{_told(pod)}")
        return failed_beside(pod) or interrupted
    return _from_outside(pod, ended["exitCode"]) or _from_exit_code(ended["exitCode"], str(ended.get("message", "")))


def _from_outside(pod: Manifest, exit_code: int) -> Failure | None:
    """That somebody ended the trainer: who deleted its pod, or the kubelet for a reason that the pod's status has."""
    if exit_code not in {*_SIGNALS, ExitCode.INTERRUPTED}:
        return None
    if pod["metadata"].get("deletionTimestamp") is not None:
        late = _SIGNALS.get(exit_code)
        said = f", and did not end in time ({late})" if late else ""
        return Failure.because(Reason.INTERRUPTED, f"the training pod was deleted{said}")
    told = _told(pod)
    return Failure.because(Reason.INTERRUPTED, f"the training pod was ended{told}") if told else None


def _told(pod: Manifest) -> str:
    """What the kubelet says of a pod that it did not run, or has ended: OutOfcpu, DeadlineExceeded and the like."""
    status = pod.get("status", {})
    said = [str(status[key]) for key in ("reason", "message") if status.get(key)]
    return f": {': '.join(said)}" if said else ""


def _from_exit_code(exit_code: int, log_end: str) -> Failure:
    if exit_code in _SIGNALS:
        return Failure.because(Reason.INTERRUPTED, f"the trainer was ended by a signal ({_SIGNALS[exit_code]})")
    if exit_code in REASON_OF_EXIT_CODE:
        code = ExitCode(exit_code)
        reason = REASON_OF_EXIT_CODE[code]
        said = f"the trainer ended with exit code {exit_code} ({code.name})"
        return Failure.because(reason, _sentence(reason, log_end) or said)
    return Failure.because(Reason.TRAINER_CRASHED, f"the trainer ended with exit code {exit_code}")


def _sentence(reason: Reason, log_end: str) -> str:
    """The line in which a trainer that could not report, as it knew no job, has said why it ended."""
    lines = (line.partition(f"{reason.value}: ") for line in log_end.splitlines())
    return next((said for before, found, said in lines if found and not before), "")


def with_log(run: Run, log_tail: str) -> Run:
    """The run with the end of the trainer's log in its failure."""
    if run.failure is None:
        return run
    return replace(run, failure=run.failure.model_copy(update={"log_tail": log_tail[-4096:]}))
