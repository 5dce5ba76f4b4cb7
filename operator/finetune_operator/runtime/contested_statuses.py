"""Statuses that somebody else writes as well: put right a few times at once, then every half minute. Knows no kinds.

Two operators of the same namespaces, or a script, would else answer each other as fast as the API server takes it.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from finetune_operator.runtime.errors import Contested
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.token_bucket import TokenBuckets
from finetune_operator.runtime.uptime import Clock

AT_ONCE = 5
PAUSE_SECONDS = 30.0
FRESH_SECONDS = 600.0
"""So long a status that somebody else has written may tell of what cannot be seen from here."""
REMEMBERED = 4096


class ContestedStatuses:
    """Of each object the status that was written last: whoever finds another one has a rival."""

    def __init__(self, clock: Clock) -> None:
        self._turns = TokenBuckets(1 / PAUSE_SECONDS, AT_ONCE, clock, REMEMBERED)
        self._written: LRUCache[int] = LRUCache(REMEMBERED)
        self._told: LRUCache[bool] = LRUCache(REMEMBERED)
        self._clock = clock
        self._first_found: LRUCache[tuple[int, float]] = LRUCache(REMEMBERED)

    def check(self, uid: str, found: Mapping[str, Any] | None) -> None:
        """Before a status is written over the one that was found.

        Raises:
            Contested: that is not what was written last, and it was not the last time either.
        """
        if not self.is_of_another(uid, found):
            return
        if (wait := self._turns.take(uid)) > 0:
            contested = Contested(wait)
            contested.repeated = self._told.get(uid) is not None
            self._told.put(uid, True)
            raise contested
        self._told.drop(uid)

    def is_of_another(self, uid: str, found: Mapping[str, Any] | None) -> bool:
        """Whether the status that was found is none that was written here; not known of what never was."""
        before = self._written.get(uid)
        return before is not None and before != _mark(found)

    def left_to(self, uid: str, found: Mapping[str, Any] | None) -> float:
        """Seconds for which a status of another counts, for one who cannot see what it tells of; 0: it is no other's.

        One of two operators may lack the key that the other one has.
        """
        if not self.is_of_another(uid, found):
            return 0
        known, mark, now = self._first_found.get(uid), _mark(found), self._clock()
        if known is None or known[0] != mark:
            known = self._first_found.put(uid, (mark, now))
        return max(0, known[1] + FRESH_SECONDS - now)

    def agree(self, uid: str, found: Mapping[str, Any] | None) -> None:
        """It is as it should be, whoever has written it: as good as ours."""
        if self._written.get(uid) is not None:
            self._written.put(uid, _mark(found))

    def forget(self, uid: str) -> None:
        """Whether it was written is not known: what is found next may be ours."""
        self._written.drop(uid)

    def wrote(self, uid: str, status: Mapping[str, Any] | None) -> None:
        """It is this one now; what another writes over it is told anew, though it be the same as before."""
        self._written.put(uid, _mark(status))
        self._first_found.drop(uid)


def _mark(status: Mapping[str, Any] | None) -> int:
    return hash(orjson.dumps(status or {}, option=orjson.OPT_SORT_KEYS))
