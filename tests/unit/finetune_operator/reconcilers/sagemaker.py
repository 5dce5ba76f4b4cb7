"""A cluster whose connection is to a simulated SageMaker, with moto's S3; tests act as its containers."""

import base64
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from finetune_api.aws import SageMaker
from finetune_api.catalogue import Catalogue
from finetune_api.connection import LLMConnectionSpec
from finetune_api.exit_codes import ExitCode
from finetune_api.trainer import Report
from finetune_operator.providers.aws import client as aws
from finetune_operator.providers.sagemaker.api import SageMakerApi
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNED_MODELS, SECRETS
from tests.simulators.aws.s3 import place
from tests.simulators.clock import Clock
from tests.simulators.sagemaker import SageMakerSettings, SageMakerSimulator
from tests.unit.finetune_operator.decide.given import NOW
from tests.unit.finetune_operator.reconcilers.bedrock import bucket_client
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster

ROLE = "arn:aws:iam::123456789012:role/tuning"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/trainer:1"
KEYS = {"accessKeyID": "AKIASIMULATED", "secretAccessKey": "simulated-secret"}
BASE = "tiny/llama"
FILES = {"adapter_model.safetensors": b"weights", "adapter_config.json": b'{"r": 16}'}

_AWS: dict[tuple[str, ...], aws.Aws] = {}
"""Clients by address: boto3 takes long to create them, and operators are killed often here."""


class ContainerFailed(Exception):
    """A container that ended with the failure file's text and an exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class SharedApi(SageMakerApi):
    """An API whose connections are shared and never closed."""

    def _connect(self, settings: SageMaker, secret: Mapping[str, str]) -> aws.Aws:
        assert settings.endpoints is not None
        address = (str(settings.endpoints.control), str(settings.endpoints.s3))
        if address not in _AWS:
            _AWS[address] = super()._connect(settings, secret)
        return _AWS[address]

    async def close(self) -> None:
        return None


def sagemaker(s3_endpoint: str, **settings: Any) -> SageMakerSimulator:
    """A simulator with a bucket, whose containers train as `Containers` does."""
    made = SageMakerSimulator(SageMakerSettings(s3_endpoint=s3_endpoint), Clock(start=NOW.timestamp()))
    made.set(**settings)
    return made


class Objects:
    """The test's own access to a bucket."""

    def __init__(self, s3_endpoint: str) -> None:
        self.s3 = bucket_client(s3_endpoint)
        self.bucket = f"tuning-{uuid.uuid4().hex[:12]}"
        for bucket in (self.bucket, "models"):
            self.s3.create_bucket(Bucket=bucket)
        self.put(f"s3://models/cache/{BASE}/config.json", b"{}")

    def names(self, prefix: str = "") -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        return [one["Key"] for one in found]

    def put(self, uri: str, content: bytes) -> None:
        bucket, key = place(uri)
        self.s3.put_object(Bucket=bucket, Key=key, Body=content)

    def get(self, uri: str) -> bytes:
        bucket, key = place(uri)
        content: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content


