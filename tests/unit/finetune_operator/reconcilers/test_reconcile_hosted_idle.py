"""Deployments at Azure OpenAI that nobody asks: measured by Azure's own figures, warned about, deleted, woken."""

from decimal import Decimal
from typing import Any

import pytest

from finetune_api.names import WAKE_ANNOTATION
from finetune_operator.reconcilers.object_metrics import register_object_metrics
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from finetune_operator.runtime.metrics import REGISTRY
from tests.simulators.azure import AzureSimulator
from tests.simulators.clock import DAY, HOUR
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, go_on, rows
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.hosted import (
    ADDRESS,
    PUT,
    deployed,
    hosts,
    provider,
    tune,
    with_model,
)

__all__ = ["provider", "start"]

WARNED, UNTOLD = (("ModelDeployment", "Warning", reason) for reason in ("BilledWhileIdle", "UsageUnknown"))
IDLE = {"afterSeconds": 7200, "action": "Delete"}


@pytest.fixture
async def cluster(provider: AzureSimulator, start: Any) -> AzureCluster:
    """With a model whose first version answers."""
    made = await with_model(provider, start(provider))
    await tune(made, "sentiment-1")
    await deployed(made)
    return made


async def change(cluster: AzureCluster, **fields: Any) -> None:
    found = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["spec"]
    template = {"azureOpenAI": {"sku": "Standard"}} | fields
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={**found, "deployment": {"template": template}})
    await cluster.settle()


async def wake(cluster: AzureCluster, value: str) -> None:
    found = cluster.kube.objects[ADDRESS]
    annotations = {**found["metadata"].get("annotations", {}), WAKE_ANNOTATION: value}
    cluster.kube.put(MODEL_DEPLOYMENTS, {**found, "metadata": {**found["metadata"], "annotations": annotations}})
    await cluster.settle()


def ask(provider: AzureSimulator) -> None:
    provider.deployments.use(hosts(provider)[0])


def told_by_metric(name: str, **labels: str) -> float | None:
    of = {"deployment_namespace": "team-a", "deployment": "sentiment"}
    return REGISTRY.get_sample_value(f"finetune_deployment_{name}", of | labels)


async def test_one_that_is_asked_now_and_then_is_in_use(cluster, provider):
    await change(cluster, idle=IDLE)
    for _ in range(6):
        ask(provider)
        await go_on(cluster, HOUR, 600)
    condition = cluster.condition("Idle", DEPLOYMENT)
    assert (condition["status"], condition["reason"]) == ("False", "InUse")
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    assert len(hosts(provider)) == 1


async def test_one_that_nobody_asks_is_deleted_and_billed_no_more(cluster, provider):
    await change(cluster, idle=IDLE)
    await go_on(cluster, 2 * HOUR, 600)
    assert len(hosts(provider)) == 1, "the figures are late: what they do not show yet is waited for"
    await go_on(cluster, HOUR, 600)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status.get("servedVersion"), hosts(provider)) == ("Idle", None, [])
    assert cluster.condition("Ready", DEPLOYMENT)["reason"] == "Idle"
    assert WAKE_ANNOTATION in cluster.condition("Ready", DEPLOYMENT)["message"]
    assert ("ModelDeployment", "Normal", "Idle") in cluster.told
    bill = provider.cost()
    await go_on(cluster, DAY, 3600)
    assert (provider.cost(), provider.count(PUT), cluster.status(DEPLOYMENT)["phase"]) == (bill, 1, "Idle")
    assert cluster.status(DEPLOYMENT)["cost"]["perHour"] == "0.00"


async def test_it_stays_asleep_over_a_new_operator_and_wakes_by_the_annotation(cluster, provider):
    await change(cluster, idle=IDLE)
    await go_on(cluster, 3 * HOUR, 600)
    assert hosts(provider) == []
    await cluster.aclose()
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()
    await go_on(cluster, HOUR, 600)
    assert provider.count(PUT) == 1
    await wake(cluster, "1")
    assert cluster.status(DEPLOYMENT)["phase"] == "Deploying"
    await deployed(cluster)
    assert (provider.count(PUT), cluster.status(DEPLOYMENT)["servedVersion"]) == (2, 1)
    await go_on(cluster, HOUR, 600)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready", "its time begins again"
    await go_on(cluster, 2 * HOUR, 600)
    assert cluster.status(DEPLOYMENT)["phase"] == "Idle", "the same annotation wakes it once"


