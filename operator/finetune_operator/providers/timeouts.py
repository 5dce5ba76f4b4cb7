"""How long a provider may take for one answer on the whole. Knows no SDK.

SDKs measure silence alone: an answer that drips never stands still, and its call would keep its place at the gate.
What is long comes fast: a file that makes progress has the time it needs.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

COMING_SECONDS = 40.0
"""For an answer to come in, beyond the silence that is borne before it."""

LEAST_PER_SECOND = 64 * 1024
"""Bytes that come or go for each second that a call takes beyond that."""


def seconds_for(silence: float, size: int = 0) -> float:
    """What a call may take as a whole.

    Args:
        silence: seconds that are borne of it.
        size: bytes that it sends or reads.
    """
    return silence + COMING_SECONDS + size / LEAST_PER_SECOND


class Limit:
    """The time of one call, for `async with`: it raises TimeoutError once that is used up.

    Args:
        silence: seconds that are borne of it.
    """

    def __init__(self, silence: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._left = seconds_for(silence)
        self._since: float | None = None
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._go_on()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._timeout.__aexit__(kind, raised, trace)

    def has_moved(self, size: int) -> None:
        """So many bytes have come, or gone."""
        self._stand_still()
        self._left += size / LEAST_PER_SECOND
        self._go_on()

    async def passing(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The body of a request on its way to the provider: the time that its sender takes is not the provider's."""
        self._stand_still()
        async for chunk in body:
            self._left += len(chunk) / LEAST_PER_SECOND
            self._go_on()
            yield chunk
            self._stand_still()
        self._go_on()

    def _go_on(self) -> None:
        self._since = self._clock()
        self._timeout.reschedule(self._since + self._left)

    def _stand_still(self) -> None:
        if self._since is not None:
            self._left -= self._clock() - self._since
        self._since = None
        self._timeout.reschedule(None)
