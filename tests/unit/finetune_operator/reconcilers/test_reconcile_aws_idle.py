"""What serves at Bedrock and SageMaker and is asked or not: by CloudWatch's figures, which moto keeps here."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.names import WAKE_ANNOTATION
from finetune_operator.providers.aws.cloudwatch import KEPT, figures, question
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from finetune_operator.runtime.queue import Key
from tests.simulators.clock import DAY, HOUR
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.decide.given import at
from tests.unit.finetune_operator.reconcilers.bedrock import BedrockCluster, client
from tests.unit.finetune_operator.reconcilers.bedrock_hosted import (
    BOUND,
    DEPLOY,
    HOURLY,
    PROVISION,
    begin,
    change,
    cluster,
    deployed,
    hosts,
    provider,
    tune,
)
from tests.unit.finetune_operator.reconcilers.cloud import go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL
from tests.unit.finetune_operator.reconcilers.sagemaker import sagemaker, serve_on, with_training_job

__all__ = ["cluster", "provider", "s3_endpoint", "start"]

IDLE = {"afterSeconds": 7200, "action": "Delete"}
PROD = Key(MODEL_DEPLOYMENTS.kind, "team-a", "prod")


def count(cluster: BedrockCluster, arn: str) -> None:
    """One request, as CloudWatch has it."""
    point = {"MetricName": "Invocations", "Dimensions": [{"Name": "ModelId", "Value": arn}], "Value": 1}
    moto = client("cloudwatch", str(cluster.provider.settings.s3_endpoint))
    moto.put_metric_data(Namespace="AWS/Bedrock", MetricData=[point | {"Timestamp": cluster.now}])


async def throughput(cluster: BedrockCluster, block: dict[str, Any]) -> str:
    """Its ARN, once it answers and CloudWatch has the operator's own question."""
    await begin(cluster, block)
    arn = await deployed(cluster, 1200)
    count(cluster, arn)
    change(cluster, bedrock=block, idle=IDLE)
    await cluster.settle()
    return arn


async def test_throughput_that_nobody_asks_is_released_and_that_which_is_asked_stays(cluster, provider):
    arn = await throughput(cluster, HOURLY)
    for _ in range(3):
        await go_on(cluster, HOUR, 600)
        count(cluster, arn)
    assert (cluster.status(DEPLOYMENT)["phase"], len(hosts(provider))) == ("Ready", 1)
    await go_on(cluster, 3 * HOUR, 600)
    assert (cluster.status(DEPLOYMENT)["phase"], hosts(provider)) == ("Idle", [])
    assert provider.count(PROVISION) == 1
    found = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]
    annotated = found["metadata"] | {"annotations": {**found["metadata"].get("annotations", {}), WAKE_ANNOTATION: "1"}}
    cluster.kube.put(MODEL_DEPLOYMENTS, {**found, "metadata": annotated})
    await cluster.settle()
    await deployed(cluster, 1200)
    assert provider.count(PROVISION) == 2, "AWS takes no token twice"


async def test_throughput_that_is_woken_is_made_anew_under_its_old_name(cluster, provider):
    await cluster.pass_time(90 * DAY)  # as below
    arn = await throughput(cluster, HOURLY)
    await go_on(cluster, 3 * HOUR, 600)
    assert (cluster.status(DEPLOYMENT)["phase"], hosts(provider)) == ("Idle", [])
    asleep = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]
    metadata = asleep["metadata"] | {"annotations": {WAKE_ANNOTATION: "again"}}
    cluster.kube.put(MODEL_DEPLOYMENTS, {**asleep, "metadata": metadata})
    await cluster.settle()
    again = await deployed(cluster, 1300)
    assert (again != arn, hosts(provider)) == (True, [again])


async def test_throughput_that_is_bound_is_warned_about_and_kept(cluster, provider):
    await cluster.pass_time(30 * DAY)  # the other tests' figures are of before: moto is theirs too
    await throughput(cluster, BOUND)
    await go_on(cluster, DAY + HOUR, 1800)
    assert cluster.condition("Idle", DEPLOYMENT)["reason"] == "BilledWhileIdle"
    assert (cluster.status(DEPLOYMENT)["phase"], len(hosts(provider))) == ("Ready", 1)


