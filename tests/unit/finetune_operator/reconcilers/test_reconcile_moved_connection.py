"""A connection that leads elsewhere in mid-life: nothing is taken for gone, ended or forgotten that goes on costing."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_api.connection import place_of_models
from finetune_api.job_status import ArtifactRef
from finetune_api.names import ABANDON_ANNOTATION
from finetune_operator.providers.accounts.identity import account_of
from finetune_operator.providers.calls.errors import TryLater
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from finetune_operator.runtime.report_server.refusals import Refusal
from tests.simulators.conftest import start
from tests.unit.finetune_operator.decide.given import connection
from tests.unit.finetune_operator.decide.given_models import version
from tests.unit.finetune_operator.reconcilers.cloud import (
    AzureCluster,
    CloudCluster,
    azure,
    rows,
    simulator,
    with_cloud_job,
    with_submitted_job,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL

__all__ = ["start"]

ADDRESS = (FINE_TUNE_JOBS, "team-a", "sentiment-1")


@pytest.fixture
async def begin(start: Any) -> Callable[..., Any]:
    """Makes the clusters of a test."""

    async def begun(how: Callable[..., Any] = with_submitted_job, **fields: Any) -> CloudCluster:
        provider = simulator()
        return await how(provider, start(provider), **fields)

    return begun


async def edit(cluster: CloudCluster, block: str, **fields: Any) -> None:
    """What an admin's `kubectl edit` of the connection does."""
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    cluster.kube.change(CONNECTIONS, "openai", None, spec={**spec, block: {**spec[block], **fields}})
    await cluster.settle()


MOVES = {"another address": {"baseURL": "https://elsewhere.example/v1"}, "another project": {"project": "other"}}


@pytest.mark.parametrize("name", MOVES)
async def test_a_job_goes_on_where_it_was_begun(begin, start, name):
    cluster = await begin()
    before = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]["openAI"]
    elsewhere = {"baseURL": f"{start(simulator())}/v1"} if "baseURL" in MOVES[name] else MOVES[name]
    await edit(cluster, "openAI", **elsewhere)
    await cluster.pass_time(181)
    told = cluster.condition("Stalled")
    assert (cluster.status()["phase"], told["status"], told["reason"]) == ("Queued", "True", "ConnectionNotFound")
    assert f"begun at {before['baseURL']}" in told["message"]
    assert "as it was" in cluster.status()["failure"]["nextStep"]
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    cluster.kube.change(CONNECTIONS, "openai", None, spec={**spec, "openAI": before})
    await cluster.settle()
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    assert (cluster.status()["phase"], cluster.provider.count("fine_tuning.jobs.create")) == ("Succeeded", 1)


async def test_a_job_that_is_deleted_then_is_kept_until_what_it_began_can_be_ended(begin, start):
    cluster = await begin()
    before = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]["openAI"]
    await edit(cluster, "openAI", baseURL=f"{start(simulator())}/v1")
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    message = cluster.condition("Stalled")["message"]
    assert (f"begun at {before['baseURL']}" in message, ABANDON_ANNOTATION in message) == (True, True)
    await edit(cluster, "openAI", **before)
    await cluster.wait(61)
    assert ADDRESS not in cluster.kube.objects
    assert (cluster.provider.count("fine_tuning.jobs.cancel"), cluster.provider.left()) == (1, [])


async def test_data_go_where_their_check_was_begun_or_nowhere(begin, start):
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    other = simulator()
    await edit(cluster, "openAI", baseURL=f"{start(other)}/v1")
    with pytest.raises(Refusal) as refused:
        await cluster.send(rows())
    assert (refused.value.status, "another attempt" in refused.value.sentence) == (403, True)
    assert other.count("files.create", committed=False) == 0


@pytest.fixture
async def served(start: Any) -> AzureCluster:
    """With a deployment at Azure that answers, and is billed."""
    provider = azure()
    cluster = AzureCluster(provider, start(provider))
    template = {"deployment": {"template": {"azureOpenAI": {"sku": "Standard"}}}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template})
    cluster.add_cloud_job()
    await cluster.settle()
    await cluster.check(b"\xef\xbb\xbf" + rows())
    await cluster.settle()
    await cluster.pass_time(3600)
    for _ in range(20):
        await cluster.pass_time(60)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    return cluster


async def test_a_deployment_at_another_account_is_not_taken_for_expired(served):
    [name] = served.provider.deployments.found
    await edit(served, "azureOpenAI", account="other")
    await served.pass_time(700)
    condition = served.condition("Stalled", DEPLOYMENT)
    assert (condition["reason"], "begun at" in condition["message"]) == ("ConnectionNotFound", True)
    assert [one["name"] for one in served.status(DEPLOYMENT)["hosted"]] == [name]


async def test_a_deployment_at_another_account_keeps_its_object_until_it_can_be_ended(served):
    account = served.provider.settings.account
    await edit(served, "azureOpenAI", account="other")
    served.kube.drop(FINE_TUNED_MODELS, "sentiment")
    served.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await served.settle()
    assert "begun at" in served.condition("Stalled", DEPLOYMENT)["message"]
    assert len(served.provider.deployments.found) == 1
    await edit(served, "azureOpenAI", account=account)
    for _ in range(6):
        await served.pass_time(60)
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") not in served.kube.objects
    assert not served.provider.deployments.found


