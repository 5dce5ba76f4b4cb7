"""A server that gives the same answer to every request, and the four providers' APIs connected to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from finetune_api.asking import ChatRequest, Message
from finetune_api.azure import AzureOpenAI
from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import DeploymentTemplate
from finetune_api.job_status import ProviderFile
from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.decide.job.remote import JobKey, RemoteJob
from finetune_operator.providers.azure.api import AzureOpenAIApi
from finetune_operator.providers.ports import FineTuningApi, HostRequest, JobRequest
from finetune_operator.providers.sdks import build_api
from tests.unit.finetune_operator.decide.given import NOW, job_spec
from tests.unit.finetune_operator.reconcilers.bedrock import NOVA
from tests.unit.finetune_operator.reconcilers.cloud import MINI, Token
from tests.unit.finetune_operator.reconcilers.sagemaker import IMAGE, ROLE

KEY = JobKey("team-a", "sentiment-1", "11111111-2222-3333-4444-555555555555", 1, NOW)
SECRETS = ("sk-of-the-connection", "simulated-token", "secret-of-the-connection")
"""The connections' credentials."""

Answer = Callable[[web.Request], web.StreamResponse]


@dataclass
class Strange:
    """Gives the configured answer to every request, and records the requests."""

    answer: Answer
    url: str = ""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.asked.append((request.method, request.path, dict(request.headers)))
        return self.answer(request)


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[Strange]:
    """Run the server."""
    strange = Strange(answer)
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", strange.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    strange.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield strange
    finally:
        await runner.cleanup()


def openai(url: str) -> FineTuningApi:
    block = {"baseURL": f"{url}/v1", "apiKeySecretRef": {"name": "openai", "key": "api-key"}}
    return build_api(LLMConnectionSpec.model_validate({"openAI": block}), {"api-key": SECRETS[0]})


def azure(url: str) -> FineTuningApi:
    block = {
        "endpoint": url,
        "managementEndpoint": url,
        "subscriptionID": "11111111-2222-3333-4444-555555555555",
        "resourceGroup": "group",
    }
    credentials = {"account": "res", "credentials": {"workloadIdentity": True}}
    return AzureOpenAIApi(AzureOpenAI.model_validate(block | credentials), Token())


def aws(url: str, name: str, **block: Any) -> FineTuningApi:
    endpoints = dict.fromkeys(("control", "runtime", "s3", "cloudwatch", "sts"), url)
    shared = {"region": "us-east-1", "roleARN": ROLE, "s3": {"bucket": "tuning", "prefix": "team"}}
    spec = {name: shared | {"endpoints": endpoints, "credentials": {"secretRef": {"name": "aws"}}} | block}
    keys = {"accessKeyID": "AKIASTRANGE", "secretAccessKey": SECRETS[2]}
    return build_api(LLMConnectionSpec.model_validate(spec), keys)


def bedrock(url: str) -> FineTuningApi:
    return aws(url, "bedrock")


def sagemaker(url: str) -> FineTuningApi:
    return aws(url, "sageMaker", trainerImage=IMAGE, instanceTypes=["ml.g5.xlarge"])


PROVIDERS: dict[str, Callable[[str], FineTuningApi]] = {
    "openai": openai,
    "azure": azure,
    "bedrock": bedrock,
    "sagemaker": sagemaker,
}
BASE = {"openai": MINI, "azure": MINI, "bedrock": NOVA, "sagemaker": "tiny/llama"}
JOB = {
    "openai": "ftjob-1",
    "azure": "ftjob-1",
    "bedrock": "arn:aws:bedrock:us-east-1:123456789012:model-customization-job/amazon.nova/abc123def456",
    "sagemaker": f"finetune-{KEY.uid}-1",
}
MODEL = {
    "openai": "ft:gpt-4o-mini:org::abc",
    "azure": "gpt-4o-mini.ft-1",
    "bedrock": "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova/abc123def456",
    "sagemaker": f"s3://tuning/team/models/finetune-{KEY.uid}-1/output/model/model",
}
BLOCK = {"azure": {"azureOpenAI": {"sku": "Standard"}}, "sagemaker": {"sageMaker": {"instanceType": "ml.g5.xlarge"}}}
TRAIN = ProviderFile(split="train", id="file-1", bytes=4, sha256="0" * 64)


