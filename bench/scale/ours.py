"""finetune-operator in the benchmark: the chart's permissions and default settings, one process, N FineTuneJobs."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.scale.world import NAMESPACE, STAYS, World, settle
from finetune_api.manifest import Manifest
from tests.cluster import processes
from tests.cluster.ports import answers, free_port

ROOT = Path(__file__).parents[2]
OWN, RELEASE = "finetune-system", "finetune-operator"
USER = f"system:serviceaccount:{OWN}:{RELEASE}"
API = "finetune.dev/v1alpha1"
JOBS_PER_MODEL = 10
LASTING = "lasting"
"""The connection whose pods run until they are deleted."""

PATH = f"/apis/{API}/namespaces/{NAMESPACE}/finetunejobs"


def install(world: World, jobs: int) -> None:
    """Apply CRDs, permissions, a connection, and the models that get the jobs' versions."""
    install_chart(world)
    world.cluster.apply(
        _connection("local"),
        _connection(LASTING, {STAYS: "true"}),
        *map(model, range(-(-jobs // JOBS_PER_MODEL))),
    )
    settle(world, "finetunejobs")


def install_chart(world: World) -> None:
    """Apply CRDs and permissions, and the pod that the operator labels as the leader's."""
    cluster = world.cluster
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OWN}})
    cluster.helm("install", RELEASE, str(ROOT / "helm" / "finetune-operator"), "--namespace", OWN)
    cluster.wait_for_definitions()
    cluster.apply(_own_pod())


@dataclass(frozen=True)
class Running:
    """One process of the operator."""

    process: subprocess.Popen[bytes]
    log: Path
    probe_port: int
    report_port: int

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def check(self) -> None:
        """Check that it still runs.

        Raises:
            RuntimeError: it has ended; with the end of its log.
        """
        if self.process.poll() is not None:
            raise RuntimeError(f"the operator ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.probe_port}/metrics", timeout=30) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = (sample for family in families for sample in family.samples if sample.name == name)
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def caught_up(self, objects: int) -> bool:
        """Whether this many jobs were reconciled, and the queue is empty."""
        looked = self.metric("finetune_reconciles_total", kind="FineTuneJob") >= objects
        return looked and not self.metric("finetune_queue_ready") and not self.metric("finetune_queue_in_work")


@contextmanager
def running(world: World, folder: Path, more: Mapping[str, str] | None = None) -> Iterator[Running]:
    """The operator while it leads; stopped afterwards. `more`: additional environment variables."""
    probe, report = free_port(), free_port()
    environment = {
        **(more or {}),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "operator"),
        "FINETUNE_NAMESPACE": OWN,
        "FINETUNE_POD_NAME": "bench",
        "FINETUNE_LEASE_NAME": RELEASE,
        "FINETUNE_TLS_SECRET": f"{RELEASE}-tls",
        **_service_account(world, folder),
        "FINETUNE_PROBE_PORT": str(probe),
        "FINETUNE_REPORT_PORT": str(report),
    }
    log = folder / "operator.log"
    with log.open("ab") as output:
        command = [sys.executable, "-m", "finetune_operator"]
        process = subprocess.Popen(command, env=environment, cwd="/", stdout=output, stderr=output)
    try:
        ready = f"http://127.0.0.1:{probe}/readyz"
        processes.wait_until(lambda: answers(ready), "the operator", timeout=120, pid=process.pid, log=log)
        yield Running(process, log, probe, report)
    finally:
        process.terminate()
        process.wait(timeout=60)


def jobs(count: int, connection: str = "local") -> Iterator[Manifest]:
    """FineTuneJobs with required fields only."""
    for number in range(count):
        yield {
            "apiVersion": API,
            "kind": "FineTuneJob",
            "metadata": {"name": f"job-{number}", "namespace": NAMESPACE},
            "spec": {
                "connectionRef": {"name": connection},
                "baseModel": "example/model",
                "modelRef": {"name": f"model-{number // JOBS_PER_MODEL}"},
                "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
            },
        }


def owner_of(batch_job: Manifest) -> str | None:
    """The FineTuneJob of a batch Job."""
    owners = batch_job["metadata"].get("ownerReferences") or ()
    return next((owner["name"] for owner in owners if owner["kind"] == "FineTuneJob"), None)


def _connection(name: str, annotations: dict[str, str] | None = None) -> Manifest:
    small = {"requests": {"cpu": "1m", "memory": "1Mi"}}
    hugging_face = {
        "trainerImage": "fake",
        "artifacts": {"uri": "pvc://models"},
        "podTemplate": {"resources": small, "annotations": annotations or {}},
    }
    return {
        "apiVersion": API,
        "kind": "LLMConnection",
        "metadata": {"name": name},
        "spec": {"namespaceSelector": {}, "huggingFace": hugging_face},
    }


def model(number: int, prefix: str = "model") -> Manifest:
    """A model that is not served."""
    return {
        "apiVersion": API,
        "kind": "FineTunedModel",
        "metadata": {"name": f"{prefix}-{number}", "namespace": NAMESPACE},
        "spec": {"deployment": {"mode": "Manual"}},
    }


def _own_pod() -> Manifest:
    """The pod that the operator labels as the leader's."""
    container = {"name": "operator", "image": "fake"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bench", "namespace": OWN},
        "spec": {"serviceAccountName": RELEASE, "containers": [container]},
    }


def _service_account(world: World, folder: Path) -> dict[str, str]:
    """A pod's files and variables: the chart's service account as mounted by the kubelet, and the API server's
    address."""
    (cluster,) = (one["cluster"] for one in yaml.safe_load(world.cluster.kubeconfig.read_text())["clusters"])
    server = urlsplit(cluster["server"])
    token = world.cluster.token(OWN, RELEASE)
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(_authority(cluster))
    return {
        "FINETUNE_SERVICE_ACCOUNT": str(folder),
        "KUBERNETES_SERVICE_HOST": str(server.hostname),
        "KUBERNETES_SERVICE_PORT": str(server.port),
    }


def _authority(cluster: Manifest) -> bytes:
    """The CA certificate of a kubeconfig's cluster."""
    inline = cluster.get("certificate-authority-data")
    return base64.b64decode(inline) if inline else Path(cluster["certificate-authority"]).read_bytes()
