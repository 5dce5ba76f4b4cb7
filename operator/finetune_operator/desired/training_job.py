"""The batch/v1 Job of one attempt of a FineTuneJob: one pod per node, without retries of its own."""

from collections.abc import Iterator
from typing import Any

import orjson

from finetune_api.base import ApiModel, SecretKeyRef
from finetune_api.connection import HuggingFace
from finetune_api.evaluation import Evaluation
from finetune_api.job import FineTuneJobSpec
from finetune_api.manifest import Manifest
from finetune_api.names import (
    ARTIFACT_FOLDER,
    ATTEMPT_LABEL,
    COMPONENT_LABEL,
    CONFIG_MAPS_PATH,
    GPUS_VARIABLE,
    HUB_TOKEN_VARIABLE,
    JOB_LABEL,
    JOB_UID_LABEL,
    JOB_VARIABLE,
    JUDGE_KEY_VARIABLE,
    MADE_BY_LABEL,
    MODEL_CACHE_PATH,
    MODEL_LABEL,
    OUTPUT_PATH,
    OWNER_ANNOTATION,
    REGISTRY_KEYS_VARIABLE,
    REPORT_CA_VARIABLE,
    TOKEN_AUDIENCE,
    TOKEN_PATH,
    TRAINER_CONTAINER,
    artifact_folder,
    endpoint_key_variable,
)
from finetune_api.push import Push
from finetune_api.trainer import ActiveVersionRef, ReportTarget, TrainerJob
from finetune_api.uris import Uri, parse_artifact_uri, parse_uri
from finetune_operator.desired import artifacts, names
from finetune_operator.desired.pod import (
    PodSettings,
    Volumes,
    digest,
    from_secret,
    labels_of_work,
    owner_reference,
    pod_metadata,
    pod_spec,
    queue_label,
    template_resources,
)

GRACE_SECONDS = 120
"""For the trainer to finish its step and write a checkpoint. The deletion of a namespace waits half of it."""

TOKEN_SECONDS = 3600

DOCKER_CONFIG_KEY = ".dockerconfigjson"
"""The one key of a Secret of type kubernetes.io/dockerconfigjson."""


class Active(ApiModel):
    """The active version of the job's model."""

    version: int
    artifact_uri: str | None
    sha256: str | None = None


class Attempt(ApiModel):
    """The data of one attempt in addition to the job's manifest."""

    number: int
    output_uri: str
    report_url: str
    report_ca: str
    active: Active | None = None
    """The version to compare the tuned model with."""
    short_of_memory: bool = False
    """Whether the previous attempt ran out of memory."""


def build(owner: Manifest, spec: FineTuneJobSpec, connection: HuggingFace, attempt: Attempt) -> Manifest:
    """The Job of an attempt on one node. `spec.suspend` is not set: Kueue owns it."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(owner, spec, connection, attempt),
        "spec": job_spec(owner, spec, connection, attempt),
    }


def metadata(owner: Manifest, spec: FineTuneJobSpec, connection: HuggingFace, attempt: Attempt) -> Manifest:
    """Metadata of an attempt's Job or JobSet."""
    name = names.attempt(owner["metadata"]["name"], attempt.number, spec.resources.nodes)
    return metadata_of(owner, name, own_labels(owner, spec, attempt), made_by(connection), connection)


def metadata_of(owner: Manifest, name: str, labels: dict[str, str], made_by: str, pods: PodSettings) -> Manifest:
    """Metadata of any of the owner's Jobs."""
    metadata = owner["metadata"]
    return {
        "name": name,
        "namespace": metadata["namespace"],
        "labels": {**labels, JOB_UID_LABEL: metadata["uid"], MADE_BY_LABEL: made_by, **queue_label(pods)},
        "annotations": {OWNER_ANNOTATION: metadata["name"]},
        "ownerReferences": [owner_reference(owner)],
    }


def made_by(connection: HuggingFace) -> str:
    """A digest of the connection's settings of training pods."""
    return digest(connection, excluding=("max_retries",))


def own_labels(owner: Manifest, spec: FineTuneJobSpec, attempt: Attempt) -> dict[str, str]:
    """Labels of all objects of an attempt that trains on this cluster."""
    return labels_of_attempt(owner, spec, attempt.number, "trainer")


