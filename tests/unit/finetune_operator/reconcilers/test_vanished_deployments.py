"""A deployment that is gone from its provider while it is Ready: told, billed no more, made again only when asked."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import PROVIDERS, At
from tests.unit.finetune_operator.reconcilers.bedrock_hosted import HOURLY
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT

__all__ = ["s3_endpoint", "start"]

Vanish = Callable[[Any, str], Any]
ENDS: dict[str, tuple[dict[str, Any], str, Vanish]] = {
    # how it is made, by which call, and how somebody else deletes it
    "azure": (
        PROVIDERS["azure"].template,
        "deployments.create_or_update",
        lambda provider, name: provider.deployments.delete(name),
    ),
    "bedrock": (
        {"bedrock": HOURLY},
        "CreateProvisionedModelThroughput",
        lambda provider, _: provider.account.throughputs.clear(),
    ),
    "sagemaker": (
        PROVIDERS["sagemaker"].template,
        "CreateEndpoint",
        lambda provider, name: provider.hosting.delete_endpoint({"EndpointName": name}),
    ),
}


@pytest.fixture(params=list(ENDS))
async def vanished(request: Any, s3_endpoint: str, start: Any) -> tuple[CloudCluster, str, str]:
    """Ready for hours, and then gone; with the call that makes one, and what it has cost by then."""
    at: At = PROVIDERS[request.param]
    template, create, vanish = ENDS[request.param]
    provider = at.simulator(s3_endpoint)
    cluster = at._replace(template=template).begin(provider, start(provider))
    await at.submit(cluster)
    await go_on(cluster, 8 * 3600, 1200)
    status = cluster.status(DEPLOYMENT)
    assert status["phase"] == "Ready", status
    assert float(status["cost"]["perHour"]) > 0
    vanish(provider, status["hosted"][0]["name"])
    provider.advance(600)
    await go_on(cluster, 2400, 600)
    return cluster, create, cluster.status(DEPLOYMENT)["cost"]["sinceDeployed"]


@pytest.mark.alike
async def test_its_bill_has_ended_and_that_is_told(vanished):
    cluster, create, so_far = vanished
    await go_on(cluster, 24 * 3600, 3600)
    status, stalled = cluster.status(DEPLOYMENT), cluster.condition("Stalled", DEPLOYMENT)
    assert (status["phase"], stalled["reason"], stalled["status"]) == ("Failed", "Expired", "True")
    assert "servedVersion" not in status
    assert (status["cost"]["sinceDeployed"], status["cost"].get("perHour")) == (so_far, "0.00")
    assert ("ModelDeployment", "Warning", "Expired") in cluster.told
    assert cluster.provider.count(create) == 1


@pytest.mark.alike
async def test_it_is_made_again_when_asked_and_its_cost_goes_on_from_there(vanished):
    cluster, create, so_far = vanished
    spec = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "retryNonce": "again"})
    await cluster.settle()
    await go_on(cluster, 3600, 300)
    await go_on(cluster, 2 * 3600, 600)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], cluster.provider.count(create)) == ("Ready", 2)
    assert float(status["cost"]["sinceDeployed"]) > float(so_far)
