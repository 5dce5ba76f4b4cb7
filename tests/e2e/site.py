"""A team's namespace with volumes: data, models and model cache are folders that the test can access."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from finetune_api.manifest import Manifest
from tests.cluster import Cluster

T = TypeVar("T")

KINDS = {"job": "finetunejobs", "model": "finetunedmodels", "deployment": "modeldeployments"}
POLL_SECONDS = 0.2

SECRET_CANARY = "canary-7e41d2"
"""In every Secret of the run; test_whole_run.py looks for it everywhere."""
DATA_CANARY = "what colour is the sky of day"
"""In every row of data."""


def eventually(look: Callable[[], T | None], what: str, seconds: float, explain: Callable[[], str] = str) -> T:
    """Call `look` until it returns something, and return that; fails with `explain`'s message after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {seconds:g} s; {explain()}")
        time.sleep(POLL_SECONDS)


class Site:
    """One namespace on the cluster, with its claims bound to folders of this machine."""

    def __init__(self, cluster: Cluster, name: str, folder: Path, cache: Path) -> None:
        self.cluster = cluster
        self.name = name
        self.data = folder / "data"
        self.models = folder / "models"
        self.folders = {"data": self.data, "models": self.models, "model-cache": cache}

    def make(self, labels: Mapping[str, str] | None = None) -> None:
        """Create the namespace (restricted), claims and their volumes."""
        standard = {"pod-security.kubernetes.io/enforce": "restricted", "finetune": "yes"}
        metadata = {"name": self.name, "labels": standard if labels is None else dict(labels)}
        before = (f"namespace/{self.name}", *(f"pv/{self.name}-{claim}" for claim in self.folders))
        self.cluster.kubectl("wait", "--for=delete", *before, "--timeout=180s")
        shutil.rmtree(self.data.parent, ignore_errors=True)
        for folder in self.folders.values():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
        volumes = chain.from_iterable(self._volume(claim, folder) for claim, folder in self.folders.items())
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, *volumes)
        self.secret("canary", token=SECRET_CANARY)
        # The kubelet delays a pod that is created before its claims are bound by ten seconds and more.
        bound = ("--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
        self.cluster.kubectl("-n", self.name, "wait", "persistentvolumeclaims", "--all", *bound)

    def secret(self, name: str, **data: str) -> None:
        """Apply a Secret."""
        metadata = {"name": name, "namespace": self.name}
        self.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})

    def remove(self) -> None:
        """Start deleting the namespace and its volumes; `make` of the same name waits until they are gone."""
        self.cluster.kubectl("delete", "namespace", self.name, "--wait=false")
        self.cluster.kubectl("delete", "pv", "--wait=false", *(f"{self.name}-{claim}" for claim in self.folders))

    def _volume(self, claim: str, folder: Path) -> tuple[Manifest, Manifest]:
        modes, size = ["ReadWriteMany"], {"storage": "1Gi"}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{self.name}-{claim}"},
            "spec": {
                "accessModes": modes,
                "capacity": size,
                "hostPath": {"path": str(folder)},
                "storageClassName": "",
                "claimRef": {"namespace": self.name, "name": claim},
            },
        }
        request = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": self.name},
            "spec": {
                "accessModes": modes,
                "resources": {"requests": size},
                "storageClassName": "",
                "volumeName": f"{self.name}-{claim}",
            },
        }
        return volume, request

    def write_rows(self, name: str, count: int, *, start: int = 0) -> None:
        """Write a JSON Lines file of unique rows."""
        rows = (
            {"prompt": f"row {i}: {DATA_CANARY} {i}?", "completion": "blue" if i % 2 else "grey"}
            for i in range(start, start + count)
        )
        (self.data / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def job(self, name: str, *, model: str = "colours", **spec: Any) -> Manifest:
        """Apply a small FineTuneJob; `spec` overrides any field of it."""
        manifest = {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name, "namespace": self.name},
            "spec": {
                "connectionRef": {"name": "tiny"},
                "baseModel": "test/tiny-llama",
                "modelRef": {"name": model},
                "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
                "hubTokenSecretRef": {"name": "canary", "key": "token"},
                "hyperparameters": {"epochs": 1, "batchSize": 8, "maxSequenceLength": 64, "learningRate": 0.01},
                **spec,
            },
        }
        self.cluster.apply(manifest)
        return manifest

    def model(self, name: str, **spec: Any) -> None:
        """Apply a FineTunedModel."""
        self._apply("FineTunedModel", name, spec)

    def deployment(self, name: str, **spec: Any) -> None:
        """Apply a ModelDeployment."""
        self._apply("ModelDeployment", name, spec)

    def _apply(self, kind: str, name: str, spec: Manifest) -> None:
        metadata = {"name": name, "namespace": self.name}
        self.cluster.apply({"apiVersion": "finetune.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})

    def patch(self, kind: str, name: str, spec: Manifest) -> None:
        """Merge into an object's spec."""
        body = json.dumps({"spec": spec})
        self.cluster.kubectl("-n", self.name, "patch", KINDS[kind], name, "--type=merge", "-p", body)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and wait until it is gone."""
        self.cluster.kubectl("-n", self.name, "delete", KINDS[kind], name, "--timeout=120s")

    def records(self, job: str) -> list[Manifest]:
        """The trainer's step records. Reads only their folder: walking all folders fails if a checkpoint is renamed
        meanwhile."""
        paths = self.models.glob(f"{self.name}/*/{job}-*/metrics.jsonl")
        return [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.endswith("}")]

    def status(self, kind: str, name: str) -> Manifest:
        """An object's status; empty before the first write, and if the object does not exist (yet)."""
        found = self.cluster.read(f"/apis/finetune.dev/v1alpha1/namespaces/{self.name}/{KINDS[kind]}/{name}")
        status: Manifest = (found or {}).get("status", {})
        return status

    def pods(self, selector: str = "finetune.dev/job") -> list[Manifest]:
        """Pods by label."""
        found = self.cluster.read(f"/api/v1/namespaces/{self.name}/pods?labelSelector={quote(selector)}")
        assert found is not None
        items: list[Manifest] = found["items"]
        return items

    def wait(self, kind: str, name: str, holds: Callable[[Manifest], Any], what: str, seconds: float = 240) -> Manifest:
        """Wait until the status satisfies `holds`, and return it."""

        def look() -> Manifest | None:
            status = self.status(kind, name)
            return status if holds(status) else None

        return eventually(look, f"{kind} {name}: {what}", seconds, lambda: self.explain(kind, name))

    def finished(self, name: str, seconds: float = 300) -> Manifest:
        """Wait for a job's end, and return its status."""
        return self.wait("job", name, lambda s: s.get("phase") in {"Succeeded", "Failed"}, "to end", seconds)

    def succeeded(self, name: str, seconds: float = 300) -> Manifest:
        """Wait for a job that must succeed, and return its status."""
        status = self.finished(name, seconds)
        assert status["phase"] == "Succeeded", json.dumps(status.get("failure"), indent=2)
        return status

    def failed(self, name: str, seconds: float = 240) -> Manifest:
        """Wait for a job that must fail, and return its failure."""
        status = self.finished(name, seconds)
        assert status["phase"] == "Failed", status["phase"]
        failure: Manifest = status["failure"]
        return failure

    def explain(self, kind: str, name: str) -> str:
        """Diagnostics for an object that hangs."""
        pods = self.cluster.kubectl("-n", self.name, "get", "pods", "-o", "wide")
        return f"status: {json.dumps(self.status(kind, name), indent=1)}\npods:\n{pods}"


def condition(status: Manifest, condition_type: str) -> Manifest:
    """A condition of a status; empty where it has none."""
    return next((c for c in status.get("conditions", []) if c["type"] == condition_type), {})
