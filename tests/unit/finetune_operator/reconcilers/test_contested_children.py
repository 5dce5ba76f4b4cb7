"""Somebody else changes what the operator has made: put right, told, and never in a race of two writers."""

from copy import deepcopy
from typing import Any

import pytest

from finetune_api.manifest import Manifest
from finetune_api.names import MANAGED_BY_LABEL
from finetune_operator.runtime.errors import Invalid
from finetune_operator.runtime.kube import DEPLOYMENTS, MODEL_DEPLOYMENTS, SERVICES, Resource
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL, Cluster, with_running_job
from tests.unit.finetune_operator.reconcilers.fake_kube import FakeKube
from tests.unit.finetune_operator.reconcilers.versions import with_version

PUT_RIGHT = ("ModelDeployment", "Warning", "PutRight")


async def serving() -> Cluster:
    cluster = await with_version()
    cluster.roll_out()
    await cluster.settle()
    cluster.told.clear()
    return cluster


def scale(cluster: Cluster, replicas: int) -> None:
    spec = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(DEPLOYMENTS, "sentiment", spec={**spec, "replicas": replicas})


def replicas(cluster: Cluster) -> int:
    found: int = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]["spec"]["replicas"]
    return found


async def test_what_somebody_changed_once_is_put_right_at_once_and_told() -> None:
    cluster = await serving()
    scale(cluster, 3)
    await cluster.settle()
    assert replicas(cluster) == 1
    assert PUT_RIGHT in cluster.told


@pytest.mark.parametrize("scaled", [0, 1], ids=["alone", "with what is put right"])
async def test_a_variable_that_somebody_adds_stays_and_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, scaled: int
) -> None:
    """By server-side apply it is not ours to take out; what was there when the operator came is no news."""
    cluster, put = await serving(), FakeKube.put

    def added(kube: FakeKube, resource: Resource, body: Manifest) -> Manifest:
        if resource is DEPLOYMENTS:
            body = deepcopy(body)
            body["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "DEBUG", "value": "1"}]
        return put(kube, resource, body)

    monkeypatch.setattr(FakeKube, "put", added)
    scale(cluster, replicas(cluster) + scaled)
    await cluster.settle()
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()
    told = [told for told in cluster.told if told[2] in {"Altered", "PutRight"}]
    assert told == [PUT_RIGHT] * scaled + [(*PUT_RIGHT[:2], "Altered")]
    assert cluster.notes[-1].endswith("until it is taken out there: spec.template.spec.containers[0].env")


async def test_a_label_that_somebody_adds_to_a_services_selector_is_put_right() -> None:
    """It chooses none of the pods any more, which are as well as before."""
    cluster = await serving()
    service = cluster.kube.objects[SERVICES, "team-a", "sentiment"]
    selector = service["spec"]["selector"]
    narrowed = {**service["spec"], "selector": selector | {"canary": "yes"}}
    cluster.kube.change(SERVICES, "sentiment", spec=narrowed)
    await cluster.settle()
    assert PUT_RIGHT in cluster.told
    assert cluster.kube.objects[SERVICES, "team-a", "sentiment"]["spec"]["selector"] == selector


async def test_a_deployment_that_somebody_has_paused_is_named() -> None:
    cluster = await serving()
    spec = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(DEPLOYMENTS, "sentiment", spec={**spec, "paused": True})
    cluster.roll_out()
    await cluster.settle()
    assert cluster.condition("Ready", DEPLOYMENT)["message"] == "version 1 answers"
    owner = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**owner, "huggingFace": {"replicas": 2}})
    await cluster.settle()
    assert cluster.condition("Ready", DEPLOYMENT)["message"] == (
        "version 1 is being deployed; somebody has paused Deployment sentiment (kubectl rollout resume deployment "
        "sentiment); it answers already"
    )


