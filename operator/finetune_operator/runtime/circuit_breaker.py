"""A circuit breaker for admission webhooks: if one does not answer, only one write waits for it; others fail at once.

    first writes ─▶ wait up to 30 s each ─▶ open: no writes for a while ─▶ one tries ─▶ open again, or closed

A webhook may select a single namespace. Each write there blocks a worker until its time-out, so that some dozens of
jobs would delay those of all other namespaces for minutes, for as long as it is down. Knows no kinds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from finetune_operator.runtime.errors import KubeError, Unadmitted
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.uptime import Clock

SLOW_SECONDS = 2.0
"""A refusal within this time delays nobody."""

PAUSE_SECONDS = 15.0
"""How long writes fail at once after one was not answered."""

REMEMBERED = 1024


@dataclass
class _Outage:
    refusal: KubeError
    until: float
    is_probed: bool = False


class CircuitBreaker:
    """For one client."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._outages: LRUCache[_Outage] = LRUCache(REMEMBERED)

    @contextmanager
    def attempt(self, place: str) -> Iterator[None]:
        """Wrap one write.

        Args:
            place: what is written, how, and in which namespace: as far as webhook rules tell writes apart.

        Raises:
            Unadmitted: a moment ago another write there was not admitted for lack of an answer; with its message.
        """
        outage = self._outages.get(place)
        if outage is not None:
            if outage.is_probed or self._clock() < outage.until:
                raise _copy_of(outage.refusal)
            outage.is_probed = True
        began = self._clock()
        try:
            yield
        except Unadmitted as refusal:
            now = self._clock()
            if now - began >= SLOW_SECONDS:
                self._outages.put(place, _Outage(refusal, now + PAUSE_SECONDS))
            else:
                self._outages.drop(place)
            raise
        except BaseException:
            if outage is not None:
                outage.is_probed = False  # this was no answer of the webhook: the next write may try
            raise
        self._outages.drop(place)


def _copy_of(refusal: KubeError) -> Unadmitted:
    copy = Unadmitted(refusal.status, refusal.reason, refusal.message)
    copy.repeated = True
    return copy
