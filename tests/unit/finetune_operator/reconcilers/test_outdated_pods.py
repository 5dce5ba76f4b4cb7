"""A pod that cannot start, and a connection that an admin has corrected since: the pod would wait for ever."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from finetune_operator.runtime.kube import CONNECTIONS, JOBS, PODS
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers import fake_cluster
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, begin, provider, with_cloud_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster, with_job
from tests.unit.finetune_operator.reconcilers.test_reconcile_evaluation import begin as begin_measuring

__all__ = ["begin", "begin_measuring", "provider", "start"]

Begin = Callable[..., Awaitable[Any]]

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


async def name_an_image(cluster: CloudCluster, _: pytest.MonkeyPatch) -> None:
    """An admin writes it into the connection."""
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "openai"}, "spec": spec | {"checkPod": {"image": "check:2"}}})


async def upgrade_the_chart(cluster: CloudCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """An admin writes it into the chart's values: another process begins."""
    settings = fake_cluster.SETTINGS.model_copy(update={"check_image": "check:2"})
    monkeypatch.setattr(fake_cluster, "SETTINGS", settings)
    await cluster.accounts.close()
    cluster.restart()
    await cluster.observer.resync()


def image_of(cluster: CloudCluster, name: str) -> str:
    container = cluster.kube.objects[JOBS, "team-a", name]["spec"]["template"]["spec"]["containers"][0]
    return str(container["image"])


@pytest.mark.parametrize("correct_it", [name_an_image, upgrade_the_chart])
async def test_a_check_whose_image_cannot_be_pulled_goes_on_once_connection_or_chart_name_another(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, correct_it: Callable[..., Awaitable[None]]
) -> None:
    cluster = await begin(with_cloud_job)
    cluster.run_pod(phase="Pending")
    cluster.kube.change(PODS, "sentiment-1-1-x", status=OBSTACLES["ImagePullFailed"])
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "ImagePullFailed"
    await correct_it(cluster, monkeypatch)
    await cluster.wait(60)
    assert (JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects
    drop_pod(cluster)
    await cluster.wait(60)
    assert image_of(cluster, "sentiment-1-2") == "check:2"
    assert "failure" not in cluster.status()
    await cluster.check(attempt=2)
    await cluster.settle()
    assert cluster.provider.count("fine_tuning.jobs.create") == 1


async def test_a_check_that_has_begun_goes_on_whatever_becomes_of_its_image(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    await name_an_image(cluster, monkeypatch)
    await cluster.wait(600)
    assert image_of(cluster, "sentiment-1-1") == "check:1"


async def test_so_does_a_pod_that_is_to_ask_a_model_and_no_try_is_used_up(
    begin_measuring: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await begin_measuring()
    cluster.start_pod()
    cluster.kube.change(PODS, "sentiment-1-1-eval1-x", status=OBSTACLES["ImagePullFailed"])
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "ImagePullFailed"
    await name_an_image(cluster, monkeypatch)
    await cluster.settle()
    cluster.kube.drop(PODS, "sentiment-1-1-eval1-x")
    await cluster.wait(60)
    assert image_of(cluster, "sentiment-1-1-eval2") == "check:2"
    assert cluster.evaluation.get("failures", 0) == 0
    assert (await cluster.measure(2)).phase == "Measured"
    assert cluster.status()["phase"] == "Succeeded"