def labels_of_attempt(owner: Manifest, spec: FineTuneJobSpec, attempt: int, component: str) -> dict[str, str]:
    """Labels of an attempt's objects, by component."""
    return labels_of_work(
        **{
            JOB_LABEL: names.fit(owner["metadata"]["name"]),
            MODEL_LABEL: names.fit(spec.model_ref.name),
            ATTEMPT_LABEL: str(attempt),
            COMPONENT_LABEL: component,
        }
    )


def job_spec(owner: Manifest, spec: FineTuneJobSpec, connection: HuggingFace, attempt: Attempt) -> Manifest:
    """The spec of the attempt's batch Job."""
    made: Manifest = {
        "backoffLimit": 0,
        "completions": spec.resources.nodes,
        "parallelism": spec.resources.nodes,
        "template": {
            "metadata": pod_metadata(connection, own_labels(owner, spec, attempt)),
            "spec": _pod(owner, spec, connection, attempt),
        },
    }
    if spec.active_deadline_seconds is not None:
        made["activeDeadlineSeconds"] = spec.active_deadline_seconds
    return made


def trainer_job(owner: Manifest, spec: FineTuneJobSpec, connection: HuggingFace, attempt: Attempt) -> TrainerJob:
    """The trainer's job for the attempt."""
    store = artifacts.store(attempt.output_uri, connection.artifacts)
    folder = artifact_folder(attempt.number) if store else ARTIFACT_FOLDER
    return TrainerJob(
        namespace=owner["metadata"]["namespace"],
        name=owner["metadata"]["name"],
        uid=owner["metadata"]["uid"],
        attempt=attempt.number,
        spec=spec,
        output=OUTPUT_PATH if store else names.claim_path(parse_artifact_uri(attempt.output_uri)),
        artifact_uri=f"{attempt.output_uri}/{folder}",
        store=store,
        model_cache=MODEL_CACHE_PATH if connection.model_cache else None,
        air_gapped=connection.air_gapped,
        trust_remote_code=connection.trust_remote_code,
        code=_code(spec),
        nodes=spec.resources.nodes,
        ranks_per_node=_ranks_per_node(spec, connection),
        rendezvous=_rendezvous(owner, spec, attempt),
        report=ReportTarget(url=attempt.report_url),
        active_version=_active_version(attempt.active, connection),
        short_of_memory=attempt.short_of_memory,
    )


def _ranks_per_node(spec: FineTuneJobSpec, connection: HuggingFace) -> int:
    """One rank per GPU that the job or the connection requests; 1 for custom code, which manages GPUs itself."""
    return max(_gpus(spec, connection), 1) if spec.code is None else 1


def _gpus(spec: FineTuneJobSpec, connection: HuggingFace) -> int:
    gpus = str(resources(spec, connection).get("limits", {}).get(connection.gpu_resource, 0))
    return int(gpus) if gpus.isdecimal() else 0


def _rendezvous(owner: Manifest, spec: FineTuneJobSpec, attempt: Attempt) -> str | None:
    return names.rendezvous(owner["metadata"]["name"], attempt.number) if spec.resources.nodes > 1 else None


def _code(spec: FineTuneJobSpec) -> str | None:
    """The path of the user's code in the pod: a key of a mounted ConfigMap, never a copy."""
    reference = spec.code.config_map_ref if spec.code else None
    return f"{CONFIG_MAPS_PATH}/{reference.name}/{reference.key}" if reference else None


def _active_version(active: Active | None, connection: HuggingFace) -> ActiveVersionRef | None:
    if active is None:
        return None
    uri = active.artifact_uri
    if uri is None:
        return ActiveVersionRef(version=active.version)
    claim = _claim_of(uri)
    return ActiveVersionRef(
        version=active.version,
        folder=names.claim_path(claim) if claim else None,
        store=artifacts.store(uri, connection.artifacts),
        sha256=active.sha256,
    )


def _claim_of(uri: str) -> Uri | None:
    """The parsed URI, if it is on a claim."""
    found = parse_artifact_uri(uri)
    return found if found.is_claim else None


