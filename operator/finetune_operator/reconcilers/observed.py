"""What is watched, how it is indexed, and which objects an event concerns. Pure but for reading the store."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, get_args

from finetune_api.deployment import DeploymentPhase
from finetune_api.job_status import JobPhase
from finetune_api.names import ATTEMPT_LABEL, DEPLOYMENT_LABEL, FIELD_MANAGER, GROUP, JOB_LABEL, MANAGED_BY_LABEL
from finetune_api.reasons import Reason
from finetune_operator.decide import leftovers
from finetune_operator.decide.job.steps import PASSING
from finetune_operator.decide.pods.containers import was_short_of_memory
from finetune_operator.decide.pods.disruption import cut_off
from finetune_operator.desired import names
from finetune_operator.providers.hugging_face.training import BATCH_JOB_LABEL, pods_of_job, pods_of_owner
from finetune_operator.reconcilers.context import has_condition, is_of_the_definition
from finetune_operator.runtime import metrics
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    PODS,
    SERVICES,
    Resource,
)
from finetune_operator.runtime.queue import Key
from finetune_operator.runtime.store import Store

Manifest = dict[str, Any]

CHILD_SELECTOR = f"{MANAGED_BY_LABEL}={FIELD_MANAGER}"

OWN_KINDS: tuple[Resource, ...] = (CONNECTIONS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, FINE_TUNE_JOBS)
CHILDREN: tuple[Resource, ...] = (JOBS, PODS, DEPLOYMENTS, SERVICES)
WATCHED: tuple[Resource, ...] = (NAMESPACES, *CHILDREN, *OWN_KINDS)
"""Children before owners: an owner is looked at when what it has made is known."""


UNRELEASED = "unreleased"
"""Index key of the FineTuneJobs whose evaluation has left deployments that cannot be deleted."""


UNSAID = "unsaid"
"""Index key of the FineTuneJobs of which status says nothing yet but what their definition says of every new one."""


UNCLEANED = "uncleaned"
"""Index key of the FineTuneJobs and FineTunedModels of which something is left that was to be deleted."""


def uses_connection(name: str) -> str:
    """Index key of the FineTuneJobs of a connection."""
    return f"connection/{name}"


def of_model(namespace: str, name: str) -> str:
    """Index key of the ModelDeployments of a model."""
    return f"model/{namespace}/{name}"


def under_way(namespace: str, model: str) -> str:
    """Index key of the FineTuneJobs of a model that have not ended."""
    return f"under way/{namespace}/{model}"


def made_version(namespace: str, model: str, number: int | None = None) -> str:
    """Index key of the FineTuneJob that made a version of a model, by its own record; of those that made any."""
    return f"version/{namespace}/{model}/{number or ''}"


def in_namespace(namespace: str) -> str:
    """Index key of the FineTuneJobs of a namespace."""
    return f"namespace/{namespace}"


def in_phase(phase: str) -> str:
    """Index key of the FineTuneJobs, or of the ModelDeployments, in a phase."""
    return f"phase/{phase}"


def stuck_by(reason: str) -> str:
    """Index key of the objects that have not ended and do not get on, by the reason that they say."""
    return f"stuck/{reason}"


def labelled(namespace: str, label: str) -> str:
    """Index key of the FineTuneJob that its children's job label names."""
    return f"label/{namespace}/{label}"


def pods_of_deployment(namespace: str, name: str) -> str:
    """Index key of the pods that serve a ModelDeployment."""
    return f"deployment/{namespace}/{name}"


def count_objects(store: Store) -> None:
    """Have the metrics show how many objects are in which phase, read from the store at each scrape."""
    for resource, phases in ((FINE_TUNE_JOBS, get_args(JobPhase)), (MODEL_DEPLOYMENTS, get_args(DeploymentPhase))):
        for phase in phases:
            gauge = metrics.OBJECTS.labels(resource.kind, phase)
            gauge.set_function(partial(store.count, resource, in_phase(phase)))


def show_stuck(store: Store) -> None:
    """Have the metrics show what does not get on, and why, read from the store at each scrape."""
    metrics.STUCK.rows = partial(_stuck, store)


def _stuck(store: Store) -> Iterator[tuple[str, str, str, int]]:
    for resource in OWN_KINDS:
        for reason in Reason:
            found = Counter(namespace for namespace, _ in store.addresses(resource, stuck_by(reason)))
            yield from ((resource.kind, namespace, reason, number) for namespace, number in found.items())


