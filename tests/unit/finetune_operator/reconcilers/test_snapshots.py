"""An etcd that goes back to a snapshot: the same objects as they were, and a provider that has gone on since."""

import codecs
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.flapping import standing
from tests.unit.finetune_operator.reconcilers.bedrock import BedrockCluster, bedrock, conversations
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, CloudCluster, azure, rows, simulator
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, JOB, MODEL
from tests.unit.finetune_operator.reconcilers.sagemaker import SageMakerCluster, sagemaker

__all__ = ["s3_endpoint", "start"]

CREATES = {
    "openai": "fine_tuning.jobs.create",
    "kindred": "fine_tuning.jobs.create",
    "azure": "fine_tuning.jobs.create",
    "bedrock": "CreateModelCustomizationJob",
    "sagemaker": "CreateTrainingJob",
}
DATA: dict[str, Callable[[], bytes]] = {
    "openai": rows,
    "kindred": rows,
    "azure": lambda: codecs.BOM_UTF8 + rows(),
    "bedrock": conversations,
    "sagemaker": rows,
}
TEMPLATES: dict[str, dict[str, Any]] = {
    "azure": {"azureOpenAI": {"sku": "Standard"}},
    "bedrock": {"bedrock": {"type": "OnDemand"}},
    "sagemaker": {"sageMaker": {"instanceType": "ml.g5.xlarge"}},
}
Begin = Callable[..., CloudCluster]


@pytest.fixture
async def begin(start: Any, s3_endpoint: str) -> AsyncIterator[Begin]:
    """Makes a cluster with a model and a job at a provider; the model is deployed where a template is given."""
    made: list[CloudCluster] = []

    def begun(name: str, **model: Any) -> CloudCluster:
        provider: Any
        cluster: CloudCluster
        if name in {"openai", "kindred"}:
            provider = simulator(drop_metadata=name == "kindred")
            cluster = CloudCluster(provider, start(provider))
        elif name == "azure":
            provider = azure(spread_seconds=0, deploy_seconds=100, delete_seconds=100)
            cluster = AzureCluster(provider, start(provider))
        elif name == "bedrock":
            provider = bedrock(s3_endpoint, deploy_seconds=100, delete_seconds=100)
            cluster = BedrockCluster(provider, start(provider))
        else:
            provider = sagemaker(s3_endpoint, endpoint_seconds=100, delete_seconds=100)
            cluster = SageMakerCluster(provider, start(provider))
        metadata = {"name": "sentiment", "namespace": "team-a"}
        cluster.kube.put(FINE_TUNED_MODELS, {"metadata": metadata, "spec": model})
        made.append(cluster)
        return cluster

    yield begun
    for cluster in made:
        await cluster.aclose()


def taken(cluster: CloudCluster) -> dict[Any, Any]:
    """A snapshot."""
    return {at: deepcopy(obj) for at, obj in cluster.kube.objects.items()}


async def go_back(cluster: CloudCluster, snapshot: dict[Any, Any]) -> None:
    """The control plane comes back with what the snapshot has, and a new operator with it."""
    cluster.kube.objects = {at: deepcopy(obj) for at, obj in snapshot.items()}
    cluster.kube.events.clear()
    await cluster.accounts.close()
    cluster.delays.clear()
    cluster.restart()
    await cluster.observer.list_all()
    await cluster.settle()


async def go_on(cluster: CloudCluster, seconds: float) -> None:
    for _ in range(int(seconds / 120)):
        await cluster.pass_time(120)


@pytest.mark.alike
@pytest.mark.parametrize("hours", [0, 2], ids=["runs", "has ended"])
@pytest.mark.parametrize("name", CREATES)
async def test_a_job_that_was_asked_for_after_the_snapshot_is_found_and_not_paid_for_again(begin, name, hours):
    cluster = begin(name, deployment={"mode": "Manual"})
    cluster.add_cloud_job()
    await cluster.settle()
    await cluster.check(DATA[name]())
    snapshot = taken(cluster)
    await cluster.settle()
    assert cluster.provider.count(CREATES[name]) == 1
    await go_on(cluster, hours * 3600)
    await go_back(cluster, snapshot)
    assert "askedAt" in cluster.status(JOB)["provider"]
    await go_on(cluster, 7200)
    assert (cluster.status(JOB)["phase"], cluster.status(JOB)["modelVersion"]) == ("Succeeded", 1)
    assert cluster.provider.count(CREATES[name], committed=False) == 1
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [1]


@pytest.mark.alike
@pytest.mark.parametrize("hours", [0, 2], ids=["runs", "has ended"])
@pytest.mark.parametrize("name", CREATES)
async def test_a_job_whose_data_were_brought_after_the_snapshot_is_found(begin, name, hours):
    """The pod brings them again, under the names that they have: the provider's files are the same while it runs.

    When it has ended they are gone. Where a provider keeps no labels the model's name tells whose it is.
    """
    cluster = begin(name, deployment={"mode": "Manual"})
    cluster.add_cloud_job()
    await cluster.settle()
    snapshot = taken(cluster)
    await cluster.check(DATA[name]())
    await cluster.settle()
    await cluster.pass_time(60)
    await go_on(cluster, hours * 3600)
    await go_back(cluster, snapshot)
    await cluster.check(DATA[name]())
    await cluster.settle()
    await go_on(cluster, 7200)
    assert (cluster.status(JOB)["phase"], cluster.status(JOB)["modelVersion"]) == ("Succeeded", 1)
    assert cluster.provider.count(CREATES[name]) == 1


@pytest.mark.parametrize("name", TEMPLATES)
async def test_a_deployment_that_was_made_after_the_snapshot_is_found_and_ended_with_its_object(begin, name):
    cluster = begin(name, deployment={"template": TEMPLATES[name]})
    cluster.add_cloud_job()
    await cluster.settle()
    await cluster.check(DATA[name]())
    await cluster.settle()
    snapshots = []
    for _ in range(40):
        await cluster.pass_time(120)
        there = cluster.kube.objects.get((MODEL_DEPLOYMENTS, "team-a", "sentiment"))
        if there is not None and not snapshots:
            there["status"] = {}  # as it was made
            there["metadata"]["finalizers"] = []
            snapshots.append(taken(cluster))
            await cluster.settle()
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    (before,) = standing(cluster.provider)
    await go_back(cluster, snapshots[0])
    await go_on(cluster, 1200)
    assert (cluster.status(DEPLOYMENT)["phase"], standing(cluster.provider)) == ("Ready", [before])
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 1200)
    assert standing(cluster.provider) == []
