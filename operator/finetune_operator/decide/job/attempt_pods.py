"""The pods of one attempt, one per node, and what each tells of its trainer. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from finetune_api.manifest import Manifest, labels_of
from finetune_api.names import TRAINER_CONTAINER
from finetune_api.trainer import Report, read_termination_message
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.pods.containers import terminated

COMPLETION_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""The Job controller's label that tells the pods of several nodes apart."""

ENDED = frozenset({"Succeeded", "Failed"})


def newest(pods: Sequence[Manifest]) -> Manifest | None:
    """The pod that was created last."""
    return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)


def newest_of_nodes(pods: Sequence[Manifest]) -> list[Manifest]:
    """The newest pod of each node, in the nodes' order."""
    by_node: dict[int, list[Manifest]] = {}
    for pod in pods:
        by_node.setdefault(node_of(pod), []).append(pod)
    found = (newest(of_node) for _, of_node in sorted(by_node.items()))
    return [pod for pod in found if pod is not None]


def first(pods: Sequence[Manifest]) -> Manifest | None:
    """The pod of the first node, whose trainer reports for all."""
    return newest([pod for pod in pods if node_of(pod) == 0])


def node_of(pod: Manifest) -> int:
    """The index of the pod's node. The pod of a job on one node has no such label."""
    return int(labels_of(pod).get(COMPLETION_INDEX_LABEL, 0))


def is_live(pod: Manifest, now: datetime) -> bool:
    """Whether the pod may still write to its volumes.

    A pod that is still there a minute after its deletion was due is on a node that does not answer. The next attempt
    does not wait: the trainer's fence (the attempt's number in the output folder) keeps the old pod from writing.
    """
    if pod.get("status", {}).get("phase") in ENDED:
        return False
    due = pod["metadata"].get("deletionTimestamp")
    return due is None or now < moment(due) + timedelta(seconds=60)


def trainer_of(pod: Manifest | None) -> Manifest:
    """The status of the trainer's container: a policy may have added others."""
    statuses: list[Manifest] = (pod or {}).get("status", {}).get("containerStatuses") or []
    return next((status for status in statuses if status.get("name", TRAINER_CONTAINER) == TRAINER_CONTAINER), {})


def end_of(pod: Manifest | None) -> Manifest:
    """How the trainer's container ended; empty while it has not."""
    return terminated(trainer_of(pod))


def termination_report(pod: Manifest | None) -> Report | None:
    """The report in the trainer's termination message."""
    return read_termination_message(str(end_of(pod).get("message", "")))


def kept_log_tail(pod: Manifest | None) -> str:
    """The end of the log that the kubelet kept because the trainer left no message (FallbackToLogsOnError)."""
    return "" if termination_report(pod) else str(end_of(pod).get("message", ""))


def started_at(pod: Manifest) -> datetime | None:
    """When the running trainer started, by its node's clock."""
    started = ((trainer_of(pod).get("state") or {}).get("running") or {}).get("startedAt")
    return moment(started) if started else None
