"""Statuses that a newer release has written: after a rollback this one knows neither all fields nor all values.

What it does not know stays through whole lives; what it cannot prove to have made is not deleted.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api.base import Condition
from finetune_api.connection import LLMConnectionStatus
from finetune_api.crds import KINDS
from finetune_api.deployment import ModelDeploymentStatus
from finetune_api.job_status import FineTuneJobStatus
from finetune_api.model import FineTunedModelStatus
from finetune_operator.reconcilers.watched.reading import parse_status, with_unread
from finetune_operator.runtime.errors import Invalid
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.azure import AzureSimulator
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import azure, rows, with_azure_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, JOB, MODEL, Cluster, with_running_job
from tests.unit.finetune_operator.reconcilers.versions import with_version

__all__ = ["start"]

OURS = (CONNECTIONS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS)
NEWER = "heldBack"
"""A field that this release does not have, anywhere."""


def marked(part: Any) -> Any:
    """A status as a newer release would have written it: a field more in each of its parts."""
    if isinstance(part, dict):
        return {name: marked(value) for name, value in part.items()} | {NEWER: {"reasons": ["aNewWord"]}}
    return [marked(one) for one in part] if isinstance(part, list) else part


def mark_all(cluster: Cluster) -> None:
    for (resource, namespace, name), obj in list(cluster.kube.objects.items()):
        if resource in OURS and obj.get("status"):
            cluster.kube.change(resource, name, namespace, status=marked(obj["status"]))


def lost(before: Any, after: Any, path: str = "status") -> Iterator[str]:
    """Parts that are there still and have lost what a newer release had written."""
    if isinstance(before, dict) and isinstance(after, dict):
        if NEWER in before and NEWER not in after:
            yield path
        for name in before.keys() & after.keys():
            yield from lost(before[name], after[name], f"{path}.{name}")
    if isinstance(before, list) and isinstance(after, list):
        for key in ("version", "type", "name", "id", "step"):
            old = {one[key]: one for one in before if isinstance(one, dict) and key in one}
            new = {one[key]: one for one in after if isinstance(one, dict) and key in one}
            for same in old.keys() & new.keys():
                yield from lost(old[same], new[same], f"{path}[{key}={same}]")


def snapshot(cluster: Cluster) -> dict[Any, Any]:
    return {at: obj.get("status") for at, obj in cluster.kube.objects.items() if at[0] in OURS}


def all_lost(cluster: Cluster, before: dict[Any, Any]) -> list[str]:
    after = snapshot(cluster)
    return [f"{at[0].kind} {where}" for at in before for where in lost(before[at], after.get(at))]


async def test_what_a_newer_release_wrote_is_kept_through_the_life_of_a_model_on_the_cluster() -> None:
    cluster = await with_running_job()
    mark_all(cluster)
    before = snapshot(cluster)
    loss = [{"step": 1, "value": 0.9}]
    last = cluster.report("Running", progress={"step": 1, "totalSteps": 9}, loss={"train": loss})
    cluster.reports.accept(last)
    await cluster.settle()
    assert all_lost(cluster, before) == []
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert all_lost(cluster, before) == []
    for number in (2, 3):
        mark_all(cluster)
        before = snapshot(cluster)
        job = f"sentiment-{number}"
        cluster.add_job(job)
        await cluster.settle()
        cluster.run_pod(job=job)
        cluster.end_pod(0, cluster.result(job=job), job=job)
        await cluster.settle()
        cluster.roll_out()
        await cluster.settle()
        cluster.restart()
        await cluster.observer.resync()
        await cluster.settle()
        assert [one["version"] for one in cluster.status(MODEL)["versions"]] == list(range(1, number + 1))
        assert cluster.status(DEPLOYMENT).get("servedVersion") == number, cluster.status(DEPLOYMENT)
        assert all_lost(cluster, before) == []


async def test_what_a_newer_release_wrote_is_kept_through_the_life_of_a_model_at_a_provider(start: Any) -> None:
    provider: AzureSimulator = azure()
    cluster = await with_azure_job(provider, start(provider))
    template = {"deployment": {"template": {"azureOpenAI": {"sku": "Standard"}}}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template})
    await cluster.settle()
    before = {}
    for step in (lambda: cluster.check(b"\xef\xbb\xbf" + rows()), *[lambda: cluster.pass_time(1800)] * 6):
        mark_all(cluster)
        before = snapshot(cluster)
        await step()
        await cluster.settle()
        assert all_lost(cluster, before) == []
    assert cluster.status(JOB)["phase"] == "Succeeded"
    assert cluster.status(DEPLOYMENT)["hosted"][0][NEWER]
    assert len(provider.deployments.found) == 1
    before = cluster.status(DEPLOYMENT)["hosted"]
    for resource in (MODEL_DEPLOYMENTS, FINE_TUNED_MODELS, CONNECTIONS):
        at = next(at for at in cluster.kube.objects if at[0] is resource)
        cluster.kube.change(resource, at[2], at[1] or None, spec=cluster.kube.objects[at]["spec"] | {NEWER: 1})
        await cluster.settle()
        await cluster.pass_time(300)
        assert len(provider.deployments.found) == 1, f"what answers stays, though its {resource.kind} is a newer one's"
        assert [one["name"] for one in cluster.status(DEPLOYMENT)["hosted"]] == [one["name"] for one in before]


async def test_what_older_definitions_drop_is_given_up_and_the_job_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Definitions were rolled back too: the API server shows the field no more and refuses it, and no watch tells."""
    cluster = await with_running_job()
    status = cluster.status()
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=status | {NEWER: 1})
    await cluster.settle()
    cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["status"].pop(NEWER)
    written = cluster.kube.patch_status

    async def strict(resource: Any, name: str, namespace: Any, status: Any, version: Any = None) -> Any:
        if NEWER in status:
            raise Invalid(422, "Invalid", f'strict decoding error: unknown field "status.{NEWER}"')
        return await written(resource, name, namespace, status, version)

    monkeypatch.setattr(cluster.kube, "patch_status", strict)
    cluster.end_pod(0, cluster.result())
    with pytest.raises(Invalid):
        await cluster.settle()
    cluster.wake(JOB)
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"


