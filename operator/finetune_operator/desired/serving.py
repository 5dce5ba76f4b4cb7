"""The Deployment and the Service of a ModelDeployment."""

from dataclasses import dataclass
from typing import Literal

from finetune_api.connection import HuggingFace
from finetune_api.deployment import LocalServing, ModelDeploymentSpec
from finetune_api.manifest import Manifest
from finetune_api.model import ModelVersion
from finetune_api.names import (
    ARTIFACT_FOLDER,
    BASE_CONTAINER,
    BASE_PATH,
    COMPONENT_LABEL,
    DEPLOYMENT_LABEL,
    FETCH_CONTAINER,
    FETCHED_PATH,
    GPUS_VARIABLE,
    MODEL_CACHE_PATH,
    MODEL_LABEL,
    SERVED_VERSION_LABEL,
    SERVER_CONTAINER,
)
from finetune_api.uris import parse_artifact_uri
from finetune_operator.desired import artifacts, names
from finetune_operator.desired.pod import (
    Volumes,
    from_secret,
    labels,
    owner_reference,
    pod_metadata,
    pod_spec,
    template_resources,
)

PORT = 8000
KEY_PATH = "/var/run/secrets/finetune.dev/server"

PROGRESS_DEADLINE_SECONDS = 900
"""After this a rollout counts as failed, unless its pods become ready later; the old pods stay."""

STARTUP_SECONDS = 3600
"""Loading hundreds of gigabytes from a slow volume takes long. A server not up by then is restarted."""

PRE_STOP_SECONDS = 10
"""Between a pod's removal from the Service and SIGTERM, so that every kube-proxy has updated by then."""

ANSWER_SECONDS = 100
"""To finish requests running at SIGTERM: a long answer takes minutes on a CPU."""

GRACE_SECONDS = PRE_STOP_SECONDS + ANSWER_SECONDS + 20
"""For both, and for the server's shutdown. The deletion of a namespace waits half of it."""

_INIT_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}}
"""For containers before a server that names no resources: complete requests and limits, as quotas demand."""

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM's --max-lora-rank accepts (vLLM 0.33)."""


@dataclass(frozen=True)
class Served:
    """The version to serve, its engine and connection."""

    version: ModelVersion
    engine: Literal["vLLM", "Transformers"]
    connection: HuggingFace
    asleep: bool = False
    """Whether it is scaled to zero because it is idle."""
    ipv6: bool = False
    """Whether IPv6 is the only or primary address family of pods, which the kubelet's probes use."""


def deployment(owner: Manifest, spec: ModelDeploymentSpec, served: Served) -> Manifest:
    """The Deployment. A new version changes the pod template: Kubernetes starts new pods before it stops old ones."""
    name = owner["metadata"]["name"]
    local = spec.hugging_face or LocalServing()
    selector = {DEPLOYMENT_LABEL: name}
    pod_labels = labels(
        **selector,
        **{
            MODEL_LABEL: names.fit(spec.model_ref.name),
            SERVED_VERSION_LABEL: str(served.version.version),
            COMPONENT_LABEL: "server",
        },
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(owner, spec),
        "spec": {
            "replicas": 0 if served.asleep else local.replicas,
            "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": pod_metadata(served.connection, pod_labels),
                "spec": _pod(name, spec, local, served),
            },
        },
    }


