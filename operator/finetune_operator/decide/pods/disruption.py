"""What the cluster did to a pod, by the pod's status: evicted it, or lost its node, for good or for now; what helps.

The messages of kubelets, the scheduler and the controllers are kept as they are.
"""

import re

from finetune_api.job_status import Failure
from finetune_api.manifest import Manifest, wants_deletion
from finetune_api.quantities import amount
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_api.words import one_line

_NODE_IS_LOST = frozenset(
    {
        "NodeLost",
        "DeletionByTaintManager",
        "DeletionByPodGC",
        "NodeShutdown",
        "Terminated",
    }
)
_IS_EVICTED = frozenset(
    {
        "Evicted",
        "TerminationByKubelet",
        "PreemptionByScheduler",
        "EvictionByEvictionAPI",
        "Preempting",
        "DeletionByDeviceTaintManager",
    }
)
"""Reasons in a pod's status, or in its condition DisruptionTarget, for its end."""

_MORE_STORAGE = (
    "Apply the job under a new name with more spec.resources.ephemeralStorage, or ask an admin for more "
    "ephemeral-storage in the connection's podTemplate and set spec.retryNonce to resume from the last checkpoint."
)
_LARGER_VOLUME = (
    "Ask an admin to raise the limit that a policy of the cluster has put on this volume of the pod, then set "
    "spec.retryNonce to resume from the last checkpoint."
)
"""For a pod that exceeds its limit of disk usage: the next attempt would, too."""

THEN_RETRY = " Set spec.retryNonce to resume from the last checkpoint."
"""The end of next steps for failed jobs: useless while the next attempt starts automatically."""

_OVER_A_LIMIT = re.compile(
    r"Usage of (EmptyDir) volume .* exceeds the limit"
    r"|Pod ephemeral local storage usage exceeds the total limit"
    r"|Container \S+ exceeded its local ephemeral storage limit"
)
"""The kubelet's messages about a pod that exceeds a limit of its own: it is evicted even from a node with room."""
_OVER_ITS_REQUEST = re.compile(r"has larger consumption of (\S+)\.|which exceeds its request")
"""Messages, also of earlier releases, about a node short of disk. Without a request, a few KiB exceed it."""


_SHORT_OF_DISK = re.compile(r"low on resource: (ephemeral-storage|inodes)|DiskPressure")
_ROOM_ON_DISK = (
    "Have an admin make room on the node's disk (kubectl describe nodes: DiskPressure): images, logs and files of "
    "other pods are there too."
)
_AMOUNTS = re.compile(
    r"low on resource: ephemeral-storage\. Threshold quantity: (\w+), available: (\w+)\. Container \S+ was using (\w+),"
)


def disruption(pod: Manifest) -> Failure | None:
    """Eviction or node loss, distinguished by the pod's status and its DisruptionTarget condition."""
    status = pod.get("status", {})
    conditions: list[Manifest] = status.get("conditions") or []
    target = next((c for c in conditions if c["type"] == "DisruptionTarget"), {})
    reason = str(target.get("reason") or status.get("reason") or "")
    said = one_line(str(target.get("message") or status.get("message") or ""))
    if reason in _NODE_IS_LOST:
        return Failure.because(Reason.NODE_LOST, _followed_by("the training pod has lost its node", said))
    if reason not in _IS_EVICTED:
        return None
    evicted = Failure.because(Reason.EVICTED, _followed_by("the training pod was evicted", said))
    return evicted.model_copy(update={"next_step": _step_of_eviction(said) or evicted.next_step})


def cut_off(pod: Manifest) -> list[Manifest]:
    """The conditions that show that the pod's node does not answer; empty for any other pod.

    The node controller sets Ready to False without a reason, while its containers keep the kubelet's last state.
    """
    status = pod.get("status", {})
    found = {c["type"]: c for c in status.get("conditions") or () if c["type"] in {"Ready", "ContainersReady"}}
    ready, containers = found.get("Ready", {}), found.get("ContainersReady", {})
    unheard = (ready.get("status"), containers.get("status")) == ("False", "True") and not ready.get("reason")
    return [ready, containers] if unheard and status.get("phase") == "Running" else []


def cut_off_since(pod: Manifest) -> str:
    """Since when the pod's node does not answer; empty if it does, or the pod is being deleted already."""
    found = cut_off(pod) if not wants_deletion(pod) else []
    return str(found[0].get("lastTransitionTime") or "some time") if found else ""


def is_over_a_limit(evicted: Failure) -> bool:
    """Whether an evicted pod exceeded a limit of its own, as it would on any node."""
    return _OVER_A_LIMIT.search(evicted.message) is not None


def _followed_by(what: str, said: str) -> str:
    return f"{what}: {said}" if said else what


def _step_of_eviction(said: str) -> str | None:
    """The next step, if more is needed than a node with room."""
    if limit := _OVER_A_LIMIT.search(said):
        return _LARGER_VOLUME if limit[1] else _MORE_STORAGE
    found = _OVER_ITS_REQUEST.search(said)
    if found is None:
        return f"{NEXT_STEP[Reason.EVICTED]} {_ROOM_ON_DISK}" if _SHORT_OF_DISK.search(said) else None
    what = f"as much {found[1]} as it uses" if found[1] else "as much as it uses"
    return (
        f"Have the pod ask for {what}, in spec.resources or the connection's podTemplate: it gets a node with room for "
        f"it, and is not evicted for it.{_of_others(said)}{THEN_RETRY}"
    )


def _of_others(said: str) -> str:
    """That others have filled the disk, if the pod has written less than was missing: a request would not help then."""
    found = _AMOUNTS.search(said)
    if found is None:
        return ""
    wanted, left, used = (amount(text) for text in found.groups())
    if wanted is None or left is None or used is None or used >= wanted - left:
        return ""
    return f" It has written little ({found[3]}). {_ROOM_ON_DISK}"
