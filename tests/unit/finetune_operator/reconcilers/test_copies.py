"""A backup restored, with statuses, into another namespace beside the original: what that has elsewhere is its own."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_operator.runtime.kube import (
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    Resource,
)
from tests.simulators.azure import AzureSimulator
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import At, at, at_work
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, JOB, MODEL, Cluster
from tests.unit.finetune_operator.reconcilers.sagemaker import sagemaker, with_training_job
from tests.unit.finetune_operator.reconcilers.test_restored import GONE, PUT, cluster, provider, restore

__all__ = ["at", "at_work", "cluster", "provider", "s3_endpoint", "start"]


async def copy(cluster: Cluster, *resources: Resource) -> Callable[[Resource], dict[str, Any]]:
    """As `velero restore create --namespace-mappings team-a:team-b` does it, a month later."""
    cluster.kube.now = "2026-12-21T12:00:00Z"
    cluster.kube.put(NAMESPACES, {"metadata": {"name": "team-b", "labels": {}}})
    for (resource, namespace, _), obj in list(cluster.kube.objects.items()):
        if resource in resources and namespace == "team-a":
            kept = {
                key: obj["metadata"][key] for key in ("name", "annotations", "finalizers") if key in obj["metadata"]
            }
            body = {"metadata": kept | {"namespace": "team-b"}, "spec": obj["spec"], "status": obj["status"]}
            cluster.kube.put(resource, body)
    await cluster.settle()

    def status(resource: Resource) -> dict[str, Any]:
        name = "sentiment-1" if resource is FINE_TUNE_JOBS else "sentiment"
        found: dict[str, Any] = cluster.kube.objects[resource, "team-b", name]["status"]
        return found

    return status


async def delete_the_copy(cluster: CloudCluster) -> None:
    for resource, namespace, name in list(cluster.kube.objects):
        if namespace == "team-b" and (resource, namespace, name) in cluster.kube.objects:
            await cluster.kube.delete(resource, name, namespace)
    await cluster.settle()
    await go_on(cluster, 3600)
    assert not [name for _, namespace, name in cluster.kube.objects if namespace == "team-b"]


@pytest.mark.alike
async def test_a_copy_of_a_job_does_not_end_it(at: At, at_work: CloudCluster) -> None:
    copied = await copy(at_work, FINE_TUNE_JOBS)
    failure = copied(FINE_TUNE_JOBS)["failure"]
    assert (failure["reason"], "a copy of a FineTuneJob of another namespace" in failure["message"]) == (
        "Restored",
        True,
    )
    await delete_the_copy(at_work)
    assert not [note for note in at_work.notes if "is not ended" in note], "that is not a reason to worry"
    assert at_work.status()["phase"] == "Succeeded"
    assert len(at.states(at_work.provider)) == 1


@pytest.mark.alike
async def test_a_copy_of_a_job_that_came_back_itself_does_not_end_it(at: At, at_work: CloudCluster) -> None:
    await restore(at_work)
    copied = await copy(at_work, FINE_TUNE_JOBS)
    assert copied(FINE_TUNE_JOBS)["failure"]["reason"] == "Restored"
    await delete_the_copy(at_work)
    assert (at_work.status()["phase"], len(at.states(at_work.provider))) == ("Succeeded", 1)


def hosted(status: dict[str, Any]) -> list[str]:
    return [one["name"] for one in status["hosted"]]


@pytest.mark.parametrize("chosen", [{}, {"name": "prod"}], ids=["named by the object", "named by its users"])
async def test_a_copy_of_a_deployment_has_one_of_its_own_and_ends_no_other(
    cluster: CloudCluster, provider: AzureSimulator, chosen: dict[str, str]
) -> None:
    template = {"azureOpenAI": {"sku": "Standard", **chosen}}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deployment": {"template": template}})
    await go_on(cluster, 3600)
    [original] = provider.deployments.found
    made, gone = provider.count(PUT), provider.count(GONE)
    copied = await copy(cluster, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS)
    await go_on(cluster, 1800)
    assert copied(MODEL_DEPLOYMENTS)["phase"] == "Ready"
    assert (hosted(cluster.status(DEPLOYMENT)), original in hosted(copied(MODEL_DEPLOYMENTS))) == ([original], False)
    assert (provider.count(PUT), provider.count(GONE)) == (made + 1, gone)
    await delete_the_copy(cluster)
    assert (provider.count(PUT), provider.count(GONE)) == (made + 1, gone + 1)
    assert (list(provider.deployments.found), cluster.status(DEPLOYMENT)["phase"]) == ([original], "Ready")


async def test_a_copy_of_a_model_does_not_take_its_weights_with_it(
    cluster: CloudCluster, provider: AzureSimulator
) -> None:
    model = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]
    spec = {"deletionPolicy": "Delete", "deployment": {"mode": "Manual"}}
    cluster.kube.put(FINE_TUNED_MODELS, {**model, "spec": spec})
    await cluster.settle()
    await copy(cluster, FINE_TUNED_MODELS)
    await delete_the_copy(cluster)
    assert provider.count("models.delete") == 0
    assert "another FineTunedModel has it too" in cluster.notes[-1]
    await cluster.kube.delete(FINE_TUNED_MODELS, "sentiment", "team-a")
    await cluster.settle()
    await go_on(cluster, 3600)
    assert provider.count("models.delete") == 1, "the last of them takes it along"


async def test_a_copy_of_a_model_does_not_take_the_folder_of_its_weights_with_it(s3_endpoint: str, start: Any) -> None:
    provider = sagemaker(s3_endpoint)
    cluster = await with_training_job(provider, start(provider))
    await cluster.pass_time(3600)
    await cluster.pass_time(60)
    [version] = cluster.status(MODEL)["versions"]
    spec = {"deletionPolicy": "Delete", "deployment": {"mode": "Manual"}}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=spec)
    await cluster.settle()
    folder = version["artifact"]["uri"].removeprefix(f"s3://{cluster.objects.bucket}/")
    files = cluster.objects.names(folder)
    await copy(cluster, FINE_TUNED_MODELS)
    await delete_the_copy(cluster)
    assert (cluster.objects.names(folder), bool(files)) == (files, True)


async def test_a_copy_of_a_job_here_works_in_a_folder_of_its_own() -> None:
    """In a store there is one for all: a later attempt that begins in it has the earlier one end."""
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection(hugging_face={"artifacts": {"uri": "s3://models/tuned"}})
    cluster.add_job()
    await cluster.settle()
    cluster.run_pod()
    cluster.reports.accept(cluster.report("Running", progress={"step": 5, "totalSteps": 9, "savedStep": 5}))
    await cluster.settle()
    copied = await copy(cluster, FINE_TUNE_JOBS)
    await cluster.wait(60)
    folders = [one["provider"]["artifactURI"] for one in (cluster.status(JOB), copied(FINE_TUNE_JOBS))]
    assert [folder.split("/")[4] for folder in folders] == ["team-a", "team-b"]
