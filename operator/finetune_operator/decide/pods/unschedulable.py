"""Why the scheduler has found no node for a pod, in its own words, and what helps."""

import re
from collections.abc import Mapping
from typing import Any

from finetune_api.job_status import Failure
from finetune_api.manifest import conditions_of
from finetune_api.reasons import Reason

_CLAIM_MISSING = re.compile(
    'persistentvolumeclaim "[^"]*" (not found|is being deleted|bound to non-existent persistentvolume "[^"]*")'
)
"""More room would not help these pods."""

_CLAIM_STEPS = {
    "is being deleted": "Somebody has deleted the claim: it takes no new pods, and stays as long as one that used it "
    "is there, ended or not (kubectl describe pvc names them). Delete those that have ended, wait for the others, and "
    "then create it again, with the data: the pod continues automatically.",
    "bound to non-existent persistentvolume": "The claim has lost its volume. Where its data are still there, make a "
    "PersistentVolume of that name for them; else delete the claim and create it again, with the data. The pod "
    "continues automatically.",
}
"""For a claim that exists but cannot be used, by the scheduler's message."""

_OF_NODES = re.compile(r"[.] not found\b.*", re.DOTALL)
"""The scheduler appends this to what it says of a claim. It is about nodes, and misleading here."""

_PREEMPTION = re.compile(r" (no new claims to deallocate|still not schedulable|preemption:).*", re.DOTALL)
"""What the scheduler adds about preemption: users cannot do anything about it."""

_NO_ROOM = re.compile("Insufficient |Too many pods")

_STEPS = (
    (
        "scheduling gates",
        "Wait: a policy or a queue of the cluster has put a gate before the pod (kubectl get pod -o yaml: "
        "spec.schedulingGates), and removes it. Else ask an admin; more room would not help.",
    ),
    (
        "exceed max volume count",
        "Wait until pods with volumes leave a node: none of them takes one more volume. Else ask an admin for another "
        "node. The pod continues automatically.",
    ),
    (
        "affinity rules|topology spread constraints",
        "Wait until pods have moved: affinity, anti-affinity or a spread in the connection's podTemplate, or of a "
        "policy of the cluster, keeps the pod from each node (kubectl get pod -o yaml). Else an admin loosens it.",
    ),
    (
        "cannot allocate all claims",
        "Wait until devices are free (kubectl get resourceclaims), or ask an admin: a policy of the cluster has the "
        "pod claim devices that no node has left. The pod continues automatically.",
    ),
    (
        "ReadWriteOncePod",
        "Wait until the pod that has the claim ends (kubectl describe pvc names it). Where that is a server of the "
        "model, ask an admin for a claim that several pods may use (ReadWriteMany).",
    ),
    (
        "volume node affinity conflict|PersistentVolume's node affinity|no available volume zone",
        "Ask an admin: a claim's volume is bound to a node or a zone where this pod has no place (kubectl describe "
        "pv). One node has to reach all claims of a pod.",
    ),
    (
        "unbound immediate PersistentVolumeClaims|persistent volumes to bind|binding volumes: "
        "|enough free storage|non-existent pv",
        "kubectl describe pvc says why a claim is not bound: make a volume for it, or name a storage class that makes "
        "one. The pod continues automatically.",
    ),
    (
        "Pod's node affinity",
        "No node fits by its labels: wait where an autoscaler brings one, else ask an admin to compare nodeSelector "
        "and affinity in the connection's podTemplate with them (kubectl get nodes --show-labels).",
    ),
    (
        "node.kubernetes.io/disk-pressure",
        "Ask an admin to make room on the nodes' disks (kubectl describe nodes: DiskPressure): images, logs and files "
        "of other pods are there too. The pod continues automatically.",
    ),
    (
        "untolerated taint|taints that the pod didn't tolerate|were unschedulable",
        "No node takes the pod (kubectl describe nodes): wait until one is healthy again, or uncordoned; where its "
        "taints are meant, ask an admin for tolerations in the connection's podTemplate.",
    ),
)
"""By the messages of Kubernetes 1.30 to 1.34, for causes other than lack of room on all nodes."""


def unplaced(pod: Mapping[str, Any]) -> Failure | None:
    """Why a pod has no node: no room, no suitable node, or a missing claim. None if it has one."""
    conditions = conditions_of(pod)
    waits = next((c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), None)
    if waits is None:
        return None
    message = str(waits.get("message", ""))
    if missing := _CLAIM_MISSING.search(message):
        # The number of nodes checked says nothing: none of them could have it.
        said = missing[0] if missing[1] == "not found" else _OF_NODES.sub(".", message)
        failure = Failure.because(Reason.CONTAINER_CONFIG_INVALID, said)
        step = next((step for words, step in _CLAIM_STEPS.items() if missing[1].startswith(words)), failure.next_step)
        return failure.model_copy(update={"next_step": step})
    failure = Failure.because(Reason.UNSCHEDULABLE, _PREEMPTION.sub("", message))
    step = next((step for words, step in _STEPS if re.search(words, message)), None)
    return failure if step is None or _NO_ROOM.search(message) else failure.model_copy(update={"next_step": step})
