"""Limits how often a write that the API server refuses is repeated. Knows no kinds.

A trainer reports every few seconds, and each report triggers a reconcile of its job: without this, a write that a
policy refuses would be sent as often, for as long as the policy exists.
"""

from finetune_operator.runtime.errors import KubeError
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.token_bucket import TokenBuckets
from finetune_operator.runtime.uptime import Clock

AT_ONCE = 3
PAUSE_SECONDS = 30.0
REMEMBERED = 4096


class RefusedWrites:
    """Counts recent refusals by write: a few in a row are allowed, then one every half minute.

    Policies may look at labels: if they differ from those at the refusal, the write may be accepted now and is sent.
    Labels that change again and again cause no more tries than that.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turns = TokenBuckets(1 / PAUSE_SECONDS, AT_ONCE, clock, REMEMBERED)
        self._turns_after_edit = TokenBuckets(1 / PAUSE_SECONDS, AT_ONCE, clock, REMEMBERED)
        self._until: LRUCache[tuple[float, KubeError, object]] = LRUCache(REMEMBERED, lambda held: held[0] <= clock())

    def check(self, write: str, marks: object = None) -> None:
        """Call before a write; `marks` are the object's present labels and annotations.

        Raises:
            KubeError: it was refused so often that it has to wait; the server's last refusal.
        """
        held = self._until.get(write)
        if held is None or self._clock() >= held[0]:
            return
        _, refusal, marks_then = held
        if marks != marks_then and self._turns_after_edit.take(write) == 0:
            return
        refusal.repeated = True
        raise refusal.with_traceback(None)  # the same one each time

    def refused(self, write: str, refusal: KubeError, marks: object = None) -> None:
        """Record a refusal; `marks` are what the object had then."""
        if (wait := self._turns.take(write)) > 0:
            self._until.put(write, (self._clock() + wait, refusal, marks))