def _pod(owner: Manifest, spec: FineTuneJobSpec, connection: HuggingFace, attempt: Attempt) -> Manifest:
    volumes = Volumes()
    dataset = spec.dataset
    volumes.dataset(parse_uri(file.uri) for file in (dataset.train, dataset.validation, dataset.test) if file)
    if spec.code is not None:
        volumes.config_map(spec.code.config_map_ref.name)
    volumes.model_cache(connection)
    if output := _claim_of(attempt.output_uri):
        volumes.claim(output.root, read_only=False)
    if attempt.active and attempt.active.artifact_uri and (active := _claim_of(attempt.active.artifact_uri)):
        volumes.claim(active.root, read_only=True)
    volumes.at(TOKEN_PATH.rpartition("/")[0], token_volume(), read_only=True)
    # Custom code may load data in worker processes, on a CPU too.
    if _gpus(spec, connection) or spec.code is not None:
        volumes.shared_memory()
    container: Manifest = {
        "name": TRAINER_CONTAINER,
        "image": connection.trainer_image,
        "args": ["train"],
        "env": _environment(owner, spec, connection, attempt),
        "resources": resources(spec, connection),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    container |= artifacts.environment(connection.artifacts, dataset.secret_ref, spec.trackers)
    return pod_spec(connection, container, volumes) | {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
    }


def _environment(owner: Manifest, spec: FineTuneJobSpec, connection: HuggingFace, attempt: Attempt) -> list[Manifest]:
    job = trainer_job(owner, spec, connection, attempt)
    variables: list[Manifest] = [
        {"name": JOB_VARIABLE, "value": orjson.dumps(job.wire()).decode()},
        {"name": REPORT_CA_VARIABLE, "value": attempt.report_ca},
    ]
    if gpus := _gpus(spec, connection):
        variables.append({"name": GPUS_VARIABLE, "value": str(gpus)})
    if connection.air_gapped:
        variables.append({"name": "HF_HUB_OFFLINE", "value": "1"})
    return [*variables, *hub_token(spec), *keys_of_services(spec.evaluation), *_keys_of_pushes(spec.artifact.push)]


def hub_token(spec: FineTuneJobSpec) -> Iterator[Manifest]:
    """The token of a hub, for a gated model or dataset."""
    if spec.hub_token_secret_ref is not None:
        yield from_secret("HF_TOKEN", spec.hub_token_secret_ref)


def _keys_of_pushes(push: Push | None) -> Iterator[Manifest]:
    if push and push.oci and push.oci.secret_ref:
        key = SecretKeyRef(name=push.oci.secret_ref.name, key=DOCKER_CONFIG_KEY)
        yield from_secret(REGISTRY_KEYS_VARIABLE, key)
    if push and push.hugging_face:
        yield from_secret(HUB_TOKEN_VARIABLE, push.hugging_face.token_secret_ref)


def keys_of_services(evaluation: Evaluation) -> Iterator[Manifest]:
    """API keys of the services that an evaluation calls, as variables from Secrets of the job's namespace."""
    for endpoint in evaluation.endpoints:
        if endpoint.api_key_secret_ref is not None:
            yield from_secret(endpoint_key_variable(endpoint.name), endpoint.api_key_secret_ref)
    if evaluation.judge is not None and evaluation.judge.api_key_secret_ref is not None:
        yield from_secret(JUDGE_KEY_VARIABLE, evaluation.judge.api_key_secret_ref)


def token_volume() -> Manifest:
    """The service-account token with which a pod authenticates to the report server."""
    token = {"audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": TOKEN_PATH.rpartition("/")[2]}
    return {"projected": {"sources": [{"serviceAccountToken": token}]}}


def resources(spec: FineTuneJobSpec, connection: HuggingFace) -> Manifest:
    """The connection's resources, overridden by the job's, which are used as both request and limit."""
    asked: dict[str, Any] = {
        "cpu": spec.resources.cpu,
        "memory": spec.resources.memory,
        "ephemeral-storage": spec.resources.ephemeral_storage,
        connection.gpu_resource: spec.resources.gpus_per_node or None,
    }
    named = {key: value for key, value in asked.items() if value is not None}
    merged = {kind: {**template_resources(connection).get(kind, {}), **named} for kind in ("requests", "limits")}
    if spec.resources.gpus_per_node == 0:
        for amounts in merged.values():
            amounts.pop(connection.gpu_resource, None)
    return {kind: amounts for kind, amounts in merged.items() if amounts}
