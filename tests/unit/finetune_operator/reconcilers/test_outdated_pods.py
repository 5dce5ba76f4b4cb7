"""A pod that cannot start, and a connection that an admin has corrected since: the pod would wait for ever."""

from typing import Any

import pytest

from finetune_operator.runtime.kube import JOBS, PODS
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster, with_job

NOT_FOUND = 'failed to pull image "trainer:typo": not found'


def waiting(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": state}]}


NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes match"}
OBSTACLES = {
    "ImagePullFailed": waiting("ErrImagePull", NOT_FOUND),
    "ContainerConfigInvalid": waiting("CreateContainerConfigError", 'secret "hub" not found'),
    "Unschedulable": {"phase": "Pending", "conditions": [NO_NODE]},
}


async def held_up(status: dict[str, Any]) -> Cluster:
    cluster = await with_job()
    cluster.run_pod(phase="Pending")
    cluster.kube.change(PODS, "sentiment-1-1-x", status=status)
    await cluster.settle()
    return cluster


def drop_pod(cluster: Cluster) -> None:
    cluster.kube.drop(PODS, "sentiment-1-1-x")


def correct(cluster: Cluster) -> None:
    cluster.add_connection(huggingFace={"trainerImage": "trainer:2", "artifacts": {"uri": "pvc://models"}})


@pytest.mark.parametrize("reason", OBSTACLES)
async def test_it_is_made_anew_as_the_connection_says_now_and_no_retry_is_used_up(reason: str) -> None:
    cluster = await held_up(OBSTACLES[reason])
    await cluster.wait(60)  # a pod without room is a failure only then
    assert cluster.status()["failure"]["reason"] == reason
    correct(cluster)
    await cluster.wait(60)
    assert (JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects
    drop_pod(cluster)
    await cluster.wait(60)
    made = cluster.kube.objects[JOBS, "team-a", "sentiment-1-2"]
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "trainer:2"
    assert "failure" not in cluster.status()
    provider = cluster.status()["provider"]
    assert (provider["attempt"], provider.get("retries", 0)) == (2, 0)


async def test_one_whose_connection_has_not_changed_is_waited_for() -> None:
    cluster = await held_up(OBSTACLES["ImagePullFailed"])
    await cluster.wait(600)
    assert (JOBS, "team-a", "sentiment-1-1") in cluster.kube.objects


async def test_one_that_has_begun_goes_on_whatever_becomes_of_its_connection() -> None:
    cluster = await with_job()
    cluster.run_pod()
    await cluster.settle()
    correct(cluster)
    await cluster.wait(600)
    assert (JOBS, "team-a", "sentiment-1-1") in cluster.kube.objects


async def test_that_the_kubelet_waits_between_two_tries_is_no_news() -> None:
    cluster = await held_up(OBSTACLES["ImagePullFailed"])
    written = cluster.kube.asked("patch_status", "finetunejobs")
    said = f'Back-off pulling image "trainer:typo": ErrImagePull: {NOT_FOUND}'
    cluster.kube.change(PODS, "sentiment-1-1-x", status=waiting("ImagePullBackOff", said))
    await cluster.wait(60)
    assert cluster.status()["failure"]["message"] == NOT_FOUND
    assert cluster.kube.asked("patch_status", "finetunejobs") == written
