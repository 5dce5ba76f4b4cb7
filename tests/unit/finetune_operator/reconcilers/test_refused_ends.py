"""Ends that the API server does not let happen: providers are asked as seldom as it is, and all goes once it may."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, Resource
from finetune_operator.runtime.queue import Key
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import at, at_work
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, JOB, MODEL, Cluster, with_running_job
from tests.unit.finetune_operator.reconcilers.hosted import cluster, deployed, hosts, provider

__all__ = ["at", "at_work", "cluster", "provider", "s3_endpoint", "start"]

LOOKS = 10


def refuse(cluster: Cluster, verb: str, resource: Resource) -> None:
    cluster.kube.refusals[verb, resource.plural] = Forbidden(403, "Forbidden", "frozen")


async def look(cluster: Cluster, key: Key) -> None:
    cluster.wake(key)
    with suppress(Forbidden):
        await cluster.settle()


async def asked_often(
    cluster: CloudCluster, key: Key, resource: Resource, verb: str = "patch"
) -> tuple[int, int, Callable[[], Awaitable[tuple[int, int]]]]:
    """Requests to API server and provider of many looks; and how many there are of another half minute."""

    def asked() -> tuple[int, int]:
        return cluster.kube.asked(verb, resource.plural), len(cluster.provider.calls)

    before = asked()
    await look(cluster, key)
    first = asked()
    each = max(first[1] - before[1], 1)
    for _ in range(LOOKS):
        await look(cluster, key)
    often = asked()

    async def later() -> tuple[int, int]:
        cluster.now += timedelta(seconds=30)
        await look(cluster, key)
        return asked()[0] - often[0], len(cluster.provider.calls) - often[1]

    assert often[0] - before[0] <= 4, "a few times at once, and then every half minute"
    return each, often[1] - first[1], later


@pytest.mark.alike
async def test_a_job_that_is_not_let_go_does_not_ask_its_provider_at_each_look(at_work: CloudCluster) -> None:
    refuse(at_work, "patch", FINE_TUNE_JOBS)
    at_work.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    for _ in range(10):  # until it has stopped, and what was brought there is gone
        with suppress(Forbidden):
            await go_on(at_work, 60)
    at_work.now += timedelta(seconds=300)
    each, more, later = await asked_often(at_work, JOB, FINE_TUNE_JOBS)
    assert more <= 3 * each, f"of {LOOKS} looks"
    assert (await later())[1] > 0, "what came there meanwhile is looked for"
    at_work.kube.refusals.clear()
    await go_on(at_work, 1200)
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in at_work.kube.objects


async def test_a_deployment_that_is_not_let_go_does_not_ask_its_provider_at_each_look(
    cluster: CloudCluster, provider: Any
) -> None:
    await deployed(cluster)
    refuse(cluster, "patch", MODEL_DEPLOYMENTS)
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    for _ in range(10):
        with suppress(Forbidden):
            await go_on(cluster, 60)
    assert hosts(provider) == []
    cluster.now += timedelta(seconds=300)
    each, more, later = await asked_often(cluster, DEPLOYMENT, MODEL_DEPLOYMENTS)
    assert more <= 3 * each, f"of {LOOKS} looks"
    assert (await later())[1] > 0
    cluster.kube.refusals.clear()
    await go_on(cluster, 300)
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") not in cluster.kube.objects


async def test_a_model_that_is_not_let_go_does_not_ask_its_provider_at_each_look(
    cluster: CloudCluster, provider: Any
) -> None:
    await deployed(cluster)
    spec = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={**spec, "deletionPolicy": "Delete"})
    await cluster.settle()
    refuse(cluster, "patch", FINE_TUNED_MODELS)
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    for _ in range(20):
        with suppress(Forbidden):
            await go_on(cluster, 60)
    assert (hosts(provider), provider.count("models.delete")) == ([], 1)
    cluster.now += timedelta(seconds=300)
    each, more, _ = await asked_often(cluster, MODEL, FINE_TUNED_MODELS)
    assert more <= 3 * each, f"of {LOOKS} looks"
    cluster.kube.refusals.clear()
    await go_on(cluster, 300)
    assert (FINE_TUNED_MODELS, "team-a", "sentiment") not in cluster.kube.objects


async def test_a_job_that_is_not_deleted_at_the_end_of_its_time_is_not_asked_for_at_each_look() -> None:
    cluster = await with_running_job(ttlSecondsAfterFinished=60)
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    refuse(cluster, "delete", FINE_TUNE_JOBS)
    cluster.now += timedelta(seconds=120)
    for _ in range(LOOKS):
        await look(cluster, JOB)
    asked = cluster.kube.asked("delete", FINE_TUNE_JOBS.plural)
    assert asked <= 4, "a few times at once, and then every half minute"
    assert sum("end of its time to live" in note for note in cluster.notes) == asked, "and it is said as often"
    cluster.kube.refusals.clear()
    await cluster.wait(60)
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in cluster.kube.objects
