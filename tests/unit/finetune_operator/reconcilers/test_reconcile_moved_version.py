"""A version that is served elsewhere than the one before, or nowhere: what is billed meanwhile is ended, or told of."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import CONNECTIONS, DEPLOYMENTS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.clock import DAY, HOUR
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, delete, go_on, rows
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.hosted import cluster, deployed, hosts, provider, tune

__all__ = ["cluster", "provider", "start"]

SERVER = (DEPLOYMENTS, "team-a", "sentiment")
PAST = {"sinceDeployed", "ended", "currency"}
"""What is left of the cost: nothing stands that has a price by the hour."""
AZURE = {"azureOpenAI": {"sku": "Standard"}}


def serve_by(cluster: AzureCluster, template: dict[str, Any]) -> None:
    """As a person would, who edits the model and not its deployment."""
    spec = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={**spec, "deployment": {"template": template}})
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={"modelRef": {"name": "sentiment"}, **template})


async def tune_here(cluster: AzureCluster, job: str = "sentiment-2") -> None:
    cluster.add_connection()
    cluster.add_job(job)
    serve_by(cluster, {})
    await cluster.settle()
    cluster.run_pod(job=job)
    cluster.end_pod(0, cluster.result(job=job), job=job)
    await cluster.settle()


@pytest.fixture
async def moved(cluster: AzureCluster) -> tuple[AzureCluster, str]:
    """Version 1 answers at Azure; version 2 was made on the cluster, whose server does not answer yet."""
    name = await deployed(cluster)
    await tune_here(cluster)
    return cluster, name


async def test_what_stands_at_a_provider_answers_until_the_clusters_own_server_does_and_then_goes(moved, provider):
    cluster, name = moved
    await go_on(cluster, 60)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["model"]) == ("Updating", 1, name)
    assert (hosts(provider), status["cost"]["perHour"]) == ([name], "1.70")
    cluster.roll_out()
    await cluster.settle()
    await go_on(cluster, 300)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"]) == ("Ready", 2)
    assert status["endpoint"]["url"] == "http://sentiment.team-a.svc/v1"
    before = provider.cost()
    assert (hosts(provider), status.get("hosted") or [], set(status["cost"])) == ([], [], PAST)
    assert abs(Decimal(status["cost"]["sinceDeployed"]) - before) < Decimal("0.05")
    provider.advance(DAY)
    assert provider.cost() == before, "nothing is billed any more"


async def test_what_stands_at_a_provider_goes_too_where_the_clusters_own_server_is_to_have_no_pods(moved, provider):
    cluster, _ = moved
    serve_by(cluster, {"huggingFace": {"replicas": 0}})
    await cluster.settle()
    await go_on(cluster, 300)
    assert (cluster.status(DEPLOYMENT)["phase"], hosts(provider)) == ("Idle", [])


async def test_what_cannot_be_ended_is_said_and_ended_later(moved, provider):
    cluster, name = moved
    provider.set(may_deploy=False)
    cluster.roll_out()
    await cluster.settle()
    await go_on(cluster, 120)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    said = cluster.condition("Ready", DEPLOYMENT)["message"]
    assert f"{name}, which served before, cannot be ended and may be billed" in said
    provider.set(may_deploy=True)
    await go_on(cluster, 300)
    assert hosts(provider) == []
    assert cluster.condition("Ready", DEPLOYMENT)["message"] == "version 2 answers"


async def test_deleting_the_object_deletes_what_stands_at_the_other_place_too(moved, provider):
    cluster, _ = moved
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 300)
    assert hosts(provider) == []
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") not in cluster.kube.objects


@pytest.mark.parametrize(("gone", "reason"), [("model", "ModelNotFound"), ("connection", "ConnectionNotFound")])
async def test_what_is_billed_though_nothing_is_to_be_served_is_said(cluster, provider, gone, reason):
    name = await deployed(cluster)
    before = float(cluster.status(DEPLOYMENT)["cost"]["sinceDeployed"])
    lost = (FINE_TUNED_MODELS, "sentiment") if gone == "model" else (CONNECTIONS, "openai", None)
    cluster.kube.drop(*lost)
    for _ in range(10):
        cluster.wake(DEPLOYMENT)
        await cluster.pass_time(3600)
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["status"], stalled["reason"]) == ("True", reason)
    assert f"{name} exists at the provider meanwhile, and is billed until this is deleted" in stalled["message"]
    assert ("ModelDeployment", "Warning", reason) in cluster.told
    assert float(cluster.status(DEPLOYMENT)["cost"]["sinceDeployed"]) > before + 15
    assert hosts(provider) == [name]
    assert "replicas" not in cluster.status(DEPLOYMENT), "pods are counted here alone"


@pytest.fixture
async def moved_out(cluster: AzureCluster) -> AzureCluster:
    """Version 2 answers on the cluster; version 3 is of Azure, where nothing answers yet."""
    await deployed(cluster)
    await tune_here(cluster)
    cluster.roll_out()
    await cluster.settle()
    await go_on(cluster, 300)
    serve_by(cluster, AZURE)
    cluster.add_cloud_job("sentiment-3")
    await tune(cluster, "sentiment-3")
    return cluster


async def test_the_clusters_own_server_answers_until_the_provider_does_and_then_has_no_pods(moved_out, provider):
    cluster = moved_out
    await go_on(cluster, 300)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"]) == ("Updating", 2)
    assert status["endpoint"]["url"] == "http://sentiment.team-a.svc/v1"
    assert cluster.kube.objects[SERVER]["spec"]["replicas"] == 1
    earlier = Decimal(cluster.status(DEPLOYMENT)["cost"]["ended"])
    name = await deployed(cluster)
    assert Decimal(cluster.status(DEPLOYMENT)["cost"]["sinceDeployed"]) > earlier > 0, "the sum goes on"
    assert cluster.kube.objects[SERVER]["spec"]["replicas"] == 0
    writes = cluster.kube.objects[SERVER]["metadata"]["resourceVersion"]
    await go_on(cluster, 600)
    assert cluster.kube.objects[SERVER]["metadata"]["resourceVersion"] == writes
    assert (hosts(provider), cluster.status(DEPLOYMENT)["servedVersion"]) == ([name], 3)


async def test_the_clusters_own_server_that_may_not_be_stopped_is_not_asked_for_at_each_look(moved_out):
    cluster = moved_out
    cluster.kube.refusals["apply", "deployments"] = Forbidden(403, "Forbidden", "frozen")
    await deployed(cluster)
    before = cluster.kube.asked("apply", "deployments"), len(cluster.notes)
    cluster.now += timedelta(seconds=300)
    for _ in range(10):
        cluster.wake(DEPLOYMENT)
        await cluster.settle()
    asked = cluster.kube.asked("apply", "deployments") - before[0]
    assert 1 <= asked <= 4, "a few times at once, and then every half minute"
    said = [note for note in cluster.notes[before[1] :] if "the server on this cluster cannot be stopped" in note]
    assert len(said) == asked
    cluster.kube.refusals.clear()
    await go_on(cluster, 60)
    assert cluster.kube.objects[SERVER]["spec"]["replicas"] == 0


@pytest.mark.alike
@pytest.mark.parametrize("since", ["the model moved", "a while"])
async def test_the_clusters_own_server_is_still_told_of_while_the_provider_refuses_the_new_version(
    cluster, provider, since
):
    await deployed(cluster)
    await tune_here(cluster)
    cluster.roll_out()
    await cluster.settle()
    await go_on(cluster, 300)
    serve_by(cluster, AZURE)
    cluster.add_cloud_job("sentiment-3")
    if since == "the model moved":
        await cluster.settle()
        await cluster.check(b"\xef\xbb\xbf" + rows(), job="sentiment-3")
        await cluster.settle()
        provider.set(may_deploy=False)
        await cluster.pass_time(3600)
    else:
        await tune(cluster, "sentiment-3")
        await go_on(cluster, 60)
        provider.fault("deployments.list", status=403, code="AuthorizationFailed", times=1000)
    await go_on(cluster, 300)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"]) == ("Degraded", 2)
    assert status["endpoint"]["url"] == "http://sentiment.team-a.svc/v1"


async def test_a_server_that_was_left_comes_back_with_its_version(moved_out, provider):
    cluster = moved_out
    await deployed(cluster)
    serve_by(cluster, {})
    spec = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={**spec, "activeVersion": 2})
    await cluster.settle()
    assert cluster.kube.objects[SERVER]["spec"]["replicas"] == 1
    cluster.roll_out()
    await cluster.settle()
    await go_on(cluster, 300)
    assert (hosts(provider), cluster.status(DEPLOYMENT)["servedVersion"]) == ([], 2)


@pytest.mark.parametrize("policy", [{"deletionPolicy": "Retain"}, {}])
async def test_what_is_to_stay_stays_though_another_release_wrote_the_rest_of_the_spec(cluster, provider, policy):
    name = await deployed(cluster)
    spec = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, **policy, "newer": 1})
    await delete(cluster)
    await go_on(cluster, 300)
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") not in cluster.kube.objects
    assert hosts(provider) == ([name] if policy else [])


@pytest.mark.alike
@pytest.mark.parametrize("why", ["it may not be deleted", "the provider does not answer", "another one is being made"])
async def test_what_is_to_go_and_does_not_is_billed_in_status_until_it_is_gone(cluster, provider, why):
    name = await deployed(cluster)
    if why == "it may not be deleted":
        provider.set(may_deploy=False)
    elif why == "the provider does not answer":
        provider.fault("deployments.list", status=503, times=1000)
    else:
        provider.set(deploy_seconds=6 * HOUR)
        cluster.add_cloud_job("sentiment-2")
        await tune(cluster, "sentiment-2")
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    for _ in range(10):
        cluster.wake(DEPLOYMENT)
        await cluster.pass_time(1200)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], name in hosts(provider)) == ("Deleting", True)
    assert abs(Decimal(status["cost"]["sinceDeployed"]) - provider.cost()) < Decimal("0.60")
    assert Decimal(status["cost"]["sinceDeployed"]) > Decimal(5)
    assert status["cost"]["basis"].startswith("Standard at 1.70 USD an hour")


@pytest.mark.alike
@pytest.mark.parametrize("status", [401, 403, 503])
async def test_what_stands_is_billed_in_status_while_its_provider_cannot_be_asked(cluster, provider, status):
    name = await deployed(cluster)
    provider.fault("deployments.list", status=status, times=1000)
    for _ in range(10):
        cluster.wake(DEPLOYMENT)
        await cluster.pass_time(1200)
    told = cluster.status(DEPLOYMENT)
    assert (told["servedVersion"], hosts(provider)) == (1, [name])
    assert abs(Decimal(told["cost"]["sinceDeployed"]) - provider.cost()) < Decimal("0.60")
    assert Decimal(told["cost"]["sinceDeployed"]) > Decimal(5)
    assert (told["cost"]["perHour"], told["cost"]["basis"]) == ("1.70", "Standard at 1.70 USD an hour, list price")
