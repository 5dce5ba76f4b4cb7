"""Capacity for jobs at a provider that limits concurrent ones: a circuit breaker for creates, by kind of job.

Of the jobs that wait for capacity one asks at a time. If each of a thousand asked every half minute, no other call
would get its turn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from finetune_operator.providers.calls.errors import AtCapacity
from finetune_operator.providers.calls.rate_limit import AT_ONCE, CALLS_PER_SECOND
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.token_bucket import TokenBucket
from finetune_operator.runtime.uptime import Clock

PAUSE_SECONDS = 30.0
"""Until the next try, if the provider does not say when."""

KINDS = 256
"""Kinds of jobs remembered: providers limit jobs by base model or by instance type."""


@dataclass(frozen=True)
class _Full:
    until: float
    why: AtCapacity


class JobCapacity:
    """The known capacity of one connection's provider."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full: LRUCache[_Full] = LRUCache(KINDS, lambda known: known.until <= clock())
        self._turns = TokenBucket(CALLS_PER_SECOND, AT_ONCE, clock)

    def require(self, kind: str) -> None:
        """Return unless capacity is known to be exhausted.

        Raises:
            AtCapacity: there was none recently; with the seconds until it is this caller's turn to ask.
        """
        known = self._full.get(kind)
        left = known.until - self._clock() if known else 0.0
        if known is not None and left > 0:
            raise AtCapacity(known.why.message, left + self._turns.reserve(), known.why.reason)

    @contextmanager
    def creating(self, kind: str) -> Iterator[None]:
        """Wrap the call that creates a job of this kind."""
        try:
            yield
        except AtCapacity as error:
            self._full.put(kind, _Full(self._clock() + (error.retry_after or PAUSE_SECONDS), error))
            raise
        self._full.drop(kind)
