"""The state of one attempt on the cluster, from its batch Job, pods and report. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.exit_codes import ExitCode
from finetune_api.job_status import Failure
from finetune_api.manifest import Manifest, wants_deletion
from finetune_api.reasons import Reason
from finetune_api.trainer import Report
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.job.attempt_end import failed_run, is_interruption, most_telling
from finetune_operator.decide.job.attempt_pods import (
    end_of,
    first,
    is_live,
    newest_of_nodes,
    started_at,
    termination_report,
)
from finetune_operator.decide.job.run import Run, RunState
from finetune_operator.decide.pods.containers import foreign_failure, held_up, obstacle, only_foreign_runs
from finetune_operator.decide.pods.disruption import cut_off_since, disruption

STARTING = timedelta(seconds=15)
"""A trainer sends its first report within this time. That its container runs is not worth a status write before."""

LONG_BEFORE = timedelta(minutes=10)
"""A container that runs before the trainer for longer than this is an obstacle, and does not end on its own."""

_GIVEN_UP = (
    ": if it is not back within some minutes, the pod is given up, and the next attempt resumes from the last "
    "checkpoint (kubectl get nodes)"
)


def read_run(job: Manifest | None, pods: Sequence[Manifest], report: Report | None, now: datetime) -> Run:
    """One attempt, from its batch Job, the Job's pods (one per node), and the last report received over HTTPS.

    Jobs and pods are watched separately: a Job may be seen as ended before the final state of its pod arrives, and only
    the pod tells how it ended.
    """
    if job is None:
        return _from_report_alone(report)
    report = _latest(report, termination_report(first(pods)))
    live = [pod for pod in newest_of_nodes(pods) if is_live(pod, now)]
    if not all(map(only_foreign_runs, live)):
        return _of_live_pods(live, report, now)
    pod = most_telling(pods)
    # Failed waits for every pod to end, which a pod on a lost node never does. FailureTarget is set earlier.
    failed = _job_condition(job, "Failed") or _job_condition(job, "FailureTarget")
    if _trainers_are_done(pods, failed):
        return Run(_end(report), report=report)
    # The Job controller ignores a Job that is deleted and kept by a finalizer, so its conditions never change.
    deleted = pod is not None and wants_deletion(job)
    if failed or live or (deleted and not _ended_well(pods)):
        stands = _had_reported_end(report, failed)
        return Run(_end(report), report=report) if stands else failed_run(failed or {}, pod, report)
    if deleted or _job_condition(job, "Complete") or _pod_and_trainer_succeeded(pods, report):
        return Run(_end(report), report=report)
    return Run("Active" if pod is not None else "Queued", report=report, ending=pod is not None)


def _ended_well(pods: Sequence[Manifest]) -> bool:
    """Whether the pods of all nodes succeeded."""
    return all(pod.get("status", {}).get("phase") == "Succeeded" for pod in newest_of_nodes(pods))


def _from_report_alone(report: Report | None) -> Run:
    """A batch Job that is gone, e.g. by a TTL that a policy sets on all Jobs: a report of its end still counts."""
    if report is not None and report.phase == "Failed" and report.failure is not None:
        interrupted = is_interruption(report.failure, None)
        return Run("Failed", report=report, failure=report.failure, interrupted=interrupted)
    end = _end(report)
    return Run("Absent" if end == "ResultUnknown" else end, report=report)


def _trainers_are_done(pods: Sequence[Manifest], failed: Manifest | None) -> bool:
    """Whether all trainers succeeded although a container beside one of them failed or still runs."""
    if _ran_too_long(failed):
        return False
    present = newest_of_nodes(pods)
    beside = any(only_foreign_runs(pod) or foreign_failure(pod) for pod in present)
    return beside and all(end_of(pod).get("exitCode") == ExitCode.OK for pod in present)


def _had_reported_end(report: Report | None, failed: Manifest | None) -> bool:
    """Whether the trainer reported its end before its process failed, by a signal or in a library's cleanup.

    It reports that only once its results are complete and stored, so another attempt would achieve no more.
    """
    return _end(report) != "ResultUnknown" and not _ran_too_long(failed)


def _ran_too_long(failed: Manifest | None) -> bool:
    return (failed or {}).get("reason") == "DeadlineExceeded"


def _pod_and_trainer_succeeded(pods: Sequence[Manifest], report: Report | None) -> bool:
    """Whether the only pod and its trainer succeeded. The Job's own condition may come much later."""
    ended = [pod.get("status", {}).get("phase") for pod in pods]
    return ended == ["Succeeded"] and _end(report) != "ResultUnknown"


