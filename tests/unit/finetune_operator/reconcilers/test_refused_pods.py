"""Pods and Jobs that the API server does not take, or that cannot begin: said with its words, and tried again."""

import pytest

from finetune_operator.runtime.errors import Forbidden, Invalid
from finetune_operator.runtime.kube import (
    EVENTS,
    JOBS,
    PODS,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster, with_job, with_running_job


@pytest.mark.parametrize("error", [Forbidden(403, "Forbidden", "quota of jobs"), Invalid(422, "Invalid", "bad field")])
async def test_a_job_that_the_api_server_refuses_says_so_and_is_tried_again(error: Exception) -> None:
    cluster = Cluster()
    cluster.kube.refusals["create", "jobs"] = error
    cluster.add_namespace()
    cluster.add_connection()
    cluster.add_job()
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "PodRejected"
    assert cluster.condition("Stalled")["status"] == "True"
    cluster.kube.refusals.clear()
    await cluster.wait(60)
    assert cluster.status()["phase"] == "Queued"
    assert "failure" not in cluster.status()


@pytest.mark.parametrize(("counted", "goes"), [("count/jobs.batch", True), ("pods", False)])
async def test_an_ended_attempt_does_not_keep_the_next_one_out_of_a_quota_of_jobs(counted: str, goes: bool) -> None:
    cluster = await with_running_job()
    said = f'jobs.batch "sentiment-1-2" is forbidden: exceeded quota: q, requested: {counted}=1, used: {counted}=1'
    cluster.kube.refusals["create", "jobs"] = Forbidden(403, "Forbidden", said)
    cluster.end_pod(75)
    await cluster.settle()
    await cluster.wait(5)
    assert ((JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects) is goes
    assert cluster.status()["failure"]["reason"] == "PodRejected"
    cluster.kube.refusals.clear()
    await cluster.wait(60)
    assert (cluster.status()["phase"], cluster.status()["provider"]["attempt"]) == ("Queued", 2)
    assert (JOBS, "team-a", "sentiment-1-2") in cluster.kube.objects


@pytest.mark.parametrize(("counted", "goes"), [("count/pods", True), ("pods", False)])
async def test_the_pod_of_an_ended_attempt_does_not_keep_the_next_one_out_of_a_quota_of_pods(
    counted: str, goes: bool
) -> None:
    cluster = await with_running_job()
    cluster.end_pod(75)
    await cluster.settle()
    await cluster.wait(5)
    uid = cluster.kube.objects[JOBS, "team-a", "sentiment-1-2"]["metadata"]["uid"]
    note = f'Error creating: pods "sentiment-1-2-x" is forbidden: exceeded quota: q, requested: {counted}=1, used: 1'
    body = {"metadata": {"name": "a", "namespace": "team-a"}, "reason": "FailedCreate", "regarding": {"uid": uid}}
    cluster.kube.put(EVENTS, {**body, "note": note})
    await cluster.wait(15)
    assert cluster.condition("Ready")["reason"] == "PodRejected"
    assert ((JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects) is goes
    assert (JOBS, "team-a", "sentiment-1-2") in cluster.kube.objects


async def test_a_pod_that_cannot_be_made_is_explained_by_the_events_of_its_own_job() -> None:
    cluster = await with_job()
    uid = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]["metadata"]["uid"]
    for name, of, note in (("a", "another-uid", "of an earlier Job"), ("b", uid, "failed quota: gpus")):
        regarding = {"name": "sentiment-1-1", "uid": of}
        body = {"metadata": {"name": name, "namespace": "team-a"}, "reason": "FailedCreate", "regarding": regarding}
        cluster.kube.put(EVENTS, {**body, "note": note})
    cluster.kube.events.clear()
    await cluster.wait(15)
    failure = cluster.status()["failure"]
    assert (failure["reason"], failure["message"]) == ("PodRejected", "failed quota: gpus")
    cluster.run_pod()
    await cluster.settle()
    assert "failure" not in cluster.status()


async def test_that_each_try_to_make_a_pod_has_another_name_is_no_news() -> None:
    cluster = await with_job()
    uid = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]["metadata"]["uid"]
    written = []
    for name in ("98mjf", "crpmr"):
        note = f'Error creating: pods "sentiment-1-1-{name}" is forbidden: failed quota: gpus'
        body = {"metadata": {"name": "a", "namespace": "team-a"}, "reason": "FailedCreate", "regarding": {"uid": uid}}
        cluster.kube.put(EVENTS, {**body, "note": note})
        await cluster.wait(15)
        written.append(cluster.kube.asked("patch_status", "finetunejobs"))
    assert cluster.status()["failure"]["message"] == "its pod is forbidden: failed quota: gpus"
    assert written[0] == written[1]


NO_CONFIG_MAP = 'MountVolume.SetUp failed for volume "v1" : configmap "recipes" not found'


async def test_a_pod_whose_volume_cannot_be_mounted_is_explained_by_its_events() -> None:
    cluster = await with_job()
    cluster.run_pod(phase="Pending")
    await cluster.settle()
    assert "failure" not in cluster.status()
    pod = cluster.kube.objects[PODS, "team-a", "sentiment-1-1-x"]["metadata"]
    regarding = {"kind": "Pod", "uid": pod["uid"]}
    body = {"metadata": {"name": "a", "namespace": "team-a"}, "type": "Warning", "reason": "FailedMount"}
    cluster.kube.put(EVENTS, {**body, "regarding": regarding, "note": NO_CONFIG_MAP})
    cluster.kube.events.clear()
    await cluster.wait(15)
    assert cluster.condition("Reconciling")["message"] == 'configmap "recipes" not found'
    await cluster.wait(60)
    failure = cluster.status()["failure"]
    assert (failure["reason"], failure["message"]) == ("ContainerConfigInvalid", 'configmap "recipes" not found')
    assert cluster.condition("Stalled")["status"] == "True"
    cluster.kube.change(PODS, pod["name"], status={"conditions": [MOUNTED]})
    cluster.kube.events.clear()
    await cluster.wait(60)
    assert "failure" not in cluster.status()


MOUNTED = {"type": "PodReadyToStartContainers", "status": "True"}


# Failures.
