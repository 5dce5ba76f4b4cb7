"""Objects whose finalizer somebody took off, and that are gone: what they have at a provider is ended all the same."""

from typing import Any

import pytest

from finetune_api.names import ABANDON_ANNOTATION, BEGUN_ANNOTATION
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, Resource
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.flapping import standing
from tests.unit.finetune_operator.reconcilers.at_providers import PROVIDERS, At, at, at_work
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, JOB, with_running_job
from tests.unit.finetune_operator.reconcilers.test_lost_evaluation_hosts import Begin, begin

__all__ = ["at", "at_work", "begin", "s3_endpoint", "start"]


def force_away(cluster: CloudCluster, resource: Resource, name: str, **marks: Any) -> None:
    """`kubectl delete`, and a moment later its finalizers off: the watch shows it as it was before that.

    `marks`: of its metadata, beforehand.
    """
    cluster.kube.change(resource, name, metadata=cluster.kube.objects[resource, "team-a", name]["metadata"] | marks)
    cluster.kube.mark_deleted(resource, name)
    cluster.kube.drop(resource, name)


def told(cluster: CloudCluster) -> bool:
    return any(reason == "FinalizerRemoved" for _, _, reason in cluster.told)


def noted(cluster: CloudCluster, resource: Resource, name: str) -> dict[str, str]:
    found: dict[str, str] = cluster.kube.objects[resource, "team-a", name]["metadata"]["annotations"]
    return found


async def test_the_job_of_one_is_stopped_at_its_provider_and_its_files_go(at: At, at_work: CloudCluster) -> None:
    cluster = at_work
    force_away(cluster, FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await go_on(cluster, 600)
    assert set(at.states(cluster.provider)) <= {at.stopped, "Stopping"}
    assert [one for one in cluster.provider.left() if one.kind == "file"] == []
    assert told(cluster)


async def test_so_is_that_of_one_whose_finalizer_was_taken_off_before_it_was_deleted(
    at: At, at_work: CloudCluster
) -> None:
    cluster = at_work
    metadata = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]
    bare = {key: value for key, value in metadata.items() if key != "finalizers"}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=bare)
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await go_on(cluster, 600)
    assert set(at.states(cluster.provider)) <= {at.stopped, "Stopping"}
    assert told(cluster)


@pytest.mark.alike
async def test_so_is_that_of_one_that_was_let_go_and_has_begun_again(at: At, at_work: CloudCluster) -> None:
    cluster = at_work
    await at.stop(cluster, cluster.status()["provider"]["jobID"])
    await go_on(cluster, 600)
    assert cluster.status(JOB)["phase"] == "Failed"
    assert not cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"].get("finalizers")
    cluster.change_job(retryNonce="again")
    await cluster.settle()
    await cluster.check(at.content, attempt=2)
    await cluster.settle()
    assert len(at.states(cluster.provider)) == 2
    force_away(cluster, FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await go_on(cluster, 600)
    assert set(at.states(cluster.provider)) <= {at.stopped, "Stopping"}
    assert told(cluster)


async def test_of_one_that_has_nothing_at_a_provider_nothing_is_looked_for() -> None:
    cluster = await with_running_job()
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    assert "FinalizerRemoved" not in {reason for _, _, reason in cluster.told}


@pytest.mark.alike
async def test_it_is_tried_again_until_its_provider_answers(at: At, at_work: CloudCluster) -> None:
    cluster = at_work
    for operation in ("fine_tuning.jobs.cancel", "StopModelCustomizationJob", "StopTrainingJob"):
        cluster.provider.fault(operation, status=503, times=1)
    force_away(cluster, FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    assert not told(cluster)
    await go_on(cluster, 1200)
    assert set(at.states(cluster.provider)) <= {at.stopped, "Stopping"}
    assert told(cluster)


@pytest.mark.alike
async def test_another_job_that_has_its_name_by_then_is_left_alone(at: At, at_work: CloudCluster) -> None:
    cluster = at_work
    spec = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["spec"]
    force_away(cluster, FINE_TUNE_JOBS, "sentiment-1")
    metadata = {"name": "sentiment-1", "namespace": "team-a"}
    cluster.kube.put(FINE_TUNE_JOBS, {"metadata": metadata, "spec": spec})
    cluster.lose_pods(and_jobs=True)
    await at.submit(cluster)
    await go_on(cluster, 7200, 600)
    assert cluster.status(JOB)["phase"] == "Succeeded"
    assert len(at.states(cluster.provider)) == 2
    assert at.stopped in at.states(cluster.provider)


async def test_what_its_evaluation_has_deployed_goes(begin: Begin) -> None:
    cluster = await begin()
    force_away(cluster, FINE_TUNE_JOBS, "sentiment-1")
    await cluster.go_on(lambda: standing(cluster.provider) == [], looks=20)
    assert standing(cluster.provider) == []


async def test_what_a_listing_lacks_and_was_being_deleted_is_ended_as_well(at: At, at_work: CloudCluster) -> None:
    cluster = at_work
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    for event in cluster.kube.take_events():
        cluster.observer.handle_event(*event)
    del cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]  # no watch tells
    await cluster.observer.resync()
    await go_on(cluster, 600)
    assert set(at.states(cluster.provider)) <= {at.stopped, "Stopping"}


async def test_what_a_listing_lacks_and_nobody_has_deleted_is_left_alone(at: At, at_work: CloudCluster) -> None:
    cluster, states = at_work, at.states(at_work.provider)
    del cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]  # etcd is older than it
    await cluster.observer.resync()
    await cluster.settle()
    assert at.states(cluster.provider) == states
    assert not told(cluster)


