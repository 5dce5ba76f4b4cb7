"""Why an attempt on the cluster failed. The first of these that tells decides.

what the cluster did to the pod ─▶ the trainer's own report or message ─▶ how its container ended
"""

from collections.abc import Sequence

from finetune_api.exit_codes import REASON_OF_EXIT_CODE, ExitCode
from finetune_api.job_status import Failure, Progress
from finetune_api.manifest import Manifest, wants_deletion
from finetune_api.reasons import Reason
from finetune_api.trainer import Report
from finetune_api.words import cut, one_line
from finetune_operator.decide.job.attempt_pods import (
    ENDED,
    end_of,
    newest_of_nodes,
    node_of,
    termination_report,
    trainer_of,
)
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.pods.containers import (
    crashed_by_signal,
    foreign_failure,
    memory_limit,
    never_ran,
    only_foreign_runs,
)
from finetune_operator.decide.pods.disruption import disruption, is_over_a_limit
from finetune_operator.decide.transient import INTERRUPTIONS

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
"""Exit codes by which a shell reports a program that a signal has ended."""


def most_telling(pods: Sequence[Manifest]) -> Manifest | None:
    """The pod whose end best explains the failure of an attempt: the others may have failed only because of it."""
    found = newest_of_nodes(pods)
    return min(found, key=_likelihood_of_echo) if len(found) > 1 else next(iter(found), None)


def _likelihood_of_echo(pod: Manifest) -> int:
    """How likely this pod failed only because another one did; 0 if its end explains itself."""
    if _by_cluster(pod) is not None:
        return 0
    told = termination_report(pod)
    failure = told.failure if told and told.failure else _by_container(pod)
    if failure.reason not in {Reason.INTERRUPTED, Reason.TRAINER_CRASHED}:
        return 0
    if wants_deletion(pod) or end_of(pod).get("exitCode") == ExitCode.OK:
        return 4  # it was told to end, or had finished
    if told is None and end_of(pod).get("exitCode") in _SIGNALS:
        return 1  # it was killed from outside
    return 2 if failure.reason is Reason.TRAINER_CRASHED else 3


def failed_run(condition: Manifest, pod: Manifest | None, report: Report | None) -> Run:
    """An attempt that failed, from its batch Job's `condition`, the pod that best explains it, and the last report."""
    ended = end_of(pod)
    exit_code = ended.get("exitCode")
    # The report comes from the first node's trainer. A pod of another node has at most its termination message.
    word = report if pod is None or node_of(pod) == 0 else termination_report(pod)
    found = _cause(condition, pod, word)
    wants_log = found.reason in {Reason.TRAINER_CRASHED, Reason.CODE_FAILED}
    return Run(
        "Failed",
        report=report,
        failure=found.model_copy(update={"exit_code": exit_code}),
        interrupted=is_interruption(found, pod),
        at_its_limit=_is_at_its_limit(found, pod) and not _was_evaluating(report),
        wants_log=wants_log,
    )


def _is_at_its_limit(found: Failure, pod: Manifest | None) -> bool:
    """Whether it was ended for exceeding its own limit: by the kernel for memory, or by the kubelet for disk usage."""
    if found.reason is Reason.EVICTED:
        return is_over_a_limit(found)
    return _was_short_of_memory(pod) and memory_limit(trainer_of(pod)) != ""


def _was_evaluating(report: Report | None) -> bool:
    """Whether the next attempt evaluates row by row, and the one after it not at all: see the trainer's `care`."""
    return report is not None and report.phase == "Evaluating"


def is_interruption(found: Failure, pod: Manifest | None) -> bool:
    """A signal that the cluster does not explain may have come from the kernel, when the node ran out of memory."""
    if found.reason not in INTERRUPTIONS or (found.reason is Reason.EVICTED and is_over_a_limit(found)):
        return False
    if found.reason is not Reason.INTERRUPTED or pod is None:
        return True
    deleted = wants_deletion(pod)
    return deleted or end_of(pod).get("exitCode") not in _SIGNALS


_NO_REPORT = "; its trainer has sent no report: if its pod did not start, kubectl get events says why"
"""For an attempt that may have waited for a node all the time, so that a longer deadline would not help."""


