"""What was to be deleted and cannot be: data of an ended job, weights of old versions. Said, tried again, let go of."""

from typing import Any

from finetune_api.names import ABANDON_ANNOTATION, PROVIDER_FINALIZER
from finetune_operator.reconcilers.object_metrics import register_object_metrics
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, SECRETS, Resource
from finetune_operator.runtime.metrics import REGISTRY
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, begin, provider, rows
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, MODEL

__all__ = ["begin", "provider", "start"]

DELETE_FILE, DELETE_MODEL = "files.delete", "models.delete"


def is_shown(cluster: CloudCluster, kind: str, name: str) -> float | None:
    """What the metric says, behind the alert."""
    register_object_metrics(cluster.store)
    labels = {"kind": kind, "object_namespace": "team-a", "object": name}
    return REGISTRY.get_sample_value("finetune_leftovers", labels)


def annotate(cluster: CloudCluster, resource: Resource, name: str) -> None:
    found = cluster.kube.objects[resource, "team-a", name]
    metadata = found["metadata"] | {"annotations": {ABANDON_ANNOTATION: "true"}}
    cluster.kube.change(resource, name, metadata=metadata)


def finalizers(cluster: CloudCluster) -> list[str]:
    return list(cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"].get("finalizers") or ())


async def finished(begin: Any, provider: Any, **fault: Any) -> CloudCluster:
    """A job that has succeeded, whose files cannot be deleted."""
    provider.fault(DELETE_FILE, times=100, **fault)
    cluster: CloudCluster = await begin()
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    assert cluster.status()["phase"] == "Succeeded"
    return cluster


async def test_a_job_that_has_succeeded_says_that_its_files_cannot_be_deleted_until_they_are(provider, begin):
    cluster = await finished(begin, provider, status=403, code="missing_scope", message="not allowed to delete")
    told = cluster.condition("Cleaned")
    assert (told["status"], told["reason"]) == ("False", "CredentialsInvalid")
    assert "what the job left at the provider cannot be deleted" in told["message"]
    assert ABANDON_ANNOTATION in told["message"]
    assert cluster.told.count(("FineTuneJob", "Warning", "CredentialsInvalid")) == 1
    assert (is_shown(cluster, "FineTuneJob", "sentiment-1"), finalizers(cluster)) == (1, [PROVIDER_FINALIZER])
    assert cluster.condition("Ready")["status"] == "True", "the model is made all the same"
    provider.faults.clear()
    await cluster.pass_time(3601)
    assert (cluster.condition("Cleaned")["status"], finalizers(cluster)) == ("True", [])
    assert is_shown(cluster, "FineTuneJob", "sentiment-1") is None
    assert provider.count(DELETE_FILE) == 1


async def test_what_is_left_is_deleted_though_somebody_took_the_finalizer_off(provider, begin):
    """Status says that it is tried again; without the finalizer nobody would."""
    cluster = await finished(begin, provider, status=403, code="missing_scope")
    metadata = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=metadata | {"finalizers": []})
    await cluster.settle()
    assert finalizers(cluster) == [PROVIDER_FINALIZER]
    provider.faults.clear()
    await cluster.pass_time(3601)
    assert (cluster.condition("Cleaned")["status"], finalizers(cluster)) == ("True", [])
    assert provider.count(DELETE_FILE) == 1


async def test_it_is_tried_again_ever_more_rarely(provider, begin):
    cluster = await finished(begin, provider, status=403, code="missing_scope")
    pauses = [cluster.delays[JOB]]
    for _ in range(8):
        await cluster.pass_time(pauses[-1])
        pauses.append(cluster.delays[JOB])
    assert pauses[0] <= 61
    assert pauses[-1] == 3600
    assert pauses == sorted(pauses)


async def test_what_passes_by_itself_is_no_event_and_is_tried_again_soon(provider, begin):
    cluster = await finished(begin, provider, status=503)
    assert cluster.condition("Cleaned")["reason"] == "ProviderUnavailable"
    assert not [told for told in cluster.told if told[1] == "Warning"]
    await cluster.pass_time(600)
    assert cluster.delays[JOB] == 60
    provider.faults.clear()
    await cluster.pass_time(61)
    assert (cluster.condition("Cleaned")["status"], finalizers(cluster)) == ("True", [])


