"""Lives of models in every partition of AWS, whose lists come one thing a page, with pages between that have none."""

from typing import Any

import pytest

from finetune_api.aws import partition_of
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.clock import HOUR
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.bedrock import BedrockCluster, bedrock, conversations
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL
from tests.unit.finetune_operator.reconcilers.sagemaker import SageMakerCluster, sagemaker

__all__ = ["s3_endpoint", "start"]

BUDGET = {"maxCost": "1000", "currency": "USD"}


async def tune(cluster: CloudCluster, job: str, **fields: Any) -> None:
    cluster.add_cloud_job(job, **fields)
    await cluster.settle()
    await cluster.check(conversations(answer=job) if isinstance(cluster, BedrockCluster) else None, job=job)
    await cluster.settle()
    await cluster.pass_time(HOUR)


async def serves(cluster: CloudCluster, version: int) -> dict[str, Any]:
    for _ in range(40):
        await cluster.pass_time(60)
        if cluster.status(DEPLOYMENT).get("servedVersion") == version:
            return cluster.status(DEPLOYMENT)
    raise AssertionError(cluster.status(DEPLOYMENT))


async def live(cluster: CloudCluster, block: dict[str, Any] | None) -> dict[str, Any]:
    """A model with two versions, the second in the place of the first; then none. Its deployment's last status."""
    spec = {"deletionPolicy": "Delete", "deployment": {"template": block} if block else {}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await tune(cluster, "sentiment-1")
    await serves(cluster, 1)
    await tune(cluster, "sentiment-2")
    await serves(cluster, 2)
    for _ in range(10):
        await cluster.pass_time(60)
    told = cluster.status(DEPLOYMENT)
    assert [one["version"] for one in told["hosted"]] == [2]
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, MODEL.name)
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, DEPLOYMENT.name)
    await cluster.settle()
    for _ in range(30):
        await cluster.pass_time(60)
    return told


@pytest.mark.alike
@pytest.mark.parametrize("region", ["us-gov-west-1", "cn-north-1"])
async def test_at_bedrock(start, s3_endpoint, region):
    provider = bedrock(
        s3_endpoint, region=region, deployment_regions=frozenset({region}), page_size=1, empty_pages=True
    )
    role = f"arn:{partition_of(region)}:iam::123456789012:role/tuning"
    cluster = BedrockCluster(provider, start(provider), region=region, roleARN=role)
    told = await live(cluster, None)
    assert told["endpoint"]["model"].startswith(f"arn:{partition_of(region)}:bedrock:{region}:")
    assert (provider.left(), cluster.objects()) == ([], [])


@pytest.mark.alike
@pytest.mark.parametrize("region", ["us-gov-west-1", "cn-north-1", "eusc-de-east-1"])
async def test_at_sagemaker(start, s3_endpoint, region):
    provider = sagemaker(s3_endpoint, region=region, page_size=1, empty_pages=True)
    role = f"arn:{partition_of(region)}:iam::123456789012:role/tuning"
    cluster = SageMakerCluster(provider, start(provider), region=region, roleARN=role)
    told = await live(cluster, {"sageMaker": {"instanceType": "ml.g5.xlarge"}})
    assert (told["cost"]["display"], "what an hour of ml.g5.xlarge costs is not known" in told["cost"]["basis"]) == (
        "unknown",
        True,
    )
    assert provider.left() == []


async def test_a_region_without_deployments_on_demand_leads_to_throughput(start, s3_endpoint):
    provider = bedrock(s3_endpoint, deployment_regions=frozenset())
    cluster = BedrockCluster(provider, start(provider))
    await tune(cluster, "sentiment-1")
    for _ in range(3):
        await cluster.pass_time(60)
    told = cluster.condition("Stalled", DEPLOYMENT)
    assert told["reason"] == "ProviderRefused"
    assert told["message"].endswith("{type: ProvisionedThroughput, modelUnits: 1, commitment: NoCommitment}.")


async def test_prices_of_one_partition_are_none_of_another(start, s3_endpoint):
    provider = sagemaker(s3_endpoint, region="cn-north-1")
    role = "arn:aws-cn:iam::123456789012:role/tuning"
    cluster = SageMakerCluster(provider, start(provider), region="cn-north-1", roleARN=role)
    cluster.add_cloud_job(budget=BUDGET)
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "PriceUnknown"
    facts = cluster.catalogue.providers.pop("sageMaker")
    cluster.catalogue.providers["sageMaker-aws-cn"] = facts
    cluster.add_cloud_job("sentiment-2", budget=BUDGET)
    await cluster.settle()
    assert "failure" not in cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-2"]["status"]
