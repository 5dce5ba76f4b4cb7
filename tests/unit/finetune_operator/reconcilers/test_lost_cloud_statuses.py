"""A cloud job whose status somebody empties, or puts back: what is at the provider is found, not paid for twice."""

from collections.abc import Awaitable, Callable

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS, JOBS
from tests.simulators.conftest import start
from tests.simulators.flapping import without_rows
from tests.simulators.http import Reply
from tests.simulators.openai import OpenAISimulator
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, begin, go_on, provider

__all__ = ["begin", "provider", "start"]

CREATE = "fine_tuning.jobs.create"
Begin = Callable[..., Awaitable[CloudCluster]]


def running(provider: OpenAISimulator) -> list[str]:
    return [job.id for job in provider.jobs.jobs.values() if job.status not in {"succeeded", "failed", "cancelled"}]


async def with_second(begin: Begin) -> CloudCluster:
    """A cluster whose provider works for the second attempt; the first was given up before it was there."""
    cluster = await begin()
    cluster.change_job(suspend=True)
    await cluster.settle()
    await go_on(cluster, 300)
    cluster.change_job(suspend=False)
    await cluster.settle()
    attempt = cluster.status()["provider"]["attempt"]
    await cluster.check(attempt=attempt)
    await cluster.settle()
    await cluster.pass_time(20)
    assert cluster.status()["provider"]["attempt"] == attempt
    return cluster


@pytest.mark.alike
@pytest.mark.parametrize(("pods", "jobs"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("second", [False, True])
async def test_a_job_at_its_provider_whose_status_is_emptied_is_followed_and_no_other_is_made(
    provider: OpenAISimulator, begin: Begin, pods: bool, jobs: bool, second: bool
) -> None:
    cluster = await with_second(begin) if second else await begin()
    made, attempt = running(provider), cluster.status()["provider"]["attempt"]
    created = provider.count(CREATE)
    if pods:
        cluster.lose_pods(and_jobs=jobs)
    cluster.forget({})
    await cluster.settle()
    await go_on(cluster, 200, step=20)
    now = cluster.status()["provider"]
    assert (now["attempt"], now["jobID"]) == (attempt, made[0])
    assert (len(made), provider.count(CREATE)) == (1, created)
    await go_on(cluster, 3600)
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)


@pytest.mark.alike
@pytest.mark.parametrize("shown", range(1, 13))
async def test_a_job_that_one_list_misses_after_its_status_is_emptied_is_not_asked_for_without_data(
    provider: OpenAISimulator, begin: Begin, shown: int
) -> None:
    """A look finds it, and the next one, a moment later, does not: neither data nor a pod are known."""
    cluster = await begin()
    (made,), lists = running(provider), 0
    cluster.lose_pods(and_jobs=True)

    async def meddle(operation: str, carry_out: Callable[[], Reply]) -> Reply:
        nonlocal lists
        lists += operation == "fine_tuning.jobs.list"
        reply = carry_out()
        return without_rows(reply) if operation == "fine_tuning.jobs.list" and lists == shown else reply

    provider.meddle = meddle
    cluster.forget({})
    await cluster.settle()
    await go_on(cluster, 200, step=20)
    assert (provider.count(CREATE, committed=False), cluster.status()["provider"]["jobID"]) == (1, made)
    await go_on(cluster, 3600)
    assert cluster.status()["phase"] == "Succeeded"


@pytest.mark.parametrize(("pods", "jobs"), [(True, False), (True, True)])
async def test_a_status_from_before_the_job_was_asked_for_has_no_second_one_made(
    provider: OpenAISimulator, begin: Begin, pods: bool, jobs: bool
) -> None:
    cluster = await begin()
    old = cluster.status()
    old["provider"] = {key: old["provider"][key] for key in ("name", "attempt", "place")} | {"jobID": "sentiment-1-1"}
    if pods:
        cluster.lose_pods(and_jobs=jobs)
    cluster.forget(old)
    await cluster.settle()
    await go_on(cluster, 200, step=20)
    assert cluster.status()["provider"]["attempt"] == 1
    await go_on(cluster, 3600)
    assert (cluster.status()["phase"], provider.count(CREATE)) == ("Succeeded", 1)


@pytest.mark.alike
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("end", ["deleted", "suspended"])
async def test_a_job_that_has_lost_its_status_and_is_to_end_is_cancelled_at_its_provider(
    provider: OpenAISimulator, begin: Begin, end: str, second: bool
) -> None:
    cluster = await with_second(begin) if second else await begin()
    cluster.lose_pods(and_jobs=True)
    cluster.forget({})
    if end == "deleted":
        cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    else:
        cluster.change_job(suspend=True)
    await cluster.settle()
    await go_on(cluster, 600)
    assert {job.status for job in provider.jobs.jobs.values()} == {"cancelled"}
    assert ((FINE_TUNE_JOBS, "team-a", "sentiment-1") in cluster.kube.objects) is (end == "suspended")


async def test_a_job_that_has_lost_its_status_waits_for_a_provider_that_does_not_answer(
    provider: OpenAISimulator, begin: Begin
) -> None:
    cluster = await with_second(begin)
    cluster.lose_pods(and_jobs=True)
    cluster.forget({})
    provider.fault("fine_tuning.jobs.list", status=503, times=100)
    await cluster.settle()
    assert not [at for at in cluster.kube.objects if at[0] is JOBS]
    assert cluster.status()["failure"]["reason"] == "ProviderUnavailable"
    provider.faults.clear()
    await go_on(cluster, 3600)
    assert (cluster.status()["phase"], provider.count(CREATE)) == ("Succeeded", 2)


@pytest.mark.alike
@pytest.mark.parametrize(("pods", "jobs"), [(False, False), (True, False), (True, True)])
async def test_a_failed_status_from_before_a_retry_ends_nothing_at_the_provider_and_pays_for_no_third(
    provider: OpenAISimulator, begin: Begin, pods: bool, jobs: bool
) -> None:
    cluster = await begin()
    sdk = (await cluster.accounts.of("openai").client.api())._sdk
    await sdk.fine_tuning.jobs.cancel(running(provider)[0])
    await cluster.poll()
    old = cluster.status()
    assert old["phase"] == "Failed"
    cluster.change_job(retryNonce="again")
    await cluster.settle()
    await cluster.check(attempt=2)
    await cluster.settle()
    await cluster.pass_time(20)
    made = running(provider)
    assert len(made) == 1
    if pods:
        cluster.lose_pods(and_jobs=jobs)
    cluster.forget(old)
    await cluster.settle()
    if jobs:  # nothing on the cluster tells of the second attempt: it is begun again, and found before it is asked for
        await cluster.check(attempt=2)
        await cluster.settle()
    await go_on(cluster, 3600)
    assert [job.status for job in provider.jobs.jobs.values()] == ["cancelled", "succeeded"]
    assert (cluster.status()["phase"], provider.count(CREATE)) == ("Succeeded", 2)
