"""Answers that never stand still and never end: an SDK that measures silence would wait for them for ever."""

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import connector, web

from finetune_api.azure import AzureOpenAI
from finetune_api.reasons import Reason
from finetune_operator.providers.azure.api import token_of
from finetune_operator.providers.azure.entra import credential_of
from finetune_operator.providers.calls import timeouts
from finetune_operator.providers.calls.errors import ProviderError, TryLater, Unknown, parsing_answer
from finetune_operator.providers.connection_secret import AZURE_KEYS
from tests.simulators.certificates import make
from tests.unit.finetune_operator.providers.strange import (
    BY_HEAD,
    CHANGES,
    DATA,
    HOSTED,
    PROVIDERS,
    READS,
    TOLD,
    Call,
    answer,
    listening,
)

DRIP_SECONDS = 0.05
LIMIT_SECONDS = 1.0
PATIENCE_SECONDS = 15.0
"""Of the test, for all calls of a provider."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a call takes beyond the silence that is borne, which would be minutes."""
    for module in ("calls.timeouts", "aws.client", "azure.transport"):
        name = f"finetune_operator.providers.{module}.seconds_for"
        monkeypatch.setattr(name, lambda _, size=0: LIMIT_SECONDS + size / 2**26)


SURE = READS.keys() | CHANGES.keys() | {"list", "make", "delete"}
"""Calls that are not done as long as they have no answer."""


async def drips(head: bytes, drop: bytes = b" ") -> AsyncIterator[bytes]:
    yield head
    while True:
        await asyncio.sleep(DRIP_SECONDS)
        yield drop


@asynccontextmanager
async def dripping_heads() -> AsyncIterator[str]:
    """A server whose answers do not get beyond their headers."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            async for piece in drips(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"):
                writer.write(piece)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def calls(provider: str) -> dict[str, Call]:
    hosted = {} if provider == "openai" else HOSTED
    return READS | CHANGES | DATA | TOLD | hosted | {"answer": answer}


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """A thread that reads on would be lost to the connection's calls, and hold up the operator's end.

    Other tests of this process share clients that are never closed, and so have threads.
    """
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 10
    while left := [one.name for one in threading.enumerate() if one.name.startswith("aws") and one not in before]:
        assert time.monotonic() < deadline, left
        time.sleep(DRIP_SECONDS)


async def ask_all(provider: str, url: str, sure: set[str]) -> None:
    """All at once, as each takes its time."""
    api = PROVIDERS[provider](url)

    async def ask(what: str, call: Call) -> None:
        with pytest.raises((Unknown, TryLater)) if what in sure else suppress(ProviderError), parsing_answer():
            print(what, await call(api, provider))

    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*(ask(what, call) for what, call in calls(provider).items()))
    finally:
        await api.close()


@pytest.mark.alike
@pytest.mark.usefixtures("no_thread_is_left")
@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_answer_that_drips_is_given_up(provider: str, status: int) -> None:
    def say(_: web.Request) -> web.Response:
        return web.Response(body=drips(b"{"), status=status, content_type="application/json")

    async with listening(say) as strange:
        await ask_all(provider, strange.url, SURE - {what for one, what in BY_HEAD if one == provider})


@pytest.mark.alike
@pytest.mark.usefixtures("no_thread_is_left")
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_answer_whose_headers_drip_is_given_up(provider: str) -> None:
    async with dripping_heads() as url:
        await ask_all(provider, url, SURE)


async def test_a_call_that_was_given_up_is_told_as_one_without_an_answer() -> None:
    def say(_: web.Request) -> web.Response:
        return web.Response(body=drips(b"{"), content_type="application/json")

    async with listening(say) as strange:
        for provider, build in PROVIDERS.items():
            api = build(strange.url)
            with pytest.raises(Unknown, match="does not answer in time") as told:
                await READS["check"](api, provider)
            assert told.value.reason is Reason.PROVIDER_UNAVAILABLE
            await api.close()


async def test_a_file_that_comes_slowly_and_steadily_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as is to come is waited for, if it comes at the least speed."""
    monkeypatch.setattr(timeouts, "MIN_BYTES_PER_SECOND", 1000)

    async def lines() -> AsyncIterator[bytes]:
        yield b"step,train_loss\n"
        for step in range(1, 61):
            await asyncio.sleep(DRIP_SECONDS)
            yield f"{step},0.5{'0' * 50}\n".encode()

    def say(request: web.Request) -> web.Response:
        if request.path.endswith("/content"):
            return web.Response(body=lines(), content_type="text/csv")
        return web.json_response({"object": "list", "data": []})

    async with listening(say) as strange:
        api = PROVIDERS["openai"](strange.url)
        found = await TOLD["metrics"](api, "openai")
        assert found.train[-1].step == 60
        await api.close()