@pytest.mark.parametrize("newer", [{NEWER: 1}, {"method": "NewerLoRA"}, {"lora": {NEWER: "x"}}])
async def test_a_job_that_waits_while_definitions_are_upgraded_before_the_operator_is_not_ended(newer: Any) -> None:
    """Their defaults show in every object at once, also in those that were made before."""
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_job()
    await cluster.settle()
    spec = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["spec"]
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", spec=spec | newer)
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert (cluster.status()["phase"], failure["reason"]) == ("Pending", "SpecInvalid")
    assert "upgrade the operator" in failure["nextStep"]
    assert cluster.condition("Stalled")["status"] == "True"
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", spec=spec)  # as a release reads it that knows the field
    cluster.add_connection()
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.kube.asked("create", "jobs")) == ("Queued", 1)
    assert "failure" not in cluster.status()


async def test_a_connection_of_newer_definitions_is_not_called_missing() -> None:
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection()
    spec = cluster.kube.objects[CONNECTIONS, "", "local"]["spec"]
    cluster.kube.change(CONNECTIONS, "local", None, spec=spec | {NEWER: 1})
    cluster.add_job()
    await cluster.settle()
    await cluster.wait(120)
    failure = cluster.status()["failure"]
    assert (failure["reason"], "cannot read LLMConnection local" in failure["message"]) == ("ConnectionNotFound", True)
    cluster.kube.change(CONNECTIONS, "local", None, spec=spec)
    await cluster.settle()
    assert cluster.status()["phase"] == "Queued"


@pytest.mark.parametrize("resource", [CONNECTIONS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS], ids=lambda one: one.kind)
async def test_whatever_has_a_spec_of_newer_definitions_says_that_the_operator_is_to_be_upgraded(resource: Any) -> None:
    """As a job does: the field itself is right, and to correct it would be wrong."""
    cluster = await with_version()
    name = "local" if resource is CONNECTIONS else "sentiment"
    namespace = "team-a" if resource.namespaced else ""
    spec = cluster.kube.objects[resource, namespace, name].get("spec", {})
    cluster.kube.change(resource, name, namespace or None, spec=spec | {NEWER: 1})
    await cluster.settle()
    conditions = cluster.kube.objects[resource, namespace, name]["status"]["conditions"]
    [stalled] = [one for one in conditions if one["type"] == "Stalled"]
    assert (stalled["status"], stalled["reason"]) == ("True", "SpecInvalid")
    assert stalled["message"].startswith(f"spec.{NEWER}: this release of the operator does not know the field")
    assert "upgrade it to their release" in stalled["message"]


FILES = [{"split": "train", "id": "f-1", "bytes": 1, "sha256": "a"}]
UNREAD = {"split": "tools", "id": "f-2", "bytes": 1, "sha256": "b"}


def test_a_part_of_a_list_that_cannot_be_read_stays_at_its_place() -> None:
    held = {"provider": {"files": [UNREAD, *FILES]}}
    read = FineTuneJobStatus.model_validate({"provider": {"files": FILES}})
    assert read.provider
    now = read.model_copy(update={"provider": read.provider.model_copy(update={"attempt": 1})})
    assert with_unread(held, read, now)["provider"]["files"] == [UNREAD, *FILES]
    cleared = read.model_copy(update={"provider": read.provider.model_copy(update={"files": None})})
    assert "files" not in with_unread(held, read, cleared)["provider"], "what is not wanted any more goes as a whole"


def test_a_value_of_a_record_that_cannot_be_read_stays() -> None:
    artifact = {"uri": "pvc://models/a/model", "kind": "Merged"}
    held = {"versions": [VERSION | {"artifact": artifact, "createdAt": AT}]}
    read = parse_status(FineTunedModelStatus, {"metadata": {"name": "sentiment"}, "status": held})
    (version,) = read.versions or ()
    assert version.artifact.kind is None
    now = read.model_copy(update={"versions": [version.model_copy(update={"deployment": "sentiment"})]})
    (written,) = with_unread(held, read, now)["versions"]
    assert (written["artifact"], written["deployment"]) == (artifact, "sentiment")


