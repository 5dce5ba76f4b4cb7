"""Limits the concurrent calls to one connection's provider, and stops calls while it does not answer.

A bulkhead with a circuit breaker that lets one caller through when half-open.

A slow or dead provider must not hold up the others: callers that find the gate closed fail at once with a retry time.
These times are spread, so that retries arrive no faster than the rate limit.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import (
    AtCapacity,
    Busy,
    ConnectionMoved,
    Contested,
    Denied,
    ProviderError,
    Refused,
    TryLater,
    Unknown,
)
from finetune_operator.providers.calls.rate_limit import AT_ONCE, CALLS_PER_SECOND
from finetune_operator.runtime.token_bucket import TokenBucket
from finetune_operator.runtime.uptime import Clock

SILENCE_SECONDS = 30.0
"""Pause after a call that was not answered, unless the provider asks for longer, and after a bad key."""

TRUST_SECONDS = 60.0
"""For how long after an answer the provider is assumed to be responsive."""

CLOSING = frozenset({Reason.RATE_LIMITED, Reason.CREDENTIALS_INVALID, Reason.SECRET_NOT_FOUND})
"""Reasons that affect every call. A job quota, for example, does not: jobs can still be cancelled."""

FIXED_BY_ADMIN = CLOSING - {Reason.RATE_LIMITED}
"""Here the pause is our own guess; after a rate limit or an outage it is what the provider asks for."""


class Gate:
    """All calls to a connection's provider pass its gate, single ones and sequences.

    Args:
        at_once: maximum of concurrent callers.
        rate: how fast callers that were turned away may return, per second.
        wary: whether only one caller is let in until there was a recent answer.
        silence: seconds for which the gate is closed after a call that was not answered.
        refused: called for each call that met an invalid or missing key.
    """

    def __init__(
        self,
        *,
        at_once: int = AT_ONCE,
        rate: float = CALLS_PER_SECOND,
        wary: bool = True,
        silence: float = SILENCE_SECONDS,
        refused: Callable[[], None] = lambda: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._inside: set[asyncio.Task[Any] | None] = set()
        self._at_once = at_once
        self._wary = wary
        self._silence = silence
        self._refused = refused
        self._turns = TokenBucket(rate, at_once, clock)
        self._clock = clock
        self._closed_until = 0.0
        self._why: ProviderError | None = None
        self._answered_at = float("-inf")

    @asynccontextmanager
    async def turn(self, *, probes: bool = False) -> AsyncIterator[None]:
        """Hold a slot for a task that makes several calls in a row, so that it is not turned away between them.

        Until there was a recent answer only one caller is let in, so a dead provider blocks no more than that one.
        `probes`: let in even though a bad key has closed the gate, to test the key.

        Raises:
            Busy: all slots are taken.
            TryLater: the provider recently did not answer, or asked for a pause.
        """
        task = asyncio.current_task()
        if task in self._inside:
            yield
            return
        self._require_open(probes=probes)
        answers = not self._wary or self._clock() - self._answered_at < TRUST_SECONDS
        if len(self._inside) >= (self._at_once if answers else 1):
            message = "other calls of this connection come first"
            raise Busy(Reason.RATE_LIMITED, message, max(1.0, self._turns.reserve()))
        self._inside.add(task)
        try:
            yield
        finally:
            self._inside.discard(task)

    @asynccontextmanager
    async def passing(self, *, asks: bool = True, probes: bool = False) -> AsyncIterator[None]:
        """Let one call through, within the task's turn if it has one. `asks`: whether it calls the provider itself.

        Raises:
            Busy, TryLater: as `turn`.
        """
        async with self.turn(probes=probes):
            self._require_open(probes=probes)
            try:
                yield
            except (Unknown, TryLater) as error:
                self._close(error)
                raise
            except Refused:
                self._answered_at = self._clock()
                raise
            else:
                self._answered_at = self._clock() if asks else self._answered_at

    def _require_open(self, *, probes: bool) -> None:
        left = self._closed_until - self._clock()
        if self._why is not None and left > 0 and not (probes and self._why.reason in FIXED_BY_ADMIN):
            raise TryLater.because(self._why.failure(), left + self._turns.reserve())

    def _close(self, error: ProviderError) -> None:
        asked = error.retry_after
        silence = isinstance(error, Unknown) and not isinstance(error, Contested)
        if silence:
            self._answered_at = float("-inf")
        seconds = max(self._silence, asked or 0.0) if silence else asked or SILENCE_SECONDS
        if error.reason in FIXED_BY_ADMIN:
            seconds = min(seconds, SILENCE_SECONDS)  # an admin fixes it at an unknown time, and watches for the result
        if silence or (error.reason in CLOSING and not isinstance(error, AtCapacity | Denied | ConnectionMoved)):
            self._closed_until, self._why = self._clock() + seconds, error
        if is_key_error(error):
            self._refused()


def is_key_error(error: ProviderError) -> bool:
    """Whether the connection's key itself is unusable, rather than one permission missing."""
    return error.reason in FIXED_BY_ADMIN and not isinstance(error, Denied | ConnectionMoved)
