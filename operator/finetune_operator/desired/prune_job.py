"""The batch/v1 Job that deletes output folders of versions that were dropped from history."""

from hashlib import sha256
from posixpath import dirname

from finetune_api.connection import HuggingFace
from finetune_api.manifest import Manifest
from finetune_api.model import ModelVersion
from finetune_api.names import COMPONENT_LABEL, MADE_BY_LABEL, MODEL_LABEL, TRAINER_CONTAINER
from finetune_api.uris import artifact_place
from finetune_operator.desired import artifacts, names
from finetune_operator.desired.pod import Volumes, batch_job, labels_of_work, owner_reference, pod_spec
from finetune_operator.desired.training_job import made_by

KEPT_SECONDS = 3600


def name(model: str, version: int) -> str:
    """The Job's name: one per version, so that a version is pruned once."""
    digest = sha256(f"{model}/{version}".encode()).hexdigest()[:8]
    return f"{names.fit(model, 44)}-prune-{digest}"


def release_name(owner: Manifest, version: int) -> str:
    """The Job's name for a model that is being deleted; by its UID, so that a later model of the name has another."""
    metadata = owner["metadata"]
    digest = sha256(f"{metadata['uid']}/{version}".encode()).hexdigest()[:8]
    return f"{names.fit(metadata['name'], 44)}-prune-{digest}"


def for_release(owner: Manifest, version: ModelVersion, connection: HuggingFace) -> Manifest | None:
    """The Job for a model that is being deleted; without an owner, as garbage collection might delete it too early."""
    job = build(owner, version, connection)
    if job is None:
        return None
    metadata = {key: value for key, value in job["metadata"].items() if key != "ownerReferences"}
    return {**job, "metadata": {**metadata, "name": release_name(owner, version.version)}}


def build(owner: Manifest, version: ModelVersion, connection: HuggingFace) -> Manifest | None:
    """The Job; None if the version's weights are not in one of this model's folders.

    The URI was reported by a pod, so nothing outside of the model's folders may be deleted by it.
    """
    uri = artifact_place(version.artifact.uri)
    if uri is None:
        return None
    metadata = owner["metadata"]
    if uri.path.split("/")[-4:-2] != [metadata["namespace"], metadata["name"]]:
        return None
    volumes, flags = Volumes(), []
    if uri.is_claim:
        volumes.claim(uri.root, read_only=False)
    else:
        flags = artifacts.endpoint_flag(uri.text, connection.artifacts)
    folder = dirname(names.claim_path(uri) if uri.is_claim else uri.text)
    own_labels = labels_of_work(**{MODEL_LABEL: names.fit(metadata["name"]), COMPONENT_LABEL: "prune"})
    container: Manifest = {
        "name": TRAINER_CONTAINER,
        "image": connection.check_image or connection.trainer_image,
        "args": ["prune", folder, "--root", dirname(folder), *flags],
        **artifacts.environment(None if uri.is_claim else connection.artifacts),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # Complete requests and limits for quotas, as they cannot be configured for this container.
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
    }
    made = {
        "name": name(metadata["name"], version.version),
        "namespace": metadata["namespace"],
        "labels": {**own_labels, MADE_BY_LABEL: made_by(connection)},
        "ownerReferences": [owner_reference(owner)],
    }
    pod = pod_spec(connection, container, volumes)
    return batch_job(made, connection, own_labels, pod, backoffLimit=3, ttlSecondsAfterFinished=KEPT_SECONDS)
