"""Deployments at Azure OpenAI: made once, new before old, asked before they count, gone before their object goes."""

from datetime import timedelta
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from finetune_api.catalogue import Catalogue
from finetune_api.names import ABANDON_ANNOTATION, PROVIDER_FINALIZER
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import timestamp
from finetune_operator.providers.calls.errors import TryLater
from finetune_operator.reconcilers.deployments.hosted import HostedDeployments
from finetune_operator.reconcilers.object_metrics import register_object_metrics
from finetune_operator.runtime.errors import LeadershipLost
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from finetune_operator.runtime.metrics import REGISTRY
from finetune_operator.runtime.queue import Key, Requeue
from tests.simulators.clock import DAY
from tests.simulators.conftest import start
from tests.simulators.flapping import Flapping
from tests.unit.finetune_operator.reconcilers.cloud import (
    AzureCluster,
    Token,
    catalogue,
    delete,
    go_on,
    rows,
    with_azure_job,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.hosted import (
    ADDRESS,
    CHAT,
    GONE,
    PUT,
    STRANGER,
    cluster,
    deployed,
    hosts,
    provider,
    tune,
)

__all__ = ["cluster", "provider", "start"]


async def test_it_is_ready_when_it_answers_and_not_when_arm_says_so(cluster, provider):
    assert cluster.kube.objects[ADDRESS]["metadata"]["finalizers"] == [PROVIDER_FINALIZER]
    await go_on(cluster, 660)
    assert provider.deployments.found[hosts(provider)[0]].state == "Succeeded"
    assert cluster.status(DEPLOYMENT)["phase"] == "Deploying"
    name = await deployed(cluster)
    status = cluster.status(DEPLOYMENT)
    assert (hosts(provider), status["servedVersion"], status["engine"]) == ([name], 1, "AzureOpenAI")
    assert status["endpoint"]["url"] == f"{cluster.url}/openai/v1"
    assert (provider.count(PUT), status["cost"]["perHour"]) == (1, "1.70")


async def test_costs_since_it_was_deployed_are_told(cluster):
    await deployed(cluster)
    for _ in range(20):
        await cluster.pass_time(600)
    assert float(cluster.status(DEPLOYMENT)["cost"]["sinceDeployed"]) > 5


async def test_a_cost_that_grows_while_it_is_looked_at_has_nobody_look_again_before_its_time(cluster, provider):
    cluster.catalogue = catalogue("azureOpenAI", hosting={"Standard": "400.00"})
    await deployed(cluster)
    await go_on(cluster, 1200, step=600)  # by then it is known when it was asked
    before, listed = cluster.status(DEPLOYMENT)["cost"]["sinceDeployed"], provider.count("deployments.list")

    async def take_a_second(key: Key) -> Requeue | None:
        cluster.now += timedelta(seconds=1)  # worth eleven cents
        return await type(cluster).reconcile(cluster, key)

    cluster.reconcile = take_a_second
    cluster.wake(DEPLOYMENT)
    await cluster.settle()
    assert provider.count("deployments.list") == listed + 1
    assert float(cluster.status(DEPLOYMENT)["cost"]["sinceDeployed"]) > float(before)


async def test_a_price_that_is_not_known_is_said_to_be_unknown(cluster):
    cluster.catalogue = Catalogue()
    await deployed(cluster)
    cost = cluster.status(DEPLOYMENT)["cost"]
    assert (cost["display"], "perHour" in cost, "sinceDeployed" in cost) == ("unknown", False, False)
    assert "what an hour of Standard costs is not known" in cost["basis"]
    assert "no price is known of its answers" in cost["answers"]
    for _ in range(30):
        await cluster.pass_time(6000)
    assert "at a price that is not known" in cluster.condition("Idle", DEPLOYMENT)["message"]


async def test_a_replica_that_loses_its_lease_while_entra_gives_a_token_makes_no_deployment(
    provider, start, monkeypatch
):
    """Another one may have made it meanwhile, and deleted it with its object: nobody would know of this one."""
    frozen: list[AzureCluster] = []

    async def freeze(*_: Any, **__: Any) -> AccessToken:
        for one in frozen:
            recorded = one.kube.objects.get(ADDRESS, {}).get("status", {}).get("hosted")
            one.leads = one.leads and not recorded
        return AccessToken("simulated-token", 0)

    monkeypatch.setattr(Token, "get_token", freeze)  # from the first token on: the SDK keeps those that last
    cluster = await with_azure_job(provider, start(provider))
    frozen.append(cluster)
    template = {"deployment": {"template": {"azureOpenAI": {"sku": "Standard"}}}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template})
    with pytest.raises(LeadershipLost):
        await tune(cluster, "sentiment-1")
    assert (cluster.leads, provider.count(PUT, committed=False)) == (False, 0)