def test_what_this_release_takes_out_of_a_list_goes_with_what_a_newer_one_wrote_into_it() -> None:
    one = {"name": "a", "version": 1, "connection": "c", "createdAt": "2026-01-01T00:00:00Z", "attached": False}
    held = {"hosted": [one | {NEWER: 1}, one | {"name": "b", NEWER: 2}]}
    read = ModelDeploymentStatus.model_validate({"hosted": [one, one | {"name": "b"}]})
    assert read.hosted
    now = read.model_copy(update={"hosted": read.hosted[1:]})
    assert [(left["name"], left[NEWER]) for left in with_unread(held, read, now)["hosted"]] == [("b", 2)]


def test_a_known_field_that_cannot_be_read_is_said_anew() -> None:
    """Else a failure that has passed would stand in a status for ever."""
    held = {"failure": {"reason": "ANewReason", "message": "x"}, NEWER: 1}
    assert with_unread(held, FineTuneJobStatus(), FineTuneJobStatus()) == {NEWER: 1}


@pytest.mark.parametrize("phase", [["Running"], {"name": "Running"}, "Dreaming"], ids=["a list", "a part", "a word"])
def test_a_field_that_a_newer_release_has_made_another_one_of_is_said_anew(phase: Any) -> None:
    now = FineTuneJobStatus(phase="Running")
    assert with_unread({"phase": phase, NEWER: 1}, FineTuneJobStatus(), now) == {"phase": "Running", NEWER: 1}


def test_words_of_a_list_are_said_as_they_are_whatever_they_hold() -> None:
    """They are no parts, though fields that tell parts apart are in some of them."""
    held = {"models": ["the name of one", "id-7", "type"], NEWER: 1}
    read = LLMConnectionStatus.model_validate({"models": held["models"]})
    assert with_unread(held, read, read) == held
    fewer = read.model_copy(update={"models": ["id-7"]})
    assert with_unread(held, read, fewer) == {"models": ["id-7"], NEWER: 1}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_nothing_is_added_where_nothing_is_unknown(kind: Any) -> None:
    status = kind.status(conditions=[Condition(type="Ready", status="True", reason="Ready", last_transition_time=AT)])
    assert with_unread({}, kind.status(), status) == status.wire()
    assert with_unread(status.wire(), status, kind.status()) == {}


AT = "2026-01-01T00:00:00Z"
VERSION = {"version": 1, "job": "a", "jobUID": "u", "connection": "openai", "baseModel": "gpt", "method": "LoRA"}


@pytest.mark.parametrize(("adopted", "deleted"), [(False, True), (None, False), (True, False)])
async def test_a_model_at_a_provider_is_deleted_only_where_status_says_that_it_was_made_here(
    start: Any, adopted: bool | None, deleted: bool
) -> None:
    provider: AzureSimulator = azure()
    cluster = await with_azure_job(provider, start(provider))
    spec = {"deletionPolicy": "Delete", "deployment": {"mode": "Manual"}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await cluster.settle()
    await cluster.check(b"\xef\xbb\xbf" + rows())
    await cluster.settle()
    await cluster.pass_time(7200)
    status = cluster.status(MODEL)
    (version,) = status["versions"]
    assert version["adopted"] is False, "what was made here says so"
    told = {name: value for name, value in version.items() if name != "adopted"}
    told |= {} if adopted is None else {"adopted": adopted}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status=status | {"versions": [told]})
    await cluster.settle()
    cluster.told.clear()
    await cluster.kube.delete(FINE_TUNED_MODELS, "sentiment", "team-a")
    await cluster.settle()
    await cluster.pass_time(600)
    assert (FINE_TUNED_MODELS, "team-a", "sentiment") not in cluster.kube.objects
    assert (provider.models.tuned == {}) is deleted
    assert (("FineTunedModel", "Warning", "Retained") in cluster.told) is (adopted is None)


def test_records_that_do_not_say_whose_they_are_are_others() -> None:
    one = {"name": "prod", "version": 1, "connection": "c", "createdAt": AT}
    hosted = ModelDeploymentStatus.model_validate({"hosted": [one]}).hosted or []
    asked = {"candidate": "tuned", "name": "prod", "createdAt": AT}
    status = FineTuneJobStatus.model_validate({"provider": {"evaluation": {"deployments": [asked]}}})
    assert status.provider is not None
    assert status.provider.evaluation is not None
    borrowed = [one.borrowed for one in status.provider.evaluation.deployments or ()]
    assert ([one.attached for one in hosted], borrowed) == ([True], [True])
    versions = [VERSION | {"artifact": {"providerModelID": "ft"}, "createdAt": AT}]
    (version,) = FineTunedModelStatus.model_validate({"versions": versions}).versions or ()
    assert version.adopted is None