def _end(report: Report | None) -> RunState:
    """What a pod that succeeded has done, by its last report."""
    if report is not None and report.phase == "Checked" and report.checked is not None:
        return "Checked"
    if report is not None and report.phase == "Measured" and report.evaluation is not None:
        return "Measured"
    finished = report is not None and report.phase == "Succeeded" and report.result is not None
    return "Succeeded" if finished else "ResultUnknown"


def has_ended(job: Manifest) -> bool:
    """Whether a batch Job says that its pods have ended."""
    return any(_job_condition(job, kind) for kind in ("Complete", "Failed", "FailureTarget"))


def _of_live_pods(pods: Sequence[Manifest], report: Report | None, now: datetime) -> Run:
    """Pods of several nodes start together: an obstacle to one of them is an obstacle to all."""
    ending = any(wants_deletion(pod) for pod in pods)
    note = next((said for pod in pods if (said := _termination_note(pod) or _lost_node_note(pod))), "")
    pending = [pod for pod in pods if pod.get("status", {}).get("phase") == "Pending"]
    if pending:
        failure = next((found for pod in pending if (found := obstacle(pod))), None)
        since = max(moment(pod["metadata"]["creationTimestamp"]) for pod in pending)
        queued = Run("Queued", report=report, failure=failure, ending=ending, awaiting_pod=failure is None, since=since)
        before = next((one for pod in pending if (one := held_up(pod))), None)
        return replace(queued, note=note) if ending or failure or before is None else _held_up_by(before, queued, now)
    starting = report is None and any(_has_just_started(pod, now) for pod in pods)
    began = [started for pod in pods if (started := started_at(pod))]
    return Run(
        "Active", report=report, ending=ending, starting=starting, started_at=min(began, default=None), note=note
    )


def _termination_note(pod: Manifest) -> str:
    """That a trainer has only minutes left, and why. On a node that does not answer, no report arrives meanwhile."""
    due = pod["metadata"].get("deletionTimestamp")
    if due is None:
        return ""
    why = disruption(pod)
    return f"the training pod is being stopped, by {due} at the latest{f': {why.message}' if why else ''}"


def _lost_node_note(pod: Manifest) -> str:
    """That nothing is known of a pod: its status is the last one that its kubelet sent."""
    since = cut_off_since(pod)
    return f"the training pod's node does not answer since {since}{_GIVEN_UP}" if since else ""


def _held_up_by(container: Manifest, queued: Run, now: datetime) -> Run:
    """The state of a pod that waits for a container of somebody else to end or become ready."""
    began = str(container["state"]["running"]["startedAt"])
    said = f"container {container['name']}, which a policy of the cluster has put before the trainer, has run"
    said = f"{said} since {began}, and the trainer starts only after it has ended or is ready"
    if now - moment(began) < STARTING:
        return queued
    if now - moment(began) < LONG_BEFORE:
        return replace(queued, note=said)
    return replace(queued, failure=Failure.because(Reason.SIDECAR_FAILED, said))


def _has_just_started(pod: Manifest, now: datetime) -> bool:
    """By the node's clock; a clock that is far ahead of ours tells nothing."""
    started = started_at(pod)
    return started is not None and timedelta(seconds=-1) <= now - started <= STARTING


def _latest(posted: Report | None, terminated: Report | None) -> Report | None:
    """The termination message decides how the trainer ended; the posted report has the longer loss curves."""
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
