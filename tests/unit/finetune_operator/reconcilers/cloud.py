"""A cluster whose connection is to a simulated OpenAI; tests act as the check pod."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar
from weakref import WeakSet

import pytest
from azure.core.credentials import AccessToken

from finetune_api.catalogue import Catalogue
from finetune_api.job_status import ProviderFile
from finetune_api.trainer import Checked, Report, UploadTarget
from finetune_operator.providers.azure.api import AzureOpenAIApi
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    PODS,
    SECRETS,
)
from tests.simulators.azure import AzureSimulator
from tests.simulators.clock import Clock
from tests.simulators.openai import OpenAISimulator
from tests.unit.finetune_operator.decide.given import NOW, verdict
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster

MINI = "gpt-4o-mini-2024-07-18"
KEY = "sk-simulated"
TOKENS = 1000


def simulator(**settings: Any) -> OpenAISimulator:
    made = OpenAISimulator(clock=Clock(start=NOW.timestamp()))
    made.set(**settings)
    return made


def rows(count: int = 12) -> bytes:
    lines = [
        {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"}]}
        for n in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def pairs(count: int = 12) -> bytes:
    lines = [
        {
            "input": {"messages": [{"role": "user", "content": f"question {n}"}]},
            "preferred_output": [{"role": "assistant", "content": f"answer {n}"}],
            "non_preferred_output": [{"role": "assistant", "content": "no"}],
        }
        for n in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def catalogue(host: str, price: str = "3.00", **facts: Any) -> Catalogue:
    model = {"training": {"perMillionTokens": price, "asOf": "2026-11-01"}} | facts.pop("model", {})
    return Catalogue.model_validate({"providers": {host: {"models": {"gpt-*": model}} | facts}})


class CloudCluster(Cluster):
    """One operator and one provider with a shared clock."""

    brought: tuple[str, ...] = ("train", "validation")
    """Splits that a check pod uploads."""

    made: ClassVar[WeakSet["CloudCluster"]] = WeakSet()

    def __init__(self, provider: OpenAISimulator, url: str) -> None:
        self.made.add(self)
        self.provider = provider
        self.url = url
        super().__init__()
        self.add_namespace()
        self.connect()

    def connect(self) -> None:
        """Add the connection, and its provider's catalogue entry."""
        self.catalogue = catalogue(self.url.removeprefix("http://"))
        self.set_key(KEY)
        reference = {"name": "openai", "key": "api-key"}
        spec = {"namespaceSelector": {}, "openAI": {"baseURL": f"{self.url}/v1", "apiKeySecretRef": reference}}
        self.kube.put(CONNECTIONS, {"metadata": {"name": "openai"}, "spec": spec})

    def set_key(self, key: str) -> None:
        data = {"api-key": base64.b64encode(key.encode()).decode()}
        self.kube.put(SECRETS, {"metadata": {"name": "openai", "namespace": "finetune"}, "data": data})

    def add_cloud_job(self, name: str = "sentiment-1", **fields: Any) -> None:
        self.add_job(name, **({"connectionRef": {"name": "openai"}, "baseModel": MINI} | fields))

    async def aclose(self) -> None:
        await self.accounts.close()

    async def pass_time(self, seconds: float) -> None:
        """Advance both clocks, and then let the operator poll the provider."""
        self.provider.advance(seconds)
        await self.wait(seconds)
        await self.poll()

    async def poll(self) -> None:
        await self.accounts.poll()
        await self.settle()

    def target(self, content: bytes, split: Any = "train", attempt: int = 1, job: str = "sentiment-1") -> UploadTarget:
        return UploadTarget(
            namespace="team-a",
            name=job,
            uid=self.kube.objects[FINE_TUNE_JOBS, "team-a", job]["metadata"]["uid"],
            attempt=attempt,
            split=split,
            sha256=hashlib.sha256(content).hexdigest(),
        )

    async def send(self, content: bytes, **of: Any) -> ProviderFile:
        """Upload a file as the check pod does."""
        return await self.uploads.accept(self.target(content, **of), len(content), in_chunks(content))

    def checked(self, files: list[ProviderFile], tokens: int = TOKENS, **of: Any) -> Report:
        checked = Checked(files=files, tokens=tokens)
        return self.report("Checked", **of, dataset=verdict(), checked=checked)

    async def check(self, content: bytes | None = None, **of: Any) -> None:
        """Act as the check pod from start to end."""
        self.run_pod(**of)
        await self.settle()
        named = self.kube.objects[FINE_TUNE_JOBS, "team-a", of.get("job", "sentiment-1")]["spec"]["dataset"]
        splits = [split for split in self.brought if split in named]
        files = [await self.send(content or rows(), split=split, **of) for split in splits]
        self.end_pod(0, self.checked(files, **of), **of)

    def lose_pods(self, *, and_jobs: bool) -> None:
        """Delete the pods on the cluster, and optionally their batch Jobs."""
        for resource, _, name in list(self.kube.objects):
            if resource is PODS or (and_jobs and resource is JOBS):
                self.kube.drop(resource, name)

    def forget(self, status: dict[str, Any]) -> None:
        """Overwrite the job's status, and restart the operator."""
        self.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=status)


