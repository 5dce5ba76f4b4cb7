"""Which key is due when: the rules of the work queue without any waiting, so that they can be tested exhaustively.

  add / add_after ──▶ waiting ──take──▶ in work ──finish──▶ gone, or waiting again
                         ▲                  │
                         └── added while in work: runs once more, after this run

Holds a key at most once per state. Keys wait in lanes, which take turns while several have due keys: none can starve
another. Starts nothing and reads no clock: `now` is passed in.
"""

import heapq
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple


class Key(NamedTuple):
    """One object: its kind, its namespace ("" for cluster-scoped kinds) and its name."""

    kind: str
    namespace: str
    name: str


class Lane(IntEnum):
    """Where a key waits. If it was added to several lanes, the first one in this order counts."""

    NEW = 0
    """New objects: what they need takes the longest to get ready."""
    ENDED = 1
    """Objects that have ended: users wait for the result, and other objects for what becomes free."""
    OTHERS = 2
    """Everything else, mostly timed reconciles, of which there are many and which mostly find nothing to do."""
    SWEEP = 3
    """Thousands of objects enqueued for a reason outside of them, such as a resync: an edit of one must not wait."""


TURNS = {Lane.NEW: 4, Lane.ENDED: 3, Lane.OTHERS: 1, Lane.SWEEP: 1}
"""How many keys of a lane are taken in a row while another lane has due keys. An end takes three: its pod's, its
model's, and its own once it has its version."""


class _Entry(NamedTuple):
    due: float
    order: int  # first come, first served among equals
    key: Key
    lane: Lane


class Schedule:
    """Keys by due time; each is waiting at most once or in work once."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, list[_Entry]] = {lane: [] for lane in Lane}
        self._waiting: dict[Key, _Entry] = {}
        self._in_work: dict[Key, float] = {}
        self._lane_in_work: dict[Key, Lane] = {}
        self._again: dict[Key, tuple[float, Lane]] = {}
        self._earliest: dict[Key, float] = {}
        self._order = 0
        self._turn = Lane.NEW
        self._in_a_row = 0

    def add(self, key: Key, due: float, lane: Lane = Lane.OTHERS) -> None:
        """Runs `key` at `due`; if it is added several times the earliest counts, but not before `finish`'s limit.

        It keeps its lane until one of its runs succeeds.
        """
        if key in self._in_work:
            earlier, its = self._again.get(key, (due, lane))
            self._again[key] = min(due, earlier), min(lane, its)
            return
        held = max(due, self._earliest.get(key, due))
        known = self._waiting.get(key)
        if known is not None and known.due <= held and known.lane <= lane:
            return
        if known is not None:
            held, lane = min(held, known.due), min(lane, known.lane)
        self._order += 1
        entry = _Entry(held, self._order, key, lane)
        self._waiting[key] = entry
        heapq.heappush(self._lanes[lane], entry)
        self._compact()

    def take(self, now: float) -> Key | None:
        """The due key whose turn it is; it is in work from now on. None if none is due."""
        due = {lane for lane, entry in self._heads() if entry.due <= now}
        if not due:
            return None
        lane = self._next(due)
        self._in_a_row = self._in_a_row + 1 if lane is self._turn else 1
        self._turn = lane
        key = heapq.heappop(self._lanes[lane]).key
        del self._waiting[key]
        self._in_work[key] = now
        self._lane_in_work[key] = lane
        return key

    def finish(self, key: Key, due: float | None, not_before: float | None = None) -> None:
        """Ends the run of `key`, which is due again at `due` (None: only if it was added meanwhile).

        With `not_before` it does not run earlier than that, until a run ends without it: the events that a failing key
        causes cannot make it fail in a tight loop.
        """
        del self._in_work[key]
        lane = self._lane_in_work.pop(key)
        if not_before is None:
            self._earliest.pop(key, None)
            lane = Lane.OTHERS
        else:
            self._earliest[key] = not_before
        if due is not None:
            self.add(key, due, lane)
        if key in self._again:
            earlier, its = self._again.pop(key)
            self.add(key, earlier, min(lane, its))

    def next_due(self) -> float | None:
        """When a waiting key is due next; None if none waits."""
        return min((entry.due for _, entry in self._heads()), default=None)

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

    def _next(self, due: set[Lane]) -> Lane:
        """The lane whose turn it is: the same one again while it has turns left, else the one after it."""
        if self._turn in due and self._in_a_row < TURNS[self._turn]:
            return self._turn
        return min(due, key=lambda lane: (lane <= self._turn, lane))

    def _heads(self) -> Iterator[tuple[Lane, _Entry]]:
        """The first entry of each non-empty lane, skipping entries that were superseded by a later `add`."""
        for lane, entries in self._lanes.items():
            while entries and self._waiting.get(entries[0].key) is not entries[0]:
                heapq.heappop(entries)
            if entries:
                yield lane, entries[0]

    def _compact(self) -> None:
        """Drops superseded entries when they outnumber the real ones; else frequent events would pile up resyncs."""
        if sum(map(len, self._lanes.values())) > 64 + 2 * len(self._waiting):
            for lane, entries in self._lanes.items():
                entries[:] = [entry for entry in self._waiting.values() if entry.lane is lane]
                heapq.heapify(entries)
