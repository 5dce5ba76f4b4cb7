"""Deployments at providers when things happen in an odd order: nothing is billed in vain, and what is others' stays."""

from typing import Any

import pytest

from finetune_api.deployment import ModelDeploymentSpec
from finetune_operator.decide.conditions import timestamp
from finetune_operator.providers.ports import HostRequest
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.flapping import standing
from tests.unit.finetune_operator.reconcilers.at_providers import PROVIDERS, At
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL

__all__ = ["s3_endpoint", "start"]

BY_HAND = "by-hand"
MAKES = {
    "azure": "deployments.create_or_update",
    "bedrock": "CreateCustomModelDeployment",
    "sagemaker": "CreateEndpoint",
}


@pytest.fixture(params=list(MAKES))
def name(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def at(name: str) -> At:
    return PROVIDERS[name]


@pytest.fixture
async def cluster(at: At, s3_endpoint: str, start: Any) -> CloudCluster:
    """With a version, and a deployment of it that somebody has made by hand."""
    provider = at.simulator(s3_endpoint)
    made = at.begin(provider, start(provider))
    made.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deployment": {"mode": "Manual"}})
    await at.submit(made)
    await made.pass_time(7200)
    await by_hand(at, made)
    return made


def account(cluster: CloudCluster) -> Any:
    connection = next(name for resource, _, name in cluster.kube.objects if resource is CONNECTIONS)
    return cluster.accounts.of(connection)


async def by_hand(at: At, cluster: CloudCluster) -> None:
    version = cluster.status(MODEL)["versions"][0]
    request = HostRequest(
        name=BY_HAND,
        model=version["artifact"].get("providerModelID") or version["artifact"]["uri"],
        template=ModelDeploymentSpec.model_validate({"modelRef": {"name": "sentiment"}, **at.template}),
        owner="somebody",
        recorded_at=timestamp(cluster.now),
        base_model=version["baseModel"],
    )
    await account(cluster).host(lambda host: host.make(request))
    cluster.provider.advance(1200)
    assert standing(cluster.provider) == [BY_HAND]


async def end_by_hand(cluster: CloudCluster) -> None:
    found = await account(cluster).host(lambda host: host.list())
    (there,) = [one for one in found if one.name == BY_HAND]
    await account(cluster).host(lambda host: host.delete(there))
    cluster.provider.advance(600)


async def deploy(cluster: CloudCluster, **spec: Any) -> dict[str, Any]:
    """The object with this spec, and what it has come to."""
    whole = {"modelRef": {"name": "sentiment"}, **spec}
    if (MODEL_DEPLOYMENTS, "team-a", "sentiment") in cluster.kube.objects:
        cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec=whole)
    else:
        cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": whole})
    await cluster.settle()
    return await later(cluster, 2000)


async def later(cluster: CloudCluster, seconds: float) -> dict[str, Any]:
    """After looks of one that rests, and of one that changes."""
    await cluster.pass_time(700)
    await go_on(cluster, seconds, step=100)
    return cluster.status(DEPLOYMENT)


async def delete(cluster: CloudCluster) -> None:
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 1200)
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") not in cluster.kube.objects


def names(status: dict[str, Any]) -> list[str]:
    return [one["name"] for one in status["hosted"]]


@pytest.mark.alike
async def test_who_attaches_what_is_deleted_there_can_have_one_made(at: At, cluster: CloudCluster) -> None:
    status = await deploy(cluster, attach={"id": BY_HAND})
    assert (status["phase"], names(status)) == ("Ready", [BY_HAND])
    await end_by_hand(cluster)
    status = await later(cluster, 1200)
    assert (status["phase"], cluster.condition("Stalled", DEPLOYMENT)["reason"]) == ("Failed", "DeletedAtProvider")
    status = await deploy(cluster, **at.template)
    assert (status["phase"], names(status)) == ("Ready", standing(cluster.provider))
    await delete(cluster)
    assert standing(cluster.provider) == []


@pytest.mark.alike
async def test_one_that_was_attached_stays_when_another_is_made_and_goes_with_nobody(
    at: At, cluster: CloudCluster
) -> None:
    await deploy(cluster, attach={"id": BY_HAND}, deletionPolicy="Delete")
    status = await deploy(cluster, **at.template)
    (own,) = names(status)
    assert (status["phase"], sorted(standing(cluster.provider))) == ("Ready", sorted([BY_HAND, own]))
    await delete(cluster)
    assert standing(cluster.provider) == [BY_HAND]


@pytest.mark.alike
async def test_what_was_made_goes_once_what_is_attached_answers(at: At, cluster: CloudCluster) -> None:
    status = await deploy(cluster, **at.template)
    assert status["phase"] == "Ready"
    assert len(standing(cluster.provider)) == 2
    status = await deploy(cluster, attach={"id": BY_HAND})
    assert (status["phase"], names(status), standing(cluster.provider)) == ("Ready", [BY_HAND], [BY_HAND])


@pytest.mark.alike
async def test_a_version_that_is_refused_and_taken_back_leaves_nothing(
    name: str, at: At, cluster: CloudCluster
) -> None:
    await end_by_hand(cluster)
    status = await deploy(cluster, **at.template)
    (own,) = names(status)
    cluster.provider.fault(MAKES[name], status=400, code="ValidationException", times=1000)
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(at.content, job="sentiment-2")
    await cluster.settle()
    await cluster.pass_time(7200)
    status = await later(cluster, 600)
    assert (status["phase"], status["servedVersion"], standing(cluster.provider)) == ("Degraded", 1, [own])
    spec = {"deployment": {"mode": "Manual"}, "activeVersion": 1}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=spec)
    await cluster.settle()
    status = await later(cluster, 1200)
    assert (status["phase"], names(status), standing(cluster.provider)) == ("Ready", [own], [own])
    cluster.provider.faults.clear()
    await delete(cluster)
    assert standing(cluster.provider) == []
