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
    """An object whose scheduled actions are void once its `turn` changes."""

    turn: int


T = TypeVar("T", bound=Turning)


class Clock:
    """Seconds since 1970, and scheduled actions.

    Actions run in order, each with `now` at its scheduled time: advancing by an hour, or sixty times by a minute, gives
    the same result.
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
        """Call `what` with the thing `seconds` from now, unless its `turn` has changed by then."""
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
        """Let `rate` simulated seconds pass per real second from now on."""
        self.catch_up()
        self._rate = rate

    def catch_up(self) -> None:
        """Run the actions that are due by a running clock."""
        seen, self._seen = self._seen, time.monotonic()
        self._move_to(self.now + (self._seen - seen) * self._rate)

    def _move_to(self, target: float) -> None:
        while self._due and self._due[0][0] <= target:
            moment, _, action = heapq.heappop(self._due)
            self.now = max(self.now, moment)
            action()
        self.now = target
