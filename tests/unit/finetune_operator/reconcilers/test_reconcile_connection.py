"""A connection's checks: whom their results concern."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.runtime.kube import CONNECTIONS
from finetune_operator.runtime.queue import Key
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, simulator, with_submitted_job
from tests.unit.finetune_operator.reconcilers.cluster import JOB

__all__ = ["start"]

OPENAI = Key(CONNECTIONS.kind, "", "openai")


@pytest.fixture
async def cluster(start: Any) -> AsyncIterator[CloudCluster]:
    provider = simulator()
    made = await with_submitted_job(provider, start(provider))
    yield made
    await made.aclose()


async def check_an_hour_later(cluster: CloudCluster) -> None:
    cluster.now += timedelta(hours=1)
    before = cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["lastChecked"]
    await cluster.reconcile(OPENAI)
    assert cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["lastChecked"] > before
    for event in cluster.kube.take_events():
        cluster.observer.seen(*event)


async def test_a_check_that_finds_what_was_known_has_no_job_looked_at(cluster: CloudCluster) -> None:
    await check_an_hour_later(cluster)
    assert cluster.queue == []


async def test_a_check_that_finds_a_bad_key_has_the_jobs_looked_at(cluster: CloudCluster) -> None:
    cluster.set_key("another")
    cluster.kube.take_events()
    await check_an_hour_later(cluster)
    assert JOB in cluster.queue
