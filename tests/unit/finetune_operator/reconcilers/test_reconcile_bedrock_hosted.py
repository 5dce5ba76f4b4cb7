"""Deployments at Bedrock, on demand and provisioned: made once, new before old, asked before they count, then gone."""

from collections.abc import Callable

import pytest

from finetune_api.names import ABANDON_ANNOTATION, PROVIDER_FINALIZER
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.clock import DAY, HOUR
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.bedrock import BedrockCluster
from tests.unit.finetune_operator.reconcilers.bedrock_hosted import (
    BOUND,
    DEPLOY,
    HOURLY,
    PROVISION,
    RELEASE,
    UNDEPLOY,
    begin,
    change,
    cluster,
    deployed,
    hosts,
    provider,
    tune,
)
from tests.unit.finetune_operator.reconcilers.cloud import delete, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT

__all__ = ["cluster", "provider", "s3_endpoint", "start"]

ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "sentiment")
ALWAYS = 10_000


async def until(cluster: BedrockCluster, is_so: Callable[[], bool]) -> None:
    for _ in range(60):
        if is_so():
            return
        await cluster.pass_time(60)
    raise AssertionError(cluster.status(DEPLOYMENT))


def answer(cluster: BedrockCluster, arn: str) -> str:
    messages = [{"role": "user", "content": [{"text": "question 3"}]}]
    reply = cluster.client("bedrock-runtime").converse(modelId=arn, messages=messages)
    return str(reply["output"]["message"]["content"][0]["text"])


async def test_a_version_answers_on_demand_and_costs_nothing_by_the_hour(cluster, provider):
    await begin(cluster)
    assert cluster.kube.objects[ADDRESS]["metadata"]["finalizers"] == [PROVIDER_FINALIZER]
    await go_on(cluster, 240)
    assert cluster.status(DEPLOYMENT)["phase"] == "Deploying"
    arn = await deployed(cluster)
    status = cluster.status(DEPLOYMENT)
    assert (hosts(provider), status["servedVersion"], status["engine"]) == ([arn], 1, "Bedrock")
    assert (status["cost"]["display"], "perHour" in status["cost"]) == ("by tokens", False)
    assert status["cost"]["answers"].startswith("no price is known of its answers, which are billed by tokens")
    assert status["endpoint"] == {"url": cluster.url, "model": arn, "api": "Converse"}
    assert (provider.count(DEPLOY), answer(cluster, arn)) == (1, "sentiment-1 says 3")


async def test_one_on_demand_that_is_retained_is_not_said_to_be_billed_by_the_hour(cluster, provider):
    await begin(cluster)
    arn = await deployed(cluster)
    spec = cluster.kube.objects[ADDRESS]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "deletionPolicy": "Retain"})
    await delete(cluster)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [arn])
    [left] = [note for note in cluster.notes if note.startswith("left at the provider")]
    assert left.endswith("which is not billed by the hour")


async def test_what_answers_cost_is_written_once(cluster):
    await begin(cluster)
    await deployed(cluster)
    await go_on(cluster, 600)
    status, before = cluster.status(DEPLOYMENT), cluster.kube.asked("patch_status", "modeldeployments")
    for _ in range(5):
        cluster.wake(DEPLOYMENT)
        await cluster.settle()
        assert cluster.status(DEPLOYMENT) == status
    assert cluster.kube.asked("patch_status", "modeldeployments") == before


async def test_provisioned_throughput_has_its_price(cluster, provider):
    await begin(cluster, HOURLY)
    arn = await deployed(cluster, 1200)
    assert ":provisioned-model/" in arn
    await go_on(cluster, 2 * HOUR, 600)
    cost = cluster.status(DEPLOYMENT)["cost"]
    assert (cost["perHour"], float(cost["sinceDeployed"]) > 48) == ("24.00", True)
    assert "answers" not in cost, "its hours are billed, whatever it is asked"
    assert (provider.count(PROVISION), answer(cluster, arn)) == (1, "sentiment-1 says 3")


async def test_it_is_ready_when_it_answers_and_not_when_bedrock_says_so(cluster, provider):
    await begin(cluster)
    provider.fault("Converse", times=ALWAYS, status=429, code="ModelNotReadyException")
    await go_on(cluster, 420)
    assert [one.status for one in provider.account.deployments.values()] == ["Active"]
    assert cluster.status(DEPLOYMENT)["phase"] == "Deploying"
    assert "exists at the provider, and does not answer yet" in cluster.condition("Ready", DEPLOYMENT)["message"]
    provider.faults.clear()
    await deployed(cluster, 300)


