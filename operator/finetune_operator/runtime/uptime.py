"""A clock in seconds that never runs backwards, even if the wall clock is set."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds; never runs backwards."""


def uptime() -> float:
    """Seconds since the machine booted; on Linux this includes time in suspend."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
