"""The providers outside of the cluster, each as a simulator and the LLMConnection to it."""

import codecs
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from finetune_api.manifest import Manifest
from tests.simulators.azure import AzureSettings, AzureSimulator
from tests.simulators.bedrock import BedrockSettings, BedrockSimulator
from tests.simulators.certificates import Tls
from tests.simulators.clock import Clock
from tests.simulators.openai import OpenAISettings, OpenAISimulator
from tests.simulators.sagemaker import SageMakerSettings, SageMakerSimulator
from tests.simulators.server import serve
from tests.simulators.simulator import Simulator
from tests.unit.finetune_operator.reconcilers.bedrock import NOVA, conversations
from tests.unit.finetune_operator.reconcilers.bedrock import client as aws_client
from tests.unit.finetune_operator.reconcilers.cloud import rows
from tests.unit.finetune_operator.reconcilers.sagemaker import IMAGE, ROLE, Containers, Objects

OPENAI_KEY, AZURE_SECRET = "sk-canary-5f2e90", "canary-91be7a-azure-client-secret"
AWS_SECRET = "canary/7c41d2AbCdEfGhIjKlMnOpQrStUvWx"
CANARIES = (OPENAI_KEY, AZURE_SECRET, AWS_SECRET)
"""The connections' credentials: they may be in their Secrets and in calls to the provider, and nowhere else."""

AWS_KEYS = {"accessKeyID": "AKIACANARY", "secretAccessKey": AWS_SECRET}
CALLER = {
    "OPENAI_API_KEY": "sk-caller",
    "AWS_ACCESS_KEY_ID": "AKIACALLER",
    "AWS_SECRET_ACCESS_KEY": "callers-secret",
    "AWS_REGION": "us-east-1",
}
"""Environment of a user who calls models with their own credentials."""
GPT = "gpt-4o-mini-2024-07-18"


@dataclass(frozen=True)
class Cloud:
    """One provider."""

    name: str
    """Of its LLMConnection, and of the Secret behind that."""
    simulator: Simulator
    block: Manifest
    """The connection's provider block."""
    secret: dict[str, str]
    base_model: str
    creates: str
    """The operation that creates a job."""
    cancels: str
    """The operation that cancels one."""
    asks: str
    """The operation that calls a model."""
    deploys: str | None = None
    """The operation that creates a deployment; None if models need none."""
    undeploys: str | None = None
    """The operation that deletes it."""
    template: Manifest = field(default_factory=dict)
    """How a version is deployed."""
    per_hour: Decimal = Decimal(0)
    """Price of an hour of a deployment."""
    knows_its_data: bool = True
    """Whether a tuned model of the simulator gives its data's answers, or repeats the question."""
    rows: Callable[[int], bytes] = rows
    """Makes this many rows of data in the provider's format."""
    objects: Callable[[], list[str]] = list
    """Objects and incomplete uploads in its bucket."""
    jobs: Callable[[], Collection[Any]] = tuple
    """Every job that it has ever made."""


def _now() -> Clock:
    """Whole seconds: bills by the second are exact."""
    return Clock(start=float(int(time.time())))


@contextmanager
def openai(host: str) -> Iterator[Cloud]:
    """OpenAI, or a compatible service."""
    keys = {"api-key": OPENAI_KEY}
    simulator = OpenAISimulator(OpenAISettings(keys=frozenset({OPENAI_KEY, CALLER["OPENAI_API_KEY"]})), _now())
    with serve(simulator, host) as url:
        block = {"baseURL": f"{url}/v1", "apiKeySecretRef": {"name": "openai", "key": "api-key"}}
        yield Cloud(
            "openai", simulator, {"openAI": block}, keys, GPT, "fine_tuning.jobs.create",
            "fine_tuning.jobs.cancel", "chat.completions.create", jobs=lambda: simulator.jobs.jobs,
        )  # fmt: skip


