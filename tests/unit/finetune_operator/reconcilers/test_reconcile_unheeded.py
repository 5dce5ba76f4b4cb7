"""What is allowed and changes nothing is an Event of its object."""

from typing import Any

import pytest

from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, Resource
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import begin, provider

__all__ = ["begin", "provider", "start"]

OBJECTS: dict[str, tuple[Resource, str, str | None]] = {
    "FineTuneJob": (FINE_TUNE_JOBS, "sentiment-1", "team-a"),
    "FineTunedModel": (FINE_TUNED_MODELS, "sentiment", "team-a"),
    "ModelDeployment": (MODEL_DEPLOYMENTS, "sentiment", "team-a"),
    "LLMConnection": (CONNECTIONS, "openai", None),
}


@pytest.mark.parametrize("kind", OBJECTS)
async def test_letting_go_with_another_word_than_true_is_told(begin: Any, kind: str) -> None:
    cluster = await begin()
    if kind != "FineTuneJob":
        await cluster.pass_time(3600)
        await cluster.pass_time(61)
    event = (kind, "Warning", "NoEffect")
    assert event not in cluster.told
    resource, name, namespace = OBJECTS[kind]
    found = cluster.kube.objects[resource, namespace or "", name]
    metadata = found["metadata"] | {"annotations": {"finetune.dev/abandon": "yes"}}
    cluster.kube.put(resource, found | {"metadata": metadata | {"generation": metadata.get("generation", 1) + 1}})
    await cluster.settle()
    assert event in cluster.told
