"""Jobs that somebody has made elsewhere, and that come to nothing: said as it is, and nothing is started or stopped."""

from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import At, at
from tests.unit.finetune_operator.reconcilers.at_providers import at_work as cluster
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB

__all__ = ["at", "cluster", "s3_endpoint", "start"]

ADOPTED = JOB._replace(name="adopted")


async def adopt(at: At, cluster: CloudCluster, **fields: Any) -> str:
    job = next(iter(at.jobs(cluster.provider)))
    cluster.add_cloud_job("adopted", adopt={"jobID": job}, modelRef={"name": "other"}, **fields)
    await cluster.settle()
    await cluster.poll()
    return job


@pytest.mark.alike
async def test_one_that_was_stopped_before_is_told_so_and_another_is_to_be_adopted(at, cluster):
    await at.stop(cluster, next(iter(at.jobs(cluster.provider))))
    await go_on(cluster, 300)
    assert at.states(cluster.provider) == [at.stopped]
    job = await adopt(at, cluster)
    failure = cluster.status(ADOPTED)["failure"]
    assert (failure["reason"], job in failure["message"]) == ("CancelledAtProvider", True)
    assert "adopts that one" in failure["nextStep"]
    assert cluster.provider.count(at.create) == 1


@pytest.mark.alike
async def test_one_that_is_stopped_while_it_is_followed_is_told_so(at, cluster):
    job = await adopt(at, cluster)
    await cluster.pass_time(30)
    assert cluster.status(ADOPTED)["phase"] in {"Queued", "Running"}
    await at.stop(cluster, job)
    await go_on(cluster, 300)
    assert cluster.status(ADOPTED)["failure"]["reason"] == "CancelledAtProvider"


@pytest.mark.alike
async def test_one_that_is_followed_is_left_alone_by_suspend_and_by_the_end_of_its_object(at, cluster):
    job = await adopt(at, cluster, suspend=True, activeDeadlineSeconds=60)
    await cluster.pass_time(120)
    cluster.kube.drop(FINE_TUNE_JOBS, "adopted")
    await cluster.settle()
    await go_on(cluster, 7200, step=1800)
    assert at.jobs(cluster.provider)[job].status.casefold() in {"succeeded", "completed"}
