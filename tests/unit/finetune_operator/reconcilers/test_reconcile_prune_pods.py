"""The pod that deletes weights, where the cluster does not let it start or end: said until the cause is gone."""

from typing import Any

import pytest

from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import EVENTS, FINE_TUNED_MODELS, JOBS, PODS
from tests.unit.finetune_operator.decide.given import NOW, ended, stamp, waiting
from tests.unit.finetune_operator.reconcilers.fake_cluster import MODEL, Cluster
from tests.unit.finetune_operator.reconcilers.versions import add_version, with_version

QUOTA = 'Error creating: pods "sentiment-prune-x" is forbidden: exceeded quota: small'
NO_POD = "its pod is forbidden: exceeded quota: small"
NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
PROXY = {"name": "proxy", "state": {"running": {"startedAt": stamp()}}}


def job_of(cluster: Cluster) -> dict[str, Any]:
    (found,) = [obj for key, obj in cluster.kube.objects.items() if key[0] is JOBS and "prune" in key[2]]
    return found


def pod(cluster: Cluster, **status: Any) -> None:
    """The prune Job's pod is in this state."""
    metadata = job_of(cluster)["metadata"]
    labels = {**metadata["labels"], "batch.kubernetes.io/job-name": metadata["name"]}
    owner = {"kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
    its = {"name": "prune-x", "namespace": "team-a", "labels": labels, "ownerReferences": [owner]}
    cluster.kube.put(PODS, {"metadata": its, "status": status})


def refuse_pod(cluster: Cluster) -> None:
    """The Job controller says why it makes no pod."""
    metadata, uid = {"name": "e", "namespace": "team-a"}, job_of(cluster)["metadata"]["uid"]
    event = {"metadata": metadata, "regarding": {"uid": uid}, "reason": "FailedCreate", "note": QUOTA}
    cluster.kube.put(EVENTS, event)


async def pruning(**spec: Any) -> Cluster:
    """A model whose first version is on its way out."""
    cluster = await with_version(historyLimit=1, **spec)
    cluster.now = NOW
    cluster.roll_out()
    await cluster.settle()
    await add_version(cluster, 2)
    cluster.roll_out()
    await cluster.settle()
    assert len(cluster.status(MODEL)["versions"]) == 2
    return cluster


def complete(cluster: Cluster) -> None:
    name = job_of(cluster)["metadata"]["name"]
    cluster.kube.change(JOBS, name, status={"conditions": [{"type": "Complete", "status": "True"}]})


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        pytest.param(None, "PodRejected", NO_POD, id="no pod may be made"),
        pytest.param(
            {"phase": "Pending", **waiting("ErrImagePull", "not found")}, "ImagePullFailed", "not found", id="no image"
        ),
        pytest.param({"phase": "Pending", "conditions": [NO_NODE]}, "Unschedulable", "0/1 nodes", id="no node"),
    ],
)
async def test_weights_whose_pod_does_not_start_are_told_of_until_they_are_gone(
    status: Any, reason: str, said: str
) -> None:
    cluster = await pruning()
    if status is None:
        refuse_pod(cluster)
    else:
        pod(cluster, **status)
    await cluster.wait(30)
    assert not cluster.condition("Cleaned", MODEL), "it may pass by itself"
    await cluster.wait(60)
    cleaned = cluster.condition("Cleaned", MODEL)
    assert (cleaned["status"], cleaned["reason"]) == ("False", reason)
    assert said in cleaned["message"]
    assert ("FineTunedModel", "Warning", reason) in cluster.told
    assert cluster.condition("Ready", MODEL)["status"] == "True"
    pod(cluster, phase="Succeeded", **ended(0))
    complete(cluster)
    await cluster.settle()
    assert cluster.condition("Cleaned", MODEL)["status"] == "True"
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [2]


async def test_a_model_that_waits_for_its_weights_says_why_their_pod_is_not_made() -> None:
    cluster = await with_version(deletionPolicy="Delete")
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    await cluster.wait(10)
    refuse_pod(cluster)
    await cluster.wait(90)
    stalled = cluster.condition("Stalled", MODEL)
    assert (stalled["status"], stalled["reason"]) == ("True", "PodRejected")
    assert NO_POD in stalled["message"]
    complete(cluster)
    await cluster.wait(60)
    assert (FINE_TUNED_MODELS, "team-a", "sentiment") not in cluster.kube.objects


async def test_a_container_beside_the_pod_that_deletes_weights_holds_nothing_up() -> None:
    cluster = await pruning()
    pod(cluster, phase="Running", containerStatuses=[*ended(0)["containerStatuses"], PROXY])
    cluster.kube.refusals["delete", "jobs"] = Forbidden(403, "Forbidden", "jobs may not be deleted here")
    await cluster.settle()
    assert "jobs may not be deleted here" in cluster.condition("Cleaned", MODEL)["message"]
    cluster.kube.refusals.clear()
    await cluster.wait(60)
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [2]
    assert not [key for key in cluster.kube.objects if key[0] is JOBS and "prune" in key[2]], "its pod ends with it"
    assert cluster.condition("Cleaned", MODEL)["status"] == "True"


async def test_one_that_cannot_start_is_made_anew_as_its_connection_says_now() -> None:
    cluster = await pruning()
    pod(cluster, phase="Pending", **waiting("ErrImagePull", "not found"))
    await cluster.wait(90)
    assert cluster.condition("Cleaned", MODEL)["reason"] == "ImagePullFailed"
    cluster.add_connection(huggingFace={"trainerImage": "trainer:2", "artifacts": {"uri": "pvc://models"}})
    await cluster.settle()
    cluster.kube.drop(PODS, "prune-x")
    await cluster.wait(90)
    assert job_of(cluster)["spec"]["template"]["spec"]["containers"][0]["image"] == "trainer:2"