@contextmanager
def azure(host: str, tls: Tls) -> Iterator[Cloud]:
    """Azure OpenAI with ARM and Entra. azure-identity speaks to an authority with TLS only, so all of it has TLS."""
    settings = AzureSettings(
        keys=frozenset({CALLER["OPENAI_API_KEY"]}), clients={"client": AZURE_SECRET},
        deploy_seconds=0, delete_seconds=0, spread_seconds=0,
    )  # fmt: skip
    simulator = AzureSimulator(settings, _now())
    with serve(simulator, host, tls=tls) as url:
        block = {
            "endpoint": url,
            "managementEndpoint": url,
            "authorityHost": url,
            "subscriptionID": settings.subscription,
            "resourceGroup": settings.resource_group,
            "account": settings.account,
            "credentials": {"secretRef": {"name": "azure"}},
        }
        secret = {"tenantID": settings.tenant, "clientID": "client", "clientSecret": AZURE_SECRET}
        yield Cloud(
            "azure", simulator, {"azureOpenAI": block}, secret, GPT, "fine_tuning.jobs.create",
            "fine_tuning.jobs.cancel", "chat.completions.create", "deployments.create_or_update", "deployments.delete",
            {"azureOpenAI": {"sku": "Standard"}}, Decimal("1.70"),
            rows=lambda count: codecs.BOM_UTF8 + rows(count), jobs=lambda: simulator.jobs.jobs,
        )  # fmt: skip


def _kept(store: Any, bucket: str) -> list[str]:
    objects = store.list_objects_v2(Bucket=bucket).get("Contents", [])
    return [one["Key"] for one in objects + store.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


def _aws(s3: str) -> Manifest:
    keys = {AWS_KEYS["accessKeyID"]: AWS_SECRET, CALLER["AWS_ACCESS_KEY_ID"]: CALLER["AWS_SECRET_ACCESS_KEY"]}
    return {"s3_endpoint": s3, "access_keys": keys}


def _aws_block(name: str, s3: str, url: str) -> Manifest:
    return {
        "region": "us-east-1",
        "roleARN": ROLE,
        "credentials": {"secretRef": {"name": name}},
        "endpoints": {"control": url, "runtime": url, "s3": s3, "cloudwatch": s3},
    }


@contextmanager
def bedrock(host: str, s3: str) -> Iterator[Cloud]:
    """Bedrock, its bucket in moto's S3 at the address `s3`."""
    simulator = BedrockSimulator(BedrockSettings(**_aws(s3), deploy_seconds=0, provision_seconds=0), _now())
    store, bucket = aws_client("s3", s3), f"life-of-bedrock-{uuid.uuid4().hex[:12]}"
    store.create_bucket(Bucket=bucket)
    with serve(simulator, host) as url:
        block = _aws_block("bedrock", s3, url) | {"s3": {"bucket": bucket}}
        yield Cloud(
            "bedrock", simulator, {"bedrock": block}, AWS_KEYS, NOVA, "CreateModelCustomizationJob",
            "StopModelCustomizationJob", "Converse", "CreateCustomModelDeployment", "DeleteCustomModelDeployment",
            rows=conversations, objects=lambda: _kept(store, bucket), jobs=lambda: simulator.account.jobs,
        )  # fmt: skip


@contextmanager
def sagemaker(host: str, s3: str) -> Iterator[Cloud]:
    """SageMaker, its bucket in moto's S3 at the address `s3`; a function stands for the training container."""
    simulator = SageMakerSimulator(SageMakerSettings(**_aws(s3), endpoint_seconds=0, delete_seconds=0), _now())
    objects = Objects(s3)
    simulator.training.container = Containers(objects)
    with serve(simulator, host) as url:
        block = _aws_block("sagemaker", s3, url) | {
            "trainerImage": IMAGE,
            "s3": {"bucket": objects.bucket, "prefix": "team/tuning"},
            "instanceTypes": ["ml.g5.xlarge"],
        }
        yield Cloud(
            "sagemaker", simulator, {"sageMaker": block}, AWS_KEYS, "tiny/llama", "CreateTrainingJob",
            "StopTrainingJob", "InvokeEndpoint", "CreateEndpoint", "DeleteEndpoint",
            {"sageMaker": {"instanceType": "ml.g5.xlarge"}}, Decimal("1.408"), knows_its_data=False,
            objects=lambda: _kept(objects.s3, objects.bucket), jobs=lambda: simulator.training.found,
        )  # fmt: skip
