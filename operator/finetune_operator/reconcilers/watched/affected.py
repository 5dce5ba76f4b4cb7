"""Which objects to reconcile when one has changed. Pure except for reading the store."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from finetune_api.manifest import finalizers_of, has_condition, labels_of, owners_of, wants_deletion
from finetune_api.names import ATTEMPT_LABEL, DEPLOYMENT_LABEL, JOB_LABEL, MODEL_LABEL
from finetune_operator.decide.job.read_run import STARTING
from finetune_operator.reconcilers.watched.indexes import (
    UNCLEANED,
    UNUSED,
    in_namespace,
    labelled,
    of_model,
    uses_connection,
)
from finetune_operator.reconcilers.watched.observed import CHILDREN
from finetune_operator.reconcilers.watched.reading import is_default_status
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    OWN_KINDS,
    PODS,
    Resource,
)
from finetune_operator.runtime.queue import Key
from finetune_operator.runtime.store import Store


def affected(resource: Resource, obj: Mapping[str, Any], store: Store) -> Iterable[Key]:
    """Keys of the objects to reconcile when this one changes."""
    metadata = obj["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    if resource in OWN_KINDS:
        yield Key(resource.kind, namespace, name)
    if resource is CONNECTIONS:
        yield from _keys(FINE_TUNE_JOBS, store.addresses(FINE_TUNE_JOBS, uses_connection(name)))
        yield from _keys(MODEL_DEPLOYMENTS, _deployments_on(name, store))
        yield from _keys(FINE_TUNED_MODELS, store.addresses(FINE_TUNED_MODELS, UNCLEANED))
    elif resource is NAMESPACES:
        yield from _keys(FINE_TUNE_JOBS, store.addresses(FINE_TUNE_JOBS, in_namespace(name)))
        yield from _keys(CONNECTIONS, store.addresses(CONNECTIONS, UNUSED))
    elif resource is FINE_TUNED_MODELS:
        yield from _keys(MODEL_DEPLOYMENTS, store.addresses(MODEL_DEPLOYMENTS, of_model(namespace, name)))
    elif resource is MODEL_DEPLOYMENTS:
        # Also the model that has its name: it may wait for the name to be free.
        yield from (Key(FINE_TUNED_MODELS.kind, namespace, named) for named in sorted({_model_of(obj), name}))
    elif resource in CHILDREN:
        yield from _owners(resource, obj, store)


def _deployments_on(connection: str, store: Store) -> list[tuple[str, str]]:
    """ModelDeployments of models with a version of the connection, and those that may have left something there."""
    models = store.addresses(FINE_TUNED_MODELS, uses_connection(connection))
    of_models = (at for model in models for at in store.addresses(MODEL_DEPLOYMENTS, of_model(*model)))
    return sorted({*of_models, *store.addresses(MODEL_DEPLOYMENTS, uses_connection(connection))})


def _owners(resource: Resource, obj: Mapping[str, Any], store: Store) -> Iterator[Key]:
    """The objects of our kinds that a child belongs to, by its owner reference or its label."""
    metadata = obj["metadata"]
    namespace = metadata["namespace"]
    labels = labels_of(obj)
    if DEPLOYMENT_LABEL in labels:
        name = labels[DEPLOYMENT_LABEL]
        yield Key(MODEL_DEPLOYMENTS.kind, namespace, name)
        # The model's history releases a version once the last server and pod that read it are gone.
        served = store.get(MODEL_DEPLOYMENTS, name, namespace)
        if model := _model_of(served) if served is not None else labels.get(MODEL_LABEL):
            yield Key(FINE_TUNED_MODELS.kind, namespace, model)
        return
    if JOB_LABEL in labels:
        # Not through the pod's Job: that is gone before a pod that is being terminated.
        owners = store.addresses(FINE_TUNE_JOBS, labelled(namespace, labels[JOB_LABEL]))
        if has_ended(obj):
            owners = [(there, name) for there, name in owners if not _is_done(store.get(FINE_TUNE_JOBS, name, there))]
        yield from _keys(FINE_TUNE_JOBS, owners)
        return
    ours = {kind.kind for kind in OWN_KINDS}
    for owner in owners_of(obj):
        if owner["kind"] in ours:
            yield Key(owner["kind"], namespace, owner["name"])
        elif resource is PODS and owner["kind"] == JOBS.kind:
            batch_job = store.get(JOBS, owner["name"], namespace)
            if batch_job is not None:
                yield from _owners(JOBS, batch_job, store)


def _model_of(deployment: Mapping[str, Any]) -> str:
    """The name of the model that a ModelDeployment serves; its own name if it is an old one without modelRef."""
    return str(deployment.get("spec", {}).get("modelRef", {}).get("name", deployment["metadata"]["name"]))


def is_expected_new_pod(resource: Resource, obj: Mapping[str, Any], store: Store) -> bool:
    """Whether this pod has no news from the scheduler or the kubelet yet: its creator already waits for it."""
    status = obj.get("status") or {}
    has_status = status.get("containerStatuses") or status.get("initContainerStatuses") or status.get("conditions")
    return (
        resource is PODS
        and status.get("phase") == "Pending"
        and not has_status
        and not _is_of_other_attempt(obj, store)
    )


def _is_of_other_attempt(pod: Mapping[str, Any], store: Store) -> bool:
    """Whether the pod's attempt is not the current one, for example because a previous leader created it."""
    namespace, labels = pod["metadata"]["namespace"], labels_of(pod)
    if JOB_LABEL not in labels:
        return False
    named = store.select(FINE_TUNE_JOBS, labelled(namespace, labels[JOB_LABEL]))
    return all(_attempt(job) != labels.get(ATTEMPT_LABEL) for job in named)