async def test_nothing_is_made_for_an_object_that_was_forced_away_a_moment_ago(cluster, provider):
    await deployed(cluster)
    block = {"azureOpenAI": {"sku": "Standard", "capacity": 7}}
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec=cluster.kube.objects[ADDRESS]["spec"] | block)
    for event in cluster.kube.take_events():
        cluster.observer.handle_event(*event)
    cluster.kube.drop(MODEL_DEPLOYMENTS, "sentiment")  # somebody took the finalizer off; no watch has told yet
    await cluster.reconcile(DEPLOYMENT)
    assert provider.count(PUT) == 1


async def test_a_new_version_answers_before_the_old_one_is_deleted(cluster, provider):
    first = await deployed(cluster)
    cluster.add_cloud_job("sentiment-2")
    await tune(cluster, "sentiment-2")
    await go_on(cluster, 300)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["model"]) == ("Updating", 1, first)
    assert first in hosts(provider)
    second = await deployed(cluster)
    assert (second != first, cluster.status(DEPLOYMENT)["servedVersion"]) == (True, 2)
    await go_on(cluster, 300)
    assert hosts(provider) == [second]
    assert [one["name"] for one in cluster.status(DEPLOYMENT)["hosted"]] == [second]


async def test_a_new_version_that_fails_leaves_the_old_one_answering(cluster, provider):
    first = await deployed(cluster)
    provider.set(fail_next_deployment="no room in the rack")
    cluster.add_cloud_job("sentiment-2")
    await tune(cluster, "sentiment-2")
    await go_on(cluster, 1200)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["model"]) == ("Degraded", 1, first)
    assert cluster.condition("Stalled", DEPLOYMENT)["reason"] == "DeploymentFailed"
    assert first in hosts(provider)
    assert "change spec.retryNonce to have it recreated" in cluster.condition("Stalled", DEPLOYMENT)["message"]
    spec = cluster.kube.objects[ADDRESS]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "retryNonce": "again"})
    await cluster.settle()
    second = await deployed(cluster)
    await go_on(cluster, 300)
    assert (cluster.status(DEPLOYMENT)["servedVersion"], hosts(provider)) == (2, [second])


async def test_versions_that_fail_one_after_the_other_leave_nothing_behind(cluster, provider):
    first = await deployed(cluster)
    for job in ("sentiment-2", "sentiment-3"):
        provider.set(fail_next_deployment="no room in the rack")
        cluster.add_cloud_job(job)
        await tune_beside(cluster, job)
        await go_on(cluster, 1200)
    last = cluster.status(DEPLOYMENT)["hosted"][-1]["name"]
    assert hosts(provider) == sorted([first, last])
    assert {one["name"] for one in cluster.status(DEPLOYMENT)["hosted"]} == {first, last}


async def test_a_version_that_is_overtaken_while_it_is_deployed_is_not_kept(cluster, provider):
    first = await deployed(cluster)
    pin(cluster, 1)
    for job in ("sentiment-2", "sentiment-3"):
        cluster.add_cloud_job(job)
        await tune_beside(cluster, job)
    pin(cluster, 2)
    await go_on(cluster, 120)
    assert len(hosts(provider)) == 2
    pin(cluster, 3)
    await go_on(cluster, 60)
    provider.set(fail_next_deployment="no room in the rack")
    await go_on(cluster, 2400)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["targetVersion"]) == ("Degraded", 1, 3)
    assert len(hosts(provider)) == 2, "the one that answers and the one that failed"
    assert first in hosts(provider)


def pin(cluster: AzureCluster, version: int) -> None:
    spec = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={**spec, "activeVersion": version})


async def tune_beside(cluster: AzureCluster, job: str) -> None:
    """As `tune`, while an earlier version is being deployed or has failed."""
    await cluster.settle()
    await cluster.check(b"\xef\xbb\xbf" + rows(), job=job)
    await cluster.settle()
    await cluster.pass_time(3600)