def price_deployments(store: Store) -> None:
    """Have the metrics show what each deployment at a provider costs, read from the store at each scrape."""
    metrics.DEPLOYMENTS.rows = partial(_priced, store)


def _priced(store: Store) -> Iterator[metrics.DeploymentRow]:
    for namespace, name in store.addresses(MODEL_DEPLOYMENTS):
        status = (store.get(MODEL_DEPLOYMENTS, name, namespace) or {}).get("status") or {}
        cost = status.get("cost") or {}
        if cost or status.get("hosted"):
            reasons = {one["reason"] for one in status.get("conditions") or () if one["status"] == "True"}
            per_hour = float(cost["perHour"]) if "perHour" in cost else None
            billed = Reason.BILLED_WHILE_IDLE in reasons
            yield metrics.DeploymentRow(namespace, name, billed, per_hour, cost.get("currency", ""))


def show_unreleased(store: Store) -> None:
    """Have the metrics show of whom something cannot be deleted, read from the store at each scrape."""
    metrics.UNRELEASED.rows = partial(_unreleased, store)
    metrics.UNCLEANED.rows = partial(_uncleaned, store)


def _uncleaned(store: Store) -> Iterator[tuple[str, str, str]]:
    for resource in (FINE_TUNE_JOBS, FINE_TUNED_MODELS):
        for namespace, name in store.addresses(resource, UNCLEANED):
            yield resource.kind, namespace, name


def _unreleased(store: Store) -> Iterator[tuple[str, str, str]]:
    for namespace, name in store.addresses(FINE_TUNE_JOBS, UNRELEASED):
        yield FINE_TUNE_JOBS.kind, namespace, name
    for namespace, name in store.addresses(MODEL_DEPLOYMENTS, in_phase("Deleting")):
        if has_condition(store.get(MODEL_DEPLOYMENTS, name, namespace) or {}, "Stalled", "True"):
            yield MODEL_DEPLOYMENTS.kind, namespace, name


def make_store() -> Store:
    """A store with the indexes that reconcilers ask for, keeping of large objects what they read."""
    return Store(
        indexers={
            PODS: _index_pod,
            FINE_TUNE_JOBS: _index_job,
            FINE_TUNED_MODELS: _index_model,
            MODEL_DEPLOYMENTS: _index_deployment,
            CONNECTIONS: _index_stuck,
        },
        trims={
            NAMESPACES: _trim_namespace,
            PODS: _trim_pod,
            JOBS: _trim_batch_job,
            **dict.fromkeys(OWN_KINDS, _trim_own),
        },
    )


def _index_pod(pod: Manifest) -> Iterator[str]:
    namespace, labels = pod["metadata"]["namespace"], pod["metadata"].get("labels", {})
    if BATCH_JOB_LABEL in labels:
        yield pods_of_job(namespace, labels[BATCH_JOB_LABEL])
    if JOB_LABEL in labels:
        yield pods_of_owner(namespace, labels[JOB_LABEL])
    if DEPLOYMENT_LABEL in labels:
        yield pods_of_deployment(namespace, labels[DEPLOYMENT_LABEL])


def _index_job(job: Manifest) -> Iterator[str]:
    namespace, spec = job["metadata"]["namespace"], job.get("spec", {})
    yield uses_connection(spec.get("connectionRef", {}).get("name", ""))
    if not has_condition(job, "Complete", "True") and not has_condition(job, "Failed", "True"):
        yield under_way(namespace, spec.get("modelRef", {}).get("name", ""))
        yield from _index_stuck(job)
    if is_of_the_definition(job.get("status") or {}):
        yield UNSAID
    yield in_namespace(namespace)
    yield labelled(namespace, names.fit(job["metadata"]["name"]))
    if number := job.get("status", {}).get("modelVersion"):
        model = spec.get("modelRef", {}).get("name", "")
        yield from (made_version(namespace, model), made_version(namespace, model, number))
    if has_condition(job, "Released", "False"):
        yield UNRELEASED
    yield from _index_leftovers(job)
    yield from _index_phase(job)


def _index_leftovers(obj: Manifest) -> Iterator[str]:
    if has_condition(obj, leftovers.CONDITION, "False"):
        yield UNCLEANED


def _index_model(model: Manifest) -> Iterator[str]:
    yield from _index_leftovers(model)
    yield from _index_stuck(model)


