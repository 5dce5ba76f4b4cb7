"""The benchmark's providers: simulators in their own processes, each behind an LLMConnection with its Secret."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import boto3

from bench.scale.ours import API, OWN
from finetune_api.manifest import Manifest
from tests.cluster import processes
from tests.cluster.ports import answers, free_port
from tests.simulators import process
from tests.simulators.process import Remote

Kind = Literal["openAI", "azureOpenAI", "bedrock"]
Trouble = Literal["", "slow", "dead"]

SLOW_SECONDS = 2.0
FOR_EVER = 1_000_000_000
STANDS_SECONDS = 36_000.0
"""Simulated time of a job's validation: longer than a run, so that the benchmark decides when training starts."""
QUEUED_SECONDS = 60.0
BUCKET = "bench"
MODELS: dict[Kind, str] = {
    "openAI": "gpt-4o-mini-2024-07-18",
    "azureOpenAI": "gpt-4o-mini-2024-07-18",
    "bedrock": "amazon.nova-micro-v1:0:128k",
}
SETTINGS: dict[Kind, dict[str, Any]] = {
    "openAI": {"validation_seconds": STANDS_SECONDS, "queue_seconds": QUEUED_SECONDS, "job_limit": FOR_EVER},
    "azureOpenAI": {
        "validation_seconds": STANDS_SECONDS,
        "queue_seconds": QUEUED_SECONDS,
        "job_limit": FOR_EVER,
        "running_limit": FOR_EVER,
    },
    "bedrock": {"validation_seconds": STANDS_SECONDS, "processing_seconds": QUEUED_SECONDS, "job_limit": FOR_EVER},
}
"""Real limits of providers are far below what is measured: with them a connection has fewer jobs at once."""

STEP_SECONDS = 60.0
"""Equals real time while simulated time runs at rate 1: no job ends while running jobs are measured."""


@dataclass(frozen=True)
class Cloud:
    """One connection and its provider."""

    name: str
    kind: Kind
    remote: Remote
    jobs: int
    trouble: Trouble = ""
    s3: str = ""

    @property
    def healthy(self) -> bool:
        """Whether its provider works."""
        return not self.trouble

    def train(self) -> None:
        """Start the training of all jobs, which lasts until `finish`."""
        self.remote.advance(STANDS_SECONDS + QUEUED_SECONDS + 10.0)

    def finish(self) -> None:
        """End all jobs."""
        self.remote.advance(1000 * STEP_SECONDS)

    def fall_ill(self) -> None:
        """From now on the provider is slow or dead, according to `trouble`."""
        if self.trouble == "slow":
            self.remote.fault("*", outcome="delay", delay_seconds=SLOW_SECONDS, times=FOR_EVER)
        elif self.trouble == "dead":
            self.remote.fault("*", outcome="hang", times=FOR_EVER)

    def manifests(self) -> list[Manifest]:
        """Its Secret and its LLMConnection."""
        metadata = {"name": self.name, "namespace": OWN}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": _SECRETS[self.kind]}
        block = {"openAI": self._open_ai, "azureOpenAI": self._azure, "bedrock": self._bedrock}[self.kind]()
        spec = {"namespaceSelector": {}, self.kind: block}
        return [secret, {"apiVersion": API, "kind": "LLMConnection", "metadata": {"name": self.name}, "spec": spec}]

    def _open_ai(self) -> Manifest:
        return {"baseURL": f"{self.remote.url}/v1", "apiKeySecretRef": {"name": self.name, "key": "api-key"}}

    def _azure(self) -> Manifest:
        return {
            "endpoint": self.remote.url,
            "subscriptionID": "00000000-0000-0000-0000-000000000001",
            "resourceGroup": "models",
            "account": "simulated",
            "credentials": {"secretRef": {"name": self.name}},
            "authorityHost": self.remote.url,
            "managementEndpoint": self.remote.url,
        }

    def _bedrock(self) -> Manifest:
        return {
            "region": "us-east-1",
            "roleARN": "arn:aws:iam::123456789012:role/tuning",
            "s3": {"bucket": BUCKET, "prefix": self.name},
            "credentials": {"secretRef": {"name": self.name}},
            "endpoints": {"control": self.remote.url, "runtime": self.remote.url, "s3": self.s3},
        }


_SECRETS: dict[Kind, dict[str, str]] = {
    "openAI": {"api-key": "sk-simulated"},
    "azureOpenAI": {"tenantID": "tenant-simulated", "clientID": "client-simulated", "clientSecret": "client-secret"},
    "bedrock": {"accessKeyID": "AKIASIMULATED", "secretAccessKey": "simulated-secret"},
}


@dataclass(frozen=True)
class Wanted:
    """The parameters of a connection."""

    name: str
    kind: Kind
    jobs: int
    trouble: Trouble = ""


@contextmanager
def running(wanted: list[Wanted], folder: Path) -> Iterator[tuple[list[Cloud], dict[str, str]]]:
    """Start the providers; also yields variables for the operator's environment, with the CA of one of them."""
    with ExitStack() as stack:
        s3 = stack.enter_context(_s3(folder)) if any(one.kind == "bedrock" for one in wanted) else ""
        tls = folder / "tls"
        clouds = [Cloud(one.name, one.kind, stack.enter_context(_started(one, s3, tls)), one.jobs, one.trouble, s3)
                  for one in wanted]  # fmt: skip
        secure = any(one.kind == "azureOpenAI" for one in wanted)
        yield clouds, {"SSL_CERT_FILE": str(tls / "ca.pem")} if secure else {}


def _started(one: Wanted, s3: str, tls: Path) -> Any:
    """Start its simulator, whose time runs like real time."""
    settings = SETTINGS[one.kind] | {"step_seconds": STEP_SECONDS} | ({"s3_endpoint": s3} if s3 else {})
    if one.kind != "bedrock":
        settings.pop("s3_endpoint", None)
    name = {"openAI": "openai", "azureOpenAI": "azure", "bedrock": "bedrock"}[one.kind]
    flags = ["--rate", "1", "--start", str(time.time())]
    for key, value in settings.items():
        flags += ["--set", f"{key}={json.dumps(value)}"]
    return process.running(name, *flags, tls=tls if one.kind == "azureOpenAI" else None)


@contextmanager
def _s3(folder: Path) -> Iterator[str]:
    """Moto's S3 in its own process, with a bucket."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    pid = processes.start(str(folder), "s3", command, folder / "s3.log")
    endpoint = f"http://127.0.0.1:{port}"
    try:
        processes.wait_until(lambda: answers(f"{endpoint}/moto-api/"), "S3", timeout=60, pid=pid, log=folder / "s3.log")
        keys = {"aws_access_key_id": "AKIASIMULATED", "aws_secret_access_key": "simulated-secret"}
        boto3.client("s3", region_name="us-east-1", endpoint_url=endpoint, **keys).create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        processes.kill([pid])
