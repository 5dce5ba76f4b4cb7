"""Waits for another thread or process without busy-waiting."""

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object], seconds: float = 60, what: str = "the condition did not come true"
) -> None:
    """Return as soon as the condition holds; fail after `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.005)
