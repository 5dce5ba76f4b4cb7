"""A deletionPolicy that changes on the way out, or that keeps what nothing records: what is told is so."""

from typing import Any

import pytest

from finetune_operator.decide.conditions import timestamp
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import go_on
from tests.unit.finetune_operator.reconcilers.hosted import ADDRESS, cluster, deployed, hosts, provider

__all__ = ["cluster", "provider", "start"]


def policy(cluster: Any, value: str) -> None:
    spec = cluster.kube.objects[ADDRESS]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "deletionPolicy": value})


def delete(cluster: Any) -> None:
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment", at=timestamp(cluster.now))


async def test_what_was_asked_to_go_is_not_told_to_be_left(cluster: Any, provider: Any) -> None:
    name = await deployed(cluster)
    delete(cluster)
    await cluster.settle()
    assert provider.count("deployments.delete") == 1
    policy(cluster, "Retain")
    await cluster.settle()
    await go_on(cluster, 300)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])
    said = [note for note in cluster.notes if name in note]
    assert said == [f"deletionPolicy became Retain after the provider was asked to delete it, so it goes: {name}"]


async def test_what_stays_is_named(cluster: Any, provider: Any) -> None:
    name = await deployed(cluster)
    policy(cluster, "Retain")
    delete(cluster)
    await cluster.settle()
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [name])
    told = f"deletionPolicy is Retain: {name}, which is billed since "
    assert any(told in note for note in cluster.notes), cluster.notes


async def test_what_nothing_records_and_stays_is_told_of(cluster: Any, provider: Any) -> None:
    name = await deployed(cluster)
    policy(cluster, "Retain")
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status={})
    delete(cluster)
    await cluster.settle()
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [name])
    assert any("is not recorded any more" in note for note in cluster.notes)


@pytest.mark.parametrize("value", ["Retain", "Delete"])
async def test_a_spec_of_a_newer_release_is_heeded_in_what_is_to_stay(cluster: Any, provider: Any, value: str) -> None:
    name = await deployed(cluster)
    spec = cluster.kube.objects[ADDRESS]["spec"] | {"newer": "field", "deletionPolicy": value}
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec=spec)
    delete(cluster)
    await cluster.settle()
    await go_on(cluster, 600)
    left = [name] if value == "Retain" else []
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, left)