def _index_stuck(obj: Manifest) -> Iterator[str]:
    """What is Stalled, and what waits for something that may pass by itself and may as well last for ever."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        stalled = (condition["type"], condition["status"]) == ("Stalled", "True")
        waits = (condition["type"], condition["status"]) == ("Reconciling", "True")
        if stalled or (waits and condition["reason"] in PASSING):
            yield stuck_by(condition["reason"])


def _index_deployment(deployment: Manifest) -> Iterator[str]:
    namespace, spec = deployment["metadata"]["namespace"], deployment.get("spec", {})
    yield of_model(namespace, spec.get("modelRef", {}).get("name", ""))
    yield from _index_stuck(deployment)
    yield from _index_phase(deployment)


def _index_phase(obj: Manifest) -> Iterator[str]:
    phase = obj.get("status", {}).get("phase")
    if phase:
        yield in_phase(phase)


_UNREAD_OF_METADATA = {"managedFields", "annotations", "finalizers", "generateName"}
_UNREAD_OF_PODS = {"podIP", "podIPs", "hostIP", "hostIPs", "qosClass"}
_UNREAD_OF_CONTAINERS = {"image", "imageID", "containerID", "resources", "allocatedResources", "volumeMounts", "user"}
_UNREAD_OF_JOBS = {"active", "ready", "terminating", "uncountedTerminatedPods", "startTime"}
_UNREAD_CONDITIONS = {"Initialized", "Ready", "ContainersReady", "PodReadyToStartContainers", "SuccessCriteriaMet"}
"""What nobody here reads, and what changes on the way of every pod: each change would be a look at its owner."""


def _without(fields: Mapping[str, Any], unread: set[str]) -> Manifest:
    return {key: value for key, value in fields.items() if key not in unread}


def _telling(conditions: Iterable[Manifest]) -> list[Manifest]:
    """Conditions that decide something: that a pod has found its node does not, that it has not does."""
    return [
        condition
        for condition in conditions
        if condition["type"] not in _UNREAD_CONDITIONS and (condition["type"], condition["status"]) != _PLACED
    ]


_PLACED = ("PodScheduled", "True")


def _trim_pod(pod: Manifest) -> Manifest:
    serves = DEPLOYMENT_LABEL in (pod["metadata"].get("labels") or {})
    # A server is asked at its address when it was last asked.
    status = _without(pod.get("status", {}), _UNREAD_OF_PODS - ({"podIP"} if serves else set()))
    status["conditions"] = [*_telling(status.get("conditions") or ()), *cut_off(pod)]
    if "containerStatuses" in status:
        status["containerStatuses"] = [_trim_container(one, pod) for one in status["containerStatuses"]]
    return {"metadata": _without(pod["metadata"], _UNREAD_OF_METADATA), "status": status}


def _trim_container(container: Manifest, pod: Manifest) -> Manifest:
    """Its limits are read of one that used more memory than it may: kept of all, they would be most of a pod."""
    kept = _without(container, _UNREAD_OF_CONTAINERS)
    if was_short_of_memory(container):
        declared = {one["name"]: one.get("resources") for one in pod.get("spec", {}).get("containers") or ()}
        kept["resources"] = container.get("resources") or declared.get(container["name"]) or {}
    return kept


def _trim_batch_job(job: Manifest) -> Manifest:
    spec = job.get("spec", {})
    kept = {"suspend": spec.get("suspend", False)} | ({"parallelism": 0} if spec.get("parallelism") == 0 else {})
    status = _without(job.get("status", {}), _UNREAD_OF_JOBS)
    status["conditions"] = _telling(status.get("conditions") or ())
    return {"metadata": _without(job["metadata"], _UNREAD_OF_METADATA), "spec": kept, "status": status}


def _trim_own(obj: Manifest) -> Manifest:
    """Without annotations of others: they may be larger than all the rest, and tools write them again and again."""
    annotations = obj["metadata"].get("annotations") or {}
    ours = {name: value for name, value in annotations.items() if name.startswith(f"{GROUP}/")}
    metadata = _without(obj["metadata"], {"annotations"}) | ({"annotations": ours} if ours else {})
    return {**obj, "metadata": metadata}


def _trim_namespace(namespace: Manifest) -> Manifest:
    """Others write into annotations of namespaces every so often; each news of one is a look at all of its jobs."""
    phase = namespace.get("status", {}).get("phase")
    return {"metadata": _without(namespace["metadata"], _UNREAD_OF_METADATA), "status": {"phase": phase}}


def is_only_asked_for(resource: Resource, obj: Mapping[str, Any], store: Store) -> bool:
    """Whether it is a pod of which scheduler and node have said nothing: whoever has it made waits for it already."""
    status = obj.get("status") or {}
    heard_of = status.get("containerStatuses") or status.get("initContainerStatuses") or status.get("conditions")
    return resource is PODS and status.get("phase") == "Pending" and not heard_of and not _comes_late(obj, store)


def _comes_late(pod: Mapping[str, Any], store: Store) -> bool:
    """Whether it is of an attempt that is not under way: what a leader had sent before it was replaced, for one."""
    metadata = pod["metadata"]
    namespace, labels = metadata["namespace"], metadata.get("labels") or {}
    if JOB_LABEL not in labels:
        return False
    named = store.select(FINE_TUNE_JOBS, labelled(namespace, labels[JOB_LABEL]))
    return all(_attempt(job) != labels.get(ATTEMPT_LABEL) for job in named)


def _attempt(job: Mapping[str, Any]) -> str:
    """The attempt that is under way or comes next, as its pods' label has it."""
    return str(((job.get("status") or {}).get("provider") or {}).get("attempt") or 1)


