"""What somebody makes of an endpoint at SageMaker, beside the operator: told, and mended when that is asked."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS
from tests.simulators.clock import HOUR
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.sagemaker import SageMakerSimulator
from tests.unit.finetune_operator.providers.strange import SECRETS, aws, hosting, sagemaker
from tests.unit.finetune_operator.reconcilers.bedrock import client
from tests.unit.finetune_operator.reconcilers.cloud import go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL
from tests.unit.finetune_operator.reconcilers.sagemaker import (
    IMAGE,
    SageMakerCluster,
    provider,
    serve_on,
    with_training_job,
)

__all__ = ["provider", "s3_endpoint", "start"]

ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "sentiment")
CREATE = "CreateEndpoint"


@pytest.fixture
async def cluster(provider: SageMakerSimulator, start: Any) -> SageMakerCluster:
    """With an endpoint that answers."""
    made = await with_training_job(provider, start(provider))
    serve_on(made, instanceType="ml.g5.xlarge")
    await made.pass_time(HOUR)
    await go_on(made, 480)
    assert made.status(DEPLOYMENT)["phase"] == "Ready"
    return made


def name(cluster: SageMakerCluster) -> str:
    return str(cluster.status(DEPLOYMENT)["endpoint"]["model"])


def variants_of(*variants: dict[str, Any]) -> list[dict[str, Any]]:
    initial = {"InitialInstanceCount": 1, "InstanceType": "ml.g5.xlarge"}
    return [{"VariantName": f"v{number}"} | initial | one for number, one in enumerate(variants)]


def update(provider: SageMakerSimulator, endpoint: str, *variants: dict[str, Any]) -> None:
    """Somebody gives it a configuration of his own, whose name is theirs."""
    shown = variants_of(*(one | {"ModelName": one["ModelName"] or "theirs"} for one in variants))
    provider.hosting.create_config({"EndpointConfigName": "theirs", "ProductionVariants": shown})
    provider.hosting.update_endpoint({"EndpointName": endpoint, "EndpointConfigName": "theirs"})


@pytest.fixture
def standing(provider: SageMakerSimulator) -> SageMakerSimulator:
    """With an endpoint as the operator makes it."""
    provider.set(access_keys={"AKIASTRANGE": SECRETS[2]})
    their_model(provider, "s3://ours/model/", "md-v1")
    provider.hosting.create_config({"EndpointConfigName": "md-v1", "ProductionVariants": variants_of(OURS)})
    provider.hosting.create_endpoint({"EndpointName": "md-v1", "EndpointConfigName": "md-v1"})
    provider.advance(HOUR)
    return provider


async def details(url: str) -> Hosted:
    """Of md-v1, as the operator reads them."""
    api = sagemaker(url)
    found: Hosted = await hosting(api).details(Hosted("md-v1", "Ready"))
    await api.close()
    return found


def their_model(provider: SageMakerSimulator, weights: str, name: str = "theirs") -> None:
    source = {"S3DataSource": {"S3Uri": weights, "S3DataType": "S3Prefix", "CompressionType": "None"}}
    provider.hosting.create_model({"ModelName": name, "PrimaryContainer": {"ModelDataSource": source}})


def scale(provider: SageMakerSimulator, endpoint: str, count: int) -> None:
    desired = [{"VariantName": "AllTraffic", "DesiredInstanceCount": count}]
    provider.hosting.scale_endpoint({"EndpointName": endpoint, "DesiredWeightsAndCapacities": desired})


async def ask_again(cluster: SageMakerCluster) -> None:
    spec = cluster.kube.objects[ADDRESS]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "retryNonce": "again"})
    await go_on(cluster, 1200)


def other_weights(provider: SageMakerSimulator, endpoint: str) -> str:
    their_model(provider, "s3://theirs/model/")
    update(provider, endpoint, {"ModelName": "theirs"})
    return "serves s3://theirs/model at the provider, not s3://"


def to_zero(provider: SageMakerSimulator, endpoint: str) -> str:
    scale(provider, endpoint, 0)
    return "has no instance left at the provider: somebody has scaled it to zero there"


@pytest.mark.alike
@pytest.mark.parametrize("edit", [other_weights, to_zero])
async def test_one_that_does_not_serve_its_version_any_more_is_told_and_made_anew_when_that_is_asked(
    provider: SageMakerSimulator, cluster: SageMakerCluster, edit: Callable[[SageMakerSimulator, str], str]
) -> None:
    endpoint = name(cluster)
    said = edit(provider, endpoint)
    await go_on(cluster, 1300, 650)
    stalled, status = cluster.condition("Stalled", DEPLOYMENT), cluster.status(DEPLOYMENT)
    assert (status["phase"], stalled["reason"]) == ("Failed", "DeploymentFailed")
    assert status.get("servedVersion") is None
    assert said in stalled["message"]
    assert stalled["message"].endswith("; change spec.retryNonce to have it recreated.")
    assert provider.count(CREATE) == 1
    await ask_again(cluster)
    assert (cluster.status(DEPLOYMENT)["phase"], provider.count(CREATE)) == ("Ready", 2)
    assert provider.hosting.endpoints[endpoint].config == endpoint
    assert cluster.status(DEPLOYMENT)["servedVersion"] == 1


async def test_other_instances_are_told_with_their_price_and_left_until_that_is_asked(provider, cluster):
    endpoint = name(cluster)
    update(provider, endpoint, {"ModelName": endpoint, "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 2})
    await go_on(cluster, 1300, 650)
    status, ready = cluster.status(DEPLOYMENT), cluster.condition("Ready", DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["cost"]["perHour"]) == ("Ready", 1, "3.04")
    said = "; at the provider it is ml.g5.2xlarge x 2, not ml.g5.xlarge x 1"
    assert ready["message"].endswith(f"{said}: change spec.retryNonce to have it deleted and recreated")
    await ask_again(cluster)
    assert (cluster.status(DEPLOYMENT)["cost"]["perHour"], provider.count(CREATE)) == ("1.41", 2)


OURS = {"ModelName": "md-v1"}
SHOWN: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "as made": ([OURS], {"model": "s3://ours/model", "sku": "ml.g5.xlarge", "units": 1}),
    "beside others": (
        [OURS, {"ModelName": "theirs", "InstanceType": "ml.g5.2xlarge"}],
        {"model": "s3://ours/model and s3://theirs/model", "sku": "ml.g5.2xlarge and ml.g5.xlarge", "units": 2},
    ),
    "twice": ([OURS, OURS], {"model": "s3://ours/model", "units": 2}),
    "inference components": ([{"ModelName": None}], {"model": "inference components"}),
    "without servers": ([OURS | {"InstanceType": None}], {"sku": "", "units": 1, "terms": ""}),
}


@pytest.mark.parametrize("name", SHOWN)
async def test_what_an_endpoint_stands_on_is_read(standing: SageMakerSimulator, start: Any, name: str) -> None:
    (variants, expected), provider = SHOWN[name], standing
    their_model(provider, "s3://theirs/model/")
    update(provider, "md-v1", *variants)
    provider.advance(HOUR)
    shown_variants = provider.hosting.configs["theirs"].request["ProductionVariants"]
    for one, asked in zip(shown_variants, variants, strict=True):
        for field in [field for field in asked if asked[field] is None]:
            del one[field]
    shown = asdict(await details(start(provider)))
    assert {field: shown[field] for field in expected} == expected


async def test_a_configuration_that_is_gone_tells_no_more_than_whose_it_was(
    standing: SageMakerSimulator, start: Any
) -> None:
    update(standing, "md-v1", OURS)
    standing.advance(HOUR)
    standing.hosting.delete_config({"EndpointConfigName": "theirs"})
    assert (await details(start(standing))).model == "endpoint configuration theirs"


async def test_who_asks_any_variant_has_asked_the_endpoint(
    standing: SageMakerSimulator, start: Any, s3_endpoint: str
) -> None:
    update(standing, "md-v1", OURS, OURS)
    standing.advance(HOUR)
    now = datetime.now(UTC)
    dimensions = [{"Name": "EndpointName", "Value": "md-v1"}, {"Name": "VariantName", "Value": "v1"}]
    point = {"MetricName": "Invocations", "Dimensions": dimensions, "Value": 1, "Timestamp": now - timedelta(hours=1)}
    client("cloudwatch", s3_endpoint).put_metric_data(Namespace="AWS/SageMaker", MetricData=[point])
    url = start(standing)
    endpoints = {"control": url, "runtime": url, "s3": s3_endpoint, "cloudwatch": s3_endpoint}
    api = aws(url, "sageMaker", trainerImage=IMAGE, instanceTypes=["ml.g5.xlarge"], endpoints=endpoints)
    found = await hosting(api).usage(Hosted("md-v1", "Ready"), now - timedelta(hours=3), now)
    await api.close()
    assert found.last is not None


async def test_more_instances_cost_more_and_none_cost_nothing(provider, cluster):
    endpoint = name(cluster)
    for count, price in ((3, "4.23"), (0, "0.00")):
        scale(provider, endpoint, count)
        await go_on(cluster, 1300, 650)
        assert cluster.status(DEPLOYMENT)["cost"]["perHour"] == price


async def test_its_own_configuration_and_model_may_go_while_it_lives(provider, cluster):
    endpoint = name(cluster)
    provider.hosting.delete_model({"ModelName": endpoint})
    await go_on(cluster, 1300, 650)
    provider.hosting.delete_config({"EndpointConfigName": endpoint})
    await go_on(cluster, 1300, 650)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["cost"]["perHour"]) == ("Ready", 1, "1.41")
    assert "at the provider it is" not in cluster.condition("Ready", DEPLOYMENT)["message"]


async def test_who_may_not_look_is_told_nothing_and_serves_on(provider, cluster):
    their_model(provider, "s3://theirs/model/")
    update(provider, name(cluster), {"ModelName": "theirs"})
    provider.fault("DescribeModel", status=400, code="AccessDeniedException", times=99)
    await go_on(cluster, 1300, 650)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"


async def test_a_wish_for_another_one_that_was_met_already_is_not_kept_for_a_later_day(provider, cluster):
    await ask_again(cluster)
    update(provider, name(cluster), {"ModelName": name(cluster), "InstanceType": "ml.g5.2xlarge"})
    await go_on(cluster, 1300, 650)
    provider.hosting.delete_endpoint({"EndpointName": name(cluster)})
    await go_on(cluster, 1300, 650)
    assert (cluster.condition("Stalled", DEPLOYMENT)["reason"], provider.count(CREATE)) == ("Expired", 1)


async def test_an_earlier_version_that_was_changed_does_not_answer_meanwhile(provider, cluster):
    endpoint = name(cluster)
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await cluster.settle()
    provider.set(fail_next_endpoint="no room")
    await cluster.pass_time(HOUR)
    await go_on(cluster, 480)
    assert (cluster.status(DEPLOYMENT)["phase"], cluster.status(DEPLOYMENT)["servedVersion"]) == ("Degraded", 1)
    other_weights(provider, endpoint)
    await go_on(cluster, 1300, 650)
    assert cluster.status(MODEL)["activeVersion"] == 2
    assert (cluster.status(DEPLOYMENT)["phase"], cluster.status(DEPLOYMENT).get("servedVersion")) == ("Failed", None)