async def test_a_server_whose_label_a_policy_takes_off_is_seen_to_answer_though_no_watch_tells_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put = FakeKube.put

    def admitted(kube: FakeKube, resource: Resource, body: Manifest) -> Manifest:
        labels = body["metadata"].get("labels")
        if resource is DEPLOYMENTS and labels:
            labels[MANAGED_BY_LABEL] = "platform-team"
        return put(kube, resource, body)

    monkeypatch.setattr(FakeKube, "put", admitted)
    cluster = await with_version()
    cluster.roll_out()
    await cluster.wait(60)
    assert cluster.condition("Ready", DEPLOYMENT)["message"] == "version 1 answers"
    assert cluster.kube.asked("apply", "deployments") == 1


async def test_who_answers_each_time_is_told_of_and_answered_ever_so_often() -> None:
    cluster = await serving()
    applied = cluster.kube.asked("apply", "deployments")
    for _ in range(60):
        scale(cluster, 3)
        await cluster.wait(1)
    assert cluster.kube.asked("apply", "deployments") - applied <= 5
    assert replicas(cluster) == 3
    message = cluster.condition("Ready", DEPLOYMENT)["message"]
    assert "Deployment sentiment is changed again and again by somebody else (spec.replicas)" in message
    for _ in range(2):
        await cluster.wait(30)
    cluster.roll_out()
    await cluster.settle()
    assert replicas(cluster) == 1
    assert cluster.condition("Ready", DEPLOYMENT)["message"] == "version 1 answers"


async def test_what_is_taken_out_of_our_sight_is_not_called_deleted() -> None:
    cluster = await serving()
    asked = len(cluster.kube.requests)
    for number in range(60):
        metadata = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]["metadata"]
        labels = metadata["labels"] | {"app.kubernetes.io/managed-by": "Helm", "x": str(number)}
        cluster.kube.change(DEPLOYMENTS, "sentiment", metadata=metadata | {"labels": labels})
        await cluster.wait(1)
    assert len(cluster.kube.requests) - asked < 30
    assert PUT_RIGHT in cluster.told
    ready = cluster.condition("Ready", DEPLOYMENT)
    assert ready["status"] == "True", "its pods answer on"
    assert (
        "is changed again and again by somebody else (metadata.labels.app.kubernetes.io/managed-by" in ready["message"]
    )


async def test_who_writes_the_whole_object_each_time_is_answered_ever_so_often_too() -> None:
    cluster = await serving()
    applied = cluster.kube.asked("apply", "deployments")
    for _ in range(60):
        metadata = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]["metadata"]
        cluster.kube.change(DEPLOYMENTS, "sentiment", metadata=metadata | {"annotations": {}})
        await cluster.wait(1)
    assert 2 <= cluster.kube.asked("apply", "deployments") - applied <= 5


async def test_a_server_that_somebody_scales_to_nothing_again_and_again_is_not_called_suspended() -> None:
    cluster = await serving()
    for _ in range(5):
        scale(cluster, 0)
        await cluster.wait(1)
    status = cluster.status(DEPLOYMENT)
    assert status["phase"] != "Idle"
    assert "again and again by somebody else" in cluster.condition("Ready", DEPLOYMENT)["message"]


@pytest.mark.parametrize("resource", [DEPLOYMENTS, SERVICES, MODEL_DEPLOYMENTS], ids=lambda r: r.plural)
async def test_what_somebody_deletes_is_made_again_and_not_in_a_race(resource: Resource) -> None:
    cluster = await serving()
    applied = cluster.kube.asked("apply", resource.plural)
    for _ in range(60):
        if (resource, "team-a", "sentiment") in cluster.kube.objects:
            cluster.kube.drop(resource, "sentiment")
        await cluster.wait(1)
    assert 2 <= cluster.kube.asked("apply", resource.plural) - applied <= 5
    await cluster.wait(30)
    assert (resource, "team-a", "sentiment") in cluster.kube.objects


@pytest.mark.parametrize("resource", [DEPLOYMENTS, SERVICES, MODEL_DEPLOYMENTS], ids=lambda r: r.plural)
async def test_what_somebody_deleted_once_is_made_again_and_told(resource: Resource) -> None:
    cluster = await serving()
    cluster.kube.drop(resource, "sentiment")
    await cluster.settle()
    assert (resource, "team-a", "sentiment") in cluster.kube.objects
    kind = "FineTunedModel" if resource is MODEL_DEPLOYMENTS else "ModelDeployment"
    assert cluster.told.count((kind, "Warning", "PutRight")) == 1


