"""The simulated world's time. It stands still until a test moves it, or runs at a multiple of real time."""

import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol, TypeVar

START = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0
DAY = 24 * HOUR


class Turning(Protocol):
    """Something whose future changes when it takes a turn."""

    turn: int


T = TypeVar("T", bound=Turning)


class Clock:
    """Seconds since 1970, and what is due at which moment.

    What is due happens in the order of its moments, each with `now` at its own moment: an hour's advance and sixty
    minutes' advances give the same world.
    """

    def __init__(self, start: float = START, rate: float = 0.0) -> None:
        self.now = start
        self._rate = rate
        self._seen = time.monotonic()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @property
    def rate(self) -> float:
        """Simulated seconds per real second; 0 stands still."""
        return self._rate

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Let `action` happen `seconds` from now."""
        heapq.heappush(self._due, (self.now + seconds, next(self._order), action))

    def later(self, thing: T, seconds: float, what: Callable[[T], None]) -> None:
        """Let `what` happen to a thing `seconds` from now, unless its `turn` is another by then."""
        turn = thing.turn

        def if_it_took_no_turn() -> None:
            if thing.turn == turn:
                what(thing)

        self.after(seconds, if_it_took_no_turn)

    def advance(self, seconds: float) -> None:
        """Move time forward by `seconds`."""
        self.catch_up()
        self._move_to(self.now + seconds)

    def run(self, rate: float) -> None:
        """From now on `rate` simulated seconds pass in a real one."""
        self.catch_up()
        self._rate = rate

    def catch_up(self) -> None:
        """Let what became due happen, as far as a running clock has come."""
        seen, self._seen = self._seen, time.monotonic()
        self._move_to(self.now + (self._seen - seen) * self._rate)

    def _move_to(self, target: float) -> None:
        while self._due and self._due[0][0] <= target:
            moment, _, action = heapq.heappop(self._due)
            self.now = max(self.now, moment)
            action()
        self.now = target