async def test_a_changed_spec_wakes_it(cluster):
    await change(cluster, idle=IDLE)
    await go_on(cluster, 3 * HOUR, 600)
    await change(cluster, idle={**IDLE, "afterSeconds": 86400})
    await deployed(cluster)
    assert "asleep" not in cluster.status(DEPLOYMENT)


async def test_what_cannot_be_known_is_not_taken_for_idle(cluster, provider):
    provider.set(may_read_metrics=False)
    await change(cluster, idle=IDLE)
    await go_on(cluster, 6 * HOUR, 600)
    condition = cluster.condition("Idle", DEPLOYMENT)
    assert (condition["status"], condition["reason"]) == ("Unknown", "UsageUnknown")
    assert "Monitoring Reader" in condition["message"]
    assert (cluster.status(DEPLOYMENT)["phase"], len(hosts(provider))) == ("Ready", 1)
    register_object_metrics(cluster.store)
    assert (cluster.told.count(UNTOLD), told_by_metric("billed_while_idle")) == (0, 0)
    await go_on(cluster, 20 * HOUR, 1800)
    assert (cluster.told.count(UNTOLD), told_by_metric("billed_while_idle")) == (1, 1)
    assert "1.70 USD an hour" in cluster.condition("Idle", DEPLOYMENT)["message"]


async def test_figures_that_have_never_shown_the_operators_own_question_are_not_believed(cluster, provider):
    provider.deployments.asked.clear()
    kept = {key: value for key, value in cluster.status(DEPLOYMENT).items() if key != "usage"}
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status=kept)
    await change(cluster, idle=IDLE)
    await go_on(cluster, 6 * HOUR, 600)
    assert cluster.condition("Idle", DEPLOYMENT)["status"] == "Unknown"
    assert len(hosts(provider)) == 1


async def test_one_that_is_billed_and_not_asked_for_a_day_is_warned_about_once_a_day(cluster, provider):
    await go_on(cluster, 20 * HOUR, 1800)
    assert WARNED not in cluster.told
    await go_on(cluster, 6 * HOUR, 1800)
    condition = cluster.condition("Idle", DEPLOYMENT)
    assert (condition["status"], condition["reason"]) == ("True", "BilledWhileIdle")
    assert "1.70 USD an hour" in condition["message"]
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    assert cluster.told.count(WARNED) == 1
    register_object_metrics(cluster.store)
    assert told_by_metric("billed_while_idle") == 1
    assert told_by_metric("cost_per_hour", currency="USD") == 1.7
    await go_on(cluster, 25 * HOUR, 1800)
    assert cluster.told.count(WARNED) == 2
    assert cluster.condition("Idle", DEPLOYMENT)["message"] == condition["message"], "stable, or Events would pile up"
    ask(provider)
    await go_on(cluster, HOUR, 600)
    assert cluster.condition("Idle", DEPLOYMENT)["status"] == "False"


async def test_one_that_costs_nothing_is_not_warned_about(cluster):
    cluster.catalogue.of("azureOpenAI").hosting["Standard"] = "0"
    await go_on(cluster, 26 * HOUR, 1800)
    assert cluster.condition("Idle", DEPLOYMENT)["status"] == "False"
    assert WARNED not in cluster.told


async def test_what_it_has_cost_is_the_providers_bill_over_new_versions_and_sleep(cluster, provider):
    await go_on(cluster, 10 * HOUR, 1800)
    cluster.add_cloud_job("sentiment-2")
    await tune(cluster, "sentiment-2")
    await deployed(cluster)
    await change(cluster, idle=IDLE)
    await go_on(cluster, 5 * HOUR, 600)
    assert cluster.status(DEPLOYMENT)["phase"] == "Idle"
    hosting = sum(line.amount for line in provider.ledger.lines() if line.what == "hosting")
    told = Decimal(cluster.status(DEPLOYMENT)["cost"]["sinceDeployed"])
    assert hosting > 20
    assert abs(told - hosting) < Decimal("1.70"), "an estimate, good to an hour"