async def test_a_new_version_answers_though_the_old_one_may_not_be_deleted(cluster, provider):
    first = await deployed(cluster)
    provider.fault(GONE, status=403, code="AuthorizationFailed", times=99)
    cluster.add_cloud_job("sentiment-2")
    await tune(cluster, "sentiment-2")
    second = await deployed(cluster)
    await go_on(cluster, 300)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["model"]) == ("Ready", 2, second)
    said = cluster.condition("Ready", DEPLOYMENT)["message"]
    assert f"{first}, which served before, cannot be deleted and may be billed: ARM refuses" in said
    assert status["cost"]["perHour"] == "3.40"
    provider.faults.clear()
    await go_on(cluster, 300)
    assert (hosts(provider), cluster.condition("Ready", DEPLOYMENT)["message"]) == ([second], "version 2 answers")


async def test_an_account_that_is_busy_with_a_deletion_is_no_alarm(cluster, provider):
    await deployed(cluster)
    provider.fault(GONE, status=409, code="RequestConflict", times=2)
    await delete(cluster)
    assert cluster.condition("Stalled", DEPLOYMENT).get("status") != "True"
    assert "deleted later" in cluster.condition("Reconciling", DEPLOYMENT)["message"]
    await go_on(cluster, 300)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])


async def test_an_account_that_is_busy_is_waited_for(cluster, provider):
    provider.fault(PUT, status=409, code="RequestConflict")
    await deployed(cluster)
    assert provider.count(PUT) == 1


async def test_rights_that_lack_are_named_and_what_answers_goes_on(cluster, provider):
    first = await deployed(cluster)
    provider.set(may_deploy=False)
    cluster.add_cloud_job("sentiment-2")
    await tune_denied(cluster)
    assert cluster.condition("Stalled", DEPLOYMENT)["reason"] == "CredentialsInvalid"
    assert cluster.status(DEPLOYMENT)["phase"] == "Degraded"
    assert hosts(provider) == [first]


async def tune_denied(cluster: AzureCluster) -> None:
    await cluster.settle()
    await cluster.check(b"\xef\xbb\xbf" + rows(), job="sentiment-2")
    await cluster.settle()
    await cluster.pass_time(3600)
    await go_on(cluster, 300)


async def test_deleting_the_object_deletes_what_it_made_and_waits_for_it(cluster, provider):
    await deployed(cluster)
    await delete(cluster)
    assert cluster.status(DEPLOYMENT)["phase"] == "Deleting"
    await go_on(cluster, 300)
    assert ADDRESS not in cluster.kube.objects
    assert hosts(provider) == []
    before = provider.cost()
    provider.advance(DAY)
    assert provider.cost() == before, "nothing is billed any more"


async def test_what_is_to_be_retained_stays(cluster, provider):
    name = await deployed(cluster)
    spec = cluster.kube.objects[ADDRESS]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "deletionPolicy": "Retain"})
    await delete(cluster)
    assert ADDRESS not in cluster.kube.objects
    assert hosts(provider) == [name]
    [left] = [note for note in cluster.notes if note.startswith("left at the provider")]
    assert left.startswith(f"left at the provider, as deletionPolicy is Retain: {name}, which is billed ")
    assert left.endswith(" at 1.70 an hour")


async def test_an_object_without_credentials_can_be_let_go(cluster, provider):
    name = await deployed(cluster)
    provider.set(may_deploy=False)
    await delete(cluster)
    told = cluster.condition("Stalled", DEPLOYMENT)["message"]
    assert told.startswith(f"{name} cannot be deleted, and may be billed: ")
    assert ABANDON_ANNOTATION in told
    register_object_metrics(cluster.store)
    labels = {"kind": "ModelDeployment", "object_namespace": "team-a", "object": "sentiment"}
    assert REGISTRY.get_sample_value("finetune_deployment_unreleased", labels) == 1
    found = cluster.kube.objects[ADDRESS]
    annotated = found["metadata"] | {"annotations": {ABANDON_ANNOTATION: "true"}}
    cluster.kube.put(MODEL_DEPLOYMENTS, {**found, "metadata": annotated})
    await cluster.settle()
    assert ADDRESS not in cluster.kube.objects
    assert ("ModelDeployment", "Warning", "Abandoned") in cluster.told


