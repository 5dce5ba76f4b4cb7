"""Models that answer in deployments only are measured in deployments made for it, and none of those is left behind."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from finetune_api.catalogue import Catalogue
from finetune_api.names import ABANDON_ANNOTATION, PROVIDER_FINALIZER
from finetune_operator.decide.conditions import timestamp
from finetune_operator.decide.job.remote import SETTLE
from finetune_operator.reconcilers.object_metrics import register_object_metrics
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS
from finetune_operator.runtime.metrics import REGISTRY
from tests.simulators.azure import AzureSimulator
from tests.simulators.clock import DAY
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import azure
from tests.unit.finetune_operator.reconcilers.evaluation import DATASET, AzureMeasured
from tests.unit.finetune_operator.reconcilers.fake_cluster import MODEL

__all__ = ["start"]

PUT, GONE = "deployments.create_or_update", "deployments.delete"
JOB = (FINE_TUNE_JOBS, "team-a", "sentiment-1")
POD = (JOBS, "team-a", "sentiment-1-1-eval1")
BY_HAND = {"spec": {"deployment": {"mode": "Manual"}}, "metadata": {"name": "sentiment", "namespace": "team-a"}}
SERVED = {"activation": "IfBetter", "deployment": {"template": {"azureOpenAI": {"sku": "Standard"}}}}


@pytest.fixture
def provider() -> AzureSimulator:
    return azure(deploy_seconds=50, spread_seconds=20, delete_seconds=20)


@pytest.fixture
async def begin(provider: Any, start: Any, tmp_path: Any, monkeypatch: Any) -> Callable[..., Any]:
    """Makes a cluster whose job's model is made; what it becomes is deployed by hand, so that it is alone."""

    async def begun(*, hosting_alone: bool = False, **fields: Any) -> AzureMeasured:
        cluster = AzureMeasured(provider, start(provider), tmp_path)
        if hosting_alone:
            hosting = {"hosting": {"Standard": "1.70"}}
            cluster.catalogue = Catalogue.model_validate({"providers": {"azureOpenAI": hosting}})
        cluster.kube.put(FINE_TUNED_MODELS, BY_HAND)
        await cluster.begin(monkeypatch, **fields)
        return cluster

    return begun


async def deployed(cluster: AzureMeasured) -> None:
    """Until the pod is there, which asks what stands."""
    await cluster.go_on(lambda: POD in cluster.kube.objects)


async def alone(cluster: AzureMeasured, provider: AzureSimulator) -> None:
    """Until nothing is deployed, and the job holds nothing any more."""
    await cluster.go_on(lambda: not provider.deployments.found and not finalizers(cluster))
    before = provider.cost()
    provider.advance(DAY)
    assert provider.cost() == before, "nothing is billed any more"


def finalizers(cluster: AzureMeasured) -> list[str]:
    return list(cluster.kube.objects.get(JOB, {"metadata": {}})["metadata"].get("finalizers") or ())


def is_shown(cluster: AzureMeasured) -> float | None:
    """What the metric says of the job, behind the alert on deployments that are not deleted."""
    register_object_metrics(cluster.store)
    labels = {"kind": "FineTuneJob", "object_namespace": "team-a", "object": "sentiment-1"}
    return REGISTRY.get_sample_value("finetune_deployment_unreleased", labels)


def hosts(cluster: AzureMeasured) -> dict[str, Any]:
    return {one["candidate"]: one for one in cluster.evaluation.get("deployments") or ()}


async def test_a_tuned_model_and_its_base_are_deployed_asked_and_gone(provider, begin):
    cluster = await begin()
    assert (cluster.status()["phase"], cluster.condition("Reconciling")["reason"]) == ("Evaluating", "Deploying")
    assert POD not in cluster.kube.objects, "nobody asks what does not answer"
    await deployed(cluster)
    assert min(one.model for one in provider.deployments.found.values()) == "gpt-4o-mini"
    assert all(one["name"].startswith("team-a-sentiment-1-") for one in hosts(cluster).values())
    last = await cluster.measure()
    assert last.phase == "Measured"
    found = cluster.status()["evaluation"]
    assert (found["tuned"]["exactMatch"], found["baselines"]["zeroShot"]["exactMatch"]) == (1.0, 0.0)
    assert cluster.status()["phase"] == "Succeeded", "the version does not wait for the deployments' end"
    assert cluster.status(MODEL)["versions"][0]["evaluation"]["verdict"] == "Better"
    await alone(cluster, provider)
    assert (provider.count(PUT), provider.count(GONE)) == (2, 2)
    assert "deployments" not in cluster.evaluation


