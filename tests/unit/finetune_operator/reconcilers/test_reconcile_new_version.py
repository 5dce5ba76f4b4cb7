"""A new version of a model that answers without a deployment: the earlier one is told until the new one is seen."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, begin, go_on, provider
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL

__all__ = ["begin", "provider", "start"]

LIMIT = {"status": 429, "code": "rate_limit_exceeded", "times": 99}
RIGHTS = {"status": 403, "code": "forbidden", "times": 99}


async def with_second_version(begin: Callable[..., Any], **fault: Any) -> CloudCluster:
    """The first one answers; whether the second one is there cannot be asked."""
    cluster: CloudCluster = await begin()
    await go_on(cluster, 3600)
    assert cluster.status(DEPLOYMENT)["servedVersion"] == 1
    if fault:
        cluster.provider.fault("models.retrieve", **fault)
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await go_on(cluster, 3600)
    assert cluster.status(MODEL)["activeVersion"] == 2
    return cluster


@pytest.mark.alike
@pytest.mark.parametrize(("fault", "phase"), [(LIMIT, "Updating"), (RIGHTS, "Degraded")])
async def test_what_answered_is_told_until_the_new_one_can_be_asked(
    begin: Callable[..., Any], fault: dict[str, Any], phase: str
) -> None:
    cluster = await with_second_version(begin, **fault)
    status, first = cluster.status(DEPLOYMENT), cluster.status(MODEL)["versions"][0]
    assert (status["phase"], status["servedVersion"]) == (phase, 1), status
    assert status["endpoint"]["model"] == first["artifact"]["providerModelID"]
    assert cluster.condition("Stalled", DEPLOYMENT)["status"] == str(phase == "Degraded")
    assert "version 1 keeps answering" in cluster.condition("Ready", DEPLOYMENT)["message"]
    cluster.provider.faults.clear()
    await go_on(cluster, 1800)
    assert (cluster.status(DEPLOYMENT)["phase"], cluster.status(DEPLOYMENT)["servedVersion"]) == ("Ready", 2)


async def test_it_is_told_no_longer_than_it_is_there_itself(begin: Callable[..., Any]) -> None:
    cluster = await with_second_version(begin, **LIMIT)
    cluster.provider.faults.clear()
    cluster.provider.models.tuned.clear()
    await go_on(cluster, 1800)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status.get("servedVersion")) == ("Failed", None)
    assert cluster.condition("Stalled", DEPLOYMENT)["reason"] == "DeletedAtProvider"
