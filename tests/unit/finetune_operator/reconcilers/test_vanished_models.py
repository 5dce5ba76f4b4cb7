"""A tuned model that its provider has deleted before it is deployed: told as that, and nothing is made, nor billed."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import PROVIDERS, At
from tests.unit.finetune_operator.reconcilers.bedrock import bucket_client
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL

__all__ = ["s3_endpoint", "start"]


def _from_its_list(cluster: CloudCluster) -> None:
    cluster.provider.models.tuned.clear()


def _from_its_account(cluster: Any) -> None:
    cluster.provider.account.models.clear()


def _from_its_bucket(cluster: Any) -> None:
    """SageMaker looks for the files when its model is made."""
    bucket, _, key = cluster.status(MODEL)["versions"][0]["artifact"]["uri"].removeprefix("s3://").partition("/")
    s3 = bucket_client(str(cluster.provider.settings.s3_endpoint))
    for one in s3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]:
        s3.delete_object(Bucket=bucket, Key=one["Key"])
    said = f"Could not find model data at s3://{bucket}/{key}"
    cluster.provider.fault("CreateModel", status=400, code="ValidationException", message=said, times=99)


VANISHES: dict[str, Callable[[Any], None]] = {
    "openai": _from_its_list,
    "azure": _from_its_list,
    "bedrock": _from_its_account,
    "sagemaker": _from_its_bucket,
}


@pytest.fixture(params=list(VANISHES))
async def deployed(request: Any, s3_endpoint: str, start: Any) -> tuple[At, CloudCluster, str]:
    """A model of one version, which is gone when somebody has it deployed."""
    at = PROVIDERS[request.param]
    provider = at.simulator(s3_endpoint)
    cluster = at.begin(provider, start(provider))
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deployment": {"mode": "Manual"}})
    await at.submit(cluster)
    await go_on(cluster, 4 * 3600, 1800)
    artifact = cluster.status(MODEL)["versions"][0]["artifact"]
    VANISHES[request.param](cluster)
    spec = {"modelRef": {"name": "sentiment"}, **at.template}
    cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await cluster.settle()
    await go_on(cluster, 1200)
    return at, cluster, artifact.get("providerModelID") or artifact["uri"]


@pytest.mark.alike
async def test_the_deployment_says_that_it_is_gone_and_what_to_do_and_nothing_is_made_or_billed(deployed):
    at, cluster, model = deployed
    stalled, status = cluster.condition("Stalled", DEPLOYMENT), cluster.status(DEPLOYMENT)
    assert (status["phase"], stalled["reason"]) == ("Failed", "DeletedAtProvider"), stalled
    assert f"model {model} is not at the provider any more" in stalled["message"]
    assert "Activate a version whose model is still there (spec.activeVersion" in stalled["message"]
    assert "perHour" not in (status.get("cost") or {})
    assert not any(one.get("billedSince") for one in status.get("hosted") or ())
    assert (cluster.status()["phase"], cluster.provider.count(at.create)) == ("Succeeded", 1)


@pytest.mark.parametrize("deployed", ["azure"], indirect=True)
async def test_it_is_deployed_by_itself_once_it_is_back(deployed):
    _, cluster, model = deployed
    cluster.provider.models.add(model, cluster.status(MODEL)["baseModel"], {})
    await go_on(cluster, 1800)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"


@pytest.mark.parametrize("lacks", [("models.*",), ("models.list",)])
async def test_a_gateway_that_knows_no_models_does_not_make_one_look_deleted(
    lacks: tuple[str, ...], s3_endpoint: str, start: Any
) -> None:
    """What was refused may be the SKU: that the model answers to no name of its own is so of each at Azure."""
    at = PROVIDERS["azure"]
    provider = at.simulator(s3_endpoint)
    cluster = at.begin(provider, start(provider))
    said = "The specified SKU 'Standard' is not supported in this region"
    provider.fault("deployments.create_or_update", status=400, code="InvalidResourceProperties", message=said, times=99)
    for operation in lacks:
        provider.fault(operation, status=404, code="NotFound", message="no such path", times=99)
    await at.submit(cluster)
    await go_on(cluster, 2 * 3600, 600)
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["reason"], said in stalled["message"]) == ("ProviderRefused", True), stalled
