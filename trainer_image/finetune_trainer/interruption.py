"""SIGTERM and Ctrl-C: at once where nothing would be lost, at the next step boundary while the model learns."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - it is no error: the run goes on with the next attempt
    """The run was asked to stop."""


class Interruption:
    """Whether the run was asked to stop. One per process; `install` takes the signals."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._deferred = False

    @property
    def asked(self) -> bool:
        """Whether somebody wants the run to stop."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Ask the run to stop; raises Interrupted at once unless the present work is deferred."""
        first = not self._asked.is_set()
        self._asked.set()
        if first and not self._deferred:
            raise Interrupted

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Work that looks at `asked` itself and stops where it loses nothing."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Stop here if somebody asked for it.

        Raises:
            Interrupted: somebody did.
        """
        if self.asked:
            raise Interrupted

    @contextmanager
    def install(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT while the block runs; only the main thread may."""

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            self.ask()

        before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {
            number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
