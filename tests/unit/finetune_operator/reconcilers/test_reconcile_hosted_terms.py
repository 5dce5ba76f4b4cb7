"""Another SKU or capacity at Azure: asked for in place, and claimed by no status before it is there."""

from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNED_MODELS
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.hosted import (
    PUT,
    STRANGER,
    cluster,
    deployed,
    go_on,
    provider,
)

__all__ = ["cluster", "provider", "start"]


async def ask_for(cluster: Any, capacity: int) -> None:
    spec = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["spec"]
    template = {"azureOpenAI": {"sku": "Standard", "capacity": capacity}}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={**spec, "deployment": {"template": template}})
    await cluster.settle()


def asked(provider: Any) -> int:
    """Requests for it, whatever came of them."""
    return sum(call.operation == PUT for call in provider.calls)


def capacity(provider: Any) -> int:
    (one,) = provider.deployments.found.values()
    return int(one.capacity)


async def test_what_was_only_asked_for_is_not_ready(cluster, provider):
    await deployed(cluster)
    await ask_for(cluster, 7)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], provider.count(PUT)) == ("Updating", 1, 2)
    assert cluster.condition("Ready", DEPLOYMENT)["status"] == "False"
    assert cluster.condition("Reconciling", DEPLOYMENT)["message"].endswith("; it answers already")


async def test_capacity_beyond_the_quota_is_told_for_as_long_as_it_lacks_and_comes_by_itself(cluster, provider):
    name = await deployed(cluster)
    provider.set(capacity=5)
    await ask_for(cluster, 7)
    for _ in range(4):
        await go_on(cluster, 300, 300)
        stalled = cluster.condition("Stalled", DEPLOYMENT)
        assert (stalled["status"], stalled["reason"]) == ("True", "QuotaExceeded")
        assert cluster.condition("Ready", DEPLOYMENT)["status"] == "False"
        status = cluster.status(DEPLOYMENT)
        assert (status["phase"], status["servedVersion"], status["endpoint"]["model"]) == ("Degraded", 1, name)
    assert asked(provider) < 8, "it is asked for after the pause that a quota has"
    provider.set(capacity=10)
    await go_on(cluster, 1200, 300)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    assert capacity(provider) == 7


@pytest.mark.alike
@pytest.mark.parametrize(
    "fault",
    [{"status": 409, "code": "RequestConflict"}, {"status": 503}, {"outcome": "cut"}, {"status": 429}],
    ids=str,
)
async def test_what_did_not_come_through_is_asked_for_again_and_not_claimed_meanwhile(cluster, provider, fault):
    await deployed(cluster)
    provider.fault(PUT, times=3, **fault)
    await ask_for(cluster, 7)
    for _ in range(12):
        ready = cluster.condition("Ready", DEPLOYMENT)["status"] == "True"
        assert not ready or capacity(provider) == 7
        assert cluster.status(DEPLOYMENT)["servedVersion"] == 1
        await go_on(cluster, 20, 20)
    await deployed(cluster)
    assert capacity(provider) == 7


async def test_one_that_was_done_and_not_answered_is_not_asked_for_anew(cluster, provider):
    await deployed(cluster)
    provider.fault(PUT, after_commit=True, status=500)
    await ask_for(cluster, 7)
    await deployed(cluster)
    assert (capacity(provider), provider.count(PUT)) == (7, 2)


async def test_a_wish_that_is_refused_for_good_is_asked_for_once(cluster, provider):
    await deployed(cluster)
    provider.fault(PUT, status=400, code="InvalidResourceProperties", times=99)
    await ask_for(cluster, 7)
    await go_on(cluster, 3600, 600)
    assert asked(provider) == 2
    assert "at the provider it is Standard x 1, not Standard x 7" in cluster.condition("Ready", DEPLOYMENT)["message"]


async def test_while_the_account_is_busy_it_is_waited_for_and_said(cluster, provider):
    await deployed(cluster)
    provider.deployments.put("stranger", STRANGER, provider.models)
    await ask_for(cluster, 7)
    message = cluster.condition("Reconciling", DEPLOYMENT)["message"]
    assert "stranger is being changed" in message
    assert cluster.status(DEPLOYMENT)["phase"] == "Updating"
    await go_on(cluster, 2400)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    assert provider.deployments.found[cluster.status(DEPLOYMENT)["endpoint"]["model"]].capacity == 7
