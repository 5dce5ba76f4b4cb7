"""How ARM and Entra are reached: the SDK's transport, which reads as far and as long as it can be their answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.request import getproxies

import aiohttp
from azure.core.exceptions import ServiceResponseError, ServiceResponseTimeoutError
from azure.core.pipeline.transport._aiohttp import AioHttpTransport  # typed, as the public name is not

from finetune_operator.providers.errors import Unreadable
from finetune_operator.providers.failed_calls import ANSWER_MAX_BYTES
from finetune_operator.providers.timeouts import seconds_for

CONNECT_SECONDS, CALL_SECONDS = 10, 30


class _Bounded(aiohttp.ClientResponse):
    """Is read as far as it can be ARM's: what comes compressed may be a thousand times as long."""

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
    """What the SDK would read later is read in time, too: nothing of ARM is long.

    Not by the SDK's own response, which refuses to be read again where the body is empty.
    """
    try:
        await response._internal_response.read()  # noqa: SLF001 - aiohttp's, which keeps what it has read
    except aiohttp.ClientError as error:
        raise ServiceResponseError(error, error=error) from error


class InTurn(AioHttpTransport):
    """Sends a request when it is its turn: it has its token by then, which Entra may have taken its time for.

    Args:
        who: is asked, as people know it.
    """

    turn: Callable[[], Awaitable[None]] | None = None

    def __init__(self, who: str = "ARM") -> None:
        super().__init__(connection_timeout=CONNECT_SECONDS, read_timeout=CALL_SECONDS)
        self._who = who

    async def open(self) -> None:
        """See AioHttpTransport, whose own session would hold an answer and what it is uncompressed, however long."""
        if self.session is None and not self._has_been_opened:
            self.session = aiohttp.ClientSession(
                trust_env=bool(getproxies()),  # it reads the environment at each request, and files, in a thread
                cookie_jar=aiohttp.DummyCookieJar(),
                response_class=_Bounded,
            )
        await super().open()  # type: ignore[no-untyped-call]

    async def send(self, request: Any, **options: Any) -> Any:
        """See AioHttpTransport.

        Raises:
            Unreadable: a proxy answers. To the SDK its page is as good as no body, and a deletion done.
            ServiceResponseTimeoutError: the answer takes too long on the whole.
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