async def test_a_deletion_that_comes_to_nothing_for_an_hour_is_told_though_the_job_has_ended(provider, begin):
    cluster = await begin()
    await deployed(cluster)
    provider.set(delete_seconds=4000)
    await cluster.measure()
    await cluster.pass_time(1800)
    assert (cluster.status()["phase"], is_shown(cluster)) == ("Succeeded", None)
    await cluster.pass_time(1800)
    await cluster.wait(60)
    assert is_shown(cluster) == 1
    said = cluster.condition("Released")
    assert said["status"] == "False"
    assert "still shows them" in said["message"]
    provider.set(delete_seconds=20)
    await alone(cluster, provider)
    assert (cluster.condition("Released")["status"], cluster.status()["phase"]) == ("True", "Succeeded")


async def test_a_finalizer_that_somebody_takes_off_an_ended_job_leaves_no_deployment(provider, begin):
    """The version does not wait for their end: what is recorded is billed until it is deleted."""
    cluster = await begin()
    await deployed(cluster)
    provider.set(may_deploy=False)
    await cluster.measure()
    assert (cluster.status()["phase"], len(provider.deployments.found)) == ("Succeeded", 2)
    cluster.kube.change(
        FINE_TUNE_JOBS, "sentiment-1", metadata=cluster.kube.objects[JOB]["metadata"] | {"finalizers": []}
    )
    await cluster.settle()
    assert finalizers(cluster) == [PROVIDER_FINALIZER]
    provider.set(may_deploy=True)
    await cluster.pass_time(300)
    await alone(cluster, provider)
    assert "deployments" not in cluster.evaluation


async def test_their_hours_are_in_the_cost(provider, begin):
    cluster = await begin()
    cost = cluster.status()["cost"]
    assert Decimal(cost["evaluation"]) >= Decimal("1.70"), "an hour of the tuned model's"
    await deployed(cluster)
    await cluster.pass_time(3600)
    await cluster.measure()
    await alone(cluster, provider)
    actual = Decimal(cluster.status()["cost"]["actual"])
    assert Decimal(cluster.evaluation["hosting"]) > Decimal("1.70")
    assert abs(actual - provider.cost()) < Decimal("0.05")
    assert abs(Decimal(cluster.status()["cost"]["hosting"]) - Decimal(cluster.evaluation["hosting"])) < Decimal("0.01")


async def test_their_hours_are_told_where_the_price_of_tuning_is_not_known_and_so_is_that(provider, begin):
    cluster = await begin(hosting_alone=True)
    cost = cluster.status()["cost"]
    assert "estimated" not in cost
    assert cost["basis"] == (
        "no price is known of tuning gpt-4o-mini-2024-07-18 and of its answers to the test set: an admin may put it "
        "into the chart's providerCatalogue"
    )
    await deployed(cluster)
    await cluster.pass_time(3600)
    await cluster.measure()
    await alone(cluster, provider)
    told = cluster.status()["cost"]
    assert (Decimal(told["hosting"]) > Decimal("1.70"), "actual" in told, told["basis"]) == (True, False, cost["basis"])


async def test_an_operator_that_is_new_at_every_step_leaves_nothing(provider, begin):
    cluster = await begin()
    while POD not in cluster.kube.objects:
        await cluster.begin_anew()
        await cluster.pass_time(30)
    assert provider.count(PUT) == 2
    await cluster.begin_anew()
    await cluster.measure()
    while finalizers(cluster):
        await cluster.begin_anew()
        await cluster.pass_time(30)
    await alone(cluster, provider)
    assert (cluster.status()["phase"], provider.count(PUT), provider.count(GONE)) == ("Succeeded", 2, 2)


