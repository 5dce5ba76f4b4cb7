"""A benchmark that is told to end leaves nothing standing: its clusters are ended by those who started them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TOLD = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM, and the end of its terminal, end what is within as Ctrl-C does: by an exception. In the main thread."""

    def end(number: int, _: FrameType | None) -> None:
        for one in TOLD:
            signal.signal(one, signal.SIG_IGN)  # told again, it is clearing up already
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in TOLD}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
