"""What the store keeps of objects: only the fields that the operator reads. Pure.

A change of any other field is no news and triggers no reconcile.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import ModelDeploymentSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.manifest import Manifest, annotations_of, labels_of
from finetune_api.model import FineTunedModelSpec
from finetune_api.names import DEPLOYMENT_LABEL, GROUP
from finetune_operator.decide.omitted_fields import GIVEN_ANNOTATION, lacks_some, left_out
from finetune_operator.decide.pods.containers import was_short_of_memory
from finetune_operator.decide.pods.disruption import cut_off
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DISRUPTION_BUDGETS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    PODS,
    Resource,
)

_UNREAD_OF_METADATA = {"managedFields", "annotations", "finalizers", "generateName"}
_UNREAD_OF_PODS = {"podIP", "podIPs", "hostIP", "hostIPs", "qosClass"}
_UNREAD_OF_CONTAINERS = {"image", "imageID", "containerID", "resources", "allocatedResources", "volumeMounts", "user"}
_UNREAD_OF_JOBS = {"active", "ready", "terminating", "uncountedTerminatedPods", "startTime"}
_UNREAD_CONDITIONS = {"Initialized", "Ready", "ContainersReady", "PodReadyToStartContainers", "SuccessCriteriaMet"}
"""Unread, and they change several times in every pod's life: each change would trigger a reconcile of its owner."""
_SCHEDULED = ("PodScheduled", "True")
_JOB_CONTROLLER = "kubernetes.io/job-controller"


def _without(fields: Mapping[str, Any], unread: set[str]) -> Manifest:
    return {key: value for key, value in fields.items() if key not in unread}


def _relevant(conditions: Iterable[Manifest]) -> list[Manifest]:
    """Conditions that matter: that a pod is not scheduled does, that it is scheduled does not."""
    return [
        condition
        for condition in conditions
        if condition["type"] not in _UNREAD_CONDITIONS and (condition["type"], condition["status"]) != _SCHEDULED
    ]


def _trim_pod(pod: Manifest) -> Manifest:
    serves = DEPLOYMENT_LABEL in labels_of(pod)
    # A server's address is needed to read when it was last used.
    status = _without(pod.get("status", {}), _UNREAD_OF_PODS - ({"podIP"} if serves else set()))
    status["conditions"] = [*_relevant(status.get("conditions") or ()), *cut_off(pod)]
    if "containerStatuses" in status:
        status["containerStatuses"] = [_trim_container(one, pod) for one in status["containerStatuses"]]
    return {"metadata": _without(pod["metadata"], _UNREAD_OF_METADATA), "status": status}


def _trim_container(container: Manifest, pod: Manifest) -> Manifest:
    """Resources are kept only for a container that ran out of memory: those of all would be most of a pod's size."""
    kept = _without(container, _UNREAD_OF_CONTAINERS)
    if was_short_of_memory(container):
        declared = {one["name"]: one.get("resources") for one in pod.get("spec", {}).get("containers") or ()}
        kept["resources"] = container.get("resources") or declared.get(container["name"]) or {}
    return kept


def _trim_batch_job(job: Manifest) -> Manifest:
    spec = job.get("spec", {})
    kept = {"suspend": spec.get("suspend", False)} | ({"parallelism": 0} if spec.get("parallelism") == 0 else {})
    if spec.get("managedBy", _JOB_CONTROLLER) != _JOB_CONTROLLER:
        kept["managedBy"] = spec["managedBy"]
    status = _without(job.get("status", {}), _UNREAD_OF_JOBS)
    status["conditions"] = _relevant(status.get("conditions") or ())
    return {"metadata": _without(job["metadata"], _UNREAD_OF_METADATA), "spec": kept, "status": status}


def _trim_budget(budget: Manifest) -> Manifest:
    """Its status counts pods, which is not read."""
    return _without(budget, {"status"})


def _trim_own(obj: Manifest, spec: type[BaseModel]) -> Manifest:
    """Without other tools' annotations: they may be larger than all the rest, and change again and again.

    kubectl's last-applied-configuration is kept if it shows that fields were left out.
    """
    annotations = annotations_of(obj)
    ours = {name: value for name, value in annotations.items() if name.startswith(f"{GROUP}/")}
    if lacks_some(annotations, obj.get("spec")) and left_out(annotations, spec):
        ours[GIVEN_ANNOTATION] = annotations[GIVEN_ANNOTATION]
    metadata = _without(obj["metadata"], {"annotations"}) | ({"annotations": ours} if ours else {})
    return {**obj, "metadata": metadata}


def _trim_namespace(namespace: Manifest) -> Manifest:
    """Others often write annotations of namespaces; each change would trigger a reconcile of all jobs there."""
    phase = namespace.get("status", {}).get("phase")
    return {"metadata": _without(namespace["metadata"], _UNREAD_OF_METADATA), "status": {"phase": phase}}


_SPECS: dict[Resource, type[BaseModel]] = {
    CONNECTIONS: LLMConnectionSpec,
    FINE_TUNE_JOBS: FineTuneJobSpec,
    FINE_TUNED_MODELS: FineTunedModelSpec,
    MODEL_DEPLOYMENTS: ModelDeploymentSpec,
}
TRIMS: dict[Resource, Callable[[Manifest], Manifest]] = {
    NAMESPACES: _trim_namespace,
    PODS: _trim_pod,
    JOBS: _trim_batch_job,
    DISRUPTION_BUDGETS: _trim_budget,
    **{resource: partial(_trim_own, spec=spec) for resource, spec in _SPECS.items()},
}