@pytest.mark.parametrize("seconds", [0, 60, 180], ids=["at once", "while it is made", "while it is asked"])
async def test_a_job_that_is_deleted_leaves_no_deployment(provider, begin, seconds):
    cluster = await begin()
    for _ in range(seconds // 30):
        await cluster.pass_time(30)
    provider.fault(GONE, status=500)
    provider.fault(GONE, after_commit=True, outcome="cut", skip=1)
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await alone(cluster, provider)
    assert JOB not in cluster.kube.objects


async def test_a_job_that_is_deleted_does_not_wait_for_others_than_those_that_its_record_names(provider, begin):
    """Its namespace, which is deleted, would wait for the job."""
    cluster = await begin()
    await deployed(cluster)
    began = cluster.now
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1", at=timestamp(began))
    said = set[str]()

    def is_gone() -> bool:
        if JOB in cluster.kube.objects:
            said.add(cluster.condition("Reconciling")["message"])
        return not finalizers(cluster)

    await cluster.settle()
    await cluster.go_on(is_gone, seconds=30)
    assert not [one for one in said if one.startswith("nothing records")]
    assert cluster.now - began < SETTLE
    await alone(cluster, provider)


async def test_a_job_that_is_deleted_right_after_a_call_was_lost_waits_for_what_came_of_it(provider, begin):
    provider.fault(PUT, after_commit=True, outcome="cut")
    provider.set(list_lag_seconds=60)
    cluster = await begin()
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    assert finalizers(cluster), "what was asked for may still show"
    await alone(cluster, provider)


async def test_an_evaluation_that_fails_leaves_no_deployment(provider, begin):
    cluster = await begin()
    await deployed(cluster)
    cluster.start_pod()
    await cluster.settle()
    cluster.finish_pod(None, 65)
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"
    assert cluster.condition("Evaluated")["status"] == "False"
    await alone(cluster, provider)


async def test_deployments_go_while_a_job_is_suspended_and_come_back(provider, begin):
    cluster = await begin()
    await deployed(cluster)
    cluster.change_job(suspend=True)
    await cluster.settle()
    await cluster.go_on(lambda: not provider.deployments.found)
    assert (cluster.status()["phase"], finalizers(cluster) != []) == ("Suspended", True)
    cluster.change_job(suspend=False)
    await cluster.settle()
    await cluster.go_on(lambda: any(name == "sentiment-1-1-eval2" for _, _, name in cluster.kube.objects))
    await cluster.measure(2)
    await alone(cluster, provider)
    assert cluster.status()["evaluation"]["verdict"] == "Better"
    assert provider.count(PUT) == 4


async def test_credentials_that_are_gone_keep_the_job_until_they_are_back(provider, begin):
    cluster = await begin()
    await deployed(cluster)
    provider.set(may_deploy=False)
    await cluster.measure()
    await cluster.pass_time(300)
    assert cluster.status()["phase"] == "Succeeded"
    released = cluster.condition("Released")
    assert (released["status"], released["reason"]) == ("False", "CredentialsInvalid")
    assert "may exist at the provider, and be billed" in released["message"]
    assert (len(provider.deployments.found), finalizers(cluster) != []) == (2, True)
    assert is_shown(cluster) == 1
    billed = Decimal(cluster.status()["cost"]["actual"])
    await cluster.pass_time(3600)
    assert Decimal(cluster.status()["cost"]["actual"]) - billed > Decimal("1.6"), "what stands goes on costing"
    provider.set(may_deploy=True)
    await alone(cluster, provider)
    assert cluster.condition("Released")["status"] == "True"
    assert is_shown(cluster) is None


async def test_what_a_suspended_job_cannot_delete_is_told_until_it_is_gone_or_wanted_again(provider, begin):
    cluster = await begin()
    await deployed(cluster)
    provider.set(may_deploy=False)
    cluster.change_job(suspend=True)
    await cluster.settle()
    await cluster.pass_time(300)
    released = cluster.condition("Released")
    assert (cluster.status()["phase"], released["status"], is_shown(cluster)) == ("Suspended", "False", 1)
    provider.set(may_deploy=True)
    await cluster.go_on(lambda: not provider.deployments.found)
    await cluster.go_on(lambda: cluster.condition("Released")["status"] == "True")
    assert is_shown(cluster) is None


async def test_a_job_can_be_let_go_though_its_deployments_stand(provider, begin):
    cluster = await begin()
    await deployed(cluster)
    provider.set(may_deploy=False)
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await cluster.pass_time(300)
    assert ABANDON_ANNOTATION in cluster.condition("Stalled")["message"]
    assert (cluster.condition("Released")["status"], is_shown(cluster)) == ("False", 1)
    annotated = cluster.kube.objects[JOB]["metadata"] | {"annotations": {ABANDON_ANNOTATION: "true"}}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=annotated)
    await cluster.settle()
    assert JOB not in cluster.kube.objects