def concerned(resource: Resource, obj: Mapping[str, Any], store: Store) -> Iterable[Key]:
    """Keys of the objects that are to be looked at when this one has changed."""
    metadata = obj["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    if resource in OWN_KINDS:
        yield Key(resource.kind, namespace, name)
    if resource is CONNECTIONS:
        yield from _keys(FINE_TUNE_JOBS, store.addresses(FINE_TUNE_JOBS, uses_connection(name)))
        yield from _keys(MODEL_DEPLOYMENTS, store.addresses(MODEL_DEPLOYMENTS))
        yield from _keys(FINE_TUNED_MODELS, store.addresses(FINE_TUNED_MODELS, UNCLEANED))
    elif resource is NAMESPACES:
        yield from _keys(FINE_TUNE_JOBS, store.addresses(FINE_TUNE_JOBS, in_namespace(name)))
    elif resource is FINE_TUNED_MODELS:
        yield from _keys(MODEL_DEPLOYMENTS, store.addresses(MODEL_DEPLOYMENTS, of_model(namespace, name)))
    elif resource is MODEL_DEPLOYMENTS:
        model = obj.get("spec", {}).get("modelRef", {}).get("name", name)
        # The model that bears its name too: it may wait for the name to be free.
        yield from (Key(FINE_TUNED_MODELS.kind, namespace, named) for named in sorted({model, name}))
    elif resource in CHILDREN:
        yield from _owners(resource, obj, store)


def _owners(resource: Resource, obj: Mapping[str, Any], store: Store) -> Iterator[Key]:
    """The objects of ours that a child belongs to: by its owner reference, or by its label."""
    metadata = obj["metadata"]
    namespace = metadata["namespace"]
    labels = metadata.get("labels") or {}
    if DEPLOYMENT_LABEL in labels:
        yield Key(MODEL_DEPLOYMENTS.kind, namespace, labels[DEPLOYMENT_LABEL])
        return
    if JOB_LABEL in labels:
        # Not by the pod's Job: that is gone before a pod that was told to end.
        owners = store.addresses(FINE_TUNE_JOBS, labelled(namespace, labels[JOB_LABEL]))
        if has_ended(obj):
            owners = [(there, name) for there, name in owners if not _is_done(store.get(FINE_TUNE_JOBS, name, there))]
        yield from _keys(FINE_TUNE_JOBS, owners)
        return
    ours = {kind.kind for kind in OWN_KINDS}
    for owner in metadata.get("ownerReferences") or ():
        if owner["kind"] in ours:
            yield Key(owner["kind"], namespace, owner["name"])
        elif resource is PODS and owner["kind"] == JOBS.kind:
            batch_job = store.get(JOBS, owner["name"], namespace)
            if batch_job is not None:
                yield from _owners(JOBS, batch_job, store)


def has_ended(child: Mapping[str, Any]) -> bool:
    """Whether a batch Job or a pod has come to its end, and nothing will come of it any more."""
    ended = (child.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
    return ended or any(has_condition(child, end, "True") for end in ("Complete", "Failed"))


def _is_done(job: Mapping[str, Any] | None) -> bool:
    """Whether a FineTuneJob has its version, and nothing of it is anywhere else."""
    return job is not None and has_condition(job, "Complete", "True") and not job["metadata"].get("finalizers")


def _keys(resource: Resource, addresses: Iterable[tuple[str, str]]) -> Iterator[Key]:
    return (Key(resource.kind, namespace, name) for namespace, name in addresses)