async def test_what_is_made_for_the_first_time_is_not_told_as_put_right() -> None:
    cluster = await with_version()
    cluster.roll_out()
    await cluster.settle()
    assert not [told for told in cluster.told if told[2] == "PutRight"]


async def test_a_change_of_the_spec_waits_for_nobody() -> None:
    cluster = await serving()
    for _ in range(5):
        scale(cluster, 3)
        await cluster.settle()
    spec = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "huggingFace": {"replicas": 2}})
    await cluster.settle()
    assert replicas(cluster) == 2


async def test_what_a_policy_makes_of_each_write_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = await with_version()
    apply = cluster.kube.apply

    async def mirrored(resource: Resource, body: dict[str, Any]) -> dict[str, Any]:
        body = deepcopy(body)
        if resource is DEPLOYMENTS:
            body["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror.example.com/trainer:1"
        return await apply(resource, body)

    monkeypatch.setattr(cluster.kube, "apply", mirrored)
    cluster.kube.drop(DEPLOYMENTS, "sentiment")
    await cluster.settle()
    applied = cluster.kube.asked("apply", "deployments")
    cluster.told.clear()
    for seconds in range(20):
        spec = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]["spec"]
        status = {"observedGeneration": seconds}
        cluster.kube.change(DEPLOYMENTS, "sentiment", spec=spec, status=status)
        await cluster.wait(20)
    assert cluster.kube.asked("apply", "deployments") == applied
    assert PUT_RIGHT not in cluster.told
    cluster.roll_out()
    await cluster.settle()
    assert cluster.condition("Ready", DEPLOYMENT)["message"] == "version 1 answers"
    assert cluster.condition("Ready", MODEL)["status"] == "True"


async def test_who_edits_what_a_model_has_made_is_told_there_where_to_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """They look at the object that they have edited, and its model decides."""
    notes: list[tuple[str, str]] = []

    async def heard(_self: Cluster, regarding: Any, _type: str, reason: str, note: str) -> None:
        notes.extend([(regarding["kind"], note)] if reason == "PutRight" else [])

    monkeypatch.setattr(Cluster, "announce", heard)
    cluster = await serving()
    spec = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "version": 7})
    await cluster.settle()
    assert [kind for kind, _ in notes] == ["FineTunedModel", "ModelDeployment"]
    where = "change spec.deployment.template of FineTunedModel sentiment, or set its spec.deployment.mode: Manual"
    assert all(note.endswith(where) for _, note in notes), notes


@pytest.mark.parametrize("resource", [DEPLOYMENTS, SERVICES], ids=lambda r: r.plural)
async def test_what_the_api_server_never_takes_is_not_called_deleted_by_somebody(resource: Resource) -> None:
    cluster = await with_running_job()
    said = 'Deployment.apps "sentiment" is invalid: requests: Invalid value: "2": must be less than or equal to cpu'
    cluster.kube.refusals["apply", resource.plural] = Invalid(422, "Invalid", said)
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    for number in range(6):  # each change of its spec is another try
        spec = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["spec"]
        cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "retryNonce": str(number)})
        await cluster.settle()
        assert said in cluster.condition("Ready", DEPLOYMENT)["message"]


async def test_what_somebody_deleted_and_the_api_server_refuses_since_is_told_as_refused() -> None:
    cluster = await serving()
    cluster.kube.refusals["apply", "deployments"] = Invalid(422, "Invalid", "no place for it")
    cluster.kube.drop(DEPLOYMENTS, "sentiment")
    for _ in range(6):
        await cluster.wait(1)
        cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", metadata=labelled(cluster))
        await cluster.settle()
    assert "no place for it" in cluster.condition("Ready", DEPLOYMENT)["message"]


def labelled(cluster: Cluster) -> dict[str, Any]:
    """The deployment's metadata with one more label: a reason to look again."""
    found = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["metadata"]
    labels = found.get("labels") or {}
    return {**found, "labels": {**labels, f"x{len(labels)}": "y"}}
