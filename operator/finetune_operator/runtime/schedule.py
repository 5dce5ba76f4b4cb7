"""Which key is due when: the rules of the work queue without any waiting, so that they can be tested exhaustively.

  add / add_after ──▶ waiting ──take──▶ in work ──finish──▶ gone, or waiting again
                         ▲                  │
                         └── added while in work: runs once more, after this run

Holds a key at most once per state. Starts nothing and reads no clock: `now` is handed in.
"""

import heapq
from collections.abc import Iterator
from typing import NamedTuple


class Key(NamedTuple):
    """One object: its kind, its namespace ("" for cluster-scoped kinds) and its name."""

    kind: str
    namespace: str
    name: str


class _Entry(NamedTuple):
    rank: float  # when it is due, less its head start
    order: int  # first come, first served among equals
    key: Key
    due: float


class Schedule:
    """Keys by the time they are due; each is waiting once or in work once."""

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._waiting: dict[Key, _Entry] = {}
        self._in_work: dict[Key, float] = {}
        self._again: dict[Key, float] = {}
        self._not_before: dict[Key, float] = {}
        self._order = 0

    def add(self, key: Key, due: float, head_start: float = 0.0) -> None:
        """Wants `key` run at `due`; of several wishes the earliest counts, held back only by `hold_back`.

        With a head start, which is for what is due at once, it comes before all that have waited less long than that.
        """
        if key in self._in_work:
            self._again[key] = min(due, self._again.get(key, due))
            return
        held = max(due, self._not_before.get(key, due))
        rank = held if held > due else due - head_start
        known = self._waiting.get(key)
        if known is not None and known.rank <= rank:
            return
        self._order += 1
        entry = _Entry(rank, self._order, key, held if known is None else min(held, known.due))
        self._waiting[key] = entry
        heapq.heappush(self._heap, entry)
        self._compact()

    def take(self, now: float) -> Key | None:
        """The due key whose turn it is, which is in work from now on; None if none is due."""
        entry = self._first()
        if entry is None or entry.due > now:
            return None
        heapq.heappop(self._heap)
        del self._waiting[entry.key]
        self._in_work[entry.key] = now
        return entry.key

    def finish(self, key: Key, due: float | None, not_before: float | None = None) -> None:
        """Ends the run of `key`, which is wanted again at `due` (None: only if it was added meanwhile).

        With `not_before`, no wish runs it earlier than that, until a run ends without it: a key that fails cannot be
        made to fail in a tight loop by the events of its own failing.
        """
        del self._in_work[key]
        if not_before is None:
            self._not_before.pop(key, None)
        else:
            self._not_before[key] = not_before
        wishes = [wish for wish in (due, self._again.pop(key, None)) if wish is not None]
        if wishes:
            self.add(key, min(wishes))

    def next_due(self) -> float | None:
        """When the waiting key whose turn is next is due; None if none waits."""
        entry = self._first()
        return None if entry is None else entry.due

    @property
    def head_start_waits(self) -> bool:
        """Whether the waiting key whose turn is next came with a head start."""
        entry = self._first()
        return entry is not None and entry.rank < entry.due

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

    def _first(self) -> _Entry | None:
        """The earliest entry that is not superseded by an earlier wish for the same key."""
        while self._heap and self._waiting.get(self._heap[0].key) is not self._heap[0]:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def _compact(self) -> None:
        """Superseded entries go when they outnumber the real ones, lest resyncs pile up behind frequent events."""
        if len(self._heap) > 64 + 2 * len(self._waiting):
            self._heap = list(self._waiting.values())
            heapq.heapify(self._heap)
