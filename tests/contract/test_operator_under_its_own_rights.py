"""The operator's process with the chart's rights and no others: it does its work, and the server never says 403."""

import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.job import ArtifactRef
from finetune_api.model import FineTunedModelStatus, ModelVersion
from tests.cluster.cluster import Cluster
from tests.cluster.processes import wait_until
from tests.contract.conftest import ROOT, Server
from tests.contract.manifests import DEPLOYMENT, JOB, LOCAL, MODEL, Manifest, changed
from tests.unit.helm.charts import CHART

pytestmark = pytest.mark.cluster

RELEASE, OWN, TEAM, OTHER = "finetune-operator", "finetune-system", "team-a", "team-b"
REQUESTS = re.compile(r'^finetune_api_requests_total\{code="(\d+)",resource="([^"]+)",verb="([^"]+)"\}', re.MULTILINE)


@pytest.fixture(scope="module", params=["all namespaces", "one namespace"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """An API server with the chart installed, for the whole cluster or for one namespace."""
    with Cluster(f"rights-{os.getpid()}", nodes=0, controllers=False) as cluster:
        server = Server(cluster)
        for name in (OWN, TEAM, OTHER):
            server.store({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        only = ("--set", f"watchNamespaces={{{TEAM}}}") if request.param == "one namespace" else ()
        cluster.helm("install", RELEASE, str(CHART), "--namespace", OWN, *only)
        server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield server


@pytest.fixture(scope="module")
def watched(server: Server) -> tuple[str, ...]:
    """Namespaces that the chart's values name."""
    variables = server.get("deployment", RELEASE, "-n", OWN)["spec"]["template"]["spec"]["containers"][0]["env"]
    return tuple(row["value"] for row in variables if row["name"] == "FINETUNE_WATCH_NAMESPACES")


@pytest.fixture(scope="module")
def metrics(server: Server, watched: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the metrics of an operator that runs as the chart's service account."""
    folder = tmp_path_factory.mktemp("operator")
    server.store(own_pod())
    probe, report = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "operator"),
        "FINETUNE_NAMESPACE": OWN,
        "FINETUNE_POD_NAME": "operator",
        "FINETUNE_LEASE_NAME": RELEASE,
        "FINETUNE_TLS_SECRET": f"{RELEASE}-tls",
        "FINETUNE_KUBECONFIG": str(kubeconfig(server, folder)),
        "FINETUNE_PROBE_PORT": str(probe),
        "FINETUNE_REPORT_PORT": str(report),
        "FINETUNE_WATCH_NAMESPACES": ",".join(watched),
        "FINETUNE_RESYNC_SECONDS": "10",
    }
    with running(environment, folder / "log") as log:
        address = f"http://127.0.0.1:{probe}"
        wait_until(lambda: answers(f"{address}/readyz"), f"the operator's readiness (log: {log})", timeout=60)
        yield f"{address}/metrics"


@contextmanager
def running(environment: dict[str, str], log: Path) -> Iterator[Path]:
    with log.open("w") as output:
        command = [sys.executable, "-m", "finetune_operator"]
        process = subprocess.Popen(command, env=environment, cwd="/", stdout=output, stderr=subprocess.STDOUT)
        try:
            yield log
        finally:
            process.terminate()
            assert process.wait(timeout=60) == 0, log.read_text()


def own_pod() -> Manifest:
    """The pod that the operator labels as the leader's; nothing runs it here."""
    container = {"name": "operator", "image": "none"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": OWN},
        "spec": {"serviceAccountName": RELEASE, "containers": [container]},
    }


def kubeconfig(server: Server, folder: Path) -> Path:
    """The administrator's kubeconfig with the service account's token instead."""
    config: dict[str, Any] = yaml.safe_load(server.cluster.kubeconfig.read_text())
    token = server.kubectl("create", "token", RELEASE, "--namespace", OWN).strip()
    for user in config["users"]:
        user["user"] = {"token": token}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def exists(server: Server, kind: str, name: str) -> bool:
    return bool(server.get(kind, "-n", TEAM, f"--field-selector=metadata.name={name}")["items"])


def in_team(manifest: Manifest, namespace: str = TEAM) -> Manifest:
    return changed(manifest, "metadata.namespace", namespace)


def version() -> ModelVersion:
    return ModelVersion(
        version=1, job="earlier", job_uid="u", connection="local", base_model="a/b", method="LoRA",
        artifact=ArtifactRef(uri="pvc://models/a", kind="Adapter"), created_at="2026-11-21T10:00:00Z",
    )  # fmt: skip


@pytest.mark.usefixtures("metrics")
def test_the_operator_works_with_the_charts_rights(server: Server) -> None:
    server.store(LOCAL)
    server.store(in_team(JOB))
    wait_until(lambda: exists(server, "jobs", "sentiment-1-1"), "a batch Job", timeout=60)
    server.patch("ftj", "sentiment-1", {"spec": {"suspend": True}}, "-n", TEAM)
    wait_until(lambda: server.get("ftj", "sentiment-1", "-n", TEAM)["status"].get("phase") == "Suspended", "suspension",
               timeout=60)  # fmt: skip

    server.store(in_team(changed(MODEL, "metadata.name", "served")))
    status = FineTunedModelStatus(versions=[version()], latest_version=1)
    server.patch("ftm", "served", {"status": status.wire()}, "-n", TEAM, "--subresource=status")
    for kind in ("md", "deployments.apps", "services"):
        wait_until(lambda kind=kind: exists(server, kind, "served"), f"{kind} served", timeout=60)

    server.store(in_team(changed(DEPLOYMENT, "metadata.name", "lonely")))
    wait_until(lambda: "status" in server.get("md", "lonely", "-n", TEAM), "a status of what has no model", timeout=60)
    assert server.get("llmc", "local")["status"]["provider"] == "huggingFace"
    assert server.get("pod", "operator", "-n", OWN)["metadata"]["labels"]["finetune.dev/leader"] == "true"
    assert server.get("secret", f"{RELEASE}-tls", "-n", OWN)["data"]
    assert server.get("lease", RELEASE, "-n", OWN)["spec"]["holderIdentity"]


def test_the_server_never_says_that_something_is_forbidden(metrics: str) -> None:
    with urllib.request.urlopen(metrics, timeout=5) as answer:
        requests = REQUESTS.findall(answer.read().decode())
    assert len(requests) > 10
    assert [row for row in requests if row[0] in {"401", "403"}] == []


@pytest.mark.usefixtures("metrics")
def test_namespaces_that_are_not_named_are_left_alone(server: Server, watched: tuple[str, ...]) -> None:
    server.store(in_team(JOB, OTHER))
    server.store(in_team(changed(JOB, "metadata.name", "later")))
    wait_until(lambda: exists(server, "jobs", "later-1"), "the Job of the watched namespace", timeout=60)
    looked_at = "status" in server.get("ftj", "sentiment-1", "-n", OTHER)
    assert looked_at is not bool(watched)
