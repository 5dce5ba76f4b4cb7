"""A model at a simulated OpenAI is measured: the pod's own program, the operator's own server, the provider's SDK."""

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNED_MODELS
from tests.simulators.conftest import start
from tests.simulators.openai import OpenAISimulator
from tests.unit.finetune_operator.reconcilers.cloud import simulator
from tests.unit.finetune_operator.reconcilers.cluster import MODEL
from tests.unit.finetune_operator.reconcilers.evaluation import DATASET, ROWS, MeasuredCluster

__all__ = ["start"]

CHAT = "chat.completions.create"


@pytest.fixture
def provider() -> OpenAISimulator:
    return simulator()


@pytest.fixture
async def begin(provider: Any, start: Any, tmp_path: Any, monkeypatch: Any) -> AsyncIterator[Callable[..., Any]]:
    """Makes a cluster whose job's model is made and waits to be measured."""
    made: list[MeasuredCluster] = []

    async def begun(**fields: Any) -> MeasuredCluster:
        cluster = MeasuredCluster(provider, start(provider), tmp_path)
        made.append(cluster)
        await cluster.serve(monkeypatch)
        cluster.add_cloud_job(**({"dataset": DATASET} | fields))
        await cluster.settle()
        await cluster.tune()
        return cluster

    yield begun
    for cluster in made:
        await cluster.aclose()


async def test_a_tuned_model_is_compared_with_its_base_model(provider, begin):
    cluster = await begin()
    assert cluster.status()["phase"] == "Evaluating"
    assert cluster.condition("Ready")["status"] == "False"
    assert (FINE_TUNED_MODELS, "team-a", "sentiment") not in cluster.kube.objects, "a version has its evaluation"
    last = await cluster.measure()
    assert last.phase == "Measured"
    status = cluster.status()
    found = status["evaluation"]
    assert (found["tuned"]["exactMatch"], found["baselines"]["zeroShot"]["exactMatch"]) == (1.0, 0.0)
    assert (found["verdict"], found["rows"]) == ("Better", ROWS)
    assert "loss" not in found["tuned"]
    assert "not available from a provider" in found["missing"]
    assert found["tokensPerAnswer"]["tuned"] > 0
    assert (status["phase"], status["modelVersion"]) == ("Succeeded", 1)
    assert cluster.condition("Evaluated")["status"] == "True"
    assert status["progress"]["answers"] == status["progress"]["totalAnswers"] == 2 * ROWS
    assert status["progress"]["step"] == 3, "what is known of the training stays"
    assert cluster.status(MODEL)["versions"][0]["evaluation"]["verdict"] == "Better"
    assert provider.count(CHAT) == 2 * ROWS
    assert cluster.evaluation["tuned"]["answers"] == cluster.evaluation["base"]["answers"] == ROWS


async def test_what_was_asked_is_part_of_the_bill(provider, begin):
    cluster = await begin()
    cost = cluster.status()["cost"]
    assert (cost["estimated"], cost["evaluation"]) == ("0.02", "0.01")
    assert "evaluation of 12 rows" in cost["basis"]
    await cluster.measure()
    asked = cluster.evaluation
    assert asked["tuned"]["promptTokens"] > 0
    assert Decimal(cluster.status()["cost"]["actual"]) == provider.cost().quantize(Decimal("0.01"))


@pytest.mark.parametrize(("activation", "active"), [("IfBetter", 1), ("Automatic", 2)])
async def test_a_version_that_is_no_better_becomes_active_only_by_itself(begin, activation, active):
    cluster = await begin()
    await cluster.measure()
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"activation": activation})
    cluster.add_cloud_job("sentiment-2", dataset=DATASET, evaluation={"baselines": [{"activeVersion": {}}]})
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await cluster.settle()
    await cluster.pass_time(3600)
    job = cluster.start_pod(job="sentiment-2")
    await cluster.settle()
    last = await cluster.ask(job)
    cluster.finish_pod(last, job="sentiment-2")
    await cluster.settle()
    versions = cluster.status(MODEL)["versions"]
    assert [one["version"] for one in versions] == [1, 2]
    assert versions[1]["evaluation"]["baselines"]["activeVersion"]["verdict"] == "NoDifference"
    assert cluster.status(MODEL)["activeVersion"] == active