async def test_a_deployment_that_fails_costs_the_evaluation_and_not_the_model(provider, begin):
    provider.set(fail_next_deployment="no room in the rack")
    cluster = await begin()
    await cluster.go_on(lambda: cluster.status()["phase"] == "Succeeded")
    evaluated = cluster.condition("Evaluated")
    assert (evaluated["status"], evaluated["reason"]) == ("False", "DeploymentFailed")
    assert cluster.status()["modelVersion"] == 1
    await alone(cluster, provider)


async def test_a_base_model_that_cannot_be_deployed_is_a_baseline_with_a_problem(provider, begin):
    cluster = await begin()
    provider.set(skus=frozenset())
    await deployed(cluster)
    await cluster.measure()
    found = cluster.status()["evaluation"]
    assert found["tuned"]["exactMatch"] == 1.0
    assert "deployment" in found["baselines"]["zeroShot"]["problem"]
    await alone(cluster, provider)


async def test_a_refusal_that_lasts_is_told_once_until_it_is_over(provider, begin):
    provider.set(may_deploy=False)
    cluster = await begin()
    await cluster.go_on(lambda: cluster.condition("Stalled")["status"] == "True")
    first = cluster.condition("Stalled")
    for _ in range(5):
        await cluster.pass_time(60)
        assert cluster.condition("Stalled") == first, "asking again changes nothing"
    provider.set(may_deploy=True)
    await cluster.go_on(lambda: cluster.condition("Stalled")["status"] == "False")
    assert not cluster.status().get("failure")
    await deployed(cluster)


async def test_nothing_is_waited_for_for_ever(provider, begin):
    provider.set(may_deploy=False)
    cluster = await begin()
    await cluster.go_on(lambda: cluster.status()["phase"] == "Succeeded", seconds=600)
    evaluated = cluster.condition("Evaluated")
    assert (evaluated["reason"], "after 2 hours" in evaluated["message"]) == ("CredentialsInvalid", True)


async def test_a_pod_that_nobody_places_ends_what_is_billed(provider, begin):
    cluster = await begin()
    await deployed(cluster)
    for _ in range(26):
        await cluster.pass_time(3600)
    assert cluster.status()["phase"] == "Succeeded"
    evaluated = cluster.condition("Evaluated")
    assert (evaluated["reason"], "has existed for 24 hours" in evaluated["message"]) == ("DeploymentFailed", True)
    await alone(cluster, provider)


async def test_a_budget_that_hours_have_used_up_ends_them(provider, begin):
    cluster = await begin(budget={"maxCost": "3.00"})
    await deployed(cluster)
    await cluster.pass_time(2 * 3600)
    assert cluster.condition("Evaluated")["reason"] == "BudgetExceeded"
    await alone(cluster, provider)


async def test_a_model_that_is_deployed_anyhow_is_asked_there(provider, begin):
    cluster = await begin()
    await deployed(cluster)
    await cluster.measure()
    await alone(cluster, provider)
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=SERVED)
    await cluster.settle()
    await cluster.go_on(lambda: len(provider.deployments.found) == 1)
    await cluster.pass_time(1200)
    [standing] = provider.deployments.found
    cluster.add_cloud_job("sentiment-2", dataset=DATASET)
    await cluster.settle()
    await cluster.check(cluster.content, job="sentiment-2")
    await cluster.settle()
    await cluster.pass_time(3600)
    await cluster.go_on(lambda: (JOBS, "team-a", "sentiment-2-1-eval1") in cluster.kube.objects)
    job = cluster.start_pod(job="sentiment-2")
    await cluster.settle()
    last = await cluster.ask(job)
    cluster.finish_pod(last, job="sentiment-2")
    await cluster.settle()
    versions = cluster.status(MODEL)["versions"]
    assert versions[1]["evaluation"]["baselines"]["activeVersion"]["verdict"] == "NoDifference"
    await cluster.pass_time(600)
    await cluster.pass_time(600)
    assert list(provider.deployments.found) == [standing], "it was there before, and stays"
