"""Nodes that do not answer: for five minutes the pods on them are there by their status, and nobody knows of them."""

from typing import Any

from finetune_operator.runtime.kube import DEPLOYMENTS, PODS
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, Cluster, with_running_job
from tests.unit.finetune_operator.reconcilers.versions import with_version

SINCE = "2026-11-21T12:30:00Z"


def conditions(ready: str, **fields: str) -> list[dict[str, str]]:
    """As the kubelet writes them; where a node is silent, its controller takes Ready away, and gives no reason."""
    known = {"type": "Ready", "status": ready, "lastTransitionTime": SINCE, **fields}
    return [{"type": "PodScheduled", "status": "True"}, known, {"type": "ContainersReady", "status": "True"}]


def is_heard(cluster: Cluster, pod: str, ready: str, **fields: str) -> None:
    status = cluster.kube.objects[PODS, "team-a", pod]["status"]
    cluster.kube.change(PODS, pod, status={**status, "conditions": conditions(ready, **fields)})


async def test_a_job_says_that_its_node_does_not_answer_and_that_it_does_again() -> None:
    cluster = await with_running_job()
    is_heard(cluster, "sentiment-1-1-x", "True")
    cluster.reports.accept(cluster.report("Running"))
    await cluster.settle()
    before = cluster.condition("Ready")["message"]
    is_heard(cluster, "sentiment-1-1-x", "False")
    await cluster.settle()
    assert cluster.condition("Ready")["message"] == (
        f"the training pod's node does not answer since {SINCE}: if it is not back within some minutes, the pod is "
        "given up, and the next attempt resumes from the last checkpoint (kubectl get nodes)"
    )
    is_heard(cluster, "sentiment-1-1-x", "True")
    await cluster.settle()
    assert cluster.condition("Ready")["message"] == before


async def test_a_pod_that_is_not_ready_for_a_reason_of_its_own_has_no_silent_node() -> None:
    cluster = await with_running_job()
    is_heard(cluster, "sentiment-1-1-x", "False", reason="ReadinessGatesNotReady")
    await cluster.settle()
    assert "does not answer" not in cluster.condition("Ready")["message"]


async def test_a_silent_trainer_on_a_silent_node_is_not_said_to_hang() -> None:
    """Its pod tolerates such nodes: it is never given up."""
    cluster = await with_running_job()
    is_heard(cluster, "sentiment-1-1-x", "False")
    await cluster.settle()
    await cluster.wait(3601)
    failure: dict[str, Any] = cluster.status()["failure"]
    assert failure["reason"] == "TrainerSilent"
    assert f"the training pod's node does not answer since {SINCE}" in failure["message"]
    assert "it hangs" not in failure["message"]


async def test_a_server_on_a_silent_node_says_so_and_is_not_said_to_answer() -> None:
    cluster = await with_version()
    labels = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]["spec"]["template"]["metadata"]["labels"]
    up = {"name": "server", "ready": True, "state": {"running": {"startedAt": SINCE}}}
    status = {"phase": "Running", "containerStatuses": [up], "conditions": conditions("True")}
    pod = {"name": "sentiment-x", "namespace": "team-a", "labels": labels}
    cluster.kube.put(PODS, {"metadata": pod, "status": status})
    cluster.roll_out()
    await cluster.settle()
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    is_heard(cluster, "sentiment-x", "False")
    deployment = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]
    rolled_out = [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]
    cluster.kube.change(
        DEPLOYMENTS, "sentiment", status=deployment["status"] | {"availableReplicas": 0, "conditions": rolled_out}
    )
    await cluster.settle()
    assert cluster.condition("Ready", DEPLOYMENT)["message"] == (
        f"version 1 was deployed; 0 of 1 servers are ready; the node of a server's pod does not answer since "
        f"{SINCE}: if it is not back within some minutes, another pod takes its place (kubectl get nodes)"
    )
    assert "servedVersion" not in cluster.status(DEPLOYMENT)
