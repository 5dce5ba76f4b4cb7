"""How much one connection's provider is asked at once, and whether it is asked at all while it does not answer.

In the field's terms: a bulkhead with a circuit breaker, whose half-open state is one place.

A provider that is slow or dead must not hold up the others: who finds the gate closed is told so at once, and when to
come back. They come back one after the other, and no faster than calls may go out.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from finetune_api.reasons import Reason
from finetune_operator.providers.errors import (
    Busy,
    Contested,
    Crowded,
    Denied,
    Elsewhere,
    ProviderError,
    Refused,
    TryLater,
    Unknown,
)
from finetune_operator.providers.rate_limit import AT_ONCE, CALLS_PER_SECOND
from finetune_operator.runtime.token_bucket import TokenBucket
from finetune_operator.runtime.uptime import Clock

SILENCE_SECONDS = 30.0
"""How long a provider that did not answer is left alone where it has not asked for longer, and with a bad key."""

TRUST_SECONDS = 60.0
"""How long an answer says that the next call will be answered too."""

CLOSING = frozenset({Reason.RATE_LIMITED, Reason.CREDENTIALS_INVALID, Reason.SECRET_NOT_FOUND})
"""What concerns every call. A quota of jobs, say, must not keep others from being cancelled."""

MENDED_BY_PEOPLE = CLOSING - {Reason.RATE_LIMITED}
"""Of these the pause is our own guess; that of a limit, and of an outage, is the provider's own wish."""


class Gate:
    """Those who ask a connection's provider, one call or several in a row, pass its gate.

    Args:
        at_once: places.
        rate: how fast those come back who were sent away, per second.
        wary: whether there is one place alone until there was an answer lately.
        silence: seconds for which nobody is let in after a call that was not answered.
        refused: told of each call that met a bad key, or no key.
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
        """A place for a task that asks several things in a row: it has it until the end, and is not sent away between.

        There is one place alone until there was an answer lately: a dead provider holds up no more than that. Who
        `probes` the key is let in though a bad one has closed the gate.

        Raises:
            Busy: as many as may be are inside.
            TryLater: the provider did not answer, or asked for a pause, a moment ago.
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
        """Let one call through, in the task's turn or as one of its own; `asks`: it is the provider that answers.

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
        if self._why is not None and left > 0 and not (probes and self._why.reason in MENDED_BY_PEOPLE):
            raise TryLater.because(self._why.failure(), left + self._turns.reserve())

    def _close(self, error: ProviderError) -> None:
        asked = error.retry_after
        silence = isinstance(error, Unknown) and not isinstance(error, Contested)
        if silence:
            self._answered_at = float("-inf")
        seconds = max(self._silence, asked or 0.0) if silence else asked or SILENCE_SECONDS
        if error.reason in MENDED_BY_PEOPLE:
            seconds = min(seconds, SILENCE_SECONDS)  # nobody knows when, and they watch
        if silence or (error.reason in CLOSING and not isinstance(error, Crowded | Denied | Elsewhere)):
            self._closed_until, self._why = self._clock() + seconds, error
        if is_of_the_key(error):
            self._refused()


def is_of_the_key(error: ProviderError) -> bool:
    """Whether it says of the connection's key that nobody gets far with it; one right alone may lack others."""
    return error.reason in MENDED_BY_PEOPLE and not isinstance(error, Denied | Elsewhere)
