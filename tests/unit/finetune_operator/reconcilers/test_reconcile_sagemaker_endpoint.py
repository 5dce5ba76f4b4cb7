"""Endpoints at SageMaker: made once, new before old, asked before they count, and nothing left of them in the end."""

import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from finetune_api.names import SERVE_FLAGS_VARIABLE
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from finetune_operator.runtime.queue import Key
from finetune_trainer.__main__ import parser
from tests.simulators.clock import HOUR
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.http import ApiError, Reply
from tests.simulators.sagemaker import SageMakerSimulator
from tests.unit.finetune_operator.reconcilers.cloud import attach, delete, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL
from tests.unit.finetune_operator.reconcilers.sagemaker import (
    BASE,
    IMAGE,
    ROLE,
    SageMakerCluster,
    provider,
    serve_on,
    with_training_job,
)

__all__ = ["provider", "s3_endpoint", "start"]

CREATE = "CreateEndpoint"
PROD = Key(MODEL_DEPLOYMENTS.kind, "team-a", "prod")
ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "sentiment")


@pytest.fixture
async def begin(provider: SageMakerSimulator, start: Any) -> Callable[..., Any]:
    """Makes clusters with a model whose first version is being deployed."""
    url = start(provider)

    async def begun(**fields: Any) -> SageMakerCluster:
        cluster = await with_training_job(provider, url, **fields)
        serve_on(cluster, instanceType="ml.g5.xlarge")
        await cluster.pass_time(3600)
        return cluster

    return begun


async def tune_again(cluster: SageMakerCluster) -> None:
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await cluster.settle()
    await cluster.pass_time(3600)


async def deployed(cluster: SageMakerCluster) -> str:
    await go_on(cluster, 480)
    status = cluster.status(DEPLOYMENT)
    assert status["phase"] == "Ready", status
    return str(status["endpoint"]["model"])


async def test_it_is_ready_when_it_answers_and_says_what_it_costs(provider, begin):
    cluster = await begin(connection={"modelCache": {"bucket": "models", "prefix": "cache"}})
    provider.fault("InvokeEndpoint", status=424, code="ModelError", times=2)
    await go_on(cluster, 300)
    name = next(iter(provider.hosting.endpoints))
    assert provider.hosting.endpoints[name].status == "InService"
    assert cluster.status(DEPLOYMENT)["phase"] == "Deploying"
    assert await deployed(cluster) == name
    await go_on(cluster, HOUR, 600)
    status = cluster.status(DEPLOYMENT)
    assert (status["servedVersion"], status["engine"], provider.count(CREATE)) == (1, "SageMaker", 1)
    assert status["endpoint"] == {"url": cluster.url, "model": name, "api": "InvokeEndpoint"}
    assert (status["cost"]["perHour"], float(status["cost"]["sinceDeployed"]) > 1.4) == ("1.41", True)


async def test_the_container_gets_model_and_base_and_flags_that_the_server_knows(provider, begin):
    cluster = await begin(connection={"modelCache": {"bucket": "models", "prefix": "cache"}, "networkIsolation": True})
    name = await deployed(cluster)
    model, config = provider.hosting.models[name].request, provider.hosting.configs[name].request
    job = cluster.status()["provider"]["jobID"]
    container = model["PrimaryContainer"]
    source = container["ModelDataSource"]["S3DataSource"]
    assert source["S3Uri"] == f"s3://{cluster.objects.bucket}/team/tuning/models/{job}/output/model/model/"
    base = container["AdditionalModelDataSources"][0]
    assert (base["ChannelName"], base["S3DataSource"]["S3Uri"]) == ("base", f"s3://models/cache/{BASE}/")
    assert (container["Image"], model["ExecutionRoleArn"], model["EnableNetworkIsolation"]) == (IMAGE, ROLE, True)
    flags = parser().parse_args(["serve", *shlex.split(container["Environment"][SERVE_FLAGS_VARIABLE])])
    assert (str(flags.model), flags.name, flags.port, flags.sagemaker) == ("/opt/ml/model", name, 8080, True)
    assert (str(flags.base), flags.allow_hub) == ("/opt/ml/additional-model-data-sources/base", False)
    variant = config["ProductionVariants"][0]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.g5.xlarge", 1)


