"""A deployment at Azure OpenAI that was there before: asked, told of, and never changed nor, unasked, deleted."""

from typing import Any

import pytest

from finetune_operator.reconcilers.object_metrics import register_object_metrics
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from finetune_operator.runtime.metrics import REGISTRY
from finetune_operator.runtime.queue import Key
from tests.simulators.azure import AzureSimulator
from tests.simulators.azure.arm import Arm
from tests.simulators.clock import DAY, HOUR
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, attach, azure, go_on, rows, with_azure_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import MODEL
from tests.unit.finetune_operator.reconcilers.hosted import CHAT, GONE, PUT, hosts

__all__ = ["start"]

PROD = Key(MODEL_DEPLOYMENTS.kind, "team-a", "prod")
ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "prod")


@pytest.fixture
def provider() -> AzureSimulator:
    return azure()


@pytest.fixture
async def cluster(provider: AzureSimulator, start: Any) -> AzureCluster:
    """With a model of one version, and a deployment of it that somebody has made by hand."""
    made = await with_azure_job(provider, start(provider))
    spec = {"deployment": {"mode": "Manual"}}
    made.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await made.settle()
    await made.check(b"\xef\xbb\xbf" + rows())
    await made.settle()
    await made.pass_time(3600)
    by_hand(provider, "by-hand", made.status(MODEL)["versions"][0]["artifact"]["providerModelID"])
    return made


def by_hand(provider: AzureSimulator, name: str, model: str, version: str = "1") -> None:
    served = {"name": model, "version": version}
    request = {"sku": {"name": "Standard", "capacity": 1}, "properties": {"model": served}}
    provider.deployments.put(name, request, provider.models)
    provider.advance(1000)


async def delete(cluster: AzureCluster) -> None:
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "prod")
    await cluster.settle()
    await go_on(cluster, 300)
    assert ADDRESS not in cluster.kube.objects


async def test_it_is_asked_and_its_endpoint_version_and_cost_are_told(cluster, provider):
    await attach(cluster, "by-hand")
    status = cluster.status(PROD)
    assert (status["phase"], status["servedVersion"], status["engine"]) == ("Ready", 1, "AzureOpenAI")
    assert status["endpoint"] == {"url": f"{cluster.url}/openai/v1", "model": "by-hand", "api": "OpenAI"}
    assert status["cost"]["perHour"] == "1.70"
    assert (provider.count(PUT), provider.count("chat.completions.create")) == (0, 1)


async def test_a_model_that_is_two_versions_is_attached_as_the_one_that_is_wanted(cluster):
    job_id = cluster.status()["provider"]["jobID"]
    cluster.add_cloud_job("again", adopt={"jobID": job_id})
    await cluster.settle()
    await cluster.poll()
    await cluster.pass_time(60)
    versions = cluster.status(MODEL)["versions"]
    assert [one["artifact"] == versions[0]["artifact"] for one in versions] == [True, True]
    await attach(cluster, "by-hand", version=1)
    assert (cluster.status(PROD)["phase"], cluster.status(PROD)["servedVersion"]) == ("Ready", 1)


async def test_deleting_the_object_leaves_it_and_says_so(cluster, provider):
    await attach(cluster, "by-hand")
    await delete(cluster)
    assert hosts(provider) == ["by-hand"]
    assert ("ModelDeployment", "Normal", "Retained") in cluster.told
    assert provider.count(GONE) == 0


async def test_it_is_deleted_with_the_object_where_the_user_says_delete(cluster, provider):
    await attach(cluster, "by-hand", deletionPolicy="Delete")
    await delete(cluster)
    assert hosts(provider) == []


async def test_what_belongs_to_others_is_neither_attached_nor_deleted(cluster, provider):
    by_hand(provider, "stranger", "gpt-4o-mini", "2024-07-18")
    await attach(cluster, "stranger", deletionPolicy="Delete")
    stalled = cluster.condition("Stalled", PROD)
    assert (stalled["reason"], cluster.status(PROD)["phase"]) == ("AttachedDiffers", "Failed")
    assert "not a version of FineTunedModel sentiment" in stalled["message"]
    await delete(cluster)
    assert hosts(provider) == ["by-hand", "stranger"]
    assert ("ModelDeployment", "Warning", "Retained") in cluster.told


async def test_one_that_is_not_there_is_named(cluster):
    await attach(cluster, "by-hnad")
    assert cluster.condition("Stalled", PROD)["reason"] == "DeploymentNotFound"


