"""Two jobs that name the same data: each brings its own files, and the end of one takes nothing of the other's."""

from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import At, at
from tests.unit.finetune_operator.reconcilers.at_providers import at_work as cluster
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, MODEL

__all__ = ["at", "cluster", "s3_endpoint", "start"]

SECOND, OTHER = JOB._replace(name="second"), MODEL._replace(name="other")


async def begin_second(at: At, cluster: CloudCluster) -> None:
    """With the same rows, for another model; all that is made goes with its objects."""
    spec = {"deployment": {"mode": "Manual"}, "deletionPolicy": "Delete"}
    for name in ("sentiment", "other"):
        cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": name, "namespace": "team-a"}, "spec": spec})
    cluster.add_cloud_job("second", modelRef={"name": "other"})
    await cluster.settle()
    await cluster.check(at.content, job="second")


def delete(cluster: CloudCluster, resource: Any, name: str) -> None:
    cluster.kube.mark_deleted(resource, name)


@pytest.mark.alike
@pytest.mark.parametrize("end", ["deleted", "succeeded"])
async def test_the_end_of_one_leaves_the_other_its_files(at: At, cluster: CloudCluster, end: str) -> None:
    """The second has brought its files, and is asked for when those of the first are gone."""
    cluster.provider.fault(at.create, status=429, times=9999)
    await begin_second(at, cluster)
    if end == "deleted":
        delete(cluster, FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await go_on(cluster, 4 * 3600, step=1800)
    if end == "succeeded":
        assert cluster.status()["phase"] == "Succeeded"
    assert cluster.status(SECOND)["phase"] == "Queued"
    cluster.provider.faults.clear()
    await go_on(cluster, 5 * 3600, step=1800)
    assert (cluster.status(SECOND)["phase"], cluster.status(OTHER)["latestVersion"]) == ("Succeeded", 1)


async def test_the_end_of_one_model_leaves_the_other(at: At, cluster: CloudCluster) -> None:
    await begin_second(at, cluster)
    await cluster.settle()
    await go_on(cluster, 5 * 3600, step=1800)
    assert (cluster.status()["phase"], cluster.status(SECOND)["phase"]) == ("Succeeded", "Succeeded")
    mine, theirs = (cluster.status(key)["versions"][0]["artifact"] for key in (MODEL, OTHER))
    assert mine != theirs
    delete(cluster, FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 600)
    assert (FINE_TUNED_MODELS, "team-a", "sentiment") not in cluster.kube.objects
    connection = cluster.status(OTHER)["versions"][0]["connection"]
    call = cluster.accounts.of(connection).call
    names = [one.get("providerModelID") or one["uri"] for one in (mine, theirs)]
    assert [await call(lambda api, name=name: api.has_model(name)) for name in names] == [False, True]
