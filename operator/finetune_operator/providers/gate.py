"""How much one connection's provider is asked at once, and whether it is asked at all while it does not answer.

A provider that is slow or dead must not hold up the others: who finds the gate closed is told so at once.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from finetune_api.reasons import Reason
from finetune_operator.providers.errors import Busy, Denied, ProviderError, TryLater, Unknown
from finetune_operator.runtime.limits import TokenBucket

CALLS_PER_SECOND = 10.0
CALLS_AT_ONCE = 4
SILENCE_SECONDS = 30.0
"""How long a provider that did not answer, or asked for patience, is left alone at most."""

CLOSING = frozenset({Reason.RATE_LIMITED, Reason.CREDENTIALS_INVALID, Reason.SECRET_NOT_FOUND})
"""What concerns every call. A quota of jobs, say, must not keep others from being cancelled."""


class Gate:
    """Every call of a connection goes through its gate."""

    def __init__(
        self,
        *,
        rate: float = CALLS_PER_SECOND,
        at_once: int = CALLS_AT_ONCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = TokenBucket(rate, 2 * rate, clock)
        self._free = at_once
        self._clock = clock
        self._closed_until = 0.0
        self._why: ProviderError | None = None

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Let one call through.

        Raises:
            Busy: as many calls as may be are on their way.
            TryLater: the provider did not answer, or asked for a pause, a moment ago.
        """
        self._require_open()
        wait = self._bucket.take() if self._free > 0 else 1.0
        if wait > 0:
            raise Busy(Reason.RATE_LIMITED, "other calls of this connection come first", wait)
        self._free -= 1
        try:
            yield
        except (Unknown, TryLater) as error:
            self._close(error)
            raise
        finally:
            self._free += 1

    def _require_open(self) -> None:
        left = self._closed_until - self._clock()
        if self._why is not None and left > 0:
            raise TryLater(self._why.reason, self._why.message, left)

    def _close(self, error: ProviderError) -> None:
        asked = error.retry_after or SILENCE_SECONDS
        seconds = SILENCE_SECONDS if isinstance(error, Unknown) else min(asked, SILENCE_SECONDS)
        if isinstance(error, Unknown) or (error.reason in CLOSING and not isinstance(error, Denied)):
            self._closed_until, self._why = self._clock() + seconds, error
