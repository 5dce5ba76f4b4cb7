"""The store's indexes: their keys, and which of them an object has. Pure."""

from collections.abc import Iterator

from finetune_api.manifest import Manifest, conditions_of, has_condition, labels_of
from finetune_api.names import ATTEMPT_LABEL, DEPLOYMENT_LABEL, JOB_LABEL, MODEL_LABEL
from finetune_api.reasons import Reason
from finetune_operator.decide import leftovers
from finetune_operator.decide.connection import NO_NAMESPACE
from finetune_operator.decide.transient import PASSING
from finetune_operator.desired import names
from finetune_operator.providers.begun import begun
from finetune_operator.providers.hugging_face.training import (
    BATCH_JOB_LABEL,
    later_attempts,
    pods_of_job,
    pods_of_owner,
)
from finetune_operator.reconcilers.watched.reading import is_default_status
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    PODS,
    Resource,
)
from finetune_operator.runtime.store import Indexer

UNRELEASED = "unreleased"
"""Index key of the FineTuneJobs whose evaluation left deployments that cannot be deleted."""

UNRECORDED = "unrecorded"
"""Index key of the FineTuneJobs whose status is still the default of their definition."""

UNCLEANED = "uncleaned"
"""Index key of the FineTuneJobs and FineTunedModels with leftovers that could not be deleted."""

UNUSED = "unused"
"""Index key of the LLMConnections that no namespace may use yet."""


def uses_connection(name: str) -> str:
    """Index key of a connection's FineTuneJobs, the models with a version of it, the deployments at its provider."""
    return f"connection/{name}"


def of_model(namespace: str, name: str) -> str:
    """Index key of the ModelDeployments of a model."""
    return f"model/{namespace}/{name}"


def under_way(namespace: str, model: str) -> str:
    """Index key of the FineTuneJobs of a model that have not ended."""
    return f"under way/{namespace}/{model}"


def failed_for(namespace: str, model: str) -> str:
    """Index key of the FineTuneJobs of a model that have failed."""
    return f"failed/{namespace}/{model}"


def made_version(namespace: str, model: str, number: int | None = None) -> str:
    """Index key of the FineTuneJob that made a version of a model, by its own status; without number: any version."""
    return f"version/{namespace}/{model}/{number or ''}"


def in_namespace(namespace: str) -> str:
    """Index key of the FineTuneJobs of a namespace."""
    return f"namespace/{namespace}"


def in_phase(phase: str) -> str:
    """Index key of the FineTuneJobs or ModelDeployments in a phase."""
    return f"phase/{phase}"


def stuck_by(reason: str) -> str:
    """Index key of the objects that have not ended and are stuck, by the reason in their status."""
    return f"stuck/{reason}"


def labelled(namespace: str, label: str) -> str:
    """Index key of the FineTuneJob that is named by its children's job label."""
    return f"label/{namespace}/{label}"


def pods_of_deployment(namespace: str, name: str) -> str:
    """Index key of the pods that serve a ModelDeployment."""
    return f"deployment/{namespace}/{name}"


def has_hosted(name: str) -> str:
    """Index key of the ModelDeployments with a deployment of this name at a provider in their status."""
    return f"hosted/{name.casefold()}"


def has_weights(known_by: str) -> str:
    """Index key of the FineTunedModels with a version, made for them, at this provider's model ID or folder."""
    return f"weights/{known_by}"


def has_attempts(known_by: str) -> str:
    """Index key of the FineTuneJobs whose attempts a provider knows by this UID, or that work in this folder."""
    return f"attempts/{known_by}"


def is_shared(folder: str) -> bool:
    """Whether a folder is the same for all namespaces; volume claims belong to one namespace."""
    return bool(folder) and not folder.startswith("pvc://")


def servers_of_model(namespace: str, name: str) -> str:
    """Index key of the Deployments that serve a FineTunedModel, even if their ModelDeployments are gone."""
    return f"servers/{namespace}/{names.fit(name)}"


def _index_server(server: Manifest) -> Iterator[str]:
    namespace, labels = server["metadata"]["namespace"], labels_of(server)
    if MODEL_LABEL in labels:
        yield servers_of_model(namespace, labels[MODEL_LABEL])


def _index_pod(pod: Manifest) -> Iterator[str]:
    namespace, labels = pod["metadata"]["namespace"], labels_of(pod)
    if BATCH_JOB_LABEL in labels:
        yield pods_of_job(namespace, labels[BATCH_JOB_LABEL])
    if JOB_LABEL in labels:
        yield pods_of_owner(namespace, labels[JOB_LABEL])
    if DEPLOYMENT_LABEL in labels:
        yield pods_of_deployment(namespace, labels[DEPLOYMENT_LABEL])


