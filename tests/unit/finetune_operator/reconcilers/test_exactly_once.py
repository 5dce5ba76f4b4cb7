"""However the operator is killed and whatever the provider does, one attempt is one job there, paid for once.

Each life is a random course of faults, kills and pauses over a real SDK and a simulated OpenAI; its list lags for less
than the time that an unknown outcome is waited for. What lies beyond that no look-up can see: docs/decisions.
"""

import asyncio
import os
from decimal import Decimal

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetune_operator.decide.cloud_job import SETTLE
from finetune_operator.runtime.kube import FINE_TUNE_JOBS
from tests.simulators.server import serve
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, rows, simulator, with_cloud_job
from tests.unit.finetune_operator.reconcilers.fake_kube import Killed

CREATE = "fine_tuning.jobs.create"
FAULTS = st.sampled_from(
    [
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
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("fault"), FAULTS),
    st.tuples(st.just("kill"), st.integers(0, 8)),
    st.tuples(st.just("wait"), st.sampled_from([1, 15, 40, 90])),
    st.tuples(st.just("restart"), st.none()),
)
COURSES = st.lists(STEPS, min_size=1, max_size=10)
LAGS = st.sampled_from([0, 20, SETTLE.total_seconds() - 30])


async def survive(cluster: CloudCluster, seconds: float) -> None:
    """Time passes; a killed operator is replaced at once by one that knows nothing."""
    try:
        await cluster.pass_time(seconds)
    except Killed:
        await replace_operator(cluster)


async def replace_operator(cluster: CloudCluster) -> None:
    cluster.kube.killed_in = None
    await cluster.aclose()
    cluster.restart()
    await cluster.observer.list_all()
    await cluster.settle()


async def live_step(cluster: CloudCluster, step: tuple[str, object]) -> None:
    kind, value = step
    if kind == "fault":
        cluster.provider.fault(**value)
    elif kind == "kill":
        cluster.kube.killed_in = value
    elif kind == "restart":
        await replace_operator(cluster)
    await survive(cluster, value if kind == "wait" else 1)


async def live(cluster: CloudCluster, course: list[tuple[str, object]]) -> None:
    for step in course:
        await live_step(cluster, step)
    cluster.provider.faults.clear()
    for _ in range(60):
        await survive(cluster, 60)
        job = cluster.kube.objects.get((FINE_TUNE_JOBS, "team-a", "sentiment-1"))
        if job is None or (job["status"].get("completionTime") and not job["metadata"].get("finalizers")):
            return
    raise AssertionError(f"it does not come to its end: {cluster.status()}")


async def begin(lag: float, url: str, provider) -> CloudCluster:
    cluster = await with_cloud_job(provider, url)
    provider.set(list_lag_seconds=lag, job_limit=100)
    cluster.run_pod()
    await cluster.settle()
    file = await cluster.send(rows())
    cluster.end_pod(0, cluster.checked([file]))
    return cluster


PROPERTY = settings(
    max_examples=int(os.environ.get("EXACTLY_ONCE_LIVES", "25")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)


UNANSWERED = ("fault", {"operation": CREATE, "after_commit": True})
SLOW_LIST = SETTLE.total_seconds() - 30


@PROPERTY
@given(COURSES, LAGS)
@example([UNANSWERED, ("wait", 40), ("wait", 40)], SLOW_LIST)
@example([("kill", 2), ("wait", 40), ("wait", 40)], SLOW_LIST)  # between the call and what status says of it
@example([("kill", 1), ("wait", 40)], SLOW_LIST)
def test_a_job_is_made_once_and_paid_for_once(course, lag) -> None:
    provider = simulator()

    async def run(url: str) -> None:
        cluster = await begin(lag, url, provider)
        await live(cluster, course)
        await cluster.aclose()
        assert cluster.status()["phase"] == "Succeeded", cluster.status().get("failure")
        assert provider.count(CREATE) == 1
        assert provider.cost() == Decimal(cluster.status()["result"]["tokens"]) * 3 / 1_000_000
        assert [one.name for one in provider.left() if (one.kind, one.state) == ("file", "fine-tune")] == []

    with serve(provider) as url:
        asyncio.run(run(url))


@PROPERTY
@given(COURSES, LAGS)
@example([("wait", 1), UNANSWERED, ("wait", 40), ("wait", 40)], SLOW_LIST)
@example([("wait", 1), ("kill", 2), ("restart", None), ("wait", 40)], SLOW_LIST)
def test_a_job_that_is_deleted_at_any_moment_leaves_nothing_that_runs(course, lag) -> None:
    provider = simulator(step_seconds=10_000)

    async def run(url: str) -> None:
        cluster = await begin(lag, url, provider)
        half = len(course) // 2
        for step in course[:half]:
            await live_step(cluster, step)
        if (FINE_TUNE_JOBS, "team-a", "sentiment-1") in cluster.kube.objects:
            cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
        await live(cluster, course[half:])
        await cluster.aclose()
        assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in cluster.kube.objects
        assert provider.left() == []
        assert provider.count(CREATE) <= 1

    with serve(provider) as url:
        asyncio.run(run(url))