def _attempt(job: Mapping[str, Any]) -> str:
    """The current or next attempt, in the form of its pods' label."""
    return str(((job.get("status") or {}).get("provider") or {}).get("attempt") or 1)


def reconcile_delay(resource: Resource, obj: Mapping[str, Any], store: Store) -> float:
    """Seconds to wait before the reconcile: gives a newly started trainer time to send its first report.

    Only for jobs without a status of their own: no condition of theirs must be cleared soon.
    """
    if resource is not PODS or not _has_just_started(obj, store):
        return 0
    namespace, label = obj["metadata"]["namespace"], labels_of(obj).get(JOB_LABEL, "")
    named = store.select(FINE_TUNE_JOBS, labelled(namespace, label))
    unrecorded = named and all(is_default_status(job.get("status") or {}) for job in named)
    return STARTING.total_seconds() if unrecorded else 0


def _has_just_started(pod: Mapping[str, Any], store: Store) -> bool:
    """Whether a pod has started to run and there is no other news about it."""
    status, metadata = pod.get("status") or {}, pod["metadata"]
    containers = status.get("containerStatuses") or ()
    all_running = all("running" in one.get("state", {}) and not one.get("restartCount") for one in containers)
    if status.get("phase") != "Running" or not containers or not all_running or wants_deletion(pod):
        return False
    kept = store.get(PODS, metadata["name"], metadata["namespace"])
    return kept is not None and not kept["status"]["conditions"]


def has_ended(child: Mapping[str, Any]) -> bool:
    """Whether a batch Job or a pod has ended for good."""
    ended = (child.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
    return ended or any(has_condition(child, end, "True") for end in ("Complete", "Failed"))


def _is_done(job: Mapping[str, Any] | None) -> bool:
    """Whether a FineTuneJob has its version, and nothing of it is left elsewhere."""
    return job is not None and has_condition(job, "Complete", "True") and not finalizers_of(job)


def _keys(resource: Resource, addresses: Iterable[tuple[str, str]]) -> Iterator[Key]:
    return (Key(resource.kind, namespace, name) for namespace, name in addresses)
