"""Shared by all our pods: the restricted Pod Security Standard, volumes, and the connection's podTemplate."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import orjson

from finetune_api.base import ApiModel, ConfigMapKeyRef, SecretKeyRef
from finetune_api.connection import CheckPod, HuggingFace
from finetune_api.manifest import Manifest
from finetune_api.names import (
    CLAIMS_PATH,
    CONFIG_MAPS_PATH,
    FIELD_MANAGER,
    MANAGED_BY_LABEL,
    MODEL_CACHE_PATH,
    NO_BACKUP_LABEL,
    QUEUE_LABEL,
    SCRATCH_PATH,
    TRUST_PATH,
    is_own_label,
)
from finetune_api.uris import Uri

PodSettings = HuggingFace | CheckPod
"""A connection's pod settings."""

USER_ID = 65532

POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    # Without this the kubelet visits every file of a large volume each time a pod starts.
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}

TRUST_FILE = "bundle.pem"
TRUST_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
"""CA bundle variables of OpenSSL and libraries that use it, and of requests, libcurl and botocore."""

CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def labels(**more: str) -> dict[str, str]:
    """Labels of everything that the operator creates."""
    return {MANAGED_BY_LABEL: FIELD_MANAGER, **more}


def labels_of_work(**more: str) -> dict[str, str]:
    """Labels of batch Jobs and their pods, with an exclusion from backups: a restored Job would train a second time."""
    return labels(**{NO_BACKUP_LABEL: "true", **more})


def digest(settings: ApiModel, excluding: Iterable[str] = ()) -> str:
    """A digest of a connection's pod settings; if it differs, new pods would differ."""
    said = settings.model_dump(mode="json", exclude=set(excluding), exclude_defaults=True)
    return sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def owner_reference(owner: Mapping[str, Any]) -> Manifest:
    """The owner reference, by which a child is garbage-collected with its owner."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def from_secret(name: str, key: SecretKeyRef) -> Manifest:
    """A container's environment variable from a Secret in its namespace."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": key.name, "key": key.key}}}


class Volumes:
    """Volumes and mounts of one pod, each path mounted once."""

    def __init__(self) -> None:
        """Start with the scratch folder that every pod has, since its root file system is read-only."""
        self._places: dict[str, tuple[Manifest, bool]] = {SCRATCH_PATH: ({"emptyDir": {}}, False)}

    def claim(self, name: str, *, read_only: bool) -> None:
        """Mount a PersistentVolumeClaim at CLAIMS_PATH/NAME; writable if any call asks for that."""
        path = f"{CLAIMS_PATH}/{name}"
        before = self._places.get(path)
        read_only = read_only and (before is None or before[1])
        self._places[path] = ({"persistentVolumeClaim": {"claimName": name}}, read_only)

    def config_map(self, name: str) -> None:
        """Mount a ConfigMap's keys as files at CONFIG_MAPS_PATH/NAME."""
        self._places[f"{CONFIG_MAPS_PATH}/{name}"] = ({"configMap": {"name": name}}, True)

    def dataset(self, uris: Iterable[Uri]) -> None:
        """Mount what a dataset's files need; object stores need nothing."""
        for uri in uris:
            if uri.scheme == "pvc":
                self.claim(uri.root, read_only=True)
            elif uri.scheme == "configmap":
                self.config_map(uri.root)

    def model_cache(self, connection: HuggingFace) -> None:
        """Mount the connection's cache of base models, read-only."""
        if connection.model_cache is not None:
            self.at(MODEL_CACHE_PATH, connection.model_cache.volume, read_only=True)

    def at(self, path: str, source: Mapping[str, Any], *, read_only: bool) -> None:
        """Mount any volume source at a path."""
        self._places[path] = (dict(source), read_only)

    def shared_memory(self) -> None:
        """Mount a larger /dev/shm: the default of 64 MiB is too small for GPU work."""
        self.at("/dev/shm", {"emptyDir": {"medium": "Memory"}}, read_only=False)  # noqa: S108 - the kernel's own path

    def sources(self) -> list[Manifest]:
        """The pod's volumes. A claim at two paths gives two volumes, which the API allows."""
        return [{"name": f"v{index}", **source} for index, (source, _) in enumerate(self._places.values())]

    def mounts(self) -> list[Manifest]:
        """The container's mounts."""
        return [
            {"name": f"v{index}", "mountPath": path, **({"readOnly": True} if read_only else {})}
            for index, (path, (_, read_only)) in enumerate(self._places.items())
        ]


