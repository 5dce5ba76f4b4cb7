"""The operator's process with the chart's rights and no others: it does its work, and the server never says 403."""

import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from finetune_api.asking import COMPLETIONS, RequestingAttempt
from finetune_api.base import NOT_RECONCILED
from finetune_api.job_status import ArtifactRef
from finetune_api.manifest import Manifest
from finetune_api.model import FineTunedModelStatus, ModelVersion
from finetune_api.names import PROVIDER_FINALIZER, TOKEN_AUDIENCE, UPLOAD_PATH, WEIGHTS_FINALIZER
from tests.cluster.cluster import Cluster
from tests.cluster.ports import answers, free_port
from tests.cluster.processes import wait_until
from tests.contract.conftest import ROOT, Server
from tests.contract.manifests import DEPLOYMENT, JOB, LOCAL, MODEL, changed
from tests.lives import clouds
from tests.lives.life import Life
from tests.simulators import certificates
from tests.simulators.aws.moto import moto
from tests.unit.helm.charts import CHART

pytestmark = pytest.mark.cluster

RELEASE, OWN, TEAM, OTHER = "finetune-operator", "finetune-system", "team-a", "team-b"
ROWS = 12
NO_POD = {"nodeSelector": {"no label": "x"}}
REQUESTS = re.compile(r'^finetune_api_requests_total\{code="(\d+)",resource="([^"]+)",verb="([^"]+)"\}', re.MULTILINE)