@pytest.mark.alike
@pytest.mark.parametrize("block", [None, HOURLY], ids=["on demand", "provisioned"])
async def test_a_new_version_answers_before_the_old_one_is_deleted(cluster, provider, block):
    await begin(cluster, block)
    first = await deployed(cluster, 1200)
    await tune(cluster, "sentiment-2")
    await go_on(cluster, 120)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["model"]) == ("Updating", 1, first)
    assert answer(cluster, first) == "sentiment-1 says 3"
    second = await deployed(cluster, 1200)
    assert answer(cluster, second) == "sentiment-2 says 3"
    assert hosts(provider) == [second]


@pytest.mark.alike
@pytest.mark.parametrize("block", [None, HOURLY], ids=["on demand", "provisioned"])
async def test_going_back_to_an_earlier_version_deploys_it_anew(cluster, provider, block):
    await begin(cluster, block)
    await deployed(cluster, 1200)
    await tune(cluster, "sentiment-2")
    await go_on(cluster, 1300)
    assert cluster.status(DEPLOYMENT)["servedVersion"] == 2
    model = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={**model["spec"], "activeVersion": 1})
    await cluster.settle()
    arn = await deployed(cluster, 1300)
    assert (cluster.status(DEPLOYMENT)["servedVersion"], answer(cluster, arn)) == (1, "sentiment-1 says 3")
    assert hosts(provider) == [arn]


async def test_another_kind_of_the_same_version_answers_before_the_first_goes(cluster, provider):
    await begin(cluster)
    first = await deployed(cluster)
    change(cluster, bedrock=HOURLY)
    await cluster.settle()
    await go_on(cluster, 300)
    assert cluster.status(DEPLOYMENT)["endpoint"]["model"] == first
    second = await deployed(cluster, 900)
    assert (hosts(provider), ":provisioned-model/" in second) == ([second], True)


async def test_a_list_that_lags_makes_no_second_one(cluster, provider):
    provider.set(list_lag_seconds=90)
    await begin(cluster, HOURLY)
    await deployed(cluster, 1320)
    assert len(hosts(provider)) == 1


async def test_a_region_without_deployments_on_demand_has_throughput(cluster, provider):
    for operation in ("ListCustomModelDeployments", DEPLOY, UNDEPLOY):
        provider.fault(operation, status=404, code="UnknownOperationException", times=ALWAYS)
    await begin(cluster, HOURLY)
    await deployed(cluster, 1200)
    await delete(cluster)
    await go_on(cluster, 300)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])


@pytest.mark.parametrize("status", [404, 400])
async def test_a_list_that_is_not_there_for_another_reason_ends_nothing(cluster, provider, status):
    """Of a proxy, say: what nobody sees is not gone."""
    await begin(cluster)
    await deployed(cluster)
    provider.fault("ListCustomModelDeployments", status=status, code="NotFound", times=ALWAYS)
    await delete(cluster)
    await go_on(cluster, 600)
    assert (ADDRESS in cluster.kube.objects, len(hosts(provider))) == (True, 1)


@pytest.mark.parametrize("block", [None, HOURLY], ids=["on demand", "provisioned"])
async def test_what_stands_is_called_by_its_arn(cluster, provider, block):
    """A list tells it; not everybody who has this API looks names up."""
    for operation in ("GetCustomModelDeployment", "GetProvisionedModelThroughput"):
        provider.fault(operation, status=404, code="ResourceNotFoundException", times=ALWAYS)
    await begin(cluster, block)
    await deployed(cluster, 1200)
    await delete(cluster)
    await go_on(cluster, 300)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])


@pytest.mark.alike
@pytest.mark.parametrize("block", [None, HOURLY], ids=["on demand", "provisioned"])
async def test_going_back_to_what_is_being_deleted_has_the_other_one_answer_meanwhile(cluster, provider, block):
    provider.set(delete_seconds=240)
    await begin(cluster, block)
    first = await deployed(cluster, 1200)
    await tune(cluster, "sentiment-2")
    await until(cluster, lambda: provider.count(UNDEPLOY) + provider.count(RELEASE) == 1)
    assert cluster.status(DEPLOYMENT)["servedVersion"] == 2
    second = cluster.status(DEPLOYMENT)["endpoint"]["model"]
    model = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={**model["spec"], "activeVersion": 1})
    await cluster.settle()

    def is_back() -> bool:
        status = cluster.status(DEPLOYMENT)
        if status["servedVersion"] == 2:
            assert cluster.condition("Stalled", DEPLOYMENT)["status"] == "False"
            assert (status["endpoint"]["model"], answer(cluster, second)) == (second, "sentiment-2 says 3")
        return status["servedVersion"] == 1

    await until(cluster, is_back)
    third = await deployed(cluster, 600)
    assert (cluster.status(DEPLOYMENT)["servedVersion"], third != first, hosts(provider)) == (1, True, [third])


