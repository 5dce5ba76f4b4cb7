"""Models that answer without a deployment: asked for rarely, and forgotten when nobody serves them any more."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from finetune_api.job_status import ArtifactRef
from finetune_api.model import ModelVersion
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.serving_target import Target
from finetune_operator.providers.calls.errors import Denied, ProviderError, TryLater
from finetune_operator.providers.remote.serving import BAD_FOR, GOOD_FOR, CloudServing
from tests.unit.finetune_operator.decide.given import NOW, openai_connection, stamp

LIMIT = TryLater(Reason.RATE_LIMITED, "too many requests")
BAD_KEY = Denied(Reason.CREDENTIALS_INVALID, "no such key")


class Service:
    """Stands for the accounts, the account and its API."""

    def __init__(self) -> None:
        self.now = NOW
        self.there = True
        self.trouble: ProviderError | None = None
        self.asked: list[str] = []

    async def require_models(self, version: ModelVersion) -> None:
        assert version

    def of(self, connection: str) -> "Service":
        assert connection
        return self

    async def call(self, do: Callable[[Any], Awaitable[bool]]) -> bool:
        return await do(self)

    async def has_model(self, model: str) -> bool:
        self.asked.append(model)
        if self.trouble is not None:
            raise self.trouble
        return self.there

    def clock(self) -> datetime:
        return self.now


def target(model: str, number: int = 1) -> Target:
    version = ModelVersion(
        version=number, job="a", job_uid="u", connection="openai", base_model="gpt", method="LoRA", created_at=stamp(),
        artifact=ArtifactRef(provider_model_id=model),
    )  # fmt: skip
    return Target(version, openai_connection(), "OpenAI")


@pytest.mark.parametrize(("there", "good_for"), [(True, GOOD_FOR), (False, BAD_FOR)])
async def test_what_was_seen_is_believed_for_a_while(there: bool, good_for: timedelta) -> None:
    service = Service()
    serving = CloudServing(service, service.clock)
    service.there = there
    for after, times in ((timedelta(0), 1), (good_for - timedelta(seconds=1), 1), (good_for, 2)):
        service.now = NOW + after
        found = await serving.observe(target("ft:a"), None)
        assert (found.state == "Serving", len(service.asked)) == (there, times)


@pytest.mark.parametrize(
    ("trouble", "served", "state", "available"),
    [
        (LIMIT, 1, "Serving", 1),
        (LIMIT, None, "Rolling", 0),
        (BAD_KEY, 1, "Failing", 1),
        (BAD_KEY, None, "Failing", 0),
    ],
)
async def test_what_cannot_be_asked_has_neither_stopped_nor_failed(
    trouble: ProviderError, served: int | None, state: str, available: int
) -> None:
    service = Service()
    service.trouble = trouble
    found = await CloudServing(service, service.clock).observe(target("ft:a"), served)
    assert (found.state, found.available) == (state, available)
    assert trouble.message in (found.failure.message if found.failure else found.note or trouble.message)


async def test_a_model_that_is_two_versions_because_its_job_was_adopted_twice_answers_for_both() -> None:
    service = Service()
    serving = CloudServing(service, service.clock)
    found = [await serving.observe(target("ft:a", number), None) for number in (1, 2, 1)]
    assert [(one.state, one.version) for one in found] == [("Serving", 1), ("Serving", 2), ("Serving", 1)]
    assert service.asked == ["ft:a"]


async def test_models_that_nobody_serves_any_more_are_not_kept() -> None:
    service = Service()
    serving = CloudServing(service, service.clock)
    for number in range(50):
        service.now += GOOD_FOR / 10
        await serving.observe(target(f"ft:{number}"), None)
    assert len(service.asked) == 50
    assert [model for _, model in serving._probes] == [f"ft:{number}" for number in range(40, 50)]