def without_pods(present: Manifest) -> Manifest:
    """The present Deployment scaled to zero, as its version is served elsewhere by now."""
    known = ("name", "namespace", "labels", "ownerReferences")
    metadata = {key: present["metadata"][key] for key in known if key in present["metadata"]}
    spec = {**present["spec"], "replicas": 0}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def service(owner: Manifest, spec: ModelDeploymentSpec) -> Manifest:
    """The Service: its name and port are the endpoint that users call."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(owner, spec),
        "spec": {
            "selector": {DEPLOYMENT_LABEL: owner["metadata"]["name"]},
            "ports": [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}],
        },
    }


def _metadata(owner: Manifest, spec: ModelDeploymentSpec) -> Manifest:
    """Shared metadata. With deletionPolicy Retain the server outlives the object, so it gets no owner."""
    name = owner["metadata"]["name"]
    owners = [] if spec.deletion_policy == "Retain" else [owner_reference(owner)]
    return {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": labels(**{DEPLOYMENT_LABEL: name, MODEL_LABEL: names.fit(spec.model_ref.name)}),
        "ownerReferences": owners,
    }


def _pod(name: str, spec: ModelDeploymentSpec, local: LocalServing, served: Served) -> Manifest:
    volumes = Volumes()
    folder = _folder(served)
    volumes.model_cache(served.connection)
    resources = _resources(local, served.connection)
    before: list[Manifest] = []
    small = {"resources": _before(resources)}
    if served.version.artifact.uri:
        uri = parse_artifact_uri(served.version.artifact.uri)
        if uri.is_claim:
            volumes.claim(uri.root, read_only=True)
        else:
            volumes.at(FETCHED_PATH, {"emptyDir": {}}, read_only=False)
            before.append(_fetch(served, folder) | small)
    if served.engine == "vLLM" and _is_adapter(served):
        before.append(_base(served, folder) | small)
    if spec.api_key_secret_ref is not None:
        key = spec.api_key_secret_ref
        source = {"secret": {"secretName": key.name, "items": [{"key": key.key, "path": "api-key"}]}}
        volumes.at(KEY_PATH, source, read_only=True)
    if local.gpus:
        volumes.shared_memory()
    engine = _vllm if served.engine == "vLLM" else _transformers
    container: Manifest = {
        "name": SERVER_CONTAINER,
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "startupProbe": {**_probe(2), "failureThreshold": STARTUP_SECONDS // 2},
        "readinessProbe": {**_probe(5), "failureThreshold": 2},
        "livenessProbe": {**_probe(20), "timeoutSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        **engine(name, spec, local, served, folder),
    }
    grace = {"terminationGracePeriodSeconds": GRACE_SECONDS}
    return pod_spec(served.connection, container, volumes, before=before) | grace


def _folder(served: Served) -> str:
    if served.version.artifact.uri is None:
        return f"{MODEL_CACHE_PATH}/{served.version.base_model}"
    uri = parse_artifact_uri(served.version.artifact.uri)
    return names.claim_path(uri) if uri.is_claim else f"{FETCHED_PATH}/{ARTIFACT_FOLDER}"


def _fetch(served: Served, folder: str) -> Manifest:
    """The container that downloads the weights from their store and verifies their checksums."""
    connection, artifact = served.connection, served.version.artifact
    checksum = ["--sha256", artifact.sha256] if artifact.sha256 else []
    flags = [*checksum, *artifacts.endpoint_flag(artifact.uri, connection.artifacts)]
    return {
        "name": FETCH_CONTAINER,
        "image": connection.check_image or connection.trainer_image,
        "args": ["fetch", artifact.uri, "--to", folder, *flags],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **artifacts.environment(connection.artifacts),
    }


def _base(served: Served, folder: str) -> Manifest:
    """The container that finds or downloads an adapter's base for vLLM, with clear errors about either.

    vLLM would take a missing folder for a hub model's name, and does not check manifests.
    """
    args = ["base", "--model", folder, "--link", BASE_PATH]
    if served.connection.model_cache is not None:
        args += ["--model-cache", MODEL_CACHE_PATH]
    if not served.connection.air_gapped:
        args.append("--allow-hub")
    return {
        "name": BASE_CONTAINER,
        "image": served.connection.trainer_image,
        "args": args,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _is_adapter(served: Served) -> bool:
    return served.version.artifact.kind == "Adapter"


def _transformers(name: str, spec: ModelDeploymentSpec, local: LocalServing, served: Served, folder: str) -> Manifest:
    args = ["serve", "--model", folder, "--name", name, "--port", str(PORT), "--drain-seconds", str(ANSWER_SECONDS)]
    if served.connection.model_cache is not None:
        args += ["--model-cache", MODEL_CACHE_PATH]
    if local.max_model_length is not None:
        args += ["--max-model-length", str(local.max_model_length)]
    if spec.api_key_secret_ref is not None:
        args += ["--api-key-file", f"{KEY_PATH}/api-key"]
    if not served.connection.air_gapped:
        args.append("--allow-hub")
    if served.connection.trust_remote_code:
        args.append("--trust-remote-code")
    made: Manifest = {"image": served.connection.trainer_image, "args": args}
    gpus = _resources(local, served.connection).get("limits", {}).get(served.connection.gpu_resource)
    return made | ({"env": [{"name": GPUS_VARIABLE, "value": gpus}]} if gpus else {})


def _vllm(name: str, spec: ModelDeploymentSpec, local: LocalServing, served: Served, folder: str) -> Manifest:
    base = served.version.base_model
    args = ["serve", BASE_PATH if _is_adapter(served) else folder, "--port", str(PORT)]
    if _is_adapter(served):
        rank = next((r for r in VLLM_RANKS if r >= (served.version.lora_rank or VLLM_RANKS[-1])), VLLM_RANKS[-1])
        # The base keeps its own name, so that a request for the tuned model never falls back to it.
        args += ["--served-model-name", base, "--enable-lora", "--max-lora-rank", str(rank)]
        # vLLM's default is the base's tokenizer, which may lack a chat template or have other stop tokens.
        args += ["--lora-modules", f"{name}={folder}", "--tokenizer", folder, "--generation-config", folder]
    else:
        args += ["--served-model-name", name]
    if local.max_model_length is not None:
        args += ["--max-model-len", str(local.max_model_length)]
    if local.gpus and local.gpus > 1:
        args += ["--tensor-parallel-size", str(local.gpus)]
    if served.connection.trust_remote_code:
        args.append("--trust-remote-code")
    if served.ipv6:
        args += ["--host", "::"]  # without it vLLM listens on IPv4 only; with it on both
    environment: list[Manifest] = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108 - the pod's own scratch folder
    if served.connection.air_gapped:
        environment.append({"name": "HF_HUB_OFFLINE", "value": "1"})
    if spec.api_key_secret_ref is not None:
        environment.append(from_secret("VLLM_API_KEY", spec.api_key_secret_ref))
    return {"image": served.connection.vllm_image, "command": ["vllm"], "args": args, "env": environment}


def _probe(period: int) -> Manifest:
    return {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": period, "timeoutSeconds": 5}


def _resources(local: LocalServing, connection: HuggingFace) -> Manifest:
    chosen = local.resources.wire() if local.resources else template_resources(connection)
    if local.gpus is None:
        return _as_text(chosen)
    limits = {key: value for key, value in chosen.get("limits", {}).items() if key != connection.gpu_resource}
    if local.gpus:
        limits[connection.gpu_resource] = local.gpus
    requests = {key: value for key, value in chosen.get("requests", {}).items() if key != connection.gpu_resource}
    return _as_text({"requests": requests, "limits": limits})


def _before(resources: Manifest) -> Manifest:
    """Resources of init containers: the server's without GPUs, since the pod needs these anyway."""
    plain = {kind: {name: amounts[name] for name in amounts if "/" not in name} for kind, amounts in resources.items()}
    return _as_text(plain) or _INIT_RESOURCES


def _as_text(resources: Manifest) -> Manifest:
    """Quantities as strings, as the API server returns them: a number would always look like a difference."""
    return {
        kind: {name: str(amount) for name, amount in amounts.items()} for kind, amounts in resources.items() if amounts
    }
