"""Statuses that another writer changes as well: corrected a few times at once, then every half minute. Knows no kinds.

Otherwise two operators of the same namespaces, or a script, would overwrite each other as fast as the API server can.
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
"""How long another writer's status may count for what this operator cannot see itself."""
REMEMBERED = 4096


class ContestedStatuses:
    """The last written status of each object: one that finds another status has a rival writer."""

    def __init__(self, clock: Clock) -> None:
        self._turns = TokenBuckets(1 / PAUSE_SECONDS, AT_ONCE, clock, REMEMBERED)
        self._written: LRUCache[int] = LRUCache(REMEMBERED)
        self._reported: LRUCache[bool] = LRUCache(REMEMBERED)
        self._clock = clock
        self._first_found: LRUCache[tuple[int, float]] = LRUCache(REMEMBERED)

    def check(self, uid: str, found: Mapping[str, Any] | None) -> None:
        """Call before overwriting the status that was found.

        Raises:
            Contested: others have changed it too often for another correction now.
        """
        if not self.written_by_another(uid, found):
            return
        if (wait := self._turns.take(uid)) > 0:
            contested = Contested(wait)
            contested.repeated = self._reported.get(uid) is not None
            self._reported.put(uid, True)
            raise contested
        self._reported.drop(uid)

    def written_by_another(self, uid: str, found: Mapping[str, Any] | None) -> bool:
        """Whether the found status was written by someone else; False if none was ever written here."""
        before = self._written.get(uid)
        return before is not None and before != _mark(found)

    def seconds_left_to_another(self, uid: str, found: Mapping[str, Any] | None) -> float:
        """Seconds for which another writer's status counts, for a caller that cannot see the state; 0: it is ours.

        One of two operators may lack the key that the other one has.
        """
        if not self.written_by_another(uid, found):
            return 0
        known, mark, now = self._first_found.get(uid), _mark(found), self._clock()
        if known is None or known[0] != mark:
            known = self._first_found.put(uid, (mark, now))
        return max(0, known[1] + FRESH_SECONDS - now)

    def accept(self, uid: str, found: Mapping[str, Any] | None) -> None:
        """The found status is correct, whoever wrote it: treat it as ours."""
        if self._written.get(uid) is not None:
            self._written.put(uid, _mark(found))

    def forget(self, uid: str) -> None:
        """It is unknown whether a write succeeded: the next status found may be ours."""
        self._written.drop(uid)

    def wrote(self, uid: str, status: Mapping[str, Any] | None) -> None:
        """This is the status now. A later one of another writer counts from then, even if it is the same as before."""
        self._written.put(uid, _mark(status))
        self._first_found.drop(uid)


def _mark(status: Mapping[str, Any] | None) -> int:
    return hash(orjson.dumps(status or {}, option=orjson.OPT_SORT_KEYS))
