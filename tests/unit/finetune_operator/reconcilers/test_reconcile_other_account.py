"""A key of another account in mid-life: all that was made looks deleted from there, and nothing is taken for it."""

import base64
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from finetune_api.job_status import ProviderFile
from finetune_api.names import ABANDON_ANNOTATION
from finetune_operator.providers.azure.api import resource_of, scope_of
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, SECRETS
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.openai import OpenAISimulator
from tests.unit.finetune_operator.reconcilers.bedrock import BedrockCluster, bedrock, conversations, with_bedrock_job
from tests.unit.finetune_operator.reconcilers.cloud import (
    KEY,
    CloudCluster,
    go_on,
    rows,
    simulator,
    with_cloud_job,
    with_submitted_job,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL

__all__ = ["s3_endpoint", "start"]

ADDRESS = (FINE_TUNE_JOBS, "team-a", "sentiment-1")
OTHER_KEY = "sk-of-another-project"


@pytest.fixture
async def begin(start: Any) -> Callable[..., Any]:
    """Makes a cluster whose OpenAI has another project beside the connection's, with a key of its own."""

    async def begun(**settings: Any) -> CloudCluster:
        provider, other = simulator(**settings), simulator(keys=frozenset({OTHER_KEY}), project="proj-other")
        provider.beside[OTHER_KEY] = other
        return await with_submitted_job(provider, start(provider))

    return begun


async def rotate(cluster: CloudCluster, key: str) -> None:
    cluster.set_key(key)
    await cluster.pass_time(61)
    await cluster.pass_time(61)


async def test_a_job_is_known_to_be_another_projects(begin):
    cluster = await begin()
    assert cluster.status()["provider"]["account"] == "project proj-simulated"
    await rotate(cluster, OTHER_KEY)
    told = cluster.condition("Stalled")
    assert (cluster.status()["phase"], told["reason"]) == ("Queued", "CredentialsInvalid")
    assert "lead to project proj-other by now, and this was begun in project proj-simulated" in told["message"]
    assert "project proj-simulated again" in cluster.status()["failure"]["nextStep"]
    await rotate(cluster, KEY)
    assert cluster.status().get("failure") is None, "two minutes after the right key was back"
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    assert (cluster.status()["phase"], cluster.provider.count("fine_tuning.jobs.create")) == ("Succeeded", 1)


async def test_a_job_of_another_project_that_is_deleted_is_kept_until_it_can_be_ended(begin):
    cluster = await begin()
    cluster.set_key(OTHER_KEY)
    cluster.now = cluster.now.replace(minute=(cluster.now.minute + 2) % 60)  # no look in between
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await cluster.wait(61)
    assert ADDRESS in cluster.kube.objects
    message = cluster.condition("Stalled")["message"]
    assert ("project proj-simulated" in message, ABANDON_ANNOTATION in message) == (True, True)
    await rotate(cluster, KEY)
    await cluster.wait(61)
    assert ADDRESS not in cluster.kube.objects
    assert (cluster.provider.count("fine_tuning.jobs.cancel"), cluster.provider.left()) == (1, [])


async def test_an_operator_that_restarts_with_the_wrong_key_forgets_nothing(begin):
    cluster = await begin()
    cluster.set_key(OTHER_KEY)
    cluster.restart()
    await cluster.observer.resync()
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await cluster.wait(61)
    assert "lead to project proj-other" in cluster.condition("Stalled")["message"]
    assert ADDRESS in cluster.kube.objects


async def test_weights_of_another_project_keep_their_model(begin):
    cluster = await begin()
    spec = {"deletionPolicy": "Delete", "deployment": {"mode": "Manual"}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    assert cluster.status(MODEL)["versions"][0]["account"] == "project proj-simulated"
    await rotate(cluster, OTHER_KEY)
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    assert "this was made in project proj-simulated" in cluster.condition("Stalled", MODEL)["message"]
    await rotate(cluster, KEY)
    assert (FINE_TUNED_MODELS, "team-a", "sentiment") not in cluster.kube.objects
    assert [one for one in cluster.provider.left() if one.kind == "model"] == []


async def test_a_service_that_does_not_name_its_accounts_is_used_as_it_is(begin):
    cluster = await begin(tells_account=False)
    assert "account" not in cluster.status()["provider"]
    await rotate(cluster, KEY)
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    assert cluster.status()["phase"] == "Succeeded"


@pytest.mark.parametrize("seen", [("proj-a", "proj-b"), ("proj-b", "proj-a", "proj-a"), ("proj-a", "proj-b", "proj-c")])
async def test_a_gateway_whose_answers_name_now_one_account_and_now_another_stalls_no_job(begin, seen):
    """What they name is which of its keys it took. The operator starts anew, and with it all that it knows."""
    cluster = await begin(projects_in_turn=seen)
    for _ in range(4):
        cluster.restart()
        await cluster.observer.resync()
        await cluster.pass_time(20)
        assert cluster.condition("Stalled")["status"] == "False", cluster.condition("Stalled")
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    assert cluster.status()["phase"] == "Succeeded"
    assert cluster.provider.count("fine_tuning.jobs.create") == 1


async def test_an_account_that_every_answer_names_is_another_one(begin):
    """Asked again each minute, and no more often: thousands of jobs may be there."""
    cluster = await begin()
    cluster.provider.set(projects_in_turn=("proj-other",))
    cluster.restart()
    await cluster.observer.resync()
    await cluster.pass_time(3600)
    before = cluster.provider.count("fine_tuning.jobs.list")
    for _ in range(3):
        await cluster.pass_time(20)
    assert cluster.condition("Stalled")["reason"] == "CredentialsInvalid"
    assert cluster.provider.count("fine_tuning.jobs.list") - before <= 2 * 3


async def test_whose_account_it_is_need_not_be_known(begin):
    """Neither a refusal nor silence of that one question holds anything up; it is asked again a minute later."""
    cluster = await begin()
    cluster.restart()
    await cluster.observer.resync()
    cluster.provider.fault("fine_tuning.jobs.list", status=403, code="missing_scope")
    await cluster.pass_time(20)
    assert cluster.status()["phase"] in {"Queued", "Running"}
    await rotate(cluster, OTHER_KEY)
    assert "project proj-other" in cluster.condition("Stalled")["message"]


def keys_of(account: str, s3: str) -> tuple[str, str]:
    """Keys that STS knows to be of an account."""
    keys = {"aws_access_key_id": "AKIAANY", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    sts = boto3.client("sts", endpoint_url=s3, **keys)
    given = sts.assume_role(RoleArn=f"arn:aws:iam::{account}:role/operator", RoleSessionName="test")["Credentials"]
    return given["AccessKeyId"], given["SecretAccessKey"]


class TwoAccounts(BedrockCluster):
    """With STS, and another account of AWS beside the connection's."""

    def connect(self) -> None:
        s3 = str(self.provider.settings.s3_endpoint)
        self.block = {"endpoints": {"control": self.url, "runtime": self.url, "s3": s3, "cloudwatch": s3, "sts": s3}}
        super().connect()

    def use(self, account: str) -> None:
        s3 = str(self.provider.settings.s3_endpoint)
        key, secret = keys_of(account, s3)
        whose = self.provider
        if account != whose.settings.account:
            whose = self.provider.beside[key] = bedrock(s3)
        whose.settings.access_keys[key] = secret
        keys = {"accessKeyID": key, "secretAccessKey": secret}
        data = {name: base64.b64encode(value.encode()).decode() for name, value in keys.items()}
        self.kube.put(SECRETS, {"metadata": {"name": "aws", "namespace": "finetune"}, "data": data})


@pytest.fixture
async def at_bedrock(start: Any, s3_endpoint: str) -> TwoAccounts:
    """With throughput that is billed by the hour, and answers."""
    provider = bedrock(s3_endpoint, provision_seconds=0)
    cluster = TwoAccounts(provider, start(provider))
    cluster.use(provider.settings.account)
    block = {"type": "ProvisionedThroughput", "modelUnits": 1, "commitment": "NoCommitment"}
    template = {"deployment": {"template": {"bedrock": block}}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template})
    cluster.add_cloud_job()
    await cluster.settle()
    await cluster.check(conversations())
    await cluster.settle()
    await cluster.pass_time(7200)
    for _ in range(6):
        await cluster.pass_time(60)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready", cluster.status(DEPLOYMENT)
    return cluster


async def test_throughput_of_another_aws_account_is_not_taken_for_expired(at_bedrock):
    cluster = at_bedrock
    [hosted] = cluster.status(DEPLOYMENT)["hosted"]
    assert hosted["account"] == "AWS account 123456789012"
    cluster.use("222222222222")
    for _ in range(3):
        await cluster.pass_time(700)
    told = cluster.condition("Stalled", DEPLOYMENT)
    assert (told["reason"], "AWS account 222222222222 by now" in told["message"]) == ("CredentialsInvalid", True)
    assert [one["name"] for one in cluster.status(DEPLOYMENT)["hosted"]] == [hosted["name"]]


async def test_throughput_of_another_aws_account_keeps_its_object_until_it_can_be_ended(at_bedrock):
    cluster = at_bedrock
    cluster.use("222222222222")
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    for _ in range(5):
        await cluster.pass_time(61)
    assert "begun in AWS account 123456789012" in cluster.condition("Stalled", DEPLOYMENT)["message"]
    assert len(cluster.provider.account.throughputs) == 1
    cluster.use("123456789012")
    for _ in range(5):
        await cluster.pass_time(61)
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") not in cluster.kube.objects
    assert not cluster.provider.account.throughputs


async def test_without_an_endpoint_of_sts_nobody_is_asked_whose_keys_they_are(start, s3_endpoint):
    provider = bedrock(s3_endpoint)
    cluster = await with_bedrock_job(provider, start(provider))
    await cluster.check(conversations())
    await cluster.settle()
    assert "account" not in cluster.status()["provider"]


ENDPOINTS = {
    "https://res.openai.azure.com": "res",
    "https://RES.cognitiveservices.azure.com/": "res",
    "https://res.services.ai.azure.com": "res",
    "https://res.openai.azure.us": "res",
    "https://swedencentral.api.cognitive.microsoft.com": None,
    "https://gateway.example.com/openai": None,
    "http://127.0.0.1:8080": None,
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_resource_of_an_endpoint(endpoint):
    resource = ENDPOINTS[endpoint]
    assert resource_of(endpoint) == (f"Azure resource {resource}" if resource else None)


@pytest.mark.parametrize(
    ("endpoint", "cloud"),
    [
        ("https://res.openai.azure.com", "com"),
        ("https://res.openai.azure.us/", "us"),
        ("https://res.openai.azure.cn", "cn"),
        ("https://gateway.example.us", "com"),
    ],
)
def test_tokens_for_an_endpoint_are_those_of_its_cloud(endpoint, cloud):
    assert scope_of(endpoint) == f"https://cognitiveservices.azure.{cloud}/.default"


@pytest.fixture
async def brought(start: Any) -> Callable[..., Any]:
    """Makes a cluster whose pod has brought its file when the key becomes another project's."""

    async def begun(*, tells: bool) -> tuple[CloudCluster, ProviderFile, OpenAISimulator]:
        """Cluster, file, and the other project. `tells`: whether answers name a project when the file is brought."""
        provider, other = simulator(), simulator(keys=frozenset({OTHER_KEY}), project="proj-other")
        provider.beside[OTHER_KEY] = other
        provider.set(tells_account=tells)
        cluster = await with_cloud_job(provider, start(provider))
        cluster.run_pod()
        await cluster.settle()
        file = await cluster.send(rows())
        cluster.set_key(OTHER_KEY)
        return cluster, file, other

    return begun


@pytest.mark.parametrize("seconds", [0, 30, 61, 180])
async def test_data_of_another_project_wait_for_its_key(brought, seconds):
    """The key becomes another project's between the upload and the pod's report of it."""
    cluster, file, other = await brought(tells=True)
    await cluster.wait(seconds)
    cluster.end_pod(0, cluster.checked([file]))
    await cluster.pass_time(61)
    await go_on(cluster, 600)
    assert (other.left(), other.count("fine_tuning.jobs.create")) == ([], 0)
    assert cluster.status()["provider"]["account"] == "project proj-simulated"
    assert "this was begun in project proj-simulated" in cluster.status()["failure"]["message"]
    await rotate(cluster, KEY)
    await go_on(cluster, 3900, 300)
    assert (cluster.status()["phase"], cluster.provider.count("fine_tuning.jobs.create")) == ("Succeeded", 1)


@pytest.mark.parametrize("told_later", [True, False])
async def test_data_of_another_account_are_not_looked_for_for_ever_nor_left_without_a_word(brought, told_later):
    """Nobody knows whose key it was. Whose it is by now does not tell where the file is."""
    cluster, file, other = await brought(tells=False)
    other.set(tells_account=told_later)
    await cluster.wait(61)
    await cluster.accounts.of("openai").find()
    assert cluster.accounts.whose("openai") == ("project proj-other" if told_later else None)
    cluster.end_pod(0, cluster.checked([file]))
    await cluster.settle()
    assert "account" not in cluster.status()["provider"]
    await go_on(cluster, 600)
    failure = cluster.status()["failure"]
    assert (cluster.status()["phase"], failure["reason"]) == ("Failed", "ProviderRefused")
    assert file.id in failure["message"]
    assert "it stays in the account that had it" in failure["nextStep"]
    assert "spec.retryNonce" in failure["nextStep"]
    assert ([one.kind for one in cluster.provider.left()], other.left()) == (["file"], [])
    asked = other.count("files.retrieve", committed=False)
    await go_on(cluster, 600)
    assert other.count("files.retrieve", committed=False) == asked
