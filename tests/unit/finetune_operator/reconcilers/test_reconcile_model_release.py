"""Models that take their weights with them: deployments first, then weights, then the object; and the ways out."""

from typing import Any

import pytest

from finetune_api.deployment import ModelDeploymentStatus
from finetune_api.job_status import ArtifactRef
from finetune_api.names import ABANDON_ANNOTATION, WEIGHTS_FINALIZER
from finetune_operator.decide.model import DeploymentView
from finetune_operator.decide.model_release import NextStep, next_step
from finetune_operator.reconcilers.models.weights import is_at_provider
from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNED_MODELS, JOBS, MODEL_DEPLOYMENTS, NAMESPACES
from tests.simulators.conftest import start
from tests.unit.finetune_operator.decide.deployment.given_deployments import spec
from tests.unit.finetune_operator.decide.given import openai_connection
from tests.unit.finetune_operator.decide.given_models import version, view
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, simulator, with_cloud_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import MODEL, Cluster
from tests.unit.finetune_operator.reconcilers.fake_kube import Killed
from tests.unit.finetune_operator.reconcilers.versions import add_version, with_version

__all__ = ["start"]

ADDRESS = (FINE_TUNED_MODELS, "team-a", "sentiment")
DELETES = {"deletionPolicy": "Delete"}


def deployment(name: str, *, owned: bool, model: str = "sentiment") -> DeploymentView:
    named = spec(modelRef={"name": model})
    return DeploymentView(name=name, owned=owned, spec=named, status=ModelDeploymentStatus())