async def test_without_figures_nothing_is_stopped(cluster, provider):
    await cluster.pass_time(60 * DAY)  # as above
    await begin(cluster, HOURLY)
    await deployed(cluster, 1200)
    change(cluster, bedrock=HOURLY, idle=IDLE)
    await go_on(cluster, 6 * HOUR, 1800)
    assert cluster.condition("Idle", DEPLOYMENT)["reason"] == "UsageUnknown"
    assert len(hosts(provider)) == 1


async def test_one_on_demand_can_be_attached_and_is_never_called_billed(cluster, provider):
    spec = {"deployment": {"mode": "Manual"}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await tune(cluster, "sentiment-1")
    model = cluster.status(MODEL)["versions"][0]["artifact"]["providerModelID"]
    control = cluster.client("bedrock")
    control.create_custom_model_deployment(modelDeploymentName="by-hand", modelArn=model)
    provider.advance(HOUR)
    spec = {"modelRef": {"name": "sentiment"}, "attach": {"id": "by-hand"}}
    cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "prod", "namespace": "team-a"}, "spec": spec})
    await go_on(cluster, 300)
    status = cluster.status(PROD)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["api"]) == ("Ready", 1, "Converse")
    count(cluster, status["endpoint"]["model"])
    await go_on(cluster, 2 * DAY, 3 * HOUR)
    assert cluster.condition("Idle", PROD)["reason"] == "InUse"
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "prod")
    await cluster.settle()
    assert len(hosts(provider)) == 1
    assert provider.count(DEPLOY) == 1


async def test_an_endpoint_of_sagemaker_that_nobody_asks_goes_with_all_of_its_parts(s3_endpoint, start):
    there = sagemaker(s3_endpoint)
    made = await with_training_job(there, start(there))
    serve_on(made, instanceType="ml.g5.xlarge")
    await made.pass_time(3600)
    await go_on(made, 1800, 60)
    status = made.status(DEPLOYMENT)
    assert status["phase"] == "Ready", status
    dimensions = [{"Name": "EndpointName", "Value": status["endpoint"]["model"]}]
    dimensions.append({"Name": "VariantName", "Value": "AllTraffic"})
    point = {"MetricName": "Invocations", "Dimensions": dimensions, "Value": 1, "Timestamp": made.now}
    client("cloudwatch", s3_endpoint).put_metric_data(Namespace="AWS/SageMaker", MetricData=[point])
    spec = {"deployment": {"template": {"sageMaker": {"instanceType": "ml.g5.xlarge"}, "idle": IDLE}}}
    made.kube.change(FINE_TUNED_MODELS, "sentiment", spec=spec)
    await made.settle()
    await go_on(made, 4 * HOUR, 600)
    assert made.status(DEPLOYMENT)["phase"] == "Idle"
    assert [one for one in there.left() if one.kind != "job"] == []


WINDOWS = [(at(-3600), 300, at(-3600)), (at(-2 * DAY), 3600, at(-2 * DAY)), (at(-400 * DAY), 3600, at(0) - KEPT)]


@pytest.mark.parametrize(("since", "period", "begins"), WINDOWS)
def test_what_is_asked_of_cloudwatch_has_no_more_points_than_it_gives(
    since: datetime, period: int, begins: datetime
) -> None:
    asked = question("AWS/Bedrock", {"ModelId": "x"}, since, at(0))
    assert (asked["Period"], asked["StartTime"]) == (period, begins)
    assert (asked["EndTime"] - asked["StartTime"]).total_seconds() / period <= 1440


def test_the_last_request_is_at_the_end_of_its_span_at_most() -> None:
    points = [{"Timestamp": at(-900).astimezone(UTC), "Sum": 2.0}, {"Timestamp": at(-300), "Sum": 0.0}]
    assert figures(points, timedelta(seconds=300), at(0)).last == at(-600)
    assert figures(points, timedelta(hours=1), at(0)).last == at(0)
    assert figures([], timedelta(hours=1), at(0)).last is None
