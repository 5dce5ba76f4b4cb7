"""JobSet's own controller, with its webhooks, as a process beside a running cluster's control plane.

It has the administrator's permissions; in a real cluster it has its own service account. It ends with the cluster.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.cluster import binaries, processes, shell
from tests.cluster.cluster import Cluster
from tests.cluster.console import say
from tests.cluster.control_plane import answers

ROLE = "jobset"
WEBHOOK_PORT, HEALTH_PORT = 9443, 8082
GROUP = "jobset.x-k8s.io"


def install(cluster: Cluster) -> None:
    """Install the JobSet CRD and start its controller, unless it runs; both are ready on return.

    Raises:
        ClusterError: it does not start.
    """
    programs = binaries.build("jobset")
    if ROLE in processes.running(str(cluster.folder)).values():
        return
    say(f"starting JobSet on cluster {cluster.name}")
    # Client-side apply would copy the whole definition into an annotation, which is too small for it.
    cluster.kubectl("apply", "--server-side", "-f", str(programs / "jobsets.yaml"))
    kubectl = (cluster.programs / "kubectl", f"--kubeconfig={cluster.kubeconfig}")
    # Not `kubectl wait`, which fails on a definition without conditions.
    processes.wait_until(lambda: shell.succeeds(*kubectl, "get", "jobsets"), "JobSet's definition", timeout=30)
    folder = cluster.folder / ROLE
    authority = _certificate(folder, cluster.addresses.host)
    log = cluster.folder / "logs" / "jobset.log"
    configuration = _configuration(folder, cluster.addresses.host, cluster.addresses.loopback)
    flags = [f"--kubeconfig={cluster.kubeconfig}", f"--config={configuration}", "--metrics-bind-address=0"]
    pid = processes.start(str(cluster.folder), ROLE, [programs / "jobset", *flags], log)
    ready = f"http://{cluster.addresses.loopback}:{HEALTH_PORT}/readyz"
    processes.wait_until(lambda: answers(ready), "JobSet", timeout=60, pid=pid, log=log)
    cluster.apply(*_webhooks(f"https://{cluster.addresses.host}:{WEBHOOK_PORT}", authority))


def _certificate(folder: Path, host: str) -> str:
    """Write the webhooks' key and certificate; returns the CA for the API server."""
    folder.mkdir(parents=True, exist_ok=True)
    shell.run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=jobset",
        "-addext", f"subjectAltName=IP:{host}", "-keyout", folder / "tls.key", "-out", folder / "tls.crt",
    )  # fmt: skip
    return base64.b64encode((folder / "tls.crt").read_bytes()).decode()


def _configuration(folder: Path, host: str, loopback: str) -> Path:
    path = folder / "configuration.yaml"
    configuration = {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "webhook": {"host": host, "port": WEBHOOK_PORT, "certDir": str(folder)},
        "health": {"healthProbeBindAddress": f"{loopback}:{HEALTH_PORT}"},
    }
    path.write_text(json.dumps(configuration))  # JSON is YAML
    return path


def _webhooks(server: str, authority: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """JobSet's own webhook configurations with another address."""
    of_sets = {"apiGroups": [GROUP], "apiVersions": ["v1alpha2"], "resources": ["jobsets"]}
    of_pods = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
    only = {"matchExpressions": [{"key": "jobset.sigs.k8s.io/jobset-name", "operator": "Exists"}]}

    def hook(name: str, path: str, rule: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "name": name, "admissionReviewVersions": ["v1"], "failurePolicy": "Fail", "sideEffects": "None",
            "clientConfig": {"url": f"{server}{path}", "caBundle": authority}, "rules": [rule], **more,
        }  # fmt: skip

    def configuration(kind: str, verb: str, operations: list[str]) -> dict[str, Any]:
        sets = hook(
            f"{verb[0]}jobset.kb.io", f"/{verb}-jobset-x-k8s-io-v1alpha2-jobset", {**of_sets, "operations": operations}
        )
        pods = hook(f"{verb[0]}pod.kb.io", f"/{verb}--v1-pod", of_pods, objectSelector=only)
        metadata = {"name": f"jobset-{verb}"}
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": metadata,
            "webhooks": [sets, pods],
        }

    return (
        configuration("MutatingWebhookConfiguration", "mutate", ["CREATE"]),
        configuration("ValidatingWebhookConfiguration", "validate", ["CREATE", "UPDATE"]),
    )