async def body() -> AsyncIterator[bytes]:
    yield b"row\n"


def request(provider: str) -> JobRequest:
    return JobRequest(KEY, job_spec(baseModel=BASE[provider]), "sentiment", [TRAIN])


def host(provider: str) -> HostRequest:
    template = DeploymentTemplate.model_validate(BLOCK.get(provider, {}))
    return HostRequest("md-v1", MODEL[provider], template, "uid", base_model=BASE[provider])


def ended(provider: str) -> RemoteJob:
    """A completed job whose losses are still to be read."""
    results = {"bedrock": ("s3://tuning/team/a.csv",), "sagemaker": ()}.get(provider, ("file-9",))
    labels = {"uid": KEY.uid, "attempt": "1"} if provider == "sagemaker" else {}
    return RemoteJob(JOB[provider], "Succeeded", NOW, model=MODEL[provider], results=results, labels=labels)


Call = Callable[[FineTuningApi, str], Awaitable[Any]]
QUESTION = ChatRequest(model="tuned", messages=[Message(role="user", content="ok?")], max_tokens=1)


def hosting(api: FineTuningApi) -> Any:
    found = api.hosting()
    assert found is not None
    return found


def standing(provider: str) -> Hosted:
    return Hosted("md-v1", "Ready", address=MODEL[provider])


READS: dict[str, Call] = {
    "check": lambda api, _: api.check(),
    "file": lambda api, _: api.file("file-1"),
    "files": lambda api, _: api.files("finetune-"),
    "find": lambda api, _: api.find(KEY, NOW),
    "jobs": lambda api, _: api.jobs(NOW),
    "job": lambda api, provider: api.job(JOB[provider]),
    "has_model": lambda api, provider: api.has_model(MODEL[provider]),
}
"""Calls that must reject a foreign answer: an empty list, for example, would have a job created again."""
CHANGES: dict[str, Call] = {
    "create": lambda api, provider: api.create(request(provider)),
    "cancel": lambda api, provider: api.cancel(JOB[provider]),
}
DATA: dict[str, Call] = {
    "upload": lambda api, _: api.upload("finetune-1.jsonl", 4, body()),
    "delete_file": lambda api, _: api.delete_file("file-1"),
    "delete_model": lambda api, provider: api.delete_model(MODEL[provider]),
}
TOLD: dict[str, Call] = {
    "account": lambda api, _: api.account(),
    "metrics": lambda api, provider: api.metrics(ended(provider)),
    "end_uploads": lambda api, _: api.end_uploads("finetune-"),
}
"""Calls for which a foreign answer may count as empty."""
HOSTED: dict[str, Call] = {
    "list": lambda api, _: hosting(api).list(),
    "make": lambda api, provider: hosting(api).make(host(provider)),
    "delete": lambda api, provider: hosting(api).delete(standing(provider)),
    "answers": lambda api, provider: hosting(api).answers(standing(provider)),
    "usage": lambda api, provider: hosting(api).usage(standing(provider), NOW.replace(hour=1), NOW),
}
SERVED: dict[str, Call] = {"details": lambda api, provider: hosting(api).details(standing(provider))}


BY_HEAD = {("bedrock", "file"), ("sagemaker", "file"), ("sagemaker", "has_model")}
"""Calls that use HEAD at S3, whose answer has no body."""


async def answer(api: FineTuningApi, provider: str) -> Any:
    answering = api.answering()
    return None if answering is None else await answering.answer(MODEL[provider], QUESTION)
