"""A job at its provider that lists there miss for a while, when nothing else tells of it: it is not paid for twice."""

from collections.abc import Awaitable, Callable
from copy import deepcopy

import pytest

from tests.simulators.conftest import start
from tests.simulators.flapping import without_rows
from tests.simulators.http import Reply
from tests.simulators.openai import OpenAISimulator
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, begin, go_on, provider, with_cloud_job
from tests.unit.finetune_operator.reconcilers.test_lost_cloud_statuses import CREATE, running

__all__ = ["begin", "provider", "start"]

LIST = "fine_tuning.jobs.list"
Begin = Callable[..., Awaitable[CloudCluster]]


def blind(provider: OpenAISimulator, *, after: int, until: float) -> None:
    """Lists of jobs are empty but for the first so many, until a moment."""
    lists = 0

    async def meddle(operation: str, carry_out: Callable[[], Reply]) -> Reply:
        nonlocal lists
        reply = carry_out()
        if operation != LIST:
            return reply
        lists += 1
        return without_rows(reply) if lists > after and provider.clock.now < until else reply

    provider.meddle = meddle


@pytest.mark.alike
@pytest.mark.parametrize("after", range(11, 16))
async def test_a_job_that_was_seen_once_is_waited_for_however_many_lists_miss_it_then(
    provider: OpenAISimulator, begin: Begin, after: int
) -> None:
    cluster = await begin()
    (made,) = running(provider)
    cluster.lose_pods(and_jobs=True)
    blind(provider, after=after, until=provider.clock.now + 900)
    cluster.forget({})
    await cluster.settle()
    await go_on(cluster, 800, step=60)
    status = cluster.status()
    if status["provider"].get("jobID") != made:  # it was seen, and not told by which name before lists missed it
        assert (status["provider"]["attempt"], status["failure"]["reason"]) == (1, "DeletedAtProvider")
        assert cluster.condition("Stalled")["status"] == "True"
        assert "may continue there, and be billed" in status["failure"]["message"]
    await go_on(cluster, 400, step=60)
    assert (provider.count(CREATE, committed=False), cluster.status()["provider"]["jobID"]) == (1, made)
    await go_on(cluster, 3600)
    assert (cluster.status()["phase"], cluster.status().get("failure")) == ("Succeeded", None)


@pytest.mark.parametrize("minutes", [2, 5])
async def test_a_job_whose_attempt_was_given_up_because_lists_missed_it_is_found_before_the_next_is_made(
    provider: OpenAISimulator, begin: Begin, minutes: int
) -> None:
    """Status is an old one: nothing was asked for yet. All that is seen of the attempt is that its pod is gone."""
    cluster = await begin()
    (made,) = running(provider)
    old = deepcopy(cluster.status())
    old["provider"] = {key: old["provider"][key] for key in ("name", "attempt", "place")} | {"jobID": "sentiment-1-1"}
    cluster.lose_pods(and_jobs=True)
    blind(provider, after=0, until=provider.clock.now + 60 * minutes)
    cluster.forget(old)
    await cluster.settle()
    await go_on(cluster, 60 * minutes + 20, step=20)
    assert cluster.status()["provider"]["attempt"] == 2
    await cluster.check(attempt=2)
    await cluster.settle()
    await go_on(cluster, 60, step=20)
    assert (provider.count(CREATE, committed=False), cluster.status()["provider"]["jobID"]) == (1, made)
    await go_on(cluster, 3600)
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert [one.kind for one in provider.left()] == ["file", "model"]


async def test_a_status_that_says_that_a_job_was_asked_for_and_not_with_which_data_has_none_made(
    provider: OpenAISimulator, begin: Begin
) -> None:
    """Somebody has written it by hand."""
    cluster = await begin(with_cloud_job)
    cluster.lose_pods(and_jobs=True)
    status = deepcopy(cluster.status())
    status["provider"] |= {"askedAt": "2026-11-01T00:00:00Z"}
    del status["provider"]["jobID"]
    cluster.forget(status)
    await cluster.settle()
    await go_on(cluster, 600)
    failure = cluster.status()["failure"]
    assert provider.count(CREATE, committed=False) == 0
    assert (failure["reason"], cluster.condition("Stalled")["status"]) == ("DeletedAtProvider", "True")
    assert "delete this object and apply it under a new name" in failure["nextStep"]
