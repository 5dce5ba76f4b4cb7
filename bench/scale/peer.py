"""Kubeflow Trainer with JobSet in the benchmark: both managers with their own manifests, N TrainJobs.

Their webhooks are enabled, as in a real deployment. The API server reaches them at the host's address in the cluster;
we act as kubelet and give each manager the certificate that it wrote into its Secret. Nothing of them is changed except
the rate limit of Trainer's client, 20 requests a second, which has no setting.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from bench.scale.world import NAMESPACE, World, settle
from finetune_api.manifest import Manifest
from tests.cluster import binaries, processes
from tests.cluster.control_plane import answers
from tests.cluster.errors import ClusterError

API = "trainer.kubeflow.org/v1alpha1"
PATH = f"/apis/{API}/namespaces/{NAMESPACE}/trainjobs"
CERTIFICATES = Path("/tmp/k8s-webhook-server/serving-certs")
"""Where both managers expect their certificates; not configurable."""


@dataclass(frozen=True)
class Manager:
    """One of the two managers, with its names in its manifests."""

    program: str
    namespace: str
    account: str
    service: str
    secret: str
    webhook_port: int
    health_port: int

    @property
    def user(self) -> str:
        """Its user in the audit log."""
        return f"system:serviceaccount:{self.namespace}:{self.account}"


TRAINER = Manager(
    "trainer", "kubeflow-system", "kubeflow-trainer-controller-manager", "kubeflow-trainer-controller-manager",
    "kubeflow-trainer-webhook-cert", 19443, 18081,
)  # fmt: skip
JOB_SET = Manager(
    "jobset", "jobset-system", "jobset-controller-manager", "jobset-webhook-service",
    "jobset-webhook-server-cert", 19444, 18082,
)  # fmt: skip
MANAGERS = (JOB_SET, TRAINER)


def install(world: World) -> None:
    """Apply CRDs, permissions, webhooks and their Services."""
    programs, cluster = binaries.build("kubeflow"), world.cluster
    for definition in (
        *sorted((programs / "trainer-manifests/crds").glob("trainer.kubeflow.org_*.yaml")),
        *sorted((programs / "jobset-manifests/crd/bases").glob("*.yaml")),
    ):
        # Client-side apply would copy a CRD into an annotation, which exceeds its limit.
        cluster.kubectl("create", "-f", str(definition))
    # Not `kubectl wait`: it fails on a CRD without conditions.
    processes.wait_until(lambda: _defined(world), "the definitions", timeout=30)
    names = {"trainer": ("rbac", "webhook"), "jobset": ("rbac", "webhook", "internalcert")}
    for manager in MANAGERS:
        folder = programs / f"{manager.program}-manifests"
        parts = [folder / part for part in names[manager.program]]
        prefix = "jobset-" if manager is JOB_SET else ""
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": manager.namespace}})
        cluster.apply(*_built(world, manager, parts, prefix), *_front(world, manager))
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(_empty_secret(TRAINER)))
    for kind in ("trainjobs", "jobsets"):
        settle(world, kind)


def _defined(world: World) -> bool:
    try:
        world.cluster.kubectl("get", "trainjobs,clustertrainingruntimes,jobsets", "-A")
    except ClusterError:
        return False
    return True


def _built(world: World, manager: Manager, parts: list[Path], prefix: str) -> list[Manifest]:
    """The manifests built by kustomize. Services are our own: the original ones select pods that do not exist."""
    folder = world.cluster.folder / f"kustomize-{manager.program}"
    folder.mkdir()
    wanted = {
        "namespace": manager.namespace,
        "namePrefix": prefix,
        "resources": [os.path.relpath(part.resolve(), folder.resolve()) for part in parts],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(wanted))
    made = yaml.safe_load_all(world.cluster.kubectl("kustomize", str(folder)))
    return [one for one in made if one["kind"] != "Service"]


def _empty_secret(manager: Manager) -> Manifest:
    metadata = {"name": manager.secret, "namespace": manager.namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}


def _front(world: World, manager: Manager) -> tuple[Manifest, Manifest]:
    """The Service of a manager's webhooks, and its endpoints: a port of this machine."""
    metadata = {"name": manager.service, "namespace": manager.namespace}
    port = {"name": "webhook-server", "port": 443, "protocol": "TCP", "targetPort": manager.webhook_port}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [port]}}
    points = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata | {"labels": {"kubernetes.io/service-name": manager.service}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [world.cluster.addresses.host], "conditions": {"ready": True}}],
        "ports": [{"name": "webhook-server", "port": manager.webhook_port, "protocol": "TCP"}],
    }
    return service, points


@dataclass(frozen=True)
class Running:
    """Both managers."""

    pids: tuple[int, ...]
    logs: tuple[Path, ...]

    def check(self) -> None:
        """Check that both still run.

        Raises:
            RuntimeError: one has ended; with the end of its log.
        """
        for pid, log in zip(self.pids, self.logs, strict=True):
            if not processes.alive(pid):
                raise RuntimeError(f"a manager ended{processes.tail(log)}")


