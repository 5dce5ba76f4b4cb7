"""What ARM accepts and does later: told of by operations, in several ways, and at times it comes to nothing."""

from email.utils import formatdate
from typing import Any

import pytest

from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS
from tests.simulators.azure import AzureSimulator
from tests.simulators.clock import HOUR
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, delete, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.hosted import (
    ADDRESS,
    GONE,
    PUT,
    STRANGER,
    deployed,
    hosts,
    provider,
    tune,
    with_model,
)

__all__ = ["provider", "start"]

WHY = "no room in the rack"


@pytest.fixture
async def cluster(provider: AzureSimulator, start: Any) -> AzureCluster:
    """With a model that is to be deployed once its job ends."""
    return await with_model(provider, start(provider))


async def again(cluster: AzureCluster) -> None:
    spec = cluster.kube.objects[ADDRESS]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "retryNonce": "again"})
    await cluster.settle()


@pytest.mark.alike
@pytest.mark.parametrize("polls", ["Status", "Location", "Nothing"])
@pytest.mark.parametrize("put", ["Created", "Accepted"])
async def test_a_deployment_is_made_once_and_ends_however_arm_tells_of_it(cluster, provider, put, polls):
    provider.set(answers_put=put, answers_polls=polls)
    await tune(cluster, "sentiment-1")
    await deployed(cluster)
    await delete(cluster)
    await go_on(cluster, 300)
    assert (provider.count(PUT), ADDRESS in cluster.kube.objects, hosts(provider)) == (1, False, [])


@pytest.mark.alike
@pytest.mark.parametrize("polls", ["Status", "Location"])
@pytest.mark.parametrize("vanishes", [False, True])
@pytest.mark.parametrize("state", ["Failed", "Canceled"])
async def test_a_deployment_that_fails_after_it_was_accepted_is_told_of_with_azures_own_words(
    cluster, provider, state, vanishes, polls
):
    provider.set(fail_next_deployment=WHY, failed_state=state, failed_ones_vanish=vanishes, answers_polls=polls)
    await tune(cluster, "sentiment-1")
    await go_on(cluster, 2 * HOUR, 300)
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["status"], stalled["reason"], cluster.status(DEPLOYMENT)["phase"]) == (
        "True", "DeploymentFailed", "Failed",
    )  # fmt: skip
    assert WHY in stalled["message"]
    assert provider.count(PUT) == 1, "it is not asked for again and again"
    await again(cluster)
    await deployed(cluster)
    assert (provider.count(PUT), len(hosts(provider))) == (2, 1)
    await delete(cluster)
    await go_on(cluster, 300)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])


async def test_words_of_an_operation_that_nobody_remembers_any_more_are_done_without(cluster, provider):
    provider.set(fail_next_deployment=WHY)
    await tune(cluster, "sentiment-1")
    await go_on(cluster, 300)
    provider.deployments.operations.clear()
    await go_on(cluster, HOUR, 300)
    assert cluster.condition("Stalled", DEPLOYMENT)["reason"] == "DeploymentFailed"


async def test_one_that_fails_after_it_has_answered_says_so_and_is_made_anew_when_asked(cluster, provider):
    await tune(cluster, "sentiment-1")
    name = await deployed(cluster)
    provider.deployments.fail(name)
    await go_on(cluster, 1200, 600)
    assert cluster.condition("Stalled", DEPLOYMENT)["reason"] == "DeploymentFailed"
    assert cluster.status(DEPLOYMENT).get("servedVersion") is None
    assert provider.count(PUT) == 1
    await again(cluster)
    assert await deployed(cluster) == name
    assert provider.count(PUT) == 2


async def test_a_deletion_that_is_accepted_and_fails_is_asked_for_again(cluster, provider):
    await tune(cluster, "sentiment-1")
    await deployed(cluster)
    provider.set(fail_next_deletion="A lock holds it.")
    await delete(cluster)
    await go_on(cluster, 900)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])
    assert provider.count(GONE) == 2


async def test_deletions_that_fail_for_an_hour_are_told_of_with_a_way_out(cluster, provider):
    await tune(cluster, "sentiment-1")
    await deployed(cluster)
    await delete_in_vain(cluster, provider, 600)
    assert cluster.condition("Stalled", DEPLOYMENT)["status"] != "True", "it may be slow"
    await delete_in_vain(cluster, provider, HOUR)
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["status"], stalled["reason"]) == ("True", "ProviderBusy")
    assert "finetune.dev/abandon" in stalled["message"]
    await go_on(cluster, 900)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])


async def delete_in_vain(cluster: AzureCluster, provider: AzureSimulator, seconds: float) -> None:
    for _ in range(int(seconds // 60)):
        provider.set(fail_next_deletion="A lock holds it.")
        await (go_on(cluster, 60) if ADDRESS not in cluster.kube.objects or _goes(cluster) else delete(cluster))
    provider.set(fail_next_deletion=None)


def _goes(cluster: AzureCluster) -> bool:
    return "deletionTimestamp" in cluster.kube.objects[ADDRESS]["metadata"]


async def test_an_old_version_whose_deletion_fails_is_told_of_while_the_new_one_answers(cluster, provider):
    await tune(cluster, "sentiment-1")
    first = await deployed(cluster)
    cluster.add_cloud_job("sentiment-2")
    await tune(cluster, "sentiment-2")
    for _ in range(60):
        provider.set(fail_next_deletion="A lock holds it.")
        await go_on(cluster, 60)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"]) == ("Ready", 2)
    assert first in cluster.condition("Ready", DEPLOYMENT)["message"]
    assert status["cost"]["perHour"] == "3.40"
    provider.set(fail_next_deletion=None)
    await go_on(cluster, 900)
    assert first not in hosts(provider)
    assert cluster.condition("Ready", DEPLOYMENT)["message"] == "version 2 answers"


@pytest.mark.parametrize("before", ["a deployment", "a deletion"])
async def test_an_operation_of_somebody_else_on_the_account_is_waited_for_without_alarm(cluster, provider, before):
    if before == "a deployment":
        provider.clock.after(3500, lambda: provider.deployments.put("stranger", STRANGER, provider.models))
    await tune(cluster, "sentiment-1")
    assert cluster.condition("Stalled", DEPLOYMENT)["status"] != "True"
    await go_on(cluster, 1200)
    await deployed(cluster)
    if before == "a deletion":
        provider.deployments.put("stranger", STRANGER, provider.models)
    await delete(cluster)
    await go_on(cluster, 120)
    assert cluster.condition("Stalled", DEPLOYMENT)["status"] != "True" if ADDRESS in cluster.kube.objects else True
    await go_on(cluster, 900)
    assert (ADDRESS in cluster.kube.objects, provider.count(PUT)) == (False, 1)


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [409, 429])
async def test_arm_is_left_alone_for_as_long_as_it_asks_for(cluster, provider, status, form):
    until = provider.clock.now + HOUR + 9  # the deployment is asked for once the job has run for an hour
    pause = formatdate(until, usegmt=True) if form == "date" else "9"
    provider.fault(PUT, status=status, headers={"Retry-After": pause})
    await tune(cluster, "sentiment-1")
    assert provider.count(PUT, committed=False) == 1
    assert 8 <= cluster.delays[DEPLOYMENT] <= 10, "neither 20 nor 30, as it is where ARM names no time"
    await cluster.pass_time(10)
    assert (provider.count(PUT, committed=False), provider.count(PUT)) == (2, 1)
