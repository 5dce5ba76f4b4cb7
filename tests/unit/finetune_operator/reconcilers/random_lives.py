"""Random runs of an operator with a simulated provider: faults, kills and pauses, until everything is settled.

EXACTLY_ONCE_LIVES overrides how many runs a property is tried with.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from finetune_operator.decide.job.remote import SETTLE
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.server import serve
from tests.simulators.simulator import Simulator
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.fake_kube import Killed

JOB = (FINE_TUNE_JOBS, "team-a", "sentiment-1")
ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "sentiment")

Step = tuple[str, Any]

LAGS = st.sampled_from([0, 20, SETTLE.total_seconds() - 30])
"""Lags of a provider's list: shorter than the time to wait after an unknown outcome."""


def courses(
    faults: Iterable[dict[str, Any]], waits: Iterable[float], *, kills: int = 8, steps: int = 10
) -> st.SearchStrategy[list[Step]]:
    """Random step sequences with a maximum length; a kill is before one of the next `kills` API server requests."""
    step: st.SearchStrategy[Step] = st.one_of(
        st.tuples(st.just("fault"), st.sampled_from(list(faults))),
        st.tuples(st.just("kill"), st.integers(0, kills)),
        st.tuples(st.just("wait"), st.sampled_from(list(waits))),
        st.tuples(st.just("restart"), st.none()),
    )
    return st.lists(step, min_size=1, max_size=steps)


def of_lives(count: int) -> settings:
    """Settings for a property with this many runs, the same ones each time."""
    return settings(
        max_examples=int(os.environ.get("EXACTLY_ONCE_LIVES", str(count))),
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        database=None,
    )


def live(provider: Simulator, life: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Serve the provider, and run the life with its address."""
    with serve(provider) as url:
        asyncio.run(life(url))


async def survive(cluster: CloudCluster, seconds: float) -> None:
    """Let time pass; a killed operator is replaced immediately by one with empty memory."""
    try:
        await cluster.pass_time(seconds)
    except Killed:
        await replace_operator(cluster)


async def replace_operator(cluster: CloudCluster) -> None:
    cluster.kube.killed_in = None
    await cluster.aclose()
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()


async def live_step(cluster: CloudCluster, step: Step) -> None:
    kind, value = step
    if kind == "fault":
        cluster.provider.fault(**value)
    elif kind == "kill":
        cluster.kube.killed_in = value
    elif kind == "restart":
        await replace_operator(cluster)
    await survive(cluster, value if kind == "wait" else 1)


async def live_until_deleted(cluster: CloudCluster, course: Sequence[Step]) -> None:
    """Run the steps; half way through the job is deleted, unless it is gone by then."""
    half = len(course) // 2
    for step in course[:half]:
        await live_step(cluster, step)
    if JOB in cluster.kube.objects:
        cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    for step in course[half:]:
        await live_step(cluster, step)


async def live_with_a_model(
    cluster: CloudCluster, course: Sequence[Step], deleted_after: int, standing: Callable[[], int]
) -> None:
    """Run the steps with a served version; after some steps its model is deleted.

    `standing`: the number of deployments at the provider.
    """
    for step in course[:deleted_after]:
        await live_step(cluster, step)
        assert standing() <= 1
    if deleted_after >= len(course):
        await until(cluster, lambda: cluster.status(DEPLOYMENT).get("phase") == "Ready")
        assert standing() == 1
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    for step in course[deleted_after:]:
        await live_step(cluster, step)
    await until(cluster, lambda: ADDRESS not in cluster.kube.objects)


async def until(cluster: CloudCluster, condition: Callable[[], bool], *, pause: float = 120) -> None:
    """End all faults, and let time pass until the condition holds.

    Every third wait is as long as the longest pause after a provider's error, as a Cluster's waits do not add up.
    """
    cluster.provider.faults.clear()
    for turn in range(60):
        if condition():
            return
        await survive(cluster, pause if turn % 3 else 3 * pause)
    left = [cluster.kube.objects.get(address, {}).get("status") for address in (JOB, ADDRESS)]
    raise AssertionError(f"it does not come to its end: {left}")


def is_over(cluster: CloudCluster) -> bool:
    """Whether the job has ended without finalizers, or is gone."""
    job = cluster.kube.objects.get(JOB)
    return job is None or bool(job["status"].get("completionTime") and not job["metadata"].get("finalizers"))