@contextmanager
def running(world: World, folder: Path) -> Iterator[Running]:
    """Both managers once they are ready, and the runtime that jobs name; stopped afterwards."""
    with ExitStack() as stack:
        CERTIFICATES.mkdir(parents=True, exist_ok=True)
        stack.callback(_remove_if_unused)
        started = [stack.enter_context(_started(world, manager, folder)) for manager in MANAGERS]
        made = Running(tuple(pid for pid, _ in started), tuple(log for _, log in started))
        for manager, (pid, log) in zip(MANAGERS, started, strict=True):
            ready = partial(answers, f"http://{world.cluster.addresses.loopback}:{manager.health_port}/readyz")
            processes.wait_until(ready, manager.program, timeout=120, pid=pid, log=log)
        # A webhook works a moment after it reports ready, and knows a runtime a moment after accepting it.
        processes.wait_until(lambda: _accepted(world, "apply", _runtime()), "the runtime", timeout=60)
        job = next(jobs(1))
        processes.wait_until(lambda: _accepted(world, "create", job, "--dry-run=server"), "a TrainJob", timeout=60)
        yield made


@contextmanager
def _started(world: World, manager: Manager, folder: Path) -> Iterator[tuple[int, Path]]:
    """One manager, in a mount namespace with its own certificates."""
    certificates = folder / f"certificates-{manager.program}"
    certificates.mkdir()
    log = folder / f"{manager.program}.log"
    view = f"mount --bind '{certificates}' '{CERTIFICATES}'; exec \"$@\""
    program = binaries.program(manager.program, "kubeflow")
    command: list[str | Path] = [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        view,
        "sh",
        program,
        *_flags(world, manager, folder),
    ]
    pid = processes.start(str(world.cluster.folder), f"peer-{manager.program}", command, log)
    try:
        processes.wait_until(
            lambda: _certified(world, manager, certificates), "certificates", timeout=60, pid=pid, log=log
        )
        yield pid, log
    finally:
        processes.kill([pid])


def _flags(world: World, manager: Manager, folder: Path) -> list[str]:
    host, loopback = world.cluster.addresses.host, world.cluster.addresses.loopback
    user = world.cluster.kubeconfig_of(manager.namespace, manager.account, folder / f"{manager.program}.kubeconfig")
    health = f"{loopback}:{manager.health_port}"
    if manager is TRAINER:
        port = f"--webhook-server-port={manager.webhook_port}"
        return [f"--kubeconfig={user}", port, f"--health-probe-bind-address={health}"]
    configuration = folder / "jobset.yaml"
    wanted = {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "leaderElection": {"leaderElect": True, "resourceNamespace": manager.namespace},
        "webhook": {"host": host, "port": manager.webhook_port},
        "health": {"healthProbeBindAddress": health},
    }
    configuration.write_text(json.dumps(wanted))  # JSON is YAML
    return [f"--kubeconfig={user}", f"--config={configuration}", "--metrics-bind-address=0"]


def _certified(world: World, manager: Manager, folder: Path) -> bool:
    """Whether the manager has filled its Secret; if so, writes its data where a kubelet would mount them."""
    data = world.cluster.get("secret", manager.secret, "-n", manager.namespace).get("data") or {}
    for name, value in data.items():
        (folder / name).write_bytes(base64.b64decode(value))
    return "tls.crt" in data


def _accepted(world: World, verb: str, manifest: Manifest, *more: str) -> bool:
    try:
        world.cluster.kubectl(verb, "-f", "-", *more, stdin=json.dumps(manifest))
    except ClusterError:
        return False
    return True


def _remove_if_unused() -> None:
    """The folders were created for the mounts; other files stay."""
    with suppress(OSError):
        CERTIFICATES.rmdir()
        CERTIFICATES.parent.rmdir()


def _runtime() -> Manifest:
    """One pod with one container, nothing else."""
    container = {"name": "node", "image": "fake", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}
    job = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    return {
        "apiVersion": API,
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": "plain"},
        "spec": {
            "mlPolicy": {"numNodes": 1},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": job}]}},
        },
    }


def jobs(count: int) -> Iterator[Manifest]:
    """TrainJobs with required fields only."""
    for number in range(count):
        yield {
            "apiVersion": API,
            "kind": "TrainJob",
            "metadata": {"name": f"job-{number}", "namespace": NAMESPACE},
            "spec": {"runtimeRef": {"name": "plain"}},
        }


def owner_of(batch_job: Manifest) -> str | None:
    """The TrainJob of a batch Job: its JobSet has the same name."""
    owners = batch_job["metadata"].get("ownerReferences") or ()
    return next((owner["name"] for owner in owners if owner["kind"] == "JobSet"), None)