async def test_one_that_is_woken_before_it_was_deleted_does_not_fall_asleep_again_at_once(cluster, provider):
    """To be brought back counts as a request, and figures of long ago do not stop it for another time."""
    await change(cluster, idle=IDLE)
    provider.set(may_deploy=False)
    await go_on(cluster, 4 * HOUR, 600)
    assert (cluster.status(DEPLOYMENT).get("asleep") is None, len(hosts(provider))) == (False, 1)
    await wake(cluster, "now")
    await go_on(cluster, HOUR, 600)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status.get("asleep"), len(hosts(provider))) == ("Ready", None, 1)
    provider.set(may_deploy=True)
    await go_on(cluster, 2 * HOUR, 600)
    assert (cluster.status(DEPLOYMENT)["phase"], hosts(provider)) == ("Idle", [])


@pytest.fixture(params=[-3 * HOUR, -120, 3 * HOUR], ids="{:+.0f} s".format)
def wrong_clock(request: Any, provider: AzureSimulator) -> None:
    """Azure takes tokens and no signatures: its clock may be any."""
    provider.clock.now += request.param


@pytest.mark.alike
@pytest.mark.usefixtures("wrong_clock")
async def test_whatever_the_providers_clock_what_is_asked_stays_and_what_is_not_goes_in_its_time(cluster, provider):
    await change(cluster, idle=IDLE)
    for _ in range(5):
        ask(provider)
        await go_on(cluster, HOUR, 600)
        assert cluster.condition("Idle", DEPLOYMENT)["reason"] == "InUse"
    ask(provider)
    await go_on(cluster, 2 * HOUR, 600)
    assert len(hosts(provider)) == 1
    await go_on(cluster, HOUR, 600)
    assert (cluster.status(DEPLOYMENT)["phase"], hosts(provider)) == ("Idle", [])


async def test_what_nobody_looks_at_meanwhile_is_neither_in_use_nor_forgotten(cluster, provider):
    """With a spec that is wrong it stands, and is billed."""
    await change(cluster, idle=IDLE)
    ask(provider)
    await go_on(cluster, HOUR, 600)
    before = cluster.status(DEPLOYMENT)["usage"]
    await change(cluster, idle=IDLE | {"action": "ScaleToZero"})
    assert cluster.condition("Stalled", DEPLOYMENT)["reason"] == "SpecInvalid"
    condition = cluster.condition("Idle", DEPLOYMENT)
    assert (condition["status"], condition["reason"]) == ("Unknown", "UsageUnknown")
    assert "its provider is not asked meanwhile" in condition["message"]
    assert cluster.status(DEPLOYMENT)["usage"] == before
    assert len(hosts(provider)) == 1


async def test_what_answers_until_a_new_version_does_is_looked_at_warned_about_and_kept(cluster, provider):
    """A version that fails leaves it as it is for days, and billed."""
    await change(cluster, idle=IDLE)
    old = hosts(provider)[0]
    provider.set(fail_next_deployment="no room", deploy_seconds=300)
    cluster.add_cloud_job("sentiment-2")
    await tune(cluster, "sentiment-2")
    await go_on(cluster, 3 * HOUR, 600)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["usage"]["deployment"]) == ("Degraded", 1, old)
    condition = cluster.condition("Idle", DEPLOYMENT)
    assert (condition["status"], condition["reason"]) == ("True", "Idle")
    await go_on(cluster, DAY, 3600)
    assert cluster.condition("Idle", DEPLOYMENT)["reason"] == "BilledWhileIdle"
    assert WARNED in cluster.told
    assert old in hosts(provider)


async def test_a_new_version_of_what_sleeps_is_billed_from_when_it_is_woken_on(cluster, provider):
    await change(cluster, idle=IDLE)
    await go_on(cluster, 3 * HOUR, 600)
    assert hosts(provider) == []
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(b"\xef\xbb\xbf" + rows(), job="sentiment-2")
    await cluster.settle()
    await go_on(cluster, 2 * HOUR, 600)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], provider.count(PUT), hosts(provider)) == ("Idle", 1, [])
    await wake(cluster, "1")
    await deployed(cluster)
    assert (cluster.status(DEPLOYMENT)["servedVersion"], len(hosts(provider))) == (2, 1)


async def test_a_new_version_that_comes_while_the_old_one_falls_asleep_leaves_none_standing(cluster, provider):
    await change(cluster, idle=IDLE)
    await go_on(cluster, 2 * HOUR + 1200, 600)
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(b"\xef\xbb\xbf" + rows(), job="sentiment-2")
    await cluster.settle()
    await go_on(cluster, 6 * HOUR, 300)
    assert (cluster.status(DEPLOYMENT)["phase"], hosts(provider)) == ("Idle", [])
    assert provider.count(PUT) <= 2
