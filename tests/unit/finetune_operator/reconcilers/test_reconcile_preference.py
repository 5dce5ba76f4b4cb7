"""Jobs that learn from pairs of answers, at a simulated OpenAI and Azure OpenAI over their SDK."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_operator.runtime.kube import JOBS
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import (
    MINI,
    AzureCluster,
    CloudCluster,
    azure,
    catalogue,
    pairs,
    rows,
    simulator,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT

__all__ = ["start"]

CREATE = "fine_tuning.jobs.create"
BASE = "gpt-4.1-mini-2025-04-14"
MARK = b"\xef\xbb\xbf"
PLACES: dict[str, tuple[Any, Any, bytes]] = {
    "OpenAI": (simulator, CloudCluster, b""),
    "Azure OpenAI": (azure, AzureCluster, MARK),
}


@pytest.fixture
async def begin(start: Any) -> Callable[..., Any]:
    """Makes the clusters of a test, each with a job whose data are at the provider."""

    async def begun(place: str = "OpenAI", content: bytes | None = None, **fields: Any) -> CloudCluster:
        build, kind, mark = PLACES[place]
        settings = {name: fields.pop(name) for name in ("send_rewards", "learn_pairs") if name in fields}
        provider = build(**({"training_types": {BASE: ["Standard"]}} if place != "OpenAI" else {}), **settings)
        cluster = kind(provider, start(provider))
        cluster.add_cloud_job(**({"baseModel": BASE, "preference": {"beta": 0.2}} | fields))
        await cluster.settle()
        if cluster.status().get("phase") != "Failed":
            await cluster.check(mark + (content or pairs()))
            await cluster.settle()
        return cluster

    return begun


def job_of(cluster: CloudCluster) -> Any:
    [made] = cluster.provider.jobs.jobs.values()
    return made


@pytest.mark.parametrize("place", PLACES)
async def test_a_job_becomes_a_version(begin, place):
    cluster = await begin(place, hyperparameters={"epochs": 1, "batchSize": 4})
    asked = {"n_epochs": 1, "batch_size": 4, "beta": 0.2}
    assert job_of(cluster).request["method"] == {"type": "dpo", "dpo": {"hyperparameters": asked}}
    await cluster.pass_time(3600)
    status = cluster.status()
    assert (status["phase"], status["modelVersion"], status["result"]["steps"]) == ("Succeeded", 1, 3)
    assert [point["value"] < 0.7 for point in status["loss"]["train"]] == [True] * 3
    assert "rewardAccuracy" not in status["result"]


async def test_its_model_answers_as_the_better_answers_do(begin):
    cluster = await begin()
    await cluster.pass_time(3600)
    model = cluster.status(DEPLOYMENT)["endpoint"]["model"]
    assert cluster.provider.models.answers(model) == (BASE, {f"question {n}": f"answer {n}" for n in range(12)})


async def test_rewards_are_in_status_where_the_provider_sends_them(begin):
    cluster = await begin(send_rewards=True)
    await cluster.pass_time(3600)
    status = cluster.status()
    last = status["loss"]["train"][-1]
    assert 0.5 < last["rewardAccuracy"] <= 1
    assert (last["rewardAccuracy"], last["rewardMargin"]) == (
        status["result"]["rewardAccuracy"],
        status["result"]["rewardMargin"],
    )


async def test_a_base_model_that_cannot_learn_so_is_refused_before_anything_is_checked(begin, monkeypatch):
    monkeypatch.setattr(
        "tests.unit.finetune_operator.reconcilers.cloud.catalogue",
        lambda host, **facts: catalogue(host, preferenceModels=["gpt-4.1*"], **facts),
    )
    cluster = await begin(baseModel=MINI)
    failure = cluster.status()["failure"]
    assert failure["reason"] == "SpecInvalid"
    assert failure["message"].startswith(f"spec.preference: {MINI} does not learn from two answers at this provider")
    assert [kind for kind, _, _ in cluster.kube.objects if kind is JOBS] == []


async def test_a_base_model_that_nobody_knows_of_is_refused_by_the_provider_before_it_costs(begin):
    cluster = await begin(learn_pairs=frozenset())
    failure = cluster.status()["failure"]
    assert (failure["reason"], "Method dpo is not available" in failure["message"]) == ("ProviderRefused", True)
    assert cluster.provider.cost() == 0


async def test_rows_of_another_form_fail_the_job_with_their_line(begin):
    cluster = await begin(content=rows())
    await cluster.pass_time(3600)
    failure = cluster.status()["failure"]
    assert (failure["reason"], "at line 1" in failure["message"]) == ("DatasetInvalid", True)
