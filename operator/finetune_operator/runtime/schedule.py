"""Which key is due when: the rules of the work queue without any waiting, so that they can be tested exhaustively.

  add / add_after ──▶ waiting ──take──▶ in work ──finish──▶ gone, or waiting again
                         ▲                  │
                         └── added while in work: runs once more, after this run

Holds a key at most once per state. What is to come first has a lane of its own, and most of the turns while both lanes
have something due: neither can starve the other, however long it goes on. Starts nothing and reads no clock: `now` is
handed in.
"""

import heapq
from collections.abc import Iterator
from typing import NamedTuple


class Key(NamedTuple):
    """One object: its kind, its namespace ("" for cluster-scoped kinds) and its name."""

    kind: str
    namespace: str
    name: str


IN_A_ROW = 7
"""So many keys of the first lane are taken before one of the other, if both have some that are due."""


class _Entry(NamedTuple):
    due: float
    order: int  # first come, first served among equals
    key: Key
    first: bool


class Schedule:
    """Keys by the time they are due; each is waiting once or in work once."""

    def __init__(self) -> None:
        self._first: list[_Entry] = []
        self._others: list[_Entry] = []
        self._waiting: dict[Key, _Entry] = {}
        self._in_work: dict[Key, float] = {}
        self._first_in_work: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._not_before: dict[Key, float] = {}
        self._order = 0
        self._in_a_row = 0

    def add(self, key: Key, due: float, *, first: bool = False) -> None:
        """Wants `key` run at `due`; of several wishes the earliest counts, held back only by what `finish` said.

        What is to come first does so, once it is due, until a run of it does not fail.
        """
        if key in self._in_work:
            self._again[key] = min(due, self._again.get(key, due))
            return
        held = max(due, self._not_before.get(key, due))
        known = self._waiting.get(key)
        if known is not None and known.due <= held and known.first >= first:
            return
        if known is not None:
            held, first = min(held, known.due), first or known.first
        self._order += 1
        entry = _Entry(held, self._order, key, first)
        self._waiting[key] = entry
        heapq.heappush(self._lane(entry), entry)
        self._compact()

    def take(self, now: float) -> Key | None:
        """The due key whose turn it is, which is in work from now on; None if none is due."""
        entry = self._next(now)
        if entry is None:
            return None
        heapq.heappop(self._lane(entry))
        self._in_a_row = self._in_a_row + 1 if entry.first else 0
        del self._waiting[entry.key]
        self._in_work[entry.key] = now
        if entry.first:
            self._first_in_work.add(entry.key)
        return entry.key

    def finish(self, key: Key, due: float | None, not_before: float | None = None) -> None:
        """Ends the run of `key`, which is wanted again at `due` (None: only if it was added meanwhile).

        With `not_before`, no wish runs it earlier than that, until a run ends without it: a key that fails cannot be
        made to fail in a tight loop by the events of its own failing.
        """
        del self._in_work[key]
        first = key in self._first_in_work and not_before is not None
        self._first_in_work.discard(key)
        if not_before is None:
            self._not_before.pop(key, None)
        else:
            self._not_before[key] = not_before
        wishes = [wish for wish in (due, self._again.pop(key, None)) if wish is not None]
        if wishes:
            self.add(key, min(wishes), first=first)

    def next_due(self) -> float | None:
        """When a waiting key is due next; None if none waits."""
        heads = [lane[0].due for lane in self._lanes() if lane]
        return min(heads, default=None)

    def due_count(self, now: float) -> int:
        """How many keys are due and wait for a worker. Walks over all waiting keys."""
        return sum(entry.due <= now for entry in self._waiting.values())

    @property
    def waiting(self) -> int:
        """How many keys wait, due or not."""
        return len(self._waiting)

    @property
    def in_work(self) -> dict[Key, float]:
        """Keys in work, with the time they were taken."""
        return dict(self._in_work)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._waiting)

    def _next(self, now: float) -> _Entry | None:
        """Whose turn it is now."""
        due = [lane[0] for lane in self._lanes() if lane and lane[0].due <= now]
        if not due:
            return None
        return due[-1] if self._in_a_row >= IN_A_ROW else due[0]

    def _lane(self, entry: _Entry) -> list[_Entry]:
        return self._first if entry.first else self._others

    def _lanes(self) -> tuple[list[_Entry], list[_Entry]]:
        """Both, with entries at their heads that are not superseded by another wish for the same key."""
        for lane in (self._first, self._others):
            while lane and self._waiting.get(lane[0].key) is not lane[0]:
                heapq.heappop(lane)
        return self._first, self._others

    def _compact(self) -> None:
        """Superseded entries go when they outnumber the real ones, lest resyncs pile up behind frequent events."""
        if len(self._first) + len(self._others) > 64 + 2 * len(self._waiting):
            self._first = [entry for entry in self._waiting.values() if entry.first]
            self._others = [entry for entry in self._waiting.values() if not entry.first]
            heapq.heapify(self._first)
            heapq.heapify(self._others)