async def test_a_new_version_and_new_instances_answer_before_the_old_ones_go(provider, begin):
    cluster = await begin()
    first = await deployed(cluster)
    await tune_again(cluster)
    await go_on(cluster, 120)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["model"]) == ("Updating", 1, first)
    second = await deployed(cluster)
    await go_on(cluster, 300)
    assert [one.name for one in provider.left()] == [second] * 3
    serve_on(cluster, instanceType="ml.g5.2xlarge", instances=2)
    await cluster.settle()
    assert cluster.status(DEPLOYMENT)["endpoint"]["model"] == second
    third = await deployed(cluster)
    await go_on(cluster, 300)
    assert [one.name for one in provider.left()] == [third] * 3
    assert len({first, second, third}) == 3
    assert cluster.status(DEPLOYMENT)["cost"]["perHour"] == "3.04"


async def test_a_version_that_fails_says_why_and_leaves_the_old_one_answering(provider, begin):
    cluster = await begin()
    first = await deployed(cluster)
    provider.set(fail_next_endpoint="The primary container did not pass the ping health check.")
    await tune_again(cluster)
    await go_on(cluster, 480)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["model"]) == ("Degraded", 1, first)
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["reason"], "ping health check" in stalled["message"]) == ("DeploymentFailed", True)
    await delete(cluster)
    await go_on(cluster, 480)
    assert (ADDRESS in cluster.kube.objects, provider.left()) == (False, [])


async def test_what_an_endpoint_stands_on_is_not_taken_away_while_the_endpoint_does_not_show(provider, begin):
    provider.fault("DescribeEndpoint", status=400, code="ValidationException", message="Could not find it.", times=5)
    lists = iter(range(5))

    async def lag(operation: str, carry_out: Callable[[], Reply]) -> Reply:
        reply = carry_out()
        lacks = operation == "ListEndpoints" and next(lists, None) is not None
        return Reply.json({"Endpoints": []}) if lacks else reply

    provider.meddle = lag
    cluster = await begin()
    await deployed(cluster)
    assert (provider.count(CREATE), provider.count("DeleteModel"), provider.count("DeleteEndpointConfig")) == (1, 0, 0)


async def test_deleting_the_object_deletes_endpoint_configuration_and_model_in_this_order(provider, begin):
    cluster = await begin()
    await deployed(cluster)
    before = len(provider.calls)
    await delete(cluster)
    assert cluster.status(DEPLOYMENT)["phase"] == "Deleting"
    await go_on(cluster, 300)
    assert (ADDRESS in cluster.kube.objects, provider.left()) == (False, [])
    deleted = [call.operation for call in provider.calls[before:] if call.operation.startswith("Delete")]
    assert deleted == ["DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel"]
    bill = provider.cost()
    provider.advance(HOUR)
    assert provider.cost() == bill, "nothing is billed any more"


async def test_one_read_that_does_not_find_an_endpoint_takes_nothing_from_under_it(provider, begin):
    cluster = await begin()
    await deployed(cluster)
    before = len(provider.calls)
    provider.fault("DescribeEndpoint", status=400, code="ValidationException", message='Could not find endpoint "a".')
    await delete(cluster)
    await go_on(cluster, 300)
    assert (ADDRESS in cluster.kube.objects, provider.left()) == (False, [])
    deleted = [call.operation for call in provider.calls[before:] if call.operation.startswith("Delete")]
    assert deleted == ["DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel"]


async def test_deleting_it_while_it_is_made_waits_and_leaves_nothing(provider, begin):
    cluster = await begin()
    await delete(cluster)
    assert "is Creating" in cluster.condition("Reconciling", DEPLOYMENT)["message"]
    assert cluster.condition("Stalled", DEPLOYMENT)["status"] == "False", "it passes"
    await go_on(cluster, 900)
    assert (ADDRESS in cluster.kube.objects, provider.left()) == (False, [])


async def test_a_quota_is_named(provider, begin):
    provider.set(instance_limits={"ml.g5.xlarge": 1})
    cluster = await begin()
    serve_on(cluster, instanceType="ml.g5.xlarge", instances=2)
    await go_on(cluster, 600)
    assert cluster.condition("Stalled", DEPLOYMENT)["reason"] == "QuotaExceeded"


async def test_an_instance_type_that_is_none_is_named_by_its_field(begin):
    cluster = await begin()
    serve_on(cluster, instanceType="ml.zz9.xlarge")
    await cluster.pass_time(1800)
    await go_on(cluster, 300)
    failed = cluster.condition("Stalled", DEPLOYMENT)
    assert (failed["status"], failed["reason"]) == ("True", "ProviderRefused")
    assert failed["message"].startswith("spec.sageMaker.instanceType: ml.zz9.xlarge: ")
    assert "ml.g5.xlarge" not in failed["message"]