async def test_one_that_stands_and_does_not_answer_is_not_told_as_one_that_is_made(cluster, provider):
    provider.fault(CHAT, status=404, code="DeploymentNotFound", times=99)
    await attach(cluster, "by-hand")
    message = "by-hand exists at the provider, and does not answer yet"
    assert cluster.status(PROD)["phase"] == "Deploying"
    assert message in cluster.condition("Ready", PROD)["message"]
    provider.faults.clear()
    await go_on(cluster, 120)
    assert cluster.status(PROD)["phase"] == "Ready"
    assert cluster.condition("Ready", PROD)["message"] == "version 1 answers"


@pytest.mark.alike
@pytest.mark.parametrize("answer", [{"status": 404, "code": "DeploymentNotFound"}, {"status": 503}, {"status": 429}])
async def test_one_that_does_not_answer_for_an_hour_is_stalled_with_its_cost_and_goes_on_when_it_does(
    cluster, provider, answer
):
    provider.fault(CHAT, times=9999, **answer)
    await attach(cluster, "by-hand")
    await go_on(cluster, 3000)
    assert cluster.status(PROD)["phase"] == "Deploying"
    await go_on(cluster, 1800)
    stalled, cost = cluster.condition("Stalled", PROD), cluster.status(PROD)["cost"]
    assert (cluster.status(PROD)["phase"], stalled["status"], stalled["reason"]) == (
        "Failed",
        "True",
        "DeploymentFailed",
    )
    assert "at 1.70 an hour, and has not answered since" in stalled["message"]
    assert "attach another one" in stalled["message"]
    assert (cost["perHour"], float(cost["sinceDeployed"]) > 1) == ("1.70", True)
    assert ("ModelDeployment", "Warning", "DeploymentFailed") in cluster.told
    provider.faults.clear()
    await go_on(cluster, 120)
    assert cluster.status(PROD)["phase"] == "Ready"
    assert "silentSince" not in cluster.status(PROD)["hosted"][0]
    assert hosts(provider) == ["by-hand"]


async def test_one_that_disappears_is_told_of_and_found_again(cluster, provider):
    await attach(cluster, "by-hand")
    provider.deployments.delete("by-hand")
    provider.advance(100)
    await go_on(cluster, 1200, 600)
    stalled = cluster.condition("Stalled", PROD)
    assert (stalled["reason"], cluster.status(PROD)["phase"]) == ("DeletedAtProvider", "Failed")
    assert "spec.attach.id" in stalled["message"]
    assert ("ModelDeployment", "Warning", "DeletedAtProvider") in cluster.told
    assert provider.count(PUT) == 0
    by_hand(provider, "by-hand", cluster.status(MODEL)["versions"][0]["artifact"]["providerModelID"])
    await go_on(cluster, 1200, 600)
    assert cluster.status(PROD)["phase"] == "Ready"


async def test_it_is_warned_about_when_nobody_asks_it_and_never_stopped(cluster, provider):
    await attach(cluster, "by-hand")
    await go_on(cluster, DAY + HOUR, 1800)
    assert cluster.condition("Idle", PROD)["reason"] == "BilledWhileIdle"
    assert hosts(provider) == ["by-hand"]


async def test_detaching_makes_one_and_leaves_the_other(cluster, provider):
    await attach(cluster, "by-hand", deletionPolicy="Delete")
    spec = {"modelRef": {"name": "sentiment"}, "azureOpenAI": {"sku": "Standard"}, "deletionPolicy": "Delete"}
    cluster.kube.change(MODEL_DEPLOYMENTS, "prod", spec=spec)
    await cluster.settle()
    await go_on(cluster, 1800, 300)
    assert (cluster.status(PROD)["phase"], len(hosts(provider))) == ("Ready", 2)
    await delete(cluster)
    assert hosts(provider) == ["by-hand"]


async def test_one_that_is_to_go_with_the_object_goes_though_its_model_went_before(cluster, provider):
    await attach(cluster, "by-hand", deletionPolicy="Delete")
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 120)
    assert "by-hand" in cluster.condition("Stalled", PROD)["message"], "it is billed, and somebody has to decide"
    await delete(cluster)
    assert hosts(provider) == []


async def test_arms_words_have_no_case_whatever_was_written_or_is_shown(cluster, provider):
    found = provider.deployments.found["by-hand"].request
    found["properties"]["model"]["name"] = found["properties"]["model"]["name"].upper()
    found["sku"]["name"] = "standard"
    await attach(cluster, "By-Hand")
    status = cluster.status(PROD)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["model"]) == ("Ready", 1, "by-hand")
    assert status["cost"]["perHour"] == "1.70"
    assert (provider.count(PUT), hosts(provider)) == (0, ["by-hand"])