@pytest.fixture(params=["azure", "bedrock", "sagemaker"])
async def deployed(request: Any, s3_endpoint: str, start: Any) -> CloudCluster:
    """With a model whose deployment answers."""
    at: At = PROVIDERS[request.param]
    provider = at.simulator(s3_endpoint)
    cluster = at.begin(provider, start(provider))
    await at.submit(cluster)
    await go_on(cluster, 8 * 3600, 1200)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    assert standing(provider)
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")  # which would have it made again
    await cluster.settle()
    return cluster


@pytest.mark.alike
async def test_a_deployment_goes(deployed: CloudCluster) -> None:
    force_away(deployed, MODEL_DEPLOYMENTS, "sentiment")
    await deployed.settle()
    await go_on(deployed, 3600, 60)
    assert standing(deployed.provider) == []
    assert told(deployed)


@pytest.mark.alike
async def test_a_deployment_that_is_to_stay_stays(deployed: CloudCluster) -> None:
    before = standing(deployed.provider)
    spec = deployed.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["spec"]
    deployed.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec=spec | {"deletionPolicy": "Retain"})
    force_away(deployed, MODEL_DEPLOYMENTS, "sentiment")
    await deployed.settle()
    await go_on(deployed, 600)
    assert standing(deployed.provider) == before
    assert ("ModelDeployment", "Normal", "Retained") in deployed.told


@pytest.mark.alike
async def test_one_that_was_abandoned_is_left_alone(deployed: CloudCluster) -> None:
    before = standing(deployed.provider)
    marks = noted(deployed, MODEL_DEPLOYMENTS, "sentiment") | {ABANDON_ANNOTATION: "true"}
    force_away(deployed, MODEL_DEPLOYMENTS, "sentiment", annotations=marks)
    await deployed.settle()
    await go_on(deployed, 600)
    assert standing(deployed.provider) == before
    assert not told(deployed)


async def test_of_a_job_that_went_as_it_should_nothing_is_looked_for_again(at: At, at_work: CloudCluster) -> None:
    cluster = at_work
    assert BEGUN_ANNOTATION in noted(cluster, FINE_TUNE_JOBS, "sentiment-1")
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await go_on(cluster, 600)
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in cluster.kube.objects
    assert set(at.states(cluster.provider)) <= {at.stopped, "Stopping"}
    assert not told(cluster)


@pytest.mark.alike
async def test_of_one_that_went_as_it_should_nothing_is_looked_for_again(deployed: CloudCluster) -> None:
    assert BEGUN_ANNOTATION in noted(deployed, MODEL_DEPLOYMENTS, "sentiment")
    deployed.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await deployed.settle()
    await go_on(deployed, 3600)
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") not in deployed.kube.objects
    assert not told(deployed)
