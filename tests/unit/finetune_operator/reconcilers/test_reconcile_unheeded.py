"""What is allowed and changes nothing is an Event of its object."""

from typing import Any

import pytest

from finetune_operator.reconcilers.watched.trimming import TRIMS
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, Resource
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import begin, provider
from tests.unit.finetune_operator.reconcilers.fake_cluster import with_running_job

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


async def test_a_nonce_that_is_set_while_the_job_is_under_way_is_told_to_start_nothing() -> None:
    """It would be used up by the failure that comes later, and whoever set it wait for nothing."""
    cluster = await with_running_job()
    event = ("FineTuneJob", "Warning", "NoEffect")
    assert event not in cluster.told
    found = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
    metadata = found["metadata"] | {"generation": found["metadata"].get("generation", 1) + 1}
    cluster.kube.put(FINE_TUNE_JOBS, found | {"metadata": metadata, "spec": found["spec"] | {"retryNonce": "1"}})
    await cluster.settle()
    assert event in cluster.told


async def test_a_nonce_that_a_job_is_made_with_is_no_wish_to_start_it_again() -> None:
    cluster = await with_running_job(retryNonce="1")
    assert cluster.status()["phase"] == "Validating"
    assert cluster.told == []


def test_of_what_kubectl_notes_is_kept_what_tells_of_a_name_that_it_left_out() -> None:
    for given, kept in (
        ('{"spec":{"a":{"epochs:5":null}}}', True),
        ('{"spec":{"hyperparameters":{"epochs":null}}}', False),
        ('{"spec":{"hyperparameters":{"epoch":5}}}', True),
        ('{"spec":{"suspend":true}}', False),
    ):
        annotations = {"kubectl.kubernetes.io/last-applied-configuration": given}
        trimmed = TRIMS[FINE_TUNE_JOBS]({"metadata": {"annotations": annotations}, "spec": {"hyperparameters": {}}})
        assert (trimmed["metadata"].get("annotations") == annotations) is kept
