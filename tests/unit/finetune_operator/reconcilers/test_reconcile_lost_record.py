"""A ModelDeployment that is held, and has no record of what it has at its provider: a restore, or somebody, took it.

What stands there is billed: it goes with the object where it can be found, and is told of where it cannot.
"""

import pytest

from finetune_operator.decide.conditions import timestamp
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import start
from tests.simulators.flapping import Late
from tests.unit.finetune_operator.reconcilers.cloud import go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.hosted import cluster, deployed, hosts, provider
from tests.unit.finetune_operator.reconcilers.test_restored import restore

__all__ = ["cluster", "provider", "start"]

ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "sentiment")
TOLD = ("ModelDeployment", "Warning", "Retained")


async def delete_without_status(cluster, **when):
    """While no operator runs."""
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deployment": {"mode": "Manual"}})
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status={})
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment", **when)


@pytest.mark.parametrize("gone", ["nothing", "model"])
async def test_what_no_status_records_is_found_by_its_name_and_goes_with_its_object(cluster, provider, gone):
    await deployed(cluster)
    await delete_without_status(cluster)
    if gone == "model":
        cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 600)
    assert (hosts(provider), ADDRESS in cluster.kube.objects) == ([], False)
    assert TOLD not in cluster.told


@pytest.mark.parametrize("gone", ["nothing", "model"])
async def test_what_a_list_does_not_show_yet_goes_too(cluster, provider, gone):
    await deployed(cluster)
    provider.meddle = Late(provider, provider.clock.now + 90)
    await delete_without_status(cluster, at=timestamp(cluster.now))
    if gone == "model":
        cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    assert "nothing records" in cluster.condition("Reconciling", DEPLOYMENT)["message"]
    await go_on(cluster, 600)
    assert (hosts(provider), ADDRESS in cluster.kube.objects) == ([], False)


async def test_what_cannot_be_found_any_more_is_told_of_when_its_object_goes(cluster, provider):
    name = await deployed(cluster)
    await delete_without_status(cluster)
    cluster.kube.drop(CONNECTIONS, "openai", None)
    await cluster.settle()
    await go_on(cluster, 600)
    assert (hosts(provider), ADDRESS in cluster.kube.objects) == ([name], False)
    assert cluster.told.count(TOLD) == 1


async def test_what_may_stand_is_told_while_a_restored_object_has_nothing_to_serve(cluster, provider):
    name = await deployed(cluster)
    await restore(cluster, ())
    await cluster.settle()
    ready = cluster.condition("Ready", DEPLOYMENT)
    assert ready["reason"] == "NoVersion"
    assert "names begin with team-a-sentiment- may exist there, and be billed" in ready["message"]
    assert hosts(provider) == [name]
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 120)
    assert (hosts(provider), ADDRESS in cluster.kube.objects, TOLD in cluster.told) == ([name], False, True)


async def test_nothing_is_said_of_what_was_never_made(cluster, provider):
    await deployed(cluster)
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    assert "names begin with" not in cluster.condition("Ready", DEPLOYMENT)["message"]
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await go_on(cluster, 600)
    assert (hosts(provider), TOLD in cluster.told) == ([], False)
