"""A cluster whose connection is to a simulated Bedrock, with moto's S3 for the data."""

import base64
import json
from functools import cache
from itertools import count
from typing import Any

import boto3
from botocore.config import Config

from finetune_api.catalogue import Catalogue
from finetune_operator.runtime.kube import CONNECTIONS, SECRETS
from tests.simulators.bedrock import BedrockSettings, BedrockSimulator
from tests.simulators.clock import Clock
from tests.unit.finetune_operator.decide.given import NOW
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster

NOVA = "amazon.nova-micro-v1:0:128k"
ROLE = "arn:aws:iam::123456789012:role/tuning"
PREFIX = "team/tuning"
TOKENS = 1000

CREATE, GET, LIST, STOP = (
    f"{verb}ModelCustomizationJob{s}" for verb, s in (("Create", ""), ("Get", ""), ("List", "s"), ("Stop", ""))
)
_buckets = count(1)


def conversations(rows: int = 12, answer: str = "answer") -> bytes:
    """The check pod's output for this many rows for Nova."""
    lines = [
        {
            "schemaVersion": "bedrock-conversation-2024",
            "messages": [
                {"role": "user", "content": [{"text": f"question {n}"}]},
                {"role": "assistant", "content": [{"text": f"{answer} {n}"}]},
            ],
        }
        for n in range(rows)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def bedrock(s3_endpoint: str, **settings: Any) -> BedrockSimulator:
    made = BedrockSimulator(BedrockSettings(s3_endpoint=s3_endpoint), clock=Clock(start=NOW.timestamp()))
    made.set(**settings)
    return made


def client(service: str, endpoint: str) -> Any:
    """A client beside the operator's."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIASIMULATED",
        aws_secret_access_key="simulated-secret",
        config=Config(s3={"addressing_style": "path"}),
    )


@cache
def bucket_client(endpoint: str) -> Any:
    """A client of moto, shared by all tests of a process: boto3 takes long to create it."""
    return client("s3", endpoint)


class BedrockCluster(CloudCluster):
    """A cluster with its own bucket."""

    provider: BedrockSimulator

    def __init__(self, provider: BedrockSimulator, url: str, *, bucket: bool = True, **block: Any) -> None:
        self.bucket = f"tuning-{next(_buckets)}"
        self.s3 = bucket_client(str(provider.settings.s3_endpoint))
        self.block = block
        if bucket:
            self.s3.create_bucket(Bucket=self.bucket)
        super().__init__(provider, url)

    def connect(self) -> None:
        model = {
            "training": {"perMillionTokens": "1.00", "asOf": "2026-11-01"},
            "hosting": {"NoCommitment": "24.00", "OneMonth": "21.00"},
        }
        providers = {"bedrock": {"models": {"amazon.nova-*": model}}}
        self.catalogue = Catalogue.model_validate({"providers": providers})
        self.set_keys("simulated-secret")
        moto = self.provider.settings.s3_endpoint
        block = {
            "region": "us-east-1",
            "roleARN": ROLE,
            "s3": {"bucket": self.bucket, "prefix": PREFIX},
            "credentials": {"secretRef": {"name": "aws"}},
            "endpoints": {"control": self.url, "runtime": self.url, "s3": moto, "cloudwatch": moto},
        }
        spec = {"namespaceSelector": {}, "bedrock": block | self.block}
        self.kube.put(CONNECTIONS, {"metadata": {"name": "bedrock"}, "spec": spec})

    def set_keys(self, secret: str) -> None:
        keys = {"accessKeyID": "AKIASIMULATED", "secretAccessKey": secret}
        data = {name: base64.b64encode(value.encode()).decode() for name, value in keys.items()}
        self.kube.put(SECRETS, {"metadata": {"name": "aws", "namespace": "finetune"}, "data": data})

    def add_cloud_job(self, name: str = "sentiment-1", **fields: Any) -> None:
        given = {
            "connectionRef": {"name": "bedrock"},
            "baseModel": NOVA,
            "hyperparameters": {"epochs": 2, "learningRate": 1e-5},
        }
        super().add_cloud_job(name, **(given | fields))

    def objects(self) -> list[str]:
        """Objects in the bucket below the prefix."""
        found = self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        assert all(one["Key"].startswith(f"{PREFIX}/") for one in found)
        return [one["Key"].removeprefix(f"{PREFIX}/") for one in found]

    def client(self, service: str) -> Any:
        return client(service, self.url)

    def jobs(self) -> list[Any]:
        """All jobs created at Bedrock."""
        return list(self.provider.account.jobs.values())


async def with_bedrock_job(provider: BedrockSimulator, url: str, **fields: Any) -> BedrockCluster:
    """A cluster whose operator has started the check of a job's data."""
    cluster = BedrockCluster(provider, url)
    cluster.add_cloud_job(**fields)
    await cluster.settle()
    return cluster
