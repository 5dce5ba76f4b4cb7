"""The rate limiter of one connection's calls to its provider, and the check that this replica may still make them."""

import asyncio
import time
from collections.abc import Callable

from finetune_operator.runtime.token_bucket import TokenBucket
from finetune_operator.runtime.uptime import Clock

CALLS_PER_SECOND = 10.0
AT_ONCE = 4


class RateLimiter:
    """Limits the rate of all of a connection's calls.

    Args:
        rate: calls per second in the long run; bursts of AT_ONCE do not wait.
        guard: raises if a call must no longer be made when its turn comes.
    """

    def __init__(
        self,
        rate: float = CALLS_PER_SECOND,
        clock: Clock = time.monotonic,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        self._bucket = TokenBucket(rate, AT_ONCE, clock)
        self._guard = guard

    async def wait(self) -> None:
        """Return when it is this call's turn: first come, first served."""
        seconds = self._bucket.reserve()
        if seconds > 0:
            await asyncio.sleep(seconds)
        self.require()

    def require(self) -> None:
        """Raise if a call must no longer be made although its turn has come; callable from any thread."""
        self._guard()
