"""Helpers for deployments of a model at Bedrock."""

from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNED_MODELS
from tests.simulators.bedrock import BedrockSimulator
from tests.simulators.clock import HOUR
from tests.unit.finetune_operator.reconcilers.bedrock import BedrockCluster, bedrock, conversations
from tests.unit.finetune_operator.reconcilers.cloud import go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT

DEPLOY, UNDEPLOY = "CreateCustomModelDeployment", "DeleteCustomModelDeployment"
PROVISION, RELEASE = "CreateProvisionedModelThroughput", "DeleteProvisionedModelThroughput"
HOURLY = {"type": "ProvisionedThroughput", "modelUnits": 1, "commitment": "NoCommitment"}
BOUND = HOURLY | {"commitment": "OneMonth"}


@pytest.fixture
def provider(s3_endpoint: str) -> BedrockSimulator:
    return bedrock(s3_endpoint)


@pytest.fixture
async def cluster(provider: BedrockSimulator, start: Any) -> BedrockCluster:
    return BedrockCluster(provider, start(provider))


async def begin(cluster: BedrockCluster, block: dict[str, Any] | None = None) -> None:
    """A model whose first version is being deployed."""
    template = {"deployment": {"template": {"bedrock": block} if block else {}}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template})
    await tune(cluster, "sentiment-1")


async def tune(cluster: BedrockCluster, job: str) -> None:
    cluster.add_cloud_job(job)
    await cluster.settle()
    await cluster.check(conversations(answer=f"{job} says"), job=job)
    await cluster.settle()
    await cluster.pass_time(HOUR)


async def deployed(cluster: BedrockCluster, seconds: float = 420) -> str:
    """Wait until the model is deployed; returns the ARN."""
    await go_on(cluster, seconds)
    status = cluster.status(DEPLOYMENT)
    assert status["phase"] == "Ready", status
    return str(status["endpoint"]["model"])


def change(cluster: BedrockCluster, **fields: Any) -> None:
    """Change the model's template, which the operator applies to the deployment."""
    spec = {"deployment": {"template": fields}}
    cluster.kube.put(
        FINE_TUNED_MODELS, {**cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"], "spec": spec}
    )


def hosts(provider: BedrockSimulator) -> list[str]:
    return [*provider.account.deployments, *provider.account.throughputs]
