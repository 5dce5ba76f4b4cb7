"""Writes that the API server refuses are not asked for again at each reason to look. Knows no kinds.

A trainer reports every few seconds, and each report has its job looked at: what a policy refuses would be asked for as
often, for as long as the policy stands.
"""

from finetune_operator.runtime.errors import KubeError
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.token_bucket import TokenBuckets
from finetune_operator.runtime.uptime import Clock

AT_ONCE = 3
PAUSE_SECONDS = 30.0
REMEMBERED = 4096


class RefusedWrites:
    """Of each write, how often it was refused lately: a few times in a row it may be, and then every half minute.

    What a policy goes by may be the labels: where those are others than at the refusal, it may be taken by now. Who
    writes them again and again has it asked for no more often than that.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turns = TokenBuckets(1 / PAUSE_SECONDS, AT_ONCE, clock, REMEMBERED)
        self._turns_of_marked = TokenBuckets(1 / PAUSE_SECONDS, AT_ONCE, clock, REMEMBERED)
        self._until: LRUCache[tuple[float, KubeError, object]] = LRUCache(REMEMBERED, lambda held: held[0] <= clock())

    def check(self, write: str, marks: object = None) -> None:
        """Before a write, of an object that has these marks now.

        Raises:
            KubeError: it was refused so often that it has to wait; the one that the server said the last time.
        """
        held = self._until.get(write)
        if held is None or self._clock() >= held[0]:
            return
        _, refusal, marks_then = held
        if marks != marks_then and self._turns_of_marked.take(write) == 0:
            return
        refusal.repeated = True
        raise refusal.with_traceback(None)  # the same one each time

    def refused(self, write: str, refusal: KubeError, marks: object = None) -> None:
        """It was refused, to an object that had these marks."""
        if (wait := self._turns.take(write)) > 0:
            self._until.put(write, (self._clock() + wait, refusal, marks))