async def test_deployments_of_others_are_left_alone(cluster, provider):
    first = await deployed(cluster)
    provider.deployments.put("stranger", STRANGER, provider.models)
    provider.advance(1000)
    await go_on(cluster, 600)
    await delete(cluster)
    await go_on(cluster, 300)
    assert (hosts(provider), first != "stranger") == (["stranger"], True)


async def test_other_capacity_is_asked_for_once_and_what_stands_goes_on_answering(cluster, provider):
    name = await deployed(cluster)
    spec = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["spec"]
    template = {"azureOpenAI": {"sku": "Standard", "capacity": 7}}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={**spec, "deployment": {"template": template}})
    await cluster.settle()
    await go_on(cluster, 120)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["model"]) == ("Updating", 1, name)
    await deployed(cluster)
    assert (provider.count(PUT), provider.deployments.found[name].capacity) == (2, 7)
    assert cluster.condition("Ready", DEPLOYMENT)["message"] == "version 1 answers"


async def test_one_that_somebody_has_changed_behind_our_back_is_said_and_changed_back_when_asked(cluster, provider):
    name = await deployed(cluster)
    model = provider.deployments.found[name].model
    provider.deployments.put(name, STRANGER, provider.models)
    await go_on(cluster, 1200, 600)
    assert "somebody has changed it there" in cluster.condition("Stalled", DEPLOYMENT)["message"]
    assert provider.count(PUT) == 1
    found = cluster.kube.objects[ADDRESS]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**found["spec"], "retryNonce": "back"})
    await cluster.settle()
    await deployed(cluster)
    assert (provider.count(PUT), provider.deployments.found[name].model) == (2, model)


async def test_one_that_finds_fault_with_the_question_answers(cluster, provider):
    provider.fault(CHAT, status=400, code="unsupported_parameter", times=99)
    await deployed(cluster)


async def test_one_that_never_answers_is_priced_and_told_of(cluster, provider):
    """A server that is broken stands, and is billed, as one that works."""
    provider.fault(CHAT, status=500, times=999)
    await go_on(cluster, 900)
    assert cluster.status(DEPLOYMENT)["phase"] == "Deploying"
    assert cluster.status(DEPLOYMENT)["cost"]["perHour"] == "1.70"
    await go_on(cluster, 3600, 300)
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["status"], stalled["reason"]) == ("True", "DeploymentFailed")
    assert "at 1.70 an hour, and does not answer" in stalled["message"]
    provider.faults.clear()
    await deployed(cluster)


async def test_one_that_is_asked_too_much_is_asked_again_and_holds_nothing_up(cluster, provider):
    provider.fault(CHAT, status=429, code="rate_limit_exceeded", times=20)
    await go_on(cluster, 900)
    assert cluster.status(DEPLOYMENT)["phase"] == "Deploying"
    assert cluster.condition("Stalled", DEPLOYMENT).get("status") != "True"
    provider.faults.clear()
    await deployed(cluster)


async def test_a_key_that_may_deploy_and_not_ask_is_told_so(cluster, provider):
    provider.fault(CHAT, status=403, times=99)
    await go_on(cluster, 900)
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["status"], stalled["reason"]) == ("True", "CredentialsInvalid")


async def test_how_its_price_comes_about_stays_told_while_a_list_lacks_it(cluster, provider):
    await deployed(cluster)
    basis = cluster.status(DEPLOYMENT)["cost"]["basis"]
    provider.meddle = Flapping(provider, 1, 0, reads=False)
    cluster.wake(DEPLOYMENT)
    await cluster.settle()
    status = cluster.status(DEPLOYMENT)
    assert "unseenSince" in status["hosted"][0]
    assert status["cost"]["basis"] == basis


async def test_a_secret_that_comes_a_little_later_is_no_failure_for_a_minute(cluster, monkeypatch):
    async def serve(*_):
        raise TryLater(Reason.SECRET_NOT_FOUND, "no Secret")

    monkeypatch.setattr(HostedDeployments, "serve", serve)
    metadata = cluster.kube.objects[ADDRESS]["metadata"] | {"creationTimestamp": timestamp(cluster.now)}
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", metadata=metadata)
    for seconds, stalled in ((30, "False"), (60, "True")):
        await cluster.pass_time(seconds)
        assert cluster.condition("Stalled", DEPLOYMENT)["status"] == stalled
        assert "no Secret" in cluster.condition("Ready", DEPLOYMENT)["message"]