async def test_a_deletion_that_takes_its_time_is_no_alarm(cluster, provider):
    """It is asked for again, and that is a conflict."""
    provider.set(delete_seconds=240)
    await begin(cluster, HOURLY)
    await deployed(cluster, 1200)
    await delete(cluster)
    for _ in range(3):
        assert cluster.condition("Stalled", DEPLOYMENT)["status"] == "False"
        await go_on(cluster, 60)
    await go_on(cluster, 180)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])


async def test_a_deletion_that_takes_for_ever_has_a_way_out(cluster, provider):
    provider.set(delete_seconds=DAY)
    await begin(cluster, HOURLY)
    await deployed(cluster, 1200)
    await delete(cluster)
    await go_on(cluster, HOUR + 60)
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["reason"], ABANDON_ANNOTATION in stalled["message"]) == ("ProviderBusy", True)


async def test_one_that_was_made_after_a_long_wait_and_does_not_show_yet_is_not_left_behind(cluster, provider):
    provider.set(units_without_commitment=0, list_lag_seconds=90)
    await begin(cluster, HOURLY)
    await go_on(cluster, 1200, 300)
    provider.set(units_without_commitment=2)
    await cluster.pass_time(300)
    assert len(hosts(provider)) == 1
    await delete(cluster)
    await go_on(cluster, 600)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])


async def test_units_that_the_account_may_not_have_are_said(cluster, provider):
    provider.set(units_without_commitment=0)
    await begin(cluster, HOURLY)
    await go_on(cluster, 120)
    assert cluster.condition("Stalled", DEPLOYMENT)["reason"] == "QuotaExceeded"


@pytest.mark.alike
@pytest.mark.parametrize("block", [None, HOURLY], ids=["on demand", "provisioned"])
async def test_deleting_the_object_ends_the_bill(cluster, provider, block):
    await begin(cluster, block)
    await deployed(cluster, 1200)
    await delete(cluster)
    for _ in range(15):
        if ADDRESS in cluster.kube.objects:
            said = cluster.condition("Reconciling", DEPLOYMENT)["message"]
            assert said.startswith("being deleted at the provider: team-a-sentiment-"), "it is asked again, and goes"
            await cluster.pass_time(20)
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [])
    arns = [name for name in provider.account.tags if ":provisioned-model/" in name]
    before = [provider.cost(arn) for arn in arns]
    provider.advance(DAY)
    assert [provider.cost(arn) for arn in arns] == before


async def test_a_commitment_is_said_to_go_on_and_the_object_can_be_let_go(cluster, provider):
    await begin(cluster, BOUND)
    arn = await deployed(cluster, 1200)
    await delete(cluster)
    await go_on(cluster, 300)
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["reason"], "commitment" in stalled["message"]) == ("ProviderBusy", True)
    assert ABANDON_ANNOTATION in stalled["message"]
    found = cluster.kube.objects[ADDRESS]
    annotated = found["metadata"] | {"annotations": {ABANDON_ANNOTATION: "true"}}
    cluster.kube.put(MODEL_DEPLOYMENTS, {**found, "metadata": annotated})
    await cluster.settle()
    assert (ADDRESS in cluster.kube.objects, hosts(provider)) == (False, [arn])
    assert ("ModelDeployment", "Warning", "Abandoned") in cluster.told


async def test_a_new_version_answers_though_the_old_one_is_bound(cluster, provider):
    await begin(cluster, BOUND)
    first = await deployed(cluster, 1200)
    await tune(cluster, "sentiment-2")
    await go_on(cluster, 1200)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["model"] != first) == ("Ready", 2, True)
    assert float(status["cost"]["perHour"]) == 42
    assert "is billed, until 20" in cluster.condition("Ready", DEPLOYMENT)["message"]
    assert provider.count(RELEASE, committed=False) == 0
    provider.advance(31 * DAY)
    await cluster.wait(31 * DAY)
    await go_on(cluster, 120)
    assert len(hosts(provider)) == 1


async def test_a_model_is_deleted_after_what_serves_it(cluster, provider):
    await begin(cluster)
    await deployed(cluster)
    cluster.kube.put(
        FINE_TUNED_MODELS,
        {**cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"], "spec": {"historyLimit": 1}},
    )
    await tune(cluster, "sentiment-2")
    await go_on(cluster, 900)
    assert [model.job for model in provider.account.models.values()] == [cluster.jobs()[1]]
    assert len(hosts(provider)) == 1
