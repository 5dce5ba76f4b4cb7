"""However the operator is killed and whatever AWS does, one attempt is one training job, one version one endpoint, and
nothing is left behind. As test_exactly_once; the guard of AWS's own is a name that is taken once.
"""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from finetune_operator.runtime.kube import FINE_TUNED_MODELS
from tests.simulators.conftest import s3_endpoint
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
from tests.unit.finetune_operator.reconcilers.sagemaker import SageMakerCluster, sagemaker, with_training_job

__all__ = ["s3_endpoint"]

CREATE, ENDPOINT = "CreateTrainingJob", "CreateEndpoint"


def faults(*creates: str, others: tuple[str, ...]) -> list[dict[str, Any]]:
    """What may happen to them."""
    found: list[dict[str, Any]] = [{"operation": "*", "status": 403, "code": "UnrecognizedClientException"}]
    for create in creates:
        found += [
            {"operation": create, "after_commit": True},
            {"operation": create, "after_commit": True, "outcome": "cut"},
            {"operation": create, "after_commit": True, "outcome": "page"},
            {"operation": create, "status": 503},
            {"operation": create, "status": 400, "code": "ThrottlingException"},
            {"operation": create, "status": 400, "code": "ResourceLimitExceeded"},
        ]
    for other in others:
        found += [{"operation": other, "status": 500}, {"operation": other, "after_commit": True}]
    return found


WAITS = (1, 20, 90, 400)
OF_JOBS = courses(faults(CREATE, others=("DescribeTrainingJob", "ListTrainingJobs", "StopTrainingJob")), WAITS)
OF_ENDPOINTS = courses(
    faults("CreateModel", "CreateEndpointConfig", ENDPOINT,
           others=("DescribeEndpoint", "ListEndpoints", "DeleteEndpoint", "DeleteEndpointConfig", "InvokeEndpoint")),
    WAITS,
)  # fmt: skip
PROPERTY = of_lives(5)
UNANSWERED = ("fault", {"operation": CREATE, "after_commit": True})


async def begin(provider: Any, url: str, lag: float) -> SageMakerCluster:
    """A cluster whose data are there: the next look makes the training job."""
    cluster = SageMakerCluster(provider, url)
    cluster.add_cloud_job()
    await cluster.settle()
    provider.set(list_lag_seconds=lag)
    await cluster.check()
    return cluster


@PROPERTY
@given(OF_JOBS, LAGS)
@example([UNANSWERED, ("wait", 90), ("wait", 90)], 600)
@example([("kill", 2), ("wait", 90), ("wait", 90)], 600)  # between the call and what status says of it
def test_a_job_is_made_once_and_leaves_its_model_alone(s3_endpoint, course, lag) -> None:
    provider = sagemaker(s3_endpoint)

    async def life(url: str) -> None:
        cluster = await begin(provider, url, lag)
        for step in course:
            await live_step(cluster, step)
        await until(cluster, lambda: is_over(cluster))
        assert cluster.status()["phase"] == "Succeeded", cluster.status().get("failure")
        assert (len(provider.training.found), provider.count(CREATE)) == (1, 1)
        assert {name.split("/")[2] for name in cluster.objects.names()} == {"models"}
        assert provider.left() == []

    live(provider, life)


@PROPERTY
@given(OF_JOBS, LAGS)
@example([("wait", 1), UNANSWERED, ("wait", 90), ("wait", 90)], 600)
def test_a_job_that_is_deleted_at_any_moment_leaves_nothing(s3_endpoint, course, lag) -> None:
    provider = sagemaker(s3_endpoint, train_seconds=100_000)

    async def life(url: str) -> None:
        cluster = await begin(provider, url, lag)
        await live_until_deleted(cluster, course)
        await until(cluster, lambda: is_over(cluster))
        assert (JOB in cluster.kube.objects, provider.left(), cluster.objects.names()) == (False, [], [])
        assert provider.count(CREATE) <= 1

    live(provider, life)


@PROPERTY
@given(OF_ENDPOINTS, st.integers(0, 10))
@example([("fault", {"operation": ENDPOINT, "after_commit": True}), ("kill", 1), ("wait", 400)], 9)
@example([("fault", {"operation": "CreateEndpointConfig", "after_commit": True}), ("kill", 1)], 1)
def test_one_endpoint_is_made_and_nothing_is_left(s3_endpoint, course, deleted_after) -> None:
    provider = sagemaker(s3_endpoint)

    async def life(url: str) -> None:
        cluster = await with_training_job(provider, url)
        spec = {"deployment": {"template": {"sageMaker": {"instanceType": "ml.g5.xlarge"}}}}
        cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
        await cluster.pass_time(3600)
        await live_with_a_model(cluster, course, deleted_after, lambda: len(provider.hosting.endpoints))
        assert provider.left() == []

    live(provider, life)
