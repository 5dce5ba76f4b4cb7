"""A control plane whose nodes and pods KWOK simulates, for both operators. Independent of either."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import binaries, processes
from tests.cluster.cluster import Cluster

NAMESPACE = "bench"
STAYS = "bench.finetune.dev/stays"
"""Annotation of pods that keep running."""

NODES = 20
PODS_PER_NODE = 1000
ETCD_BYTES = 8 * 1024**3
"""Enough for ten thousand jobs with all their revisions, which are compacted after five minutes."""
AT_ONCE_SECONDS = 5
"""Controllers poll for new kinds within these seconds of each other."""
KWOK_CONFIG = Path(__file__).with_name("kwok") / "kwok.yaml"

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Metadata",
            "userGroups": [
                f"system:serviceaccounts:{namespace}"
                for namespace in ("finetune-system", "kubeflow-system", "jobset-system")
            ],
        },
        {"level": "None"},
    ],
}
"""The audit policy: metadata only, and of operators only, to keep it cheap."""


class World:
    """A running cluster with fake nodes."""

    def __init__(self, cluster: Cluster, audit_log: Path) -> None:
        self.cluster = cluster
        self.audit_log = audit_log

    def pids(self) -> list[int]:
        """The processes of control plane and nodes."""
        return list(processes.running(str(self.cluster.folder)))

    def api_server(self) -> int:
        """The process of the API server."""
        roles = processes.running(str(self.cluster.folder))
        return next(pid for pid, role in roles.items() if role == "kube-apiserver")


@contextmanager
def running(name: str, folder: Path) -> Iterator[World]:
    """A new cluster with ready nodes; deleted at the end.

    Controller manager and scheduler have no client rate limit that would limit the operators first.
    """
    log, audited = _audit(folder)
    unlimited = ["--kube-api-qps=1000", "--kube-api-burst=1000"]
    flags = {
        # Webhooks are called at their endpoints: there is no kube-proxy for Services.
        "kube-apiserver": [*audited, "--enable-aggregator-routing=true"],
        "etcd": [f"--quota-backend-bytes={ETCD_BYTES}"],
        # A heartbeat that is late because the machine is busy is no lost node.
        "kube-controller-manager": [*unlimited, "--node-monitor-grace-period=300s"],
        "kube-scheduler": unlimited,
    }
    with Cluster(name, nodes=0, more_flags=flags) as cluster:
        cluster.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, *map(_node, range(NODES))
        )
        cluster.apply(*(_claim(claim) for claim in ("data", "models")))
        _start_kwok(cluster)
        cluster.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")
        yield World(cluster, log)


@contextmanager
def api_alone(name: str, folder: Path) -> Iterator[World]:
    """A new API server without controllers and nodes, for callers that simulate these; deleted at the end."""
    log, audited = _audit(folder)
    with Cluster(name, nodes=0, controllers=False, more_flags={"kube-apiserver": audited}) as cluster:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        cluster.kubectl("apply", "--namespace", NAMESPACE, "-f", "-", stdin=json.dumps(account))
        yield World(cluster, log)


def settle(made: World, plural: str) -> None:
    """Return once Kubernetes' controllers watch a newly defined kind, for which they poll every 30 s.

    Until then the garbage collector looks up the owner of each batch Job again: one request each, to the cost of
    whichever operator starts earlier after its CRDs were applied.
    """
    processes.wait_until(lambda: _is_watched(made, plural), f"watches of {plural}", timeout=120)
    time.sleep(AT_ONCE_SECONDS)


def _is_watched(made: World, plural: str) -> bool:
    metrics = made.cluster.kubectl("get", "--raw", "/metrics").splitlines()
    running = (line for line in metrics if line.startswith("apiserver_longrunning_requests{") and line[-2:] != " 0")
    return any(f'resource="{plural}"' in line and 'verb="WATCH"' in line for line in running)


def is_at_rest(made: World) -> bool:
    """Whether the Job controller has processed the end of every batch Job."""
    unended = made.cluster.kubectl(
        "get", "jobs.batch", "--namespace", NAMESPACE, "--field-selector", "status.successful=0", "--output", "name"
    )
    return not unended.strip()


def _audit(folder: Path) -> tuple[Path, list[str]]:
    """The audit log, and the API server's flags for it."""
    folder.mkdir(parents=True, exist_ok=True)
    policy, log = folder / "audit-policy.json", folder / "audit.log"
    policy.write_text(json.dumps(AUDIT_POLICY))
    log.unlink(missing_ok=True)
    return log, [f"--audit-policy-file={policy}", f"--audit-log-path={log}", "--audit-log-maxsize=10000"]


def _start_kwok(cluster: Cluster) -> None:
    command: list[str | Path] = [
        binaries.program("kwok", "kwok"), f"--kubeconfig={cluster.kubeconfig}", f"--config={KWOK_CONFIG}",
        "--server-address=", "--v=0",
    ]  # fmt: skip
    processes.start(str(cluster.folder), "kwok", command, cluster.folder / "logs" / "kwok.log")


def _node(number: int) -> dict[str, Any]:
    amounts = {"cpu": "1000", "memory": "1Ti", "pods": str(PODS_PER_NODE), "ephemeral-storage": "1Ti"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"fake-{number}", "labels": {"kubernetes.io/hostname": f"fake-{number}"}},
        "status": {"capacity": amounts, "allocatable": amounts},
    }


def _claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
