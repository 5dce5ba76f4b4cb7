"""The SDK's HTTP transport for ARM and Entra, with limits on an answer's size and total time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.request import getproxies

import aiohttp
from azure.core.exceptions import ServiceResponseError, ServiceResponseTimeoutError
from azure.core.pipeline.transport._aiohttp import AioHttpTransport  # typed, as the public name is not

from finetune_operator.providers.calls.errors import Unreadable
from finetune_operator.providers.calls.failed_calls import ANSWER_MAX_BYTES
from finetune_operator.providers.calls.timeouts import seconds_for

CONNECT_SECONDS, CALL_SECONDS = 10, 30


class _Bounded(aiohttp.ClientResponse):
    """Limits the size of an answer: a compressed one may expand a thousandfold."""

    async def read(self) -> bytes:
        """See aiohttp.ClientResponse."""
        if self._body is None:
            try:
                self._body = await self._bounded()
            except BaseException:
                self.close()
                raise
        return self._body

    async def _bounded(self) -> bytes:
        content = bytearray()
        async for chunk in self.content.iter_any():
            content += chunk
            if len(content) > ANSWER_MAX_BYTES:
                raise aiohttp.ClientPayloadError("too long")
        return bytes(content)


async def _read(response: Any) -> None:
    """Read the body within the time limit, although the SDK would stream it: ARM's answers are short.

    Not through the SDK's own response, which cannot be read again if the body is empty.
    """
    try:
        await response._internal_response.read()  # noqa: SLF001 - aiohttp's, which keeps what it has read
    except aiohttp.ClientError as error:
        raise ServiceResponseError(error, error=error) from error


class RateLimitedTransport(AioHttpTransport):
    """Waits for the rate limiter right before sending, when a slow token request is already done.

    Args:
        who: the service's name for users.
    """

    turn: Callable[[], Awaitable[None]] | None = None

    def __init__(self, who: str = "ARM") -> None:
        super().__init__(connection_timeout=CONNECT_SECONDS, read_timeout=CALL_SECONDS)
        self._who = who

    async def open(self) -> None:
        """See AioHttpTransport, whose own session would buffer answers of any size, compressed and uncompressed."""
        if self.session is None and not self._has_been_opened:
            self.session = aiohttp.ClientSession(
                trust_env=bool(getproxies()),  # costs a thread that reads environment and files per request
                cookie_jar=aiohttp.DummyCookieJar(),
                response_class=_Bounded,
            )
        await super().open()  # type: ignore[no-untyped-call]

    async def send(self, request: Any, **options: Any) -> Any:
        """See AioHttpTransport.

        Raises:
            Unreadable: a proxy's page, which the SDK would treat as an empty body, and a deletion as done.
            ServiceResponseTimeoutError: the total time is used up.
        """
        if self.turn is not None:
            await self.turn()
        try:
            async with asyncio.timeout(seconds_for(CALL_SECONDS)):
                response: Any = await super().send(request, **options)
                if options.get("stream"):
                    await _read(response)
        except TimeoutError as error:
            raise ServiceResponseTimeoutError("the answer takes too long", error=error) from None
        if response.status_code < 300 and "html" in str(response.content_type).casefold():
            await response.close()
            raise Unreadable(f"{self._who}'s address answers with a web page and status {response.status_code}")
        return response