def _cause(condition: Manifest, pod: Manifest | None, report: Report | None) -> Failure:
    """Why an attempt failed: what the cluster did to the pod counts more than what the trainer reports."""
    if condition.get("reason") == "DeadlineExceeded":
        said = "the job ran longer than spec.activeDeadlineSeconds"
        return Failure.because(Reason.DEADLINE_EXCEEDED, said if report is not None else f"{said}{_NO_REPORT}")
    found = _by_cluster(pod)
    if found is None and report is not None:
        found = report.failure
    found = found or _by_container(pod)
    if found.reason is not Reason.OUT_OF_MEMORY:
        return found
    if report is not None and report.progress is not None and report.progress.step >= report.progress.total_steps > 0:
        return _after_training(found, report.progress)
    begins = report is not None and report.phase == "Validating" and _was_short_of_memory(pod)
    return _before_training(found) if begins else _with_advice(found, report)


def _with_advice(failure: Failure, report: Report | None) -> Failure:
    """With how much is enough, where the trainer's estimate was above what there was."""
    advice = report.memory.advice if report is not None and report.memory is not None else None
    step = cut(" ".join(filter(None, (failure.next_step, advice))), 1024)
    return failure.model_copy(update={"next_step": step}) if advice else failure


def _before_training(failure: Failure) -> Failure:
    """It ran out of memory while it read data or loaded the model, so smaller training steps would not help."""
    message = f"{failure.message}, before its first training step"
    return failure.model_copy(update={"message": message, "next_step": _MEMORY_BEFORE_TRAINING})


def _after_training(failure: Failure, progress: Progress) -> Failure:
    """It ran out of memory during evaluation, merging or writing, so smaller training steps would not help.

    In a store the upload of the last checkpoint may have ended with the pod: steps since the one before are repeated.
    """
    message, saved = f"{failure.message}, after its last training step", progress.saved_step or 0
    kept = "Training is done and kept." if saved >= progress.total_steps else f"Training is kept up to step {saved}."
    return failure.model_copy(update={"message": message, "next_step": f"{kept} {_MEMORY_AFTER_TRAINING}"})


def _by_cluster(pod: Manifest | None) -> Failure | None:
    """What the cluster did to the pod: out of memory, evicted, node lost."""
    if pod is None:
        return None
    if _was_short_of_memory(pod):
        limit = memory_limit(trainer_of(pod))
        more = f"it used more memory than its limit{f' of {limit}' if limit else ''}"
        return Failure.because(Reason.OUT_OF_MEMORY, f"the kernel killed the trainer: {more}")
    found = disruption(pod)
    if found is None and pod.get("status", {}).get("phase") not in ENDED and not only_foreign_runs(pod):
        return Failure.because(Reason.NODE_LOST, "the training pod was being stopped when its node stopped answering")
    return found


def _was_short_of_memory(pod: Manifest | None) -> bool:
    return end_of(pod).get("reason") == "OOMKilled"


def _by_container(pod: Manifest | None) -> Failure:
    """What the container's exit tells if the trainer itself reported nothing."""
    if pod is None:
        return Failure.because(Reason.INTERRUPTED, "the training pod is gone: it was deleted, or its node was")
    ended = end_of(pod)
    if found := never_ran(ended):
        return found
    if found := crashed_by_signal(ended):
        return found.model_copy(update={"message": f"the trainer was ended by {found.message}"})
    if "exitCode" not in ended:
        interrupted = Failure.because(
            Reason.INTERRUPTED, f"the training pod ended before the trainer did{_kubelet_message(pod)}"
        )
        return foreign_failure(pod) or interrupted
    return _from_outside(pod, ended["exitCode"]) or _from_exit_code(ended["exitCode"], str(ended.get("message", "")))


def _from_outside(pod: Manifest, exit_code: int) -> Failure | None:
    """That the trainer was ended by whoever deleted its pod, or by the kubelet for a reason in the pod's status."""
    if exit_code not in {*_SIGNALS, ExitCode.INTERRUPTED}:
        return None
    if wants_deletion(pod):
        late = _SIGNALS.get(exit_code)
        said = f", and did not end in time ({late})" if late else ""
        return Failure.because(Reason.INTERRUPTED, f"the training pod was deleted{said}")
    told = _kubelet_message(pod)
    return Failure.because(Reason.INTERRUPTED, f"the training pod was ended{told}") if told else None


def _kubelet_message(pod: Manifest) -> str:
    """What the kubelet says of a pod that it rejected or ended: OutOfcpu, DeadlineExceeded and the like."""
    status = pod.get("status", {})
    said = [one_line(str(status[key])) for key in ("reason", "message") if status.get(key)]
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
    """The line in which a trainer printed why it ended, if it failed before it could read its job, and so report."""
    lines = (line.partition(f"{reason.value}: ") for line in log_end.splitlines())
    return next((said for before, found, said in lines if found and not before), "")
