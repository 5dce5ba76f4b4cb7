"""A benchmark that is stopped cleans up: clusters are stopped by the code that started them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TOLD = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Turn SIGTERM and the hang-up of the terminal into an exception in the main thread, like Ctrl-C."""

    def end(number: int, _: FrameType | None) -> None:
        for one in TOLD:
            signal.signal(one, signal.SIG_IGN)  # a repeated signal must not interrupt the clean-up
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in TOLD}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