async def with_model(begin: Callable[..., Any], **spec: Any) -> CloudCluster:
    """With a version whose weights are at the provider."""
    cluster: CloudCluster = await begin()
    model = {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec}
    cluster.kube.put(FINE_TUNED_MODELS, model)
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    return cluster


def models(cluster: CloudCluster) -> int:
    return len([one for one in cluster.provider.left() if one.kind == "model"])


async def test_a_version_records_where_its_weights_are(begin):
    cluster = await with_model(begin)
    before = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]["openAI"]
    assert cluster.status(MODEL)["versions"][0]["place"] == f"openAI at {before['baseURL']}"


async def test_weights_are_not_asked_for_elsewhere(begin, start):
    cluster = await with_model(begin)
    other = simulator()
    await edit(cluster, "openAI", baseURL=f"{start(other)}/v1")
    await cluster.pass_time(700)
    told = cluster.condition("Stalled", DEPLOYMENT)
    assert (told["reason"], "made at openAI at" in told["message"]) == ("ConnectionNotFound", True)
    assert other.count("models.retrieve", committed=False) == 0


async def test_weights_elsewhere_keep_the_model_until_they_can_be_deleted(begin, start):
    cluster = await with_model(begin, deletionPolicy="Delete", deployment={"mode": "Manual"})
    before = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]["openAI"]
    await edit(cluster, "openAI", baseURL=f"{start(simulator())}/v1")
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    told = cluster.condition("Stalled", MODEL)["message"]
    assert ("made at openAI at" in told, ABANDON_ANNOTATION in told, models(cluster)) == (True, True, 1)
    await edit(cluster, "openAI", **before)
    await cluster.wait(61)
    assert (FINE_TUNED_MODELS, "team-a", "sentiment") not in cluster.kube.objects
    assert models(cluster) == 0


async def test_old_weights_elsewhere_are_not_forgotten(begin):
    cluster = await with_model(begin, historyLimit=1)
    before = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]["openAI"]
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(rows(13), job="sentiment-2")
    await cluster.settle()
    status = cluster.status(MODEL)
    moved = status["versions"][0] | {"place": "openAI at https://before.example/v1"}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status={**status, "versions": [moved]})
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [1, 2]
    assert "before.example" in cluster.condition("Cleaned", MODEL)["message"]
    await edit(cluster, "openAI", **before)
    assert models(cluster) == 2


async def test_a_connection_that_is_made_anew_with_another_provider_deletes_nothing(begin):
    cluster = await with_model(begin, deletionPolicy="Delete", deployment={"mode": "Manual"})
    cluster.kube.drop(CONNECTIONS, "openai", None)
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "openai"}, "spec": connection().wire()})
    await cluster.settle()
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    assert "leads to this cluster by now" in cluster.condition("Stalled", MODEL)["message"]
    assert models(cluster) == 1


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_job_whose_connection_is_made_anew_for_this_cluster_says_where_it_was_begun(begin, deleted):
    cluster = await begin()
    cluster.kube.drop(CONNECTIONS, "openai", None)
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "openai"}, "spec": connection().wire()})
    if deleted:
        cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await cluster.pass_time(120)
    stalled = cluster.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "ConnectionNotFound")
    assert "leads to this cluster by now, and this was begun at http" in stalled["message"]


@pytest.mark.parametrize("block", ["bedrock", "sageMaker"])
def test_a_bucket_is_not_where_models_are(block):
    assert place_of_models(block, "us-east-1, s3://tuning/a") == f"{block} at us-east-1"
    assert place_of_models("openAI", "https://a.example/v1, org-1") == "openAI at https://a.example/v1, org-1"


ARNS = {
    "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-micro-v1:0:128k/abc": "123456789012",
    "arn:aws:iam::123456789012:role/tuning": "123456789012",
    "arn:aws:s3:::bucket": None,
    "ft:gpt-4o-mini:org::id": None,
    "": None,
}


@pytest.mark.parametrize("arn", ARNS)
def test_the_account_of_an_arn(arn):
    assert account_of(arn) == ARNS[arn]


async def test_weights_of_another_aws_account_are_not_asked_for(begin):
    cluster = await begin()
    spec = {"roleARN": "arn:aws:iam::210987654321:role/x", "region": "us-east-1", "s3": {"bucket": "bucket"}}
    block = {"bedrock": {**spec, "credentials": {"podIdentity": True}}}
    cluster.kube.drop(CONNECTIONS, "openai", None)
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "openai"}, "spec": {"namespaceSelector": {}, **block}})
    await cluster.settle()
    [arn] = [arn for arn in ARNS if "custom-model" in arn]
    made = version(1).model_copy(
        update={"connection": "openai", "place": "bedrock at us-east-1", "artifact": ArtifactRef(provider_model_id=arn)}
    )
    with pytest.raises(TryLater, match="AWS account 123456789012"):
        await cluster.accounts.of(made.connection).require_models(made)
