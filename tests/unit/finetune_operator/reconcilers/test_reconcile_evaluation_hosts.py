"""Models that answer in deployments only are measured in deployments made for it, and none of those is left behind."""

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest

from finetune_api.names import ABANDON_ANNOTATION
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS, PODS
from tests.simulators.azure import AzureSimulator
from tests.simulators.clock import DAY
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import azure
from tests.unit.finetune_operator.reconcilers.cluster import MODEL
from tests.unit.finetune_operator.reconcilers.evaluation import DATASET, ROWS, AzureMeasured

__all__ = ["start"]

PUT, GONE, LIST = "deployments.create_or_update", "deployments.delete", "deployments.list"
CHAT = "chat.completions.create"
JOB = (FINE_TUNE_JOBS, "team-a", "sentiment-1")
POD = (JOBS, "team-a", "sentiment-1-1-eval1")
BY_HAND = {"spec": {"deployment": {"mode": "Manual"}}, "metadata": {"name": "sentiment", "namespace": "team-a"}}


@pytest.fixture
def provider() -> AzureSimulator:
    return azure()


@pytest.fixture
async def begin(provider: Any, start: Any, tmp_path: Any, monkeypatch: Any) -> AsyncIterator[Callable[..., Any]]:
    """Makes a cluster whose job's model is made; what it becomes is deployed by hand, so that it is alone."""
    made: list[AzureMeasured] = []

    async def begun(**fields: Any) -> AzureMeasured:
        cluster = AzureMeasured(provider, start(provider), tmp_path)
        made.append(cluster)
        await cluster.serve(monkeypatch)
        cluster.kube.put(FINE_TUNED_MODELS, BY_HAND)
        cluster.add_cloud_job(**({"dataset": DATASET} | fields))
        await cluster.settle()
        await cluster.tune()
        return cluster

    yield begun
    for cluster in made:
        await cluster.aclose()


async def go_on(cluster: AzureMeasured, until: Callable[[], bool], steps: int = 90) -> None:
    for _ in range(steps):
        if until():
            return
        await cluster.pass_time(30)
    raise AssertionError(f"it does not come to that: {cluster.status()}")


async def deployed(cluster: AzureMeasured) -> None:
    """Until the pod is there, which asks what stands."""
    await go_on(cluster, lambda: POD in cluster.kube.objects)


async def alone(cluster: AzureMeasured, provider: AzureSimulator) -> None:
    """Until nothing is deployed, and the job holds nothing any more."""
    await go_on(cluster, lambda: not provider.deployments.found and not finalizers(cluster))
    before = provider.cost()
    provider.advance(DAY)
    assert provider.cost() == before, "nothing is billed any more"


def finalizers(cluster: AzureMeasured) -> list[str]:
    return list(cluster.kube.objects.get(JOB, {"metadata": {}})["metadata"].get("finalizers") or ())


def hosts(cluster: AzureMeasured) -> dict[str, Any]:
    return {one["candidate"]: one for one in cluster.evaluation.get("deployments") or ()}


async def test_a_tuned_model_and_its_base_are_deployed_asked_and_gone(provider, begin):
    cluster = await begin()
    assert (cluster.status()["phase"], cluster.condition("Reconciling")["reason"]) == ("Evaluating", "Deploying")
    assert POD not in cluster.kube.objects, "nobody asks what does not answer"
    await deployed(cluster)
    assert sorted(one.model for one in provider.deployments.found.values())[0] == "gpt-4o-mini"
    assert all(one["name"].startswith("team-a-sentiment-1-") for one in hosts(cluster).values())
    last = await cluster.measure()
    assert last.phase == "Measured"
    found = cluster.status()["evaluation"]
    assert (found["tuned"]["exactMatch"], found["baselines"]["zeroShot"]["exactMatch"]) == (1.0, 0.0)
    assert cluster.status()["phase"] == "Succeeded", "the version does not wait for the deployments' end"
    assert cluster.status(MODEL)["versions"][0]["evaluation"]["verdict"] == "Better"
    await alone(cluster, provider)
    assert (provider.count(PUT), provider.count(GONE)) == (2, 2)
    assert "deployments" not in cluster.evaluation


async def test_their_hours_are_in_the_cost(provider, begin):
    cluster = await begin()
    cost = cluster.status()["cost"]
    assert Decimal(cost["evaluation"]) >= Decimal("1.70"), "an hour of the tuned model's"
    await deployed(cluster)
    await cluster.pass_time(3600)
    await cluster.measure()
    await alone(cluster, provider)
    actual = Decimal(cluster.status()["cost"]["actual"])
    assert Decimal(cluster.evaluation["hosting"]) > Decimal("1.70")
    assert abs(actual - provider.cost()) < Decimal("0.05")