def pod_spec(
    connection: PodSettings, container: Manifest, volumes: Volumes, *, before: Sequence[Manifest] = ()
) -> Manifest:
    """A restricted pod with one container, without API access, with the additions of the connection's podTemplate.

    `before` are init containers; they have the same volumes.
    """
    template = connection.pod_template
    trust = _trusted(template.ca_bundle_ref if template else None, volumes)
    shared = {
        "imagePullPolicy": connection.image_pull_policy,
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": volumes.mounts(),
    }
    chosen = template.wire() if template else {}
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        **({"initContainers": [_with(shared | one, trust) for one in before]} if before else {}),
        "containers": [_with(shared | container, trust)],
        "volumes": volumes.sources(),
    }
    passed_on = (
        "nodeSelector",
        "tolerations",
        "affinity",
        "runtimeClassName",
        "priorityClassName",
        "serviceAccountName",
        "imagePullSecrets",
    )
    return spec | {key: chosen[key] for key in passed_on if key in chosen}


def _trusted(bundle: ConfigMapKeyRef | None, volumes: Volumes) -> list[Manifest]:
    """Mount the connection's CA bundle, and return the variables that point libraries to it."""
    if bundle is None:
        return []
    items = [{"key": bundle.key, "path": TRUST_FILE}]
    volumes.at(TRUST_PATH, {"configMap": {"name": bundle.name, "items": items}}, read_only=True)
    return [{"name": name, "value": f"{TRUST_PATH}/{TRUST_FILE}"} for name in TRUST_VARIABLES]


def _with(container: Manifest, variables: list[Manifest]) -> Manifest:
    made = container | {"env": [*container.get("env", ()), *variables]} if variables else container
    return made | {part: [_escaped(one) for one in made[part]] for part in ("args", "env") if part in made}


def _escaped(part: Any) -> Any:
    """Escape an argument or variable: Kubernetes would turn `$$` into `$`, and expand `$(NAME)`."""
    if isinstance(part, str):
        return part.replace("$", "$$")
    return part | {"value": _escaped(part["value"])} if "value" in part else part


def pod_metadata(connection: PodSettings, own_labels: Mapping[str, str]) -> Manifest:
    """Labels and annotations of a pod: the connection's, and our own labels, which it cannot override."""
    template = connection.pod_template
    chosen = (template.labels if template else None) or {}
    foreign = {name: value for name, value in chosen.items() if not is_own_label(name)}
    metadata: Manifest = {"labels": {**foreign, **own_labels}}
    if template and template.annotations:
        metadata["annotations"] = dict(template.annotations)
    return metadata


def batch_job(
    metadata: Manifest, connection: PodSettings, own_labels: Mapping[str, str], pod: Manifest, **more: Any
) -> Manifest:
    """A batch/v1 Job for a pod spec, without container restarts. `more`: further fields of the Job's spec."""
    template = {"metadata": pod_metadata(connection, own_labels), "spec": pod | {"restartPolicy": "Never"}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {**more, "template": template}}


def queue_label(connection: PodSettings) -> dict[str, str]:
    """Kueue's label, if the connection names a queue. It is set on the Job or JobSet, not on pods."""
    template = connection.pod_template
    return {QUEUE_LABEL: template.queue_name} if template and template.queue_name else {}


def template_resources(connection: PodSettings) -> Manifest:
    """The connection's default resources."""
    template = connection.pod_template
    return template.resources.wire() if template and template.resources else {}
