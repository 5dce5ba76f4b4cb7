"""An etcd that goes back to a snapshot: the same objects as they were, and a provider that has gone on since."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.flapping import standing
from tests.unit.finetune_operator.reconcilers.at_providers import PROVIDERS, QUICK
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, JOB, MODEL

__all__ = ["s3_endpoint", "start"]

PLACES = {"kindred": PROVIDERS["openai"], **PROVIDERS}
"""A kindred service has OpenAI's API, and keeps no labels."""
Begin = Callable[..., CloudCluster]


@pytest.fixture
async def begin(start: Any, s3_endpoint: str) -> Begin:
    """Makes a cluster with a model and a job at a provider; the model is deployed where a template is given."""

    def begun(name: str, **model: Any) -> CloudCluster:
        provider = PLACES[name].simulator(s3_endpoint)
        provider.set(**({"drop_metadata": True} if name == "kindred" else QUICK.get(name, {})))
        cluster = PLACES[name].cluster(provider, start(provider))
        metadata = {"name": "sentiment", "namespace": "team-a"}
        cluster.kube.put(FINE_TUNED_MODELS, {"metadata": metadata, "spec": model})
        cluster.add_cloud_job()
        return cluster

    return begun


def taken(cluster: CloudCluster) -> dict[Any, Any]:
    """A snapshot."""
    return {at: deepcopy(obj) for at, obj in cluster.kube.objects.items()}


async def go_back(cluster: CloudCluster, snapshot: dict[Any, Any]) -> None:
    """The control plane comes back with what the snapshot has, and a new operator with it."""
    cluster.kube.objects = {at: deepcopy(obj) for at, obj in snapshot.items()}
    cluster.kube.events.clear()
    await cluster.accounts.close()
    cluster.delays.clear()
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()


async def go_on(cluster: CloudCluster, seconds: float) -> None:
    for _ in range(int(seconds / 120)):
        await cluster.pass_time(120)


@pytest.mark.alike
@pytest.mark.parametrize("hours", [0, 2], ids=["runs", "has ended"])
@pytest.mark.parametrize("name", PLACES)
async def test_a_job_that_was_asked_for_after_the_snapshot_is_found_and_not_paid_for_again(begin, name, hours):
    cluster = begin(name, deployment={"mode": "Manual"})
    await cluster.settle()
    await cluster.check(PLACES[name].content)
    snapshot = taken(cluster)
    await cluster.settle()
    assert cluster.provider.count(PLACES[name].create) == 1
    await go_on(cluster, hours * 3600)
    await go_back(cluster, snapshot)
    assert "askedAt" in cluster.status(JOB)["provider"]
    await go_on(cluster, 7200)
    assert (cluster.status(JOB)["phase"], cluster.status(JOB)["modelVersion"]) == ("Succeeded", 1)
    assert cluster.provider.count(PLACES[name].create, committed=False) == 1
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [1]


@pytest.mark.alike
@pytest.mark.parametrize("hours", [0, 2], ids=["runs", "has ended"])
@pytest.mark.parametrize("name", PLACES)
async def test_a_job_whose_data_were_brought_after_the_snapshot_is_found(begin, name, hours):
    """The pod brings them again, under the names that they have: the provider's files are the same while it runs.

    When it has ended they are gone. Where a provider keeps no labels the model's name tells whose it is.
    """
    cluster = begin(name, deployment={"mode": "Manual"})
    await cluster.settle()
    snapshot = taken(cluster)
    await cluster.check(PLACES[name].content)
    await cluster.settle()
    await cluster.pass_time(60)
    await go_on(cluster, hours * 3600)
    await go_back(cluster, snapshot)
    await cluster.check(PLACES[name].content)
    await cluster.settle()
    await go_on(cluster, 7200)
    assert (cluster.status(JOB)["phase"], cluster.status(JOB)["modelVersion"]) == ("Succeeded", 1)
    assert cluster.provider.count(PLACES[name].create) == 1


@pytest.mark.parametrize("name", QUICK)
async def test_a_deployment_that_was_made_after_the_snapshot_is_found_and_ended_with_its_object(begin, name):
    cluster = begin(name, deployment={"template": PLACES[name].template})
    await cluster.settle()
    await cluster.check(PLACES[name].content)
    await cluster.settle()
    snapshots = []
    for _ in range(40):
        await cluster.pass_time(120)
        there = cluster.kube.objects.get((MODEL_DEPLOYMENTS, "team-a", "sentiment"))
        if there is not None and not snapshots:
            there["status"] = {}  # as it was made
            there["metadata"]["finalizers"] = []
            snapshots.append(taken(cluster))
            await cluster.settle()
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    (before,) = standing(cluster.provider)
    await go_back(cluster, snapshots[0])
    await go_on(cluster, 1200)
    assert (cluster.status(DEPLOYMENT)["phase"], standing(cluster.provider)) == ("Ready", [before])
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 1200)
    assert standing(cluster.provider) == []