@pytest.fixture(scope="module", params=["all namespaces", "one namespace"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """An API server with the chart installed, for the whole cluster or for one namespace."""
    with Cluster(f"rights-{os.getpid()}", nodes=0, controllers=False) as cluster:
        server = Server(cluster)
        for name in (OWN, TEAM, OTHER):
            server.store({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        # Its pods' account, which no controller makes; once, since lives in several threads would race to apply it.
        server.store({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": TEAM}})
        only = ("--set", f"watchNamespaces={{{TEAM}}}") if request.param == "one namespace" else ()
        cluster.helm("install", RELEASE, str(CHART), "--namespace", OWN, *only)
        server.cluster.wait_for_definitions()
        yield server


@pytest.fixture(scope="module")
def watched(server: Server) -> tuple[str, ...]:
    """Namespaces that the chart's values name."""
    variables = server.get("deployment", RELEASE, "-n", OWN)["spec"]["template"]["spec"]["containers"][0]["env"]
    return tuple(row["value"] for row in variables if row["name"] == "FINETUNE_WATCH_NAMESPACES")


@pytest.fixture(scope="module")
def report_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def folder(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001 - one for each
    """Kubeconfig and log of the operator on this server."""
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(scope="module")
def tls(folder: Path) -> certificates.Tls:
    """What Azure shows, and the operator trusts."""
    return certificates.make(folder / "azure")


@pytest.fixture(scope="module")
def metrics(
    server: Server, watched: tuple[str, ...], report_port: int, folder: Path, tls: certificates.Tls
) -> Iterator[str]:
    """The address of the metrics of an operator that runs as the chart's service account."""
    server.store(own_pod())
    probe = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "operator"),
        "FINETUNE_NAMESPACE": OWN,
        "FINETUNE_POD_NAME": "operator",
        "FINETUNE_LEASE_NAME": RELEASE,
        "FINETUNE_TLS_SECRET": f"{RELEASE}-tls",
        "FINETUNE_KUBECONFIG": str(server.cluster.kubeconfig_of(OWN, RELEASE, folder / "kubeconfig")),
        "FINETUNE_PROBE_PORT": str(probe),
        "FINETUNE_REPORT_PORT": str(report_port),
        "FINETUNE_WATCH_NAMESPACES": ",".join(watched),
        "FINETUNE_RESYNC_SECONDS": "10",
        "FINETUNE_PROVIDER_POLL_SECONDS": "1",
        "SSL_CERT_FILE": str(tls.authority),
    }
    with running(environment, folder / "log") as log:
        address = f"http://127.0.0.1:{probe}"
        wait_until(lambda: answers(f"{address}/readyz"), f"the operator's readiness (log: {log})", timeout=120)
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
            assert process.wait(timeout=120) == 0, log.read_text()


def own_pod() -> Manifest:
    """The pod that the operator labels as the leader's; nothing runs it here."""
    container = {"name": "operator", "image": "none"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": OWN},
        "spec": {"serviceAccountName": RELEASE, "containers": [container]},
    }


PLACES = {
    "jobs": ("/apis/batch/v1", "jobs"),
    "services": ("/api/v1", "services"),
    "deployments.apps": ("/apis/apps/v1", "deployments"),
    "pdb": ("/apis/policy/v1", "poddisruptionbudgets"),
    "ftj": ("/apis/finetune.dev/v1alpha1", "finetunejobs"),
    "ftm": ("/apis/finetune.dev/v1alpha1", "finetunedmodels"),
    "md": ("/apis/finetune.dev/v1alpha1", "modeldeployments"),
}


def look(server: Server, kind: str, name: str) -> Manifest | None:
    """The object, without a process of kubectl: it is looked at again and again."""
    group, plural = PLACES[kind]
    return server.cluster.read(f"{group}/namespaces/{TEAM}/{plural}/{name}")


def exists(server: Server, kind: str, name: str) -> bool:
    return look(server, kind, name) is not None


def phase_of(server: Server, job: str) -> str | None:
    found: str | None = (look(server, "ftj", job) or {}).get("status", {}).get("phase")
    return found


def in_team(manifest: Manifest, namespace: str = TEAM) -> Manifest:
    return changed(manifest, "metadata.namespace", namespace)


def check(server: Server, port: int, name: str, rows: bytes) -> None:
    """What a job's check does: a pod passes the data on, and ends well."""
    wait_until(lambda: exists(server, "jobs", f"{name}-1"), "the check's Job", timeout=120)
    uid = server.get("ftj", name, "-n", TEAM)["metadata"]["uid"]
    file = upload(port, run_check(server, name), uid, name, rows)
    assert server.get("ftj", name, "-n", TEAM)["metadata"]["finalizers"] == [PROVIDER_FINALIZER]
    end_check(server, uid, file, name)


def run_check(server: Server, name: str) -> str:
    """The check's pod, and its token."""
    return run_pod(server, f"{name}-1")


def run_pod(server: Server, job: str) -> str:
    """A pod in the place of the Job controller's, and its token."""
    batch_job = server.get("jobs", job, "-n", TEAM)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": batch_job["metadata"]["uid"]}
    labels = batch_job["spec"]["template"]["metadata"]["labels"] | {"batch.kubernetes.io/job-name": job}
    metadata = {"name": f"{job}-x", "namespace": TEAM, "labels": labels, "ownerReferences": [owner]}
    spec = {"serviceAccountName": "default", "containers": [{"name": "trainer", "image": "none"}]}
    server.store({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", f"{job}-x")
    return server.kubectl("create", "token", "default", "-n", TEAM, "--audience", TOKEN_AUDIENCE, *bound).strip()


def upload(port: int, token: str, uid: str, name: str, rows: bytes) -> Manifest:
    """Over the operator's own TLS, whose names are those of its Service."""
    of = {"namespace": TEAM, "name": name, "uid": uid, "attempt": "1", "split": "train"}
    query = urlencode(of | {"sha256": hashlib.sha256(rows).hexdigest()})
    return sent(
        urllib.request.Request(
            f"https://127.0.0.1:{port}{UPLOAD_PATH}?{query}", rows, {"Authorization": f"Bearer {token}"}, method="PUT"
        )
    )


def ask(port: int, token: str, uid: str, text: str, name: str) -> str:
    """One question to the tuned model, as the evaluation's pod asks it."""
    place = RequestingAttempt(namespace=TEAM, name=name, uid=uid, attempt=1).root(f"127.0.0.1:{port}")
    asked = {"model": "tuned", "messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    reply = sent(urllib.request.Request(f"{place}/{COMPLETIONS}", json.dumps(asked).encode(), headers, method="POST"))
    return str(reply["choices"][0]["message"]["content"])


def sent(request: urllib.request.Request) -> Manifest:
    """What the operator answers."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE

    def answer() -> Manifest | None:
        try:
            with urllib.request.urlopen(request, timeout=30, context=tls) as response:
                return dict(json.loads(response.read()))
        except urllib.error.HTTPError as error:
            if error.code != 403:  # 403: the operator has not seen the pod yet
                raise
            return None

    found: list[Manifest] = []
    wait_until(lambda: bool((taken := answer()) and not found.append(taken)), "an answer", timeout=120)
    return found[0]


def end_check(server: Server, uid: str, file: Manifest, name: str) -> None:
    """A check that has ended well."""
    test = {"file": "test.jsonl", "format": "JSON lines", "rows": ROWS}
    dataset = {"valid": True, "reason": "Valid", "message": "good", "test": test}
    end_pod(server, f"{name}-1", uid, "Checked", name, checked={"files": [file], "tokens": 100}, dataset=dataset)


def end_pod(server: Server, job: str, uid: str, phase: str, name: str, **told: Any) -> None:
    """What the kubelet and the Job controller say of a pod that has ended well."""
    report = {"namespace": TEAM, "name": name, "uid": uid, "attempt": 1, "phase": phase} | told
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {"exitCode": 0, "message": json.dumps(report), "startedAt": now, "finishedAt": now}
    container = {"name": "trainer", "image": "none", "imageID": "", "ready": False, "restartCount": 0,
                 "state": {"terminated": ended}}  # fmt: skip
    pod = {"status": {"phase": "Succeeded", "containerStatuses": [container]}}
    patch_status(server, "pod", f"{job}-x", pod)
    done = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
    status = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": done}
    patch_status(server, "job", job, {"status": status})


def patch_status(server: Server, kind: str, name: str, change: Manifest) -> None:
    """In the place of the kubelet or a controller, for a kind of Kubernetes' own."""
    server.kubectl(
        "patch", kind, name, "-n", TEAM, "--subresource=status", "--type=merge", f"--patch={json.dumps(change)}"
    )


def version(uri: str = "pvc://models/a") -> ModelVersion:
    return ModelVersion(
        version=1, job="earlier", job_uid="u", connection="local", base_model="a/b", method="LoRA",
        artifact=ArtifactRef(uri=uri, kind="Adapter"), created_at="2026-11-21T10:00:00Z",
    )  # fmt: skip


@pytest.mark.usefixtures("metrics")
def test_the_operator_works_with_the_charts_rights(server: Server) -> None:
    server.store(LOCAL)
    server.store(in_team(JOB))
    wait_until(lambda: exists(server, "jobs", "sentiment-1-1"), "a batch Job", timeout=120)
    server.patch("ftj", "sentiment-1", {"spec": {"suspend": True}}, namespace=TEAM)
    wait_until(lambda: phase_of(server, "sentiment-1") == "Suspended", "suspension", timeout=120)

    pair = changed(MODEL, "spec.deployment.template.huggingFace.replicas", 2)
    server.store(in_team(changed(pair, "metadata.name", "served")))
    status = FineTunedModelStatus(versions=[version()], latest_version=1)
    server.patch("ftm", "served", {"status": status.wire()}, namespace=TEAM, status=True)
    for kind in ("md", "deployments.apps", "services", "pdb"):
        wait_until(lambda kind=kind: exists(server, kind, "served"), f"{kind} served", timeout=120)

    server.store(in_team(changed(DEPLOYMENT, "metadata.name", "lonely")))
    wait_until(lambda: "status" in (look(server, "md", "lonely") or {}), "a status of what has no model", timeout=120)
    assert server.get("llmc", "local")["status"]["provider"] == "huggingFace"
    assert server.get("pod", "operator", "-n", OWN)["metadata"]["labels"]["finetune.dev/leader"] == "true"
    assert server.get("secret", f"{RELEASE}-tls", "-n", OWN)["data"]
    assert server.get("lease", RELEASE, "-n", OWN)["spec"]["holderIdentity"]


@pytest.mark.usefixtures("metrics")
def test_a_connection_that_cannot_be_used_is_told_of_in_an_event(server: Server) -> None:
    """It has no namespace: the Event is in `default`, whichever namespaces are looked after."""
    refused = changed(changed(LOCAL, "metadata.name", "refused"), "spec.huggingFace.podTemplate", NO_POD)
    server.store(refused)

    def is_told() -> bool:
        listed = server.cluster.read("/apis/events.k8s.io/v1/namespaces/default/events") or {}
        return any(event["regarding"].get("name") == "refused" for event in listed["items"])

    wait_until(is_told, "an Event of the connection", timeout=120)
    server.kubectl("delete", "llmc", "refused")


@pytest.mark.usefixtures("metrics")
def test_a_model_takes_its_deployment_and_its_weights_with_it(server: Server) -> None:
    server.store(LOCAL)
    server.store(in_team(changed(changed(MODEL, "metadata.name", "held"), "spec.deletionPolicy", "Delete")))
    status = FineTunedModelStatus(versions=[version(f"pvc://models/{TEAM}/held/job-1/model")], latest_version=1)
    server.patch("ftm", "held", {"status": status.wire()}, namespace=TEAM, status=True)
    wait_until(lambda: exists(server, "md", "held"), "its deployment", timeout=120)
    assert server.get("ftm", "held", "-n", TEAM)["metadata"]["finalizers"] == [WEIGHTS_FINALIZER]
    server.kubectl("delete", "ftm", "held", "-n", TEAM, "--wait=false")
    wait_until(lambda: prune_jobs(server) != [], "the Job that deletes its weights", timeout=120)
    assert not exists(server, "md", "held")
    assert exists(server, "ftm", "held")
    [job] = prune_jobs(server)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    done = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
    ended = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": done}
    patch_status(server, "job", job, {"status": ended})
    wait_until(lambda: not exists(server, "ftm", "held"), "its end", timeout=120)


def prune_jobs(server: Server) -> list[str]:
    of_pruning = "?labelSelector=app.kubernetes.io/component%3Dprune"
    listed = server.cluster.read(f"/apis/batch/v1/namespaces/{TEAM}/jobs{of_pruning}") or {}
    return [job["metadata"]["name"] for job in listed["items"]]


@pytest.mark.usefixtures("metrics")
def test_a_model_at_a_provider_is_tuned_measured_served_and_deleted(
    server: Server, report_port: int, tls: certificates.Tls, watched: tuple[str, ...]
) -> None:
    """Side by side: each life mostly waits. What differs by the namespaces is none of the provider's."""
    host = "127.0.0.1"
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        by_the_hour = (clouds.azure(host, tls), clouds.bedrock(host, stack.enter_context(moto(host))))
        places = (clouds.openai(host),) if watched else by_the_hour
        lives = [threads.submit(live, server, report_port, stack.enter_context(place)) for place in places]
        for life in lives:
            life.result()


def live(server: Server, port: int, cloud: clouds.Cloud) -> None:
    """One life: what was deployed for the evaluation is gone before the next step."""
    life = Life(server.cluster, cloud, TEAM, operator=OWN, name=f"at-{cloud.name}")
    life.connect()
    life.make_model()
    dataset = JOB["spec"]["dataset"] | {"test": {"uri": "pvc://data/test.jsonl"}}
    told = life.tune(
        f"{cloud.name}-1",
        dataset,
        lambda job: check(server, port, job, cloud.rows(ROWS)),
        lambda job: measure(server, port, job),
    )
    assert told["evaluation"]["verdict"] == "Better"
    life.serves(1)
    life.end()
    assert (cloud.simulator.left(), cloud.simulator.ledger.running()) == ([], [])


def measure(server: Server, port: int, name: str) -> None:
    """What the evaluation's pod does, with one question for all."""
    pod = f"{name}-1-eval1"
    wait_until(lambda: exists(server, "jobs", pod), "the evaluation's Job", timeout=120)
    job = server.get("ftj", name, "-n", TEAM)
    assert (job["status"]["phase"], "modelVersion" in job["status"]) == ("Evaluating", False)
    uid = job["metadata"]["uid"]
    assert ask(port, run_pod(server, pod), uid, "question 7", name) == "answer 7"
    result = {"rows": 12, "tuned": {"exactMatch": 1.0}, "baselines": {}, "verdict": "Better"}
    end_pod(server, pod, uid, "Measured", name, evaluation=result)


def test_the_server_never_says_that_something_is_forbidden(metrics: str) -> None:
    with urllib.request.urlopen(metrics, timeout=30) as answer:
        requests = REQUESTS.findall(answer.read().decode())
    assert len(requests) > 10
    assert [row for row in requests if row[0] in {"401", "403"}] == []


def test_no_connections_key_is_in_a_log_body_or_metric(server: Server, metrics: str, folder: Path) -> None:
    with urllib.request.urlopen(metrics, timeout=30) as answer:
        told = {"metrics": answer.read().decode(), "log": (folder / "log").read_text()}
    told["written bodies"] = server.cluster.audit.path.read_text()
    assert all(len(text) > 300 for text in told.values())
    assert [place for place, text in told.items() if any(key in text for key in clouds.CANARIES)] == []


@pytest.mark.usefixtures("metrics")
def test_namespaces_that_are_not_named_are_left_alone(server: Server, watched: tuple[str, ...]) -> None:
    server.store(in_team(JOB, OTHER))
    server.store(in_team(changed(JOB, "metadata.name", "later")))
    wait_until(lambda: exists(server, "jobs", "later-1"), "the Job of the watched namespace", timeout=120)
    looked_at = server.get("ftj", "sentiment-1", "-n", OTHER)["status"]["observedGeneration"] != NOT_RECONCILED
    assert looked_at is not bool(watched)


@pytest.mark.usefixtures("metrics")
def test_what_the_operator_lets_go_of_is_not_taken_for_what_others_took_its_finalizer_off(folder: Path) -> None:
    """Watches tell of both with the finalizer on. What was deployed in the lives above has gone by now."""
    assert "removed its finalizer" not in (folder / "log").read_text()
