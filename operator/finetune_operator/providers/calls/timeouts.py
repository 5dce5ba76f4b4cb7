"""The total timeout of one call to a provider, independent of SDKs.

SDKs only time out on silence: a slowly dripping answer would hold its slot at the gate. Large transfers get more time
as they make progress.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

RECEIVE_SECONDS = 40.0
"""For receiving an answer, in addition to the silence allowed before it."""

MIN_BYTES_PER_SECOND = 64 * 1024
"""Minimum throughput in bytes for each further second."""


def seconds_for(silence: float, size: int = 0) -> float:
    """The total time that a call may take.

    Args:
        silence: seconds of silence that are allowed.
        size: bytes that it sends or reads.
    """
    return silence + RECEIVE_SECONDS + size / MIN_BYTES_PER_SECOND


class Limit:
    """The timeout of one call, for `async with`: raises TimeoutError when it expires.

    Args:
        silence: seconds of silence that are allowed.
    """

    def __init__(self, silence: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._left = seconds_for(silence)
        self._since: float | None = None
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._resume()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._timeout.__aexit__(kind, raised, trace)

    def transferred(self, size: int) -> None:
        """Extend the timeout for bytes that were received or sent."""
        self._pause()
        self._left += size / MIN_BYTES_PER_SECOND
        self._resume()

    async def passing(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass a request's body through; the time that its source takes does not count."""
        self._pause()
        async for chunk in body:
            self._left += len(chunk) / MIN_BYTES_PER_SECOND
            self._resume()
            yield chunk
            self._pause()
        self._resume()

    def _resume(self) -> None:
        self._since = self._clock()
        self._timeout.reschedule(self._since + self._left)

    def _pause(self) -> None:
        if self._since is not None:
            self._left -= self._clock() - self._since
        self._since = None
        self._timeout.reschedule(None)