class Token:
    """A valid Entra credential."""

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        assert scopes
        return AccessToken("simulated-token", 2**40)

    async def close(self) -> None:
        return None


class AzureCluster(CloudCluster):
    """A cluster whose connection, with the same name, is to a simulated Azure OpenAI."""

    def connect(self) -> None:
        self.catalogue = catalogue("azureOpenAI", hosting={"Standard": "1.70"})
        settings = self.provider.settings
        block = {
            "endpoint": self.url,
            "subscriptionID": settings.subscription,
            "resourceGroup": settings.resource_group,
            "account": settings.account,
            "managementEndpoint": self.url,
            "credentials": {"workloadIdentity": True},
        }
        spec = {"namespaceSelector": {}, "azureOpenAI": block}
        self.kube.put(CONNECTIONS, {"metadata": {"name": "openai"}, "spec": spec})

    def restart(self) -> None:
        self.build = lambda spec, _: AzureOpenAIApi(spec.azure_open_ai, Token())
        super().restart()


def azure(**settings: Any) -> AzureSimulator:
    made = AzureSimulator(clock=Clock(start=NOW.timestamp()))
    made.set(**settings)
    return made


async def with_azure_job(provider: AzureSimulator, url: str, **fields: Any) -> AzureCluster:
    """A cluster whose operator has started the check of a job's data."""
    cluster = AzureCluster(provider, url)
    cluster.add_cloud_job(**fields)
    await cluster.settle()
    return cluster


async def in_chunks(content: bytes, size: int = 64) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def with_cloud_job(provider: OpenAISimulator, url: str, **fields: Any) -> CloudCluster:
    """A cluster whose operator has started the check of a job's data."""
    cluster = CloudCluster(provider, url)
    cluster.add_cloud_job(**fields)
    await cluster.settle()
    return cluster


async def with_submitted_job(provider: OpenAISimulator, url: str, **fields: Any) -> CloudCluster:
    """A cluster with a job at its provider."""
    cluster = await with_cloud_job(provider, url, **fields)
    await cluster.check()
    await cluster.settle()
    return cluster


@pytest.fixture
def provider() -> OpenAISimulator:
    return simulator()


@pytest.fixture
async def begin(provider: OpenAISimulator, start: Any) -> Callable[..., Any]:
    """A factory of clusters for a test."""
    url = start(provider)

    async def begun(how: Callable[..., Any] = with_submitted_job, **fields: Any) -> CloudCluster:
        return await how(provider, url, **fields)

    return begun


async def go_on(cluster: CloudCluster, seconds: float, step: float = 60) -> None:
    """Let time pass in steps."""
    for _ in range(int(seconds / step)):
        await cluster.pass_time(step)


async def delete(cluster: CloudCluster) -> None:
    """Delete the deployment as a user would: with its model, which would recreate it."""
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()


async def attach(cluster: CloudCluster, name: str, **fields: Any) -> None:
    """Attach a ModelDeployment to an existing deployment."""
    spec = {"modelRef": {"name": "sentiment"}, "attach": {"id": name}, **fields}
    cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "prod", "namespace": "team-a"}, "spec": spec})
    await cluster.settle()
    await go_on(cluster, 120)
