"""However the operator is killed and whatever AWS does, one attempt is one job at Bedrock, paid for once, one version
one deployment, and nothing is left behind. As test_exactly_once; with two guards of AWS's own, token and name.
"""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finetune_operator.runtime.kube import FINE_TUNED_MODELS
from tests.simulators.bedrock import BedrockSimulator
from tests.simulators.conftest import s3_endpoint
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
from tests.unit.finetune_operator.reconcilers.random_lives import (
    JOB,
    LAGS,
    courses,
    is_over,
    live,
    live_step,
    live_until_deleted,
    live_with_a_model,
    of_lives,
    until,
)

__all__ = ["s3_endpoint"]

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


WAITS = (1, 20, 90, 400)
OF_JOBS = courses(faults(CREATE, STOP, GET, LIST), WAITS)
OF_DEPLOYMENTS = courses(faults(DEPLOY, UNDEPLOY, "ListCustomModelDeployments", "Converse"), WAITS)
PROPERTY = of_lives(4)
UNANSWERED = ("fault", {"operation": CREATE, "after_commit": True})


async def begin(provider: BedrockSimulator, url: str, lag: float = 0, **fields: Any) -> BedrockCluster:
    cluster = await with_bedrock_job(provider, url, **fields)
    provider.set(list_lag_seconds=lag, job_limit=100)
    await cluster.check(conversations())
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
        await live_until_deleted(cluster, course)
        await until(cluster, lambda: is_over(cluster))
        await cluster.aclose()
        assert JOB not in cluster.kube.objects
        provider.advance(120)
        assert (provider.left(), cluster.objects(), len(cluster.jobs()) <= 1) == ([], [], True)

    live(provider, life)


@pytest.mark.alike
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
        await live_with_a_model(cluster, course, deleted_after, lambda: sum(map(len, standing)))
        await cluster.aclose()
        assert sum(map(len, standing)) == 0

    live(provider, life)
