"""Azure refuses a deployment, or its deletion: said with what to do, and done once nothing is in the way."""

from typing import Any

import pytest

from finetune_operator.decide.conditions import timestamp
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import delete, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.hosted import (
    ADDRESS,
    GONE,
    PUT,
    cluster,
    deployed,
    hosts,
    provider,
)
from tests.unit.finetune_operator.reconcilers.test_reconcile_hosted import tune_denied

__all__ = ["cluster", "provider", "start"]

IN_THE_WAY: dict[str, tuple[int, str, str, str]] = {
    "a lock": (409, "ScopeLocked", "ProviderRefused", "take the lock off"),
    "a policy": (403, "RequestDisallowedByPolicy", "ProviderRefused", "exemption"),
    "not registered": (409, "MissingSubscriptionRegistration", "ProviderRefused", "az provider register"),
    "disabled": (409, "ReadOnlyDisabledSubscription", "ProviderRefused", "Azure subscription"),
    "no SKU in the region": (400, "InvalidResourceProperties", "ProviderRefused", "Correct the provider's block"),
    "no capacity": (400, "InsufficientQuota", "QuotaExceeded", "Raise the quota"),
}


@pytest.mark.alike
@pytest.mark.parametrize("name", IN_THE_WAY)
async def test_a_new_version_that_is_refused_leaves_the_old_one_and_comes_when_it_may(
    cluster: Any, provider: Any, name: str
) -> None:
    status, code, reason, step = IN_THE_WAY[name]
    first = await deployed(cluster)
    provider.fault(PUT, status=status, code=code, message="no", times=10_000)
    cluster.add_cloud_job("sentiment-2")
    await tune_denied(cluster)
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["reason"], step in stalled["message"]) == (reason, True), stalled
    assert (cluster.status(DEPLOYMENT)["phase"], hosts(provider)) == ("Degraded", [first])
    provider.faults.clear()
    await go_on(cluster, 6000, 300)
    assert (cluster.status(DEPLOYMENT)["servedVersion"], len(hosts(provider))) == (2, 1)


async def test_an_address_of_arm_that_nobody_answers_at_is_told_with_its_field(cluster: Any, provider: Any) -> None:
    first = await deployed(cluster)
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    block = spec["azureOpenAI"] | {"managementEndpoint": "http://127.0.0.1:1"}
    cluster.kube.change(CONNECTIONS, "openai", None, spec={**spec, "azureOpenAI": block})
    cluster.add_cloud_job("sentiment-2")
    await tune_denied(cluster)
    ready, status = cluster.condition("Ready", DEPLOYMENT), cluster.status(DEPLOYMENT)
    assert "azureOpenAI.managementEndpoint of the LLMConnection, http://127.0.0.1:1: if" in ready["message"], ready
    assert (status["servedVersion"], hosts(provider)) == (1, [first])


async def test_what_was_refused_is_not_said_to_be_deleted_with_its_object(cluster: Any, provider: Any) -> None:
    first = await deployed(cluster)
    provider.fault(PUT, status=400, code="InsufficientQuota", message="no", times=10_000)
    cluster.add_cloud_job("sentiment-2")
    await tune_denied(cluster)
    await cluster.pass_time(301)  # it has just been asked for again
    second = cluster.status(DEPLOYMENT)["hosted"][1]["name"]
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment", at=timestamp(cluster.now))
    await cluster.settle()
    said = cluster.condition("Reconciling", DEPLOYMENT)["message"]
    assert said.startswith(f"being deleted at the provider: {first}; not shown by the provider"), said
    assert said.endswith(f"may still come: {second}")
    await go_on(cluster, 300)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])


async def test_a_deletion_that_a_lock_is_in_the_way_of_says_so_and_is_done_once_it_is_off(
    cluster: Any, provider: Any
) -> None:
    first = await deployed(cluster)
    provider.fault(GONE, status=409, code="ScopeLocked", message="locked", times=10_000)
    await delete(cluster)
    await go_on(cluster, 3900, step=300)
    assert (cluster.status(DEPLOYMENT)["phase"], hosts(provider)) == ("Deleting", [first])
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["reason"], "a lock is on the account" in stalled["message"]) == ("ProviderRefused", True), stalled
    assert "finetune.dev/abandon=true" in stalled["message"]
    provider.faults.clear()
    await go_on(cluster, 900)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])
    assert not [note for note in cluster.notes if "has accepted the deletion" in note], "it is asked only now"
