"""The clients of a connection: made as it is, closed when nobody is given them any more."""

import asyncio
import base64
from functools import partial
from typing import Any, cast

import pytest

from finetune_api.connection import LLMConnectionSpec
from finetune_operator.decide.connection import lacking
from finetune_operator.providers.accounts.client import RETIRE_SECONDS, Client, Retired, Sources
from finetune_operator.providers.connection_secret import ConnectionSecrets


class Api:
    """Takes a while to say whose account it is of."""

    def __init__(self) -> None:
        self.open = True

    def use_limiter(self, _: Any) -> None:
        return None

    async def account(self) -> str:
        await asyncio.sleep(0)
        return "project a"

    async def close(self) -> None:
        self.open = False


class World:
    """One connection; its clients as they were made."""

    def __init__(self) -> None:
        self.made: list[Api] = []
        self.now = 0.0
        self.url = "https://a.example.com/v1"
        secrets = ConnectionSecrets(cast("Any", self), "finetune")
        sources = Sources(
            secrets,
            self.spec,
            partial(lacking, is_there=False),
            guard=lambda: None,
            build=self.build,
            clock=lambda: self.now,
        )
        self.retired = Retired(sources.clock)
        self.client = Client("openai", sources, self.retired)

    async def get(self, *_: Any) -> Any:
        """The Secret, as Kube reads it."""
        await asyncio.sleep(0)
        return {"data": {"api-key": base64.b64encode(b"sk-a").decode()}}

    def spec(self, _: str) -> LLMConnectionSpec:
        block = {"baseURL": self.url, "apiKeySecretRef": {"name": "openai", "key": "api-key"}}
        return LLMConnectionSpec.model_validate({"namespaceSelector": {}, "openAI": block})

    def build(self, *_: Any) -> Any:
        self.made.append(Api())
        return self.made[-1]

    async def ask(self, times: int) -> list[Any]:
        return await asyncio.gather(*(self.client.api() for _ in range(times)))


@pytest.fixture
def world() -> World:
    return World()


async def test_one_client_serves_all_that_ask_and_the_one_of_an_earlier_spec_is_closed_later(world: World) -> None:
    [first] = await world.ask(1)
    world.url = "https://b.example.com/v1"
    [second] = await world.ask(1)
    assert (first.open, second.open) == (True, True), "calls may be on their way through it"
    world.now += RETIRE_SECONDS
    world.url = "https://c.example.com/v1"
    await world.ask(1)
    assert (first.open, second.open) == (False, True)


async def test_one_that_is_made_while_its_connection_goes_is_closed_too(world: World) -> None:
    asking = asyncio.create_task(world.ask(1))
    await asyncio.sleep(0)
    await world.client.retire()
    [made] = await asking
    assert made.open, "whoever has asked for it uses it"
    await world.retired.close()
    assert [api.open for api in world.made] == [False]


async def test_of_several_that_are_made_at_once_none_is_forgotten(world: World) -> None:
    """Whoever deletes a connection and makes it anew has many ask for its client in one moment."""
    await world.ask(5)
    again = await world.ask(3)
    assert len({id(api) for api in again}) == 1
    await world.client.close()
    await world.retired.close()
    assert [api.open for api in world.made] == [False] * len(world.made)
    assert len(world.made) > 1