def _index_batch_job(batch_job: Manifest) -> Iterator[str]:
    """Not indexed for a first attempt, as nearly all are."""
    namespace, labels = batch_job["metadata"]["namespace"], labels_of(batch_job)
    if JOB_LABEL in labels and labels.get(ATTEMPT_LABEL, "1") != "1":
        yield later_attempts(namespace, labels[JOB_LABEL])


def _index_job(job: Manifest) -> Iterator[str]:
    namespace, spec = job["metadata"]["namespace"], job.get("spec", {})
    yield uses_connection(spec.get("connectionRef", {}).get("name", ""))
    model = spec.get("modelRef", {}).get("name", "")
    ended = True
    if has_condition(job, "Failed", "True"):
        yield failed_for(namespace, model)
    elif not has_condition(job, "Complete", "True"):
        ended = False
        yield under_way(namespace, model)
        yield from _index_stuck(job)
    if is_default_status(job.get("status") or {}):
        yield UNRECORDED
    yield in_namespace(namespace)
    yield labelled(namespace, names.fit(job["metadata"]["name"]))
    if number := job.get("status", {}).get("modelVersion"):
        yield from (made_version(namespace, model), made_version(namespace, model, number))
    provider = job.get("status", {}).get("provider") or {}
    if (owner := provider.get("ownerUID")) and (owner == job["metadata"].get("uid") or not ended):
        yield has_attempts(owner)  # a job restored from a backup continues them, too
    if is_shared(folder := provider.get("artifactURI") or ""):
        yield has_attempts(folder)
    if has_condition(job, "Released", "False"):
        yield UNRELEASED
    yield from _index_leftovers(job)
    yield from _index_phase(job)


def _index_leftovers(obj: Manifest) -> Iterator[str]:
    if has_condition(obj, leftovers.CONDITION, "False"):
        yield UNCLEANED


def _index_model(model: Manifest) -> Iterator[str]:
    versions = (model.get("status") or {}).get("versions") or ()
    yield from {uses_connection(one.get("connection", "")) for one in versions}
    artifacts = [one.get("artifact") or {} for one in versions if not one.get("adopted")]
    known = (artifact.get("providerModelID") or artifact.get("uri") or "" for artifact in artifacts)
    yield from {has_weights(weights) for weights in known if is_shared(weights)}
    yield from _index_leftovers(model)
    yield from _index_stuck(model)


_WAITS = {**{reason: reason for reason in PASSING}, Reason.POD_REJECTED: Reason.UNSCHEDULABLE}
"""Reasons that may resolve themselves, as the metric shows them. A rejected pod that waits lacks room in its quota."""


def _index_stuck(obj: Manifest) -> Iterator[str]:
    """What is Stalled, or waits for something that may resolve itself or may last for ever."""
    for condition in conditions_of(obj):
        stalled = (condition["type"], condition["status"]) == ("Stalled", "True")
        waits = (condition["type"], condition["status"]) == ("Reconciling", "True")
        if stalled:
            yield stuck_by(condition["reason"])
        elif waits and condition["reason"] in _WAITS:
            yield stuck_by(_WAITS[condition["reason"]])


def _index_deployment(deployment: Manifest) -> Iterator[str]:
    namespace, spec = deployment["metadata"]["namespace"], deployment.get("spec", {})
    yield of_model(namespace, spec.get("modelRef", {}).get("name", ""))
    hosted = (deployment.get("status") or {}).get("hosted") or ()
    yield from {has_hosted(one["name"]) for one in hosted}
    yield from {uses_connection(one) for one in (*(each.get("connection", "") for each in hosted), *begun(deployment))}
    yield from _index_stuck(deployment)
    yield from _index_phase(deployment)


def _index_connection(connection: Manifest) -> Iterator[str]:
    if any(one.get("message") == NO_NAMESPACE for one in conditions_of(connection)):
        yield UNUSED
    yield from _index_stuck(connection)


def _index_phase(obj: Manifest) -> Iterator[str]:
    phase = obj.get("status", {}).get("phase")
    if phase:
        yield in_phase(phase)


INDEXERS: dict[Resource, Indexer] = {
    PODS: _index_pod,
    DEPLOYMENTS: _index_server,
    JOBS: _index_batch_job,
    FINE_TUNE_JOBS: _index_job,
    FINE_TUNED_MODELS: _index_model,
    MODEL_DEPLOYMENTS: _index_deployment,
    CONNECTIONS: _index_connection,
}
