"""Helpers for deployments of a model at Azure."""

from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.azure import AzureSimulator
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, azure, go_on, rows, with_azure_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT

PUT, GONE, CHAT = "deployments.create_or_update", "deployments.delete", "chat.completions.create"
ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "sentiment")
FAULTS = (
    {"operation": PUT, "after_commit": True},
    {"operation": PUT, "outcome": "cut", "after_commit": True},
    {"operation": PUT, "outcome": "page", "after_commit": True},
    {"operation": PUT, "status": 503},
    {"operation": PUT, "status": 409, "code": "RequestConflict"},
    {"operation": GONE, "after_commit": True},
    {"operation": GONE, "status": 409, "code": "RequestConflict"},
    {"operation": "deployments.list", "status": 500},
    {"operation": CHAT, "status": 500},
)
STRANGER = {
    "sku": {"name": "Standard", "capacity": 1},
    "properties": {"model": {"name": "gpt-4o-mini", "version": "2024-07-18"}},
}


@pytest.fixture
def provider() -> AzureSimulator:
    return azure()


async def with_model(provider: AzureSimulator, url: str) -> AzureCluster:
    """A cluster whose job creates a version of a model with a deployment template."""
    made = await with_azure_job(provider, url)
    template = {"deployment": {"template": {"azureOpenAI": {"sku": "Standard"}}}}
    made.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template})
    return made


@pytest.fixture
async def cluster(provider: AzureSimulator, start: Any) -> AzureCluster:
    """A cluster with a model whose first version is being deployed."""
    made = await with_model(provider, start(provider))
    await tune(made, "sentiment-1")
    return made


async def tune(cluster: AzureCluster, job: str) -> None:
    await cluster.settle()
    await cluster.check(b"\xef\xbb\xbf" + rows(), job=job)
    await cluster.settle()
    await cluster.pass_time(3600)
    assert cluster.status(DEPLOYMENT)["phase"] in {"Deploying", "Updating"}


def hosts(provider: AzureSimulator) -> list[str]:
    return sorted(provider.deployments.found)


async def deployed(cluster: AzureCluster) -> str:
    await go_on(cluster, 1200)
    status = cluster.status(DEPLOYMENT)
    assert status["phase"] == "Ready", status
    return str(status["endpoint"]["model"])
