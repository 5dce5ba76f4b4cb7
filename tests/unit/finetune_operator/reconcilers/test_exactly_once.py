"""However the operator is killed and whatever the provider does, one attempt is one job there, paid for once.

Each life is a random course of faults, kills and pauses over a real SDK and a simulated OpenAI; its list lags for less
than the time that an unknown outcome is waited for. What lies beyond that no look-up can see: docs/decisions.
"""

from decimal import Decimal
from typing import Any

from hypothesis import example, given

from finetune_operator.decide.job.remote import SETTLE
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, simulator, with_cloud_job
from tests.unit.finetune_operator.reconcilers.random_lives import (
    JOB,
    LAGS,
    courses,
    is_over,
    live,
    live_step,
    live_until_deleted,
    of_lives,
    until,
)

CREATE = "fine_tuning.jobs.create"
FAULTS: tuple[dict[str, Any], ...] = (
    {"operation": CREATE, "after_commit": True},
    {"operation": CREATE, "after_commit": True, "outcome": "cut"},
    {"operation": CREATE, "outcome": "cut"},
    {"operation": CREATE, "after_commit": True, "outcome": "page"},
    {"operation": CREATE, "status": 503},
    {"operation": CREATE, "status": 429, "headers": {"Retry-After": "3"}},
    {"operation": CREATE, "status": 409},
    {"operation": "fine_tuning.jobs.list", "status": 500},
    {"operation": "fine_tuning.jobs.list", "outcome": "cut"},
    {"operation": "fine_tuning.jobs.retrieve", "status": 503},
    {"operation": "fine_tuning.jobs.*", "outcome": "empty"},
    {"operation": "files.*", "status": 500},
    {"operation": "files.delete", "after_commit": True},
    {"operation": "*", "status": 401},
)
COURSES = courses(FAULTS, (1, 15, 40, 90))
PROPERTY = of_lives(25)
UNANSWERED = ("fault", {"operation": CREATE, "after_commit": True})
SLOW_LIST = SETTLE.total_seconds() - 30


async def begin(lag: float, url: str, provider) -> CloudCluster:
    cluster = await with_cloud_job(provider, url)
    provider.set(list_lag_seconds=lag, job_limit=100)
    await cluster.check()
    return cluster


@PROPERTY
@given(COURSES, LAGS)
@example([UNANSWERED, ("wait", 40), ("wait", 40)], SLOW_LIST)
@example([("kill", 2), ("wait", 40), ("wait", 40)], SLOW_LIST)  # between the call and what status says of it
@example([("kill", 1), ("wait", 40)], SLOW_LIST)
def test_a_job_is_made_once_and_paid_for_once(course, lag) -> None:
    provider = simulator()

    async def run(url: str) -> None:
        cluster = await begin(lag, url, provider)
        for step in course:
            await live_step(cluster, step)
        await until(cluster, lambda: is_over(cluster), pause=60)
        await cluster.aclose()
        assert cluster.status()["phase"] == "Succeeded", cluster.status().get("failure")
        assert provider.count(CREATE) == 1
        assert provider.cost() == Decimal(cluster.status()["result"]["tokens"]) * 3 / 1_000_000
        assert [one.name for one in provider.left() if (one.kind, one.state) == ("file", "fine-tune")] == []

    live(provider, run)


@PROPERTY
@given(COURSES, LAGS)
@example([("wait", 1), UNANSWERED, ("wait", 40), ("wait", 40)], SLOW_LIST)
@example([("wait", 1), ("kill", 2), ("restart", None), ("wait", 40)], SLOW_LIST)
def test_a_job_that_is_deleted_at_any_moment_leaves_nothing_that_runs(course, lag) -> None:
    provider = simulator(step_seconds=10_000)

    async def run(url: str) -> None:
        cluster = await begin(lag, url, provider)
        await live_until_deleted(cluster, course)
        await until(cluster, lambda: is_over(cluster), pause=60)
        await cluster.aclose()
        assert JOB not in cluster.kube.objects
        assert provider.left() == []
        assert provider.count(CREATE) <= 1

    live(provider, run)