async def test_the_time_of_whoever_sends_a_file_is_not_the_providers() -> None:
    async def rows() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(LIMIT_SECONDS / 2)
            yield b"r"

    def say(_: web.Request) -> web.Response:
        file = {"id": "file-1", "object": "file", "filename": "a.jsonl", "bytes": 4, "created_at": 1, "purpose": "x"}
        return web.json_response(file | {"status": "processed"})

    async with listening(say) as strange:
        api: Any = PROVIDERS["openai"](strange.url)
        assert (await api.upload("a.jsonl", 4, rows())).id == "file-1"
        await api.close()


@asynccontextmanager
async def entra(
    say: Callable[[web.Request], Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """What gets a token at an Entra that answers so."""
    tls = make(folder)
    monkeypatch.setattr(connector, "_SSL_CONTEXT_VERIFIED", ssl.create_default_context(cafile=tls.authority))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", say)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.context()).start()
    block = {
        "endpoint": "https://res.openai.azure.com",
        "subscriptionID": "11111111-2222-3333-4444-555555555555",
        "resourceGroup": "group",
    }
    where = {"account": "res", "authorityHost": f"https://localhost:{runner.addresses[0][1]}"}
    settings = AzureOpenAI.model_validate(block | where | {"credentials": {"secretRef": {"name": "azure"}}})
    secret = dict(zip(AZURE_KEYS, ("11111111-2222-3333-4444-555555555555", "client", "a-secret"), strict=True))
    credential = credential_of(settings, secret)
    try:
        yield token_of(credential, "https://cognitiveservices.azure.com/.default")
    finally:
        await credential.close()
        await runner.cleanup()


async def hang(_: web.Request) -> web.Response:
    await asyncio.sleep(3600)
    return web.Response()


async def drip(_: web.Request) -> web.Response:
    return web.Response(body=drips(b"{"), content_type="application/json")


async def pause(_: web.Request) -> web.Response:
    return web.json_response({"error": "too_many_requests"}, status=429, headers={"Retry-After": "600"})


async def fail(_: web.Request) -> web.Response:
    return web.json_response({"error": "temporarily_unavailable"}, status=503)


AT_ENTRA: dict[str, tuple[Callable[[web.Request], Any], type[ProviderError], Reason, float | None]] = {
    "silence": (hang, Unknown, Reason.PROVIDER_UNAVAILABLE, None),
    "drips": (drip, Unknown, Reason.PROVIDER_UNAVAILABLE, None),
    "a pause": (pause, TryLater, Reason.RATE_LIMITED, 600),
    "an outage": (fail, Unknown, Reason.PROVIDER_UNAVAILABLE, None),
}


@pytest.mark.alike
@pytest.mark.parametrize("name", AT_ENTRA)
async def test_an_entra_that_gives_no_token_now_is_told_at_once_and_not_waited_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its SDK would wait as long as Entra wishes, and try again ten times, in the connection's place at the gate."""
    say, kind, reason, seconds = AT_ENTRA[name]
    async with entra(say, tmp_path, monkeypatch) as token, asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(kind) as told:
            await token()
    assert (told.value.reason, told.value.retry_after) == (reason, seconds)
    assert "Entra" in told.value.message