async def test_endpoints_of_others_are_left_alone(provider, begin):
    cluster = await begin()
    name = await deployed(cluster)
    hosting, stranger = provider.hosting, {"ModelName": "theirs", "EndpointConfigName": "theirs"}
    variant = {"VariantName": "a", "ModelName": "theirs", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    hosting.create_model(stranger)
    hosting.create_config(stranger | {"ProductionVariants": [variant]})
    hosting.create_endpoint(stranger | {"EndpointName": "theirs"})
    await delete(cluster)
    await go_on(cluster, 300)
    assert {one.name for one in provider.left()} == {"theirs"}
    assert json.dumps(sorted(hosting.endpoints)) == '["theirs"]'
    assert name != "theirs"


async def test_a_strangers_endpoint_that_failed_and_may_not_be_looked_at_holds_nothing_up(provider, begin):
    """Rights to list are for all of an account; those to describe may be for names of ours alone."""
    hosting, stranger = provider.hosting, {"ModelName": "theirs", "EndpointConfigName": "theirs"}
    variant = {"VariantName": "a", "ModelName": "theirs", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    hosting.create_model(stranger)
    hosting.create_config(stranger | {"ProductionVariants": [variant]})
    provider.set(fail_next_endpoint="no room")
    hosting.create_endpoint(stranger | {"EndpointName": "theirs"})
    cluster = await begin()
    denied = ApiError(400, "AccessDeniedException", "User is not authorized to perform sagemaker:DescribeEndpoint")

    async def deny(operation: str, carry_out: Callable[[], Reply]) -> Reply:
        reply = carry_out()
        theirs = operation == "DescribeEndpoint" and b'"theirs"' in reply.body
        return provider.error(denied, operation) if theirs else reply

    provider.meddle = deny
    await deployed(cluster)


def by_hand(provider: SageMakerSimulator, name: str, weights: str, **variant: Any) -> None:
    """An endpoint that somebody else has made, with names of his own for its parts."""
    source = {"S3DataSource": {"S3Uri": weights, "S3DataType": "S3Prefix", "CompressionType": "None"}}
    made = {"VariantName": "blue", "ModelName": f"{name}-m", "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 2}
    provider.hosting.create_model({"ModelName": f"{name}-m", "PrimaryContainer": {"ModelDataSource": source}})
    provider.hosting.create_config({"EndpointConfigName": f"{name}-c", "ProductionVariants": [made | variant]})
    provider.hosting.create_endpoint({"EndpointName": name, "EndpointConfigName": f"{name}-c"})
    provider.advance(1000)


@pytest.fixture
async def tuned(provider: SageMakerSimulator, start: Any) -> SageMakerCluster:
    """A cluster with a version that nothing serves."""
    cluster = await with_training_job(provider, start(provider))
    spec = {"deployment": {"mode": "Manual"}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await cluster.pass_time(3600)
    return cluster


@pytest.mark.parametrize("ending", ["", "/"])
async def test_an_endpoint_with_the_weights_of_a_version_can_be_attached_and_stays(provider, tuned, ending):
    by_hand(provider, "by-hand", tuned.status(MODEL)["versions"][0]["artifact"]["uri"] + ending)
    await attach(tuned, "by-hand")
    status = tuned.status(PROD)
    assert (status["phase"], status["servedVersion"], status["endpoint"]["model"]) == ("Ready", 1, "by-hand")
    assert (status["cost"]["perHour"], provider.count(CREATE)) == ("3.04", 0)
    tuned.kube.mark_deleted(MODEL_DEPLOYMENTS, "prod")
    await go_on(tuned, 300)
    assert list(provider.hosting.endpoints) == ["by-hand"]


async def test_an_attached_endpoint_goes_with_its_object_where_the_user_says_so(provider, tuned):
    by_hand(provider, "by-hand", tuned.status(MODEL)["versions"][0]["artifact"]["uri"])
    await attach(tuned, "by-hand", deletionPolicy="Delete")
    tuned.kube.mark_deleted(MODEL_DEPLOYMENTS, "prod")
    await go_on(tuned, 600)
    assert list(provider.hosting.endpoints) == []


async def test_an_endpoint_with_other_weights_is_not_attached(provider, tuned):
    by_hand(provider, "theirs", "s3://theirs/model/")
    await attach(tuned, "theirs", deletionPolicy="Delete")
    stalled = tuned.condition("Stalled", PROD)
    assert (stalled["reason"], "s3://theirs/model" in stalled["message"]) == ("AttachedDiffers", True)
    tuned.kube.mark_deleted(MODEL_DEPLOYMENTS, "prod")
    await go_on(tuned, 600)
    assert list(provider.hosting.endpoints) == ["theirs"]