class Containers:
    """Simulates the trainer image: reads its job from the channel, and writes report and artifact to S3."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.fails: Report | None = None
        self.spoil: dict[str, bytes | None] = {}
        """Files that differ from the manifest; None for missing ones."""

    def __call__(self, request: dict[str, Any]) -> None:
        """Run the container to its end."""
        told = self.told(request)
        if self.fails is not None:
            self.report(request, phase="Failed", failure=self.fails.failure)
            raise ContainerFailed(
                f"{self.fails.failure.reason}: {self.fails.failure.message}", ExitCode.DATASET_INVALID
            )
        files = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in FILES.items()}
        manifest = json.dumps({"files": files}).encode()
        artifact = {"uri": told["artifactURI"], "kind": "Adapter", "architecture": "CausalLM", "loraRank": 16,
                    "bytes": 9, "sha256": hashlib.sha256(manifest).hexdigest()}  # fmt: skip
        for name, content in (FILES | {"manifest.json": manifest} | self.spoil).items():
            if content is not None:
                self.objects.put(f"{told['artifactURI']}/{name}", content)
        result = {"artifact": artifact, "steps": 30, "trainLoss": 0.3, "evalLoss": 0.4}
        self.report(request, phase="Succeeded", result=result, **progress(30))
        if "report.json" not in self.spoil:
            final = (
                f"{request['OutputDataConfig']['S3OutputPath']}{request['TrainingJobName']}/output/model/report.json"
            )
            self.objects.put(final, self.last(request))

    def told(self, request: dict[str, Any]) -> dict[str, Any]:
        """The job in its channel."""
        found: dict[str, Any] = json.loads(self.objects.get(channels(request)["job"]))
        return found

    def report(self, request: dict[str, Any], **fields: Any) -> None:
        """Write a report as SageMaker copies it from /opt/ml/checkpoints."""
        told = self.told(request)
        head = {name: told[name] for name in ("namespace", "name", "uid", "attempt")}
        report = Report.model_validate(head | fields)
        self.objects.put(f"{request['CheckpointConfig']['S3Uri']}report.json", json.dumps(report.wire()).encode())

    def last(self, request: dict[str, Any]) -> bytes:
        return self.objects.get(f"{request['CheckpointConfig']['S3Uri']}report.json")


def progress(step: int) -> dict[str, Any]:
    """Fields of a report after `step` of 30 steps."""
    points = [{"step": n, "value": 1.0 - n / 50} for n in range(1, step + 1)]
    return {"progress": {"step": step, "totalSteps": 30, "percent": step * 100 // 30}, "loss": {"train": points}}


def channels(request: dict[str, Any]) -> dict[str, str]:
    """URIs by channel."""
    return {one["ChannelName"]: one["DataSource"]["S3DataSource"]["S3Uri"] for one in request["InputDataConfig"]}


class SageMakerCluster(CloudCluster):
    """A cluster with a connection to a simulated SageMaker."""

    brought = ("train", "validation", "test")

    def __init__(self, provider: SageMakerSimulator, url: str, **settings: Any) -> None:
        self.settings = settings
        self.objects = Objects(str(provider.settings.s3_endpoint))
        self.containers = Containers(self.objects)
        provider.training.container = self.containers
        super().__init__(provider, url)

    def connect(self) -> None:
        hosting = {"ml.g5.xlarge": "1.41", "ml.g5.2xlarge": "1.52"}
        self.catalogue = Catalogue.model_validate({"providers": {"sageMaker": {"hosting": hosting}}})
        moto = self.provider.settings.s3_endpoint
        block = {
            "region": "us-east-1",
            "roleARN": ROLE,
            "trainerImage": IMAGE,
            "s3": {"bucket": self.objects.bucket, "prefix": "team/tuning"},
            "instanceTypes": ["ml.g5.xlarge", "ml.g5.2xlarge"],
            "credentials": {"secretRef": {"name": "aws"}},
            "endpoints": {"control": self.url, "runtime": self.url, "s3": moto, "cloudwatch": moto},
        }
        data = {key: base64.b64encode(value.encode()).decode() for key, value in KEYS.items()}
        self.kube.put(SECRETS, {"metadata": {"name": "aws", "namespace": "finetune"}, "data": data})
        spec = {"namespaceSelector": {}, "sageMaker": block | self.settings}
        self.kube.put(CONNECTIONS, {"metadata": {"name": "aws"}, "spec": spec})

    def allow_code(self) -> None:
        """Allow custom code in the connection."""
        found = self.kube.objects[CONNECTIONS, "", "aws"]
        self.kube.put(CONNECTIONS, found | {"spec": found["spec"] | {"fineTuning": {"allowCode": True}}})

    def restart(self) -> None:
        self.build = _api
        super().restart()

    def add_cloud_job(self, name: str = "sentiment-1", **fields: Any) -> None:
        self.add_job(name, **({"connectionRef": {"name": "aws"}} | fields))

    @property
    def request(self) -> dict[str, Any]:
        """The request of the newest training job."""
        found: dict[str, Any] = next(reversed(self.provider.training.found.values())).request
        return found


def _api(spec: LLMConnectionSpec, secret: Mapping[str, str]) -> SageMakerApi:
    assert spec.sage_maker is not None
    return SharedApi(spec.sage_maker, secret)


async def with_training_job(provider: SageMakerSimulator, url: str, **fields: Any) -> SageMakerCluster:
    """A cluster with checked data and a training job."""
    settings = fields.pop("connection", {})
    cluster = SageMakerCluster(provider, url, **settings)
    cluster.add_cloud_job(**fields)
    await cluster.settle()
    await cluster.check()
    await cluster.settle()
    return cluster


def serve_on(cluster: SageMakerCluster, **serving: Any) -> None:
    """Set the model's deployment template."""
    spec = {"deployment": {"template": {"sageMaker": serving}}}
    if (FINE_TUNED_MODELS, "team-a", "sentiment") in cluster.kube.objects:
        cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=spec)
    else:
        cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})


CREATE = "CreateTrainingJob"


@pytest.fixture
def provider(s3_endpoint: str) -> SageMakerSimulator:
    return sagemaker(s3_endpoint)


@pytest.fixture
async def begin(provider: SageMakerSimulator, start: Any) -> Callable[..., Any]:
    """A factory of clusters for a test."""
    url = start(provider)

    async def begun(**fields: Any) -> SageMakerCluster:
        return await with_training_job(provider, url, **fields)

    return begun