async def test_a_finished_job_can_be_let_go_of(provider, begin):
    cluster = await finished(begin, provider, status=403, code="missing_scope")
    annotate(cluster, FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    assert (cluster.condition("Cleaned")["status"], finalizers(cluster)) == ("Unknown", [])
    assert ("FineTuneJob", "Warning", "Abandoned") in cluster.told
    assert is_shown(cluster, "FineTuneJob", "sentiment-1") is None
    assert cluster.status()["phase"] == "Succeeded"


async def test_a_job_whose_secret_is_gone_is_tidied_up_when_that_is_back(begin):
    cluster = await begin()
    await cluster.pass_time(3600)
    cluster.kube.drop(SECRETS, "openai", "finetune")
    cluster.change_job(suspend=True)
    await cluster.pass_time(61)
    cluster.set_key("sk-simulated")
    for _ in range(4):
        await cluster.pass_time(61)
    assert (cluster.status()["phase"], finalizers(cluster)) == ("Succeeded", [])


async def with_two_versions(begin: Any, provider: Any) -> CloudCluster:
    """Of which the older one is beyond the model's limit, and cannot be deleted."""
    cluster: CloudCluster = await begin()
    model = {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {"historyLimit": 1}}
    cluster.kube.put(FINE_TUNED_MODELS, model)
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    provider.fault(DELETE_MODEL, times=100, status=403, code="missing_scope")
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(rows(13), job="sentiment-2")
    await cluster.settle()
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    return cluster


async def test_a_model_says_that_old_weights_cannot_be_deleted_until_they_are(provider, begin):
    cluster = await with_two_versions(begin, provider)
    told = cluster.condition("Cleaned", MODEL)
    assert (told["status"], told["reason"]) == ("False", "CredentialsInvalid")
    assert "the weights of version 1, beyond spec.historyLimit, cannot be deleted" in told["message"]
    assert is_shown(cluster, "FineTunedModel", "sentiment") == 1
    assert cluster.told.count(("FineTunedModel", "Warning", "CredentialsInvalid")) == 1
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [1, 2]
    provider.faults.clear()
    await cluster.pass_time(3601)
    assert cluster.condition("Cleaned", MODEL)["status"] == "True"
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [2]
    assert len([one for one in provider.left() if one.kind == "model"]) == 1


async def test_a_higher_limit_and_letting_go_end_it(provider, begin):
    cluster = await with_two_versions(begin, provider)
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"historyLimit": 2})
    await cluster.settle()
    assert cluster.condition("Cleaned", MODEL)["status"] == "True"
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"historyLimit": 1})
    await cluster.settle()
    assert cluster.condition("Cleaned", MODEL)["status"] == "False"
    annotate(cluster, FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [2]
    assert ("FineTunedModel", "Warning", "Abandoned") in cluster.told
    assert len([one for one in provider.left() if one.kind == "model"]) == 2


async def test_a_connection_that_is_mended_is_tried_at_once(provider, begin):
    cluster = await with_two_versions(begin, provider)
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    provider.faults.clear()
    cluster.kube.change(CONNECTIONS, "openai", None, spec={**spec, "namespaceSelector": {"matchLabels": {}}})
    await cluster.pass_time(61)
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [2]


async def test_what_a_connection_that_cannot_be_read_holds_up_does_not_say_that_there_is_none(begin):
    cluster = await begin()
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    cluster.kube.change(CONNECTIONS, "openai", None, spec=spec | {"ofANewerRelease": 1})
    await cluster.pass_time(3600)
    told = cluster.status()["failure"]
    assert (told["reason"], told["message"]) == (
        "ConnectionNotFound",
        "this release of the operator cannot read LLMConnection openai",
    )
    assert told["nextStep"] == "Ask an admin: its own conditions say why (kubectl describe llmc)."
    cluster.kube.change(CONNECTIONS, "openai", None, spec=spec)
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    assert cluster.status()["phase"] == "Succeeded"
