"""A call whose turn is refused, as after a change of leader, does not go out, and nothing is left of it."""

import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api.azure import AzureOpenAI
from finetune_operator.decide.job.remote import JobKey, RemoteJob
from finetune_operator.providers.azure.api import AzureOpenAIApi
from finetune_operator.providers.calls.rate_limit import RateLimiter
from finetune_operator.providers.openai.api import OpenAIApi
from finetune_operator.providers.openai.client import client
from finetune_operator.providers.ports import JobRequest
from finetune_operator.runtime.errors import LeadershipLost
from tests.unit.finetune_operator.decide.given import azure_connection, job_spec
from tests.unit.finetune_operator.reconcilers.cloud import Token

NOW = datetime(2026, 11, 27, tzinfo=UTC)
KEY = JobKey("team-a", "sentiment-1", "uid", 1, NOW)
NOWHERE = "http://127.0.0.1:9/v1"


async def body() -> AsyncIterator[bytes]:
    yield b"row\n"


async def token() -> str:
    return "key"


CALLS: dict[str, Callable[[OpenAIApi], Awaitable[Any]]] = {
    "check": lambda api: api.check(),
    "upload": lambda api: api.upload("finetune-1.jsonl", 4, body()),
    "file": lambda api: api.file("file-1"),
    "files": lambda api: api.files("finetune-"),
    "delete_file": lambda api: api.delete_file("file-1"),
    "create": lambda api: api.create(JobRequest(KEY, job_spec(), "sentiment", [])),
    "find": lambda api: api.find(KEY, NOW),
    "job": lambda api: api.job("ftjob-1"),
    "metrics": lambda api: api.metrics(RemoteJob("ftjob-1", "Active", NOW)),
    "results": lambda api: api.metrics(RemoteJob("ftjob-1", "Succeeded", NOW, results=("file-1",))),
    "cancel": lambda api: api.cancel("ftjob-1"),
    "has_model": lambda api: api.has_model("ft:gpt"),
    "delete_model": lambda api: api.delete_model("ft:gpt"),
}


def azure() -> OpenAIApi:
    block = azure_connection().wire()["azureOpenAI"]
    return AzureOpenAIApi(AzureOpenAI.model_validate(block | {"endpoint": NOWHERE}), Token())


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("build", [lambda: OpenAIApi(client(NOWHERE, token)), azure], ids=["openai", "azure"])
async def test_a_call_whose_turn_is_refused_leaves_nothing_behind(build: Callable[[], OpenAIApi], call: str) -> None:
    def refuse() -> None:
        raise LeadershipLost

    api = build()
    api.use_limiter(RateLimiter(guard=refuse))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")  # of what other tests have left
        warnings.simplefilter("always", RuntimeWarning)
        with pytest.raises(LeadershipLost):
            await CALLS[call](api)
        gc.collect(1)  # what has been left a moment ago is young
    assert [str(warning.message) for warning in told] == []
    await api.close()
