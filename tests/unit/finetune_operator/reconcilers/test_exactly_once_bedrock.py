"""However the operator is killed and whatever AWS does, one attempt is one job at Bedrock, paid for once, one version
one deployment, and nothing is left behind. As test_exactly_once; with two guards of AWS's own, token and name.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.bedrock import BedrockSimulator
from tests.simulators.conftest import s3_endpoint
from tests.simulators.server import serve
from tests.unit.finetune_operator.reconcilers.bedrock import (
    CREATE,
    GET,
    LIST,
    STOP,
    BedrockCluster,
    bedrock,
    conversations,
    with_bedrock_job,
)
from tests.unit.finetune_operator.reconcilers.cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.test_exactly_once import LAGS, live_step, survive

__all__ = ["s3_endpoint"]

JOB = (FINE_TUNE_JOBS, "team-a", "sentiment-1")
ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "sentiment")
DEPLOY, UNDEPLOY = "CreateCustomModelDeployment", "DeleteCustomModelDeployment"
HOURLY = {"type": "ProvisionedThroughput", "modelUnits": 1, "commitment": "NoCommitment"}


def faults(create: str, delete: str, look: str, ask: str) -> list[dict[str, Any]]:
    """What may happen to each of them."""
    return [
        {"operation": create, "after_commit": True},
        {"operation": create, "after_commit": True, "outcome": "cut"},
        {"operation": create, "outcome": "cut"},
        {"operation": create, "status": 503},
        {"operation": create, "status": 429},
        {"operation": create, "status": 400, "code": "ConflictException"},
        {"operation": delete, "after_commit": True},
        {"operation": delete, "status": 500},
        {"operation": look, "status": 500},
        {"operation": ask, "outcome": "cut"},
        {"operation": "*", "status": 403, "code": "UnrecognizedClientException"},
    ]


def steps(found: list[dict[str, Any]]) -> Any:
    return st.lists(
        st.one_of(
            st.tuples(st.just("fault"), st.sampled_from(found)),
            st.tuples(st.just("kill"), st.integers(0, 8)),
            st.tuples(st.just("wait"), st.sampled_from([1, 20, 90, 400])),
            st.tuples(st.just("restart"), st.none()),
        ),
        min_size=1,
        max_size=10,
    )


OF_JOBS = steps(faults(CREATE, STOP, GET, LIST))
OF_DEPLOYMENTS = steps(faults(DEPLOY, UNDEPLOY, "ListCustomModelDeployments", "Converse"))
PROPERTY = settings(
    max_examples=int(os.environ.get("EXACTLY_ONCE_LIVES", "4")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    database=None,
)
UNANSWERED = ("fault", {"operation": CREATE, "after_commit": True})
NOT_DEPLOYED = ("fault", {"operation": DEPLOY, "after_commit": True})


async def until(cluster: BedrockCluster, condition: Callable[[], bool]) -> None:
    cluster.provider.faults.clear()
    for _ in range(60):
        if condition():
            return
        await survive(cluster, 120)
    raise AssertionError(f"it does not come to its end: {cluster.status()} {cluster.kube.objects.get(ADDRESS)}")


def is_over(cluster: BedrockCluster) -> bool:
    job = cluster.kube.objects.get(JOB)
    return job is None or bool(job["status"].get("completionTime") and not job["metadata"].get("finalizers"))


def live(provider: BedrockSimulator, life: Callable[[str], Awaitable[None]]) -> None:
    with serve(provider) as url:
        asyncio.run(life(url))  # type: ignore[arg-type]


async def begin(provider: BedrockSimulator, url: str, lag: float = 0, **fields: Any) -> BedrockCluster:
    cluster = await with_bedrock_job(provider, url, **fields)
    provider.set(list_lag_seconds=lag, job_limit=100)
    cluster.run_pod()
    await cluster.settle()
    file = await cluster.send(conversations())
    cluster.end_pod(0, cluster.checked([file]))
    return cluster


@PROPERTY
@given(OF_JOBS, LAGS)
@example([UNANSWERED, ("wait", 90), ("wait", 90)], 600)
@example([("kill", 2), ("wait", 90), ("wait", 90)], 600)  # between the call and what status says of it
def test_a_job_is_made_once_and_paid_for_once(s3_endpoint, course, lag) -> None:
    provider = bedrock(s3_endpoint)

    async def life(url: str) -> None:
        cluster = await begin(provider, url, lag)
        for step in course:
            await live_step(cluster, step)
        await until(cluster, lambda: is_over(cluster))
        await cluster.aclose()
        assert cluster.status()["phase"] == "Succeeded", cluster.status().get("failure")
        assert len(cluster.jobs()) == 1
        assert [kind for kind in (one.kind for one in provider.left()) if kind != "deployment"] == ["model"]
        assert cluster.objects() == []

    live(provider, life)


@PROPERTY
@given(OF_JOBS, LAGS)
@example([("wait", 1), UNANSWERED, ("wait", 90), ("wait", 90)], 600)
def test_a_job_that_is_deleted_at_any_moment_leaves_nothing_that_runs(s3_endpoint, course, lag) -> None:
    provider = bedrock(s3_endpoint, step_seconds=10_000)

    async def life(url: str) -> None:
        cluster = await begin(provider, url, lag)
        for step in course[: len(course) // 2]:
            await live_step(cluster, step)
        if JOB in cluster.kube.objects:
            cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
        for step in course[len(course) // 2 :]:
            await live_step(cluster, step)
        await until(cluster, lambda: is_over(cluster))
        await cluster.aclose()
        assert JOB not in cluster.kube.objects
        provider.advance(120)
        assert (provider.left(), cluster.objects(), len(cluster.jobs()) <= 1) == ([], [], True)

    live(provider, life)


@pytest.mark.parametrize("block", [None, HOURLY], ids=["on demand", "provisioned"])
@PROPERTY
@given(course=OF_DEPLOYMENTS, deleted_after=st.integers(0, 10), lag=LAGS)
@example(
    course=[("fault", {"operation": DEPLOY, "after_commit": True}), ("kill", 1), ("wait", 400)], deleted_after=9, lag=0
)
def test_one_deployment_is_made_and_none_is_left(s3_endpoint, block, course, deleted_after, lag) -> None:
    provider = bedrock(s3_endpoint)
    standing = [provider.account.deployments, provider.account.throughputs]

    async def life(url: str) -> None:
        cluster = BedrockCluster(provider, url)
        template = {"deployment": {"template": {"bedrock": block} if block else {}}}
        cluster.kube.put(
            FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template}
        )
        cluster.add_cloud_job()
        await cluster.settle()
        await cluster.check(conversations())
        await cluster.settle()
        provider.set(list_lag_seconds=lag)
        await cluster.pass_time(3600)
        for step in course[:deleted_after]:
            await live_step(cluster, step)
            assert sum(map(len, standing)) <= 1
        if deleted_after >= len(course):
            await until(cluster, lambda: cluster.status(DEPLOYMENT).get("phase") == "Ready")
            assert sum(map(len, standing)) == 1
        cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
        cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
        for step in course[deleted_after:]:
            await live_step(cluster, step)
        await until(cluster, lambda: ADDRESS not in cluster.kube.objects)
        await cluster.aclose()
        assert sum(map(len, standing)) == 0

    live(provider, life)
