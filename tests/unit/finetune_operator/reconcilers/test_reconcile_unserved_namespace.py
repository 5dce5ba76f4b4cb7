"""A namespace that its connection does not serve any more: what it has goes on, and nothing new is billed for it."""

from typing import Any

import pytest

from finetune_operator.runtime.kube import CONNECTIONS, MODEL_DEPLOYMENTS, NAMESPACES
from finetune_operator.runtime.queue import Key
from tests.simulators.azure import AzureSimulator
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, delete, go_on, rows
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL
from tests.unit.finetune_operator.reconcilers.hosted import ADDRESS, PUT, cluster, deployed, hosts, provider

__all__ = ["cluster", "provider", "start"]

SECOND = Key(MODEL_DEPLOYMENTS.kind, "team-a", "second")


@pytest.fixture
async def served(cluster: AzureCluster) -> AzureCluster:
    """Its first version answers."""
    await deployed(cluster)
    return cluster


async def restrict(cluster: AzureCluster) -> None:
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    cluster.kube.change(CONNECTIONS, "openai", None, spec={**spec, "namespaceSelector": {"matchLabels": {"a": "b"}}})
    await cluster.settle()


async def allow(cluster: AzureCluster) -> None:
    cluster.kube.put(NAMESPACES, {"metadata": {"name": "team-a", "labels": {"a": "b"}}})
    await go_on(cluster, 120)


def stalled(cluster: AzureCluster, key: Key = DEPLOYMENT) -> tuple[Any, ...]:
    found = cluster.condition("Stalled", key)
    return cluster.status(key)["phase"], found["status"], found["reason"]


async def test_what_stands_goes_on_and_goes_when_its_object_is_deleted(served: AzureCluster, provider: AzureSimulator):
    await restrict(served)
    await go_on(served, 3600, 600)
    assert (served.status(DEPLOYMENT)["phase"], provider.count(PUT)) == ("Ready", 1)
    await delete(served)
    await go_on(served, 300)
    assert (ADDRESS in served.kube.objects, hosts(provider)) == (False, [])


async def test_a_new_deployment_of_a_version_that_it_has_is_not_made_until_the_connection_serves_it(
    served: AzureCluster, provider: AzureSimulator
):
    await restrict(served)
    spec = {"modelRef": {"name": "sentiment"}, "azureOpenAI": {"sku": "Standard"}}
    served.kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "second", "namespace": "team-a"}, "spec": spec})
    await served.settle()
    await go_on(served, 300)
    assert (stalled(served, SECOND), provider.count(PUT)) == (("Failed", "True", "NamespaceNotAllowed"), 1)
    assert "Ask an admin to let the connection's namespaceSelector" in served.condition("Stalled", SECOND)["message"]
    await allow(served)
    await go_on(served, 1200)
    assert (served.status(SECOND)["phase"], provider.count(PUT)) == ("Ready", 2)


async def test_a_new_version_of_a_job_that_went_on_is_not_deployed_and_the_one_before_answers(
    served: AzureCluster, provider: AzureSimulator
):
    served.add_cloud_job("sentiment-2")
    await served.settle()
    await served.check(b"\xef\xbb\xbf" + rows(), job="sentiment-2")
    await served.settle()
    await restrict(served)
    await served.pass_time(3600)
    await go_on(served, 300)
    assert served.status(MODEL)["activeVersion"] == 2
    assert (stalled(served), served.status(DEPLOYMENT)["servedVersion"]) == (
        ("Degraded", "True", "NamespaceNotAllowed"),
        1,
    )
    assert provider.count(PUT) == 1
    await allow(served)
    await go_on(served, 2400)
    assert (served.status(DEPLOYMENT)["servedVersion"], len(hosts(provider))) == (2, 1)


async def test_what_was_deleted_there_is_not_made_anew(served: AzureCluster, provider: AzureSimulator):
    await restrict(served)
    provider.deployments.delete(hosts(provider)[0])
    provider.advance(1000)
    await go_on(served, 300)
    spec = served.kube.objects[ADDRESS]["spec"]
    served.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "retryNonce": "1"})
    await served.settle()
    await go_on(served, 300)
    assert (stalled(served)[2], provider.count(PUT)) == ("NamespaceNotAllowed", 1)


async def test_a_watch_that_is_late_with_the_namespace_alarms_nobody(served: AzureCluster, provider: AzureSimulator):
    await restrict(served)
    served.kube.put(NAMESPACES, {"metadata": {"name": "team-a", "labels": {"a": "b"}}})
    served.kube.take_events()
    spec = {"modelRef": {"name": "sentiment"}, "azureOpenAI": {"sku": "Standard"}}
    served.kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "second", "namespace": "team-a"}, "spec": spec})
    await served.settle()
    assert (served.status(SECOND)["phase"], provider.count(PUT)) == ("Deploying", 2)
