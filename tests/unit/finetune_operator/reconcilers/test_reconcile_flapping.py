"""Lists and reads that miss things now and then: what stands is neither forgotten nor made twice, and all comes to rest."""

import codecs
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.http import ApiError, Reply
from tests.simulators.simulator import Simulator
from tests.unit.finetune_operator.reconcilers.bedrock import BedrockCluster, bedrock, conversations
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, CloudCluster, azure, rows
from tests.unit.finetune_operator.reconcilers.cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.sagemaker import SageMakerCluster, sagemaker

__all__ = ["s3_endpoint", "start"]

ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "sentiment")
HOURLY = {"type": "ProvisionedThroughput", "modelUnits": 1, "commitment": "NoCommitment"}
SERVED: dict[str, dict[str, Any]] = {
    "azure": {"azureOpenAI": {"sku": "Standard"}},
    "on demand": {"bedrock": {"type": "OnDemand"}},
    "throughput": {"bedrock": HOURLY},
    "sagemaker": {"sageMaker": {"instanceType": "ml.g5.xlarge"}},
}
DATA: dict[str, Callable[[], bytes]] = {
    "azure": lambda: codecs.BOM_UTF8 + rows(),
    "on demand": conversations,
    "throughput": conversations,
    "sagemaker": rows,
}


class Flapping:
    """Stands between a provider and its clients: of so many calls one list is empty, or one read misses."""

    def __init__(self, simulator: Simulator, every: int, first: int, *, reads: bool) -> None:
        self.simulator, self.every, self.first, self.reads = simulator, every, first, reads
        self.calls = Counter[str]()
        self.made: set[str] = set()
        """Names of all that has ever served."""

    async def __call__(self, operation: str, carry_out: Callable[[], Reply]) -> Reply:
        reply, word = carry_out(), operation.rpartition(".")[2]
        self.made |= set(standing(self.simulator))
        lists = word.startswith("List") or word == "list"
        read = self.reads and (word.startswith(("Get", "Describe")) or word in {"get", "retrieve"})
        if reply.status != 200 or not (lists or read):
            return reply
        self.calls[operation] += 1
        if (self.calls[operation] + self.first) % self.every:
            return reply
        if read:
            return self.simulator.error(_missing(operation), operation)
        body = orjson.loads(reply.body)
        return Reply.json({key: [] if isinstance(value, list) else value for key, value in body.items()})


def _missing(operation: str) -> ApiError:
    """As each provider says it; SageMaker has no code for it."""
    if operation.startswith("Describe"):
        return ApiError(400, "ValidationException", "Could not find what was asked for.")
    code = "ResourceNotFoundException" if operation.startswith("Get") else "ResourceNotFound"
    return ApiError(404, code, "What was asked for was not found.")


Begin = Callable[[str], CloudCluster]


@pytest.fixture
async def begin(start: Any, s3_endpoint: str) -> AsyncIterator[Begin]:
    """Makes clusters with a model that deploys what its jobs make, at a provider."""
    made: list[CloudCluster] = []

    def begun(served: str) -> CloudCluster:
        provider: Any
        cluster: CloudCluster
        if served == "azure":
            provider = azure(spread_seconds=0, deploy_seconds=100, delete_seconds=100)
            cluster = AzureCluster(provider, start(provider))
        elif served == "sagemaker":
            provider = sagemaker(s3_endpoint, endpoint_seconds=100, delete_seconds=100)
            cluster = SageMakerCluster(provider, start(provider))
        else:
            provider = bedrock(s3_endpoint, deploy_seconds=100, provision_seconds=100, delete_seconds=100)
            cluster = BedrockCluster(provider, start(provider))
        template = {"deployment": {"template": SERVED[served]}}
        cluster.kube.put(
            FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template}
        )
        made.append(cluster)
        return cluster

    yield begun
    for cluster in made:
        await cluster.aclose()


async def tuned(cluster: CloudCluster, job: str, content: bytes) -> None:
    cluster.add_cloud_job(job)
    await cluster.settle()
    await cluster.check(content, job=job)
    await cluster.settle()


async def until(cluster: CloudCluster, is_so: Callable[[], bool], what: str) -> None:
    for _ in range(90):
        if is_so():
            return
        await cluster.pass_time(61)
        for key in list(cluster.delays):  # nobody waits ten minutes here
            cluster.wake(key)
        await cluster.settle()
    raise AssertionError(f"{what}: {cluster.kube.objects.get(ADDRESS, {}).get('status') or cluster.status()}")


def alone(cluster: CloudCluster, version: int) -> bool:
    status = (cluster.kube.objects.get(ADDRESS) or {}).get("status") or {}
    hosted = [one["version"] for one in status.get("hosted") or ()]
    return (status.get("phase"), status.get("servedVersion"), hosted) == ("Ready", version, [version])


def standing(provider: Any) -> list[str]:
    """What a provider has that serves."""
    return [one.name for one in provider.left() if one.kind in {"deployment", "throughput", "endpoint"}]


@pytest.mark.parametrize("reads", [False, True], ids=["lists", "lists and reads"])
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("served", SERVED)
async def test_a_life_at_a_provider_that_misses_every_third_thing(begin, served, first, reads):
    cluster = begin(served)
    provider = cluster.provider
    provider.meddle = seen = Flapping(provider, 3, first, reads=reads)
    await tuned(cluster, "sentiment-1", DATA[served]())
    await cluster.pass_time(7200)
    await until(cluster, lambda: alone(cluster, 1), "version 1")
    await tuned(cluster, "sentiment-2", DATA[served]())
    await cluster.pass_time(7200)
    await until(cluster, lambda: alone(cluster, 2), "version 2 alone")
    assert len(standing(provider)) == 1
    for _ in range(12):
        await cluster.pass_time(700)
        assert cluster.status(DEPLOYMENT)["servedVersion"] == 2
    assert len(seen.made) == 2
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await until(cluster, lambda: ADDRESS not in cluster.kube.objects, "its end")
    assert standing(provider) == []
