"""Reasons to stop: SIGTERM, Ctrl-C, a newer attempt. At once where nothing is lost, else at the next step boundary."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from finetune_trainer.fence import Fence


class Interrupted(Exception):  # noqa: N818 - it is no error: the run goes on with the next attempt
    """The run was asked to stop."""


class Interruption:
    """Whether the run was asked to stop. One per process; `install` takes the signals."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._deferred = False
        self._fence: Fence | None = None

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

    def stop_when_passed(self, fence: Fence) -> None:
        """From now on, a newer attempt in the same output folder is a reason to stop.

        Raises:
            Interrupted: there is one already.
            OSError: the folder cannot be written.
        """
        self._fence = fence
        if not fence.take():
            raise Interrupted

    def before_writing(self) -> None:
        """Call it right before something is written that a newer attempt may be writing too.

        Raises:
            Interrupted: there is a newer attempt.
        """
        if self._fence is not None and self._fence.is_passed():
            raise Interrupted

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