async def test_what_arm_leaves_out_is_not_needed(cluster, provider, monkeypatch):
    """Optional fields: who made it and when, its tags and capacity."""
    shown = Arm.shown

    def bare(arm: Arm, deployment: Any) -> dict[str, Any]:
        found = shown(arm, deployment)
        for name in ("systemData", "etag", "tags", "type", "id"):
            found.pop(name, None)
        found["sku"].pop("capacity", None)
        return found

    monkeypatch.setattr(Arm, "shown", bare)
    await attach(cluster, "by-hand")
    assert (cluster.status(PROD)["phase"], cluster.status(PROD)["servedVersion"]) == ("Ready", 1)
    await delete(cluster)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, ["by-hand"])


def priced(*names: str) -> dict[str, float | None]:
    """What an hour costs, as Prometheus reads it."""
    labels = {name: {"deployment_namespace": "team-a", "deployment": name, "currency": "USD"} for name in names}
    return {name: REGISTRY.get_sample_value("finetune_deployment_cost_per_hour", labels[name]) for name in names}


async def attach_twin(cluster: AzureCluster, **fields: Any) -> Key:
    spec = {"modelRef": {"name": "sentiment"}, "attach": {"id": "BY-HAND"}, **fields}
    cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "twin", "namespace": "team-a"}, "spec": spec})
    await cluster.settle()
    await go_on(cluster, 120)
    return Key(MODEL_DEPLOYMENTS.kind, "team-a", "twin")


async def test_what_two_objects_have_attached_is_told_by_both_and_deleted_with_the_last(cluster, provider):
    await attach(cluster, "by-hand", deletionPolicy="Delete")
    twin = await attach_twin(cluster, deletionPolicy="Delete")
    assert (cluster.status(PROD)["phase"], cluster.status(twin)["phase"]) == ("Ready", "Ready")
    said = cluster.condition("Ready", twin)["message"]
    assert said == "version 1 answers; ModelDeployment prod has it too, and it is billed once"
    register_object_metrics(cluster.store)
    assert priced("prod", "twin") == {"prod": 1.7, "twin": 0.0}
    await delete(cluster)
    assert (provider.count(GONE), hosts(provider)) == (0, ["by-hand"])
    assert ("ModelDeployment", "Warning", "Retained") in cluster.told
    await go_on(cluster, 1200, 600)
    assert cluster.condition("Ready", twin)["message"] == "version 1 answers"
    assert priced("prod", "twin") == {"prod": None, "twin": 1.7}
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "twin")
    await cluster.settle()
    await go_on(cluster, 300)
    assert (provider.count(GONE), hosts(provider)) == (1, [])


async def test_what_another_object_has_made_is_told_to_go_when_that_one_goes_on(cluster, provider):
    """It would be lost without a word: who made it deletes it, and the one that rests on it cannot hold that up."""
    maker = {"modelRef": {"name": "sentiment"}, "azureOpenAI": {"sku": "Standard"}}
    cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "maker", "namespace": "team-a"}, "spec": maker})
    await cluster.settle()
    await go_on(cluster, 1200, 600)
    (made,) = cluster.status(Key(MODEL_DEPLOYMENTS.kind, "team-a", "maker"))["hosted"]
    await attach(cluster, made["name"])
    assert cluster.status(PROD)["phase"] == "Ready"
    assert cluster.condition("Ready", PROD)["message"] == (
        "version 1 answers; ModelDeployment maker has made it (it is billed once), and deletes it when it serves "
        "another version or is deleted: remove spec.attach to have one made for this object"
    )
    assert cluster.status(PROD)["cost"]["perHour"] == "1.70", "what it costs, whoever pays"
    register_object_metrics(cluster.store)
    assert priced("prod", "maker") == {"prod": 0.0, "maker": 1.7}, "sums have it once"
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "maker")
    await cluster.settle()
    await go_on(cluster, 1200, 600)
    assert made["name"] not in hosts(provider)
    assert cluster.status(PROD)["phase"] != "Ready"
    assert "remove spec.attach to have one made" in cluster.condition("Ready", PROD)["message"]


async def test_two_that_are_deleted_together_do_not_wait_for_each_other(cluster, provider):
    await attach(cluster, "by-hand", deletionPolicy="Delete")
    await attach_twin(cluster, deletionPolicy="Delete")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "twin")
    await delete(cluster)
    await go_on(cluster, 300)
    assert hosts(provider) == []


async def test_nothing_is_said_of_prices_of_answers_that_nobody_gives(cluster):
    await attach(cluster, "by-hnad")
    assert "cost" not in cluster.status(PROD)
