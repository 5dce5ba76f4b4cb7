"""A circuit breaker for webhooks: where one says nothing, one write waits, and the others are told what that one was.

    first writes ─▶ wait up to 30 s each ─▶ silent: nobody asks for a while ─▶ one asks ─▶ silent again, or answered

A webhook may look after one namespace alone. Each write there holds a worker for as long as its time-out, so that some
dozens of jobs would keep everybody else's waiting for minutes, for as long as it is away. Knows no kinds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from finetune_operator.runtime.errors import KubeError, Unadmitted
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.uptime import Clock

SLOW_SECONDS = 2.0
"""What is refused within this holds nobody up."""

PAUSE_SECONDS = 15.0
"""For which nobody asks where nothing was said."""

REMEMBERED = 1024


@dataclass
class _Silence:
    refusal: KubeError
    until: float
    is_asked: bool = False


class CircuitBreaker:
    """Of one client."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._places: LRUCache[_Silence] = LRUCache(REMEMBERED)

    @contextmanager
    def asking(self, place: str) -> Iterator[None]:
        """Around one write.

        Args:
            place: what is written, how, and in which namespace: as far as webhooks tell writes apart by rule.

        Raises:
            Unadmitted: another write there was not admitted, for want of an answer, a moment ago; its own words.
        """
        silence = self._places.get(place)
        if silence is not None:
            if silence.is_asked or self._clock() < silence.until:
                raise _again(silence.refusal)
            silence.is_asked = True
        began = self._clock()
        try:
            yield
        except Unadmitted as refusal:
            now = self._clock()
            if now - began >= SLOW_SECONDS:
                self._places.put(place, _Silence(refusal, now + PAUSE_SECONDS))
            else:
                self._places.drop(place)
            raise
        except BaseException:
            if silence is not None:
                silence.is_asked = False  # that was no word of the webhook's: the next one may ask
            raise
        self._places.drop(place)


def _again(refusal: KubeError) -> Unadmitted:
    told = Unadmitted(refusal.status, refusal.reason, refusal.message)
    told.repeated = True
    return told