STEPS: dict[str, tuple[list[DeploymentView], NextStep]] = {
    "nothing serves it": ([], NextStep("DeleteWeights")),
    "its own deployment": ([deployment("sentiment", owned=True)], NextStep("EndOwn", ("sentiment",))),
    "one made by hand": ([deployment("prod", owned=False)], NextStep("WaitForOthers", ("prod",))),
    "both": (
        [deployment("sentiment", owned=True), deployment("prod", owned=False)],
        NextStep("EndOwn", ("sentiment",)),
    ),
    "a namesake of another model": (
        [deployment("sentiment", owned=False, model="other")],
        NextStep("DeleteWeights"),
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_weights_are_deleted_when_nothing_serves_them(name: str) -> None:
    deployments, wanted = STEPS[name]
    assert next_step(view(deployments=deployments).serving) == wanted


def prunes(cluster: Cluster) -> list[str]:
    return sorted(key[2] for key in cluster.kube.objects if key[0] is JOBS and "prune" in key[2])


def end(cluster: Cluster, job: str, condition: str = "Complete") -> None:
    cluster.kube.change(JOBS, job, status={"conditions": [{"type": condition, "status": "True"}]})


async def delete(cluster: Cluster) -> None:
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()


async def let_go(cluster: Cluster) -> None:
    found = cluster.kube.objects[ADDRESS]
    annotated = found["metadata"] | {"annotations": {ABANDON_ANNOTATION: "true"}}
    cluster.kube.put(FINE_TUNED_MODELS, {**found, "metadata": annotated})
    await cluster.settle()
    assert ADDRESS not in cluster.kube.objects
    assert ("FineTunedModel", "Warning", "Abandoned") in cluster.told


async def test_a_model_that_leaves_its_weights_is_held_by_nothing() -> None:
    cluster = await with_version()
    assert not cluster.kube.objects[ADDRESS]["metadata"].get("finalizers")
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=DELETES)
    await cluster.settle()
    assert cluster.kube.objects[ADDRESS]["metadata"]["finalizers"] == [WEIGHTS_FINALIZER]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deletionPolicy": "Retain"})
    await cluster.settle()
    assert cluster.kube.objects[ADDRESS]["metadata"]["finalizers"] == []


async def test_weights_on_a_volume_go_after_the_deployment_and_before_the_object() -> None:
    cluster = await with_version(**DELETES)
    await add_version(cluster, 2)
    await delete(cluster)
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") not in cluster.kube.objects
    await cluster.wait(10)
    first, second = prunes(cluster)
    assert "ownerReferences" not in cluster.kube.objects[JOBS, "team-a", first]["metadata"]
    assert "are being deleted" in cluster.condition("Reconciling", MODEL)["message"]
    end(cluster, first)
    await cluster.wait(10)
    assert len(cluster.status(MODEL)["versions"]) == 1
    end(cluster, second)
    await cluster.wait(10)
    assert ADDRESS not in cluster.kube.objects
    assert prunes(cluster) == [first, second], "made once each"


async def test_an_operator_that_is_killed_at_every_step_comes_to_the_same_end() -> None:
    cluster = await with_version(**DELETES)
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    for killed_in in (0, 1, 2, 1, 0, 1, 2, 3):
        cluster.kube.killed_in = killed_in
        try:
            cluster.restart()
            await cluster.observer.resync()
            await cluster.wait(10)
        except Killed:
            continue
        cluster.kube.killed_in = None
    cluster.kube.killed_in = None
    for _ in range(4):
        cluster.restart()
        await cluster.observer.resync()
        await cluster.wait(10)
        for job in prunes(cluster):
            end(cluster, job)
    assert (ADDRESS not in cluster.kube.objects, len(prunes(cluster))) == (True, 1)


async def test_a_deployment_that_somebody_made_is_waited_for() -> None:
    cluster = await with_version(**DELETES, deployment={"mode": "Manual"})
    metadata = {"name": "prod", "namespace": "team-a"}
    cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": metadata, "spec": {"modelRef": {"name": "sentiment"}}})
    await cluster.settle()
    await delete(cluster)
    assert "ModelDeployment prod uses it" in cluster.condition("Stalled", MODEL)["message"]
    assert prunes(cluster) == []
    cluster.kube.drop(MODEL_DEPLOYMENTS, "prod")
    await cluster.settle()
    assert len(prunes(cluster)) == 1


async def test_weights_that_cannot_be_deleted_can_be_left() -> None:
    cluster = await with_version(**DELETES)
    await delete(cluster)
    await cluster.wait(10)
    end(cluster, prunes(cluster)[0], "Failed")
    await cluster.wait(10)
    stalled = cluster.condition("Stalled", MODEL)
    assert stalled["reason"] == "ArtifactFailed"
    assert ABANDON_ANNOTATION in stalled["message"]
    await let_go(cluster)


async def test_without_its_connection_it_can_be_let_go() -> None:
    cluster = await with_version(**DELETES)
    cluster.kube.drop(CONNECTIONS, "local", None)
    await delete(cluster)
    await cluster.wait(10)
    assert cluster.condition("Stalled", MODEL)["reason"] == "ConnectionNotFound"
    await let_go(cluster)


async def test_a_namespace_that_ends_is_not_held_up() -> None:
    cluster = await with_version(**DELETES)
    cluster.kube.put(NAMESPACES, {"metadata": {"name": "team-a"}, "status": {"phase": "Terminating"}})
    cluster.kube.refusals["create", "jobs"] = Forbidden(403, "Forbidden", "the namespace is being terminated")
    await delete(cluster)
    await cluster.wait(10)
    assert ADDRESS not in cluster.kube.objects


async def at_provider(start: Any, spec: dict[str, str] = DELETES) -> CloudCluster:
    provider = simulator()
    cluster = await with_cloud_job(provider, start(provider))
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await cluster.settle()
    await cluster.check()
    await cluster.settle()
    await cluster.pass_time(3600)
    assert len(cluster.provider.models.tuned) == 1
    return cluster


async def test_models_at_a_provider_go_too(start) -> None:
    cluster = await at_provider(start)
    await delete(cluster)
    await cluster.wait(10)
    assert (ADDRESS not in cluster.kube.objects, list(cluster.provider.models.tuned)) == (True, [])


async def test_a_model_that_leaves_its_weights_at_a_provider_names_them_when_it_has_gone(start, caplog) -> None:
    """What is billed by the month would else be known to nobody; a copy of the model still knows it."""
    cluster = await at_provider(start, {})
    (left,) = cluster.provider.models.tuned
    model = cluster.kube.objects[ADDRESS]
    cluster.kube.put(FINE_TUNED_MODELS, {**model, "metadata": model["metadata"] | {"name": "copy", "uid": "copy"}})
    await cluster.settle()
    cluster.notes.clear()
    for name, told in (("copy", []), ("sentiment", [left])):
        cluster.kube.drop(FINE_TUNED_MODELS, name)
        await cluster.settle()
        assert [note.rpartition(": ")[2] for note in cluster.notes if note.startswith("its weights stay")] == told
        assert ("its weights stay" in caplog.text) is bool(told), "a namespace that ends takes no Event"


@pytest.mark.parametrize("abandoned", [False, True], ids=["deleted", "left on request"])
@pytest.mark.parametrize("missed", [False, True], ids=["with a second finalizer", "in a gap of the watch"])
async def test_weights_whose_model_we_let_go_are_not_said_to_stay(start, monkeypatch, missed, abandoned) -> None:
    cluster = await at_provider(start)
    metadata = {**cluster.kube.objects[ADDRESS]["metadata"]}
    metadata |= {"annotations": {ABANDON_ANNOTATION: "true"}} if abandoned else {}
    metadata |= {} if missed else {"finalizers": [*metadata["finalizers"], "foregroundDeletion"]}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", metadata=metadata)
    if missed:
        watched, lost = cluster.watched, (FINE_TUNED_MODELS, "DELETED")
        monkeypatch.setattr(cluster, "watched", lambda *event: event[:2] == lost or watched(*event))
    await delete(cluster)
    await cluster.wait(10)
    if missed:
        await cluster.observer.resync()
    else:
        assert cluster.kube.objects[ADDRESS]["metadata"]["finalizers"] == ["foregroundDeletion"]
        cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    assert ADDRESS not in cluster.kube.objects
    told = [reason for kind, _, reason in cluster.told if kind == MODEL.kind]
    assert ("Abandoned" in told, "Retained" in told) == (abandoned, False)


async def test_models_at_a_provider_whose_key_is_gone_are_said_and_can_be_left(start) -> None:
    cluster = await at_provider(start)
    cluster.provider.set(revoked_keys=frozenset({"sk-simulated"}))
    await delete(cluster)
    await cluster.wait(10)
    assert cluster.condition("Stalled", MODEL)["reason"] == "CredentialsInvalid"
    await let_go(cluster)
    assert len(cluster.provider.models.tuned) == 1


def test_weights_on_a_claim_are_no_providers_to_delete() -> None:
    """A connection of the same name may be one to another provider by now."""
    assert not is_at_provider(version(1), openai_connection())
    assert not is_at_provider(version(1), None)
    at_openai = version(1).model_copy(update={"artifact": ArtifactRef(provider_model_id="ft:x")})
    assert is_at_provider(at_openai, None)


async def test_a_model_that_this_release_cannot_read_keeps_what_holds_its_weights() -> None:
    """As after a rollback: what takes its weights with it is to do so once a release can read it again."""
    cluster = await with_version()
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=DELETES)
    await cluster.settle()
    assert cluster.kube.objects[ADDRESS]["metadata"]["finalizers"] == [WEIGHTS_FINALIZER]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=DELETES | {"heldBack": 1})
    await cluster.settle()
    assert cluster.condition("Stalled", MODEL)["reason"] == "SpecInvalid"
    assert cluster.kube.objects[ADDRESS]["metadata"]["finalizers"] == [WEIGHTS_FINALIZER]
