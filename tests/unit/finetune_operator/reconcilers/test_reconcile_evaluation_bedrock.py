"""A model at a simulated Bedrock is measured in a deployment on demand; its base model by an inference profile."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS
from tests.simulators.bedrock import BedrockSimulator
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.bedrock import bedrock
from tests.unit.finetune_operator.reconcilers.evaluation import ROWS, BedrockMeasured

__all__ = ["s3_endpoint", "start"]

DEPLOY, UNDEPLOY, LIST = "CreateCustomModelDeployment", "DeleteCustomModelDeployment", "ListCustomModelDeployments"
JOB, POD = (FINE_TUNE_JOBS, "team-a", "sentiment-1"), (JOBS, "team-a", "sentiment-1-1-eval1")
BY_HAND = {"spec": {"deployment": {"mode": "Manual"}}, "metadata": {"name": "sentiment", "namespace": "team-a"}}


@pytest.fixture
def provider(s3_endpoint: str) -> BedrockSimulator:
    return bedrock(s3_endpoint, deploy_seconds=50)


@pytest.fixture
async def begin(provider: Any, start: Any, tmp_path: Any, monkeypatch: Any) -> Callable[[], Any]:
    """Makes a cluster whose job's model is made; what it becomes is deployed by hand, so that it is alone."""

    async def begun() -> BedrockMeasured:
        cluster = BedrockMeasured(provider, start(provider), tmp_path)
        cluster.kube.put(FINE_TUNED_MODELS, BY_HAND)
        await cluster.begin(monkeypatch)
        return cluster

    return begun


async def alone(cluster: BedrockMeasured, provider: BedrockSimulator) -> None:
    await cluster.go_on(
        lambda: not cluster.kube.objects.get(JOB, {"metadata": {}})["metadata"].get("finalizers"), looks=30
    )
    assert not provider.account.deployments


async def test_a_tuned_model_is_compared_with_its_base_model(provider, begin):
    cluster = await begin()
    await cluster.go_on(lambda: POD in cluster.kube.objects, looks=30)
    assert [one["candidate"] for one in cluster.evaluation["deployments"]] == ["tuned"]
    last = await cluster.measure()
    assert last.phase == "Measured"
    found = cluster.status()["evaluation"]
    assert (found["tuned"]["exactMatch"], found["baselines"]["zeroShot"]["exactMatch"]) == (1.0, 0.0)
    await alone(cluster, provider)
    assert (provider.count("Converse"), provider.count(DEPLOY), provider.count(UNDEPLOY)) == (2 * ROWS + 1, 1, 1)
    asked = cluster.evaluation
    assert asked["tuned"]["promptTokens"] > 0
    assert "hosting" not in asked, "it has no price per hour"
    assert Decimal(cluster.status()["cost"]["evaluation"]) > 0


@pytest.mark.parametrize(
    "fault",
    [
        {"operation": DEPLOY, "after_commit": True, "outcome": "cut"},
        {"operation": LIST, "status": 500},
    ],
    ids=str,
)
async def test_it_is_made_once_and_none_is_left_whatever_becomes_of_a_call(provider, begin, fault):
    provider.fault(**fault)
    cluster = await begin()
    await cluster.begin_anew()
    await cluster.go_on(lambda: POD in cluster.kube.objects, looks=30)
    assert (len(provider.account.deployments), provider.count(DEPLOY)) == (1, 1)
    provider.fault(UNDEPLOY, after_commit=True, outcome="cut")
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await cluster.begin_anew()
    await alone(cluster, provider)
    assert JOB not in cluster.kube.objects
