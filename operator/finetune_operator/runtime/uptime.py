"""Seconds that never run backwards, whoever sets the clock."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Tells seconds, never running backwards."""


def uptime() -> float:
    """Seconds since the machine began; on Linux they go on while it is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
