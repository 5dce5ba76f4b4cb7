"""Reasons to stop: SIGTERM, Ctrl-C, a newer attempt. Stops at once if nothing is lost, otherwise after a checkpoint.

Writes no checkpoints: `deferred` work polls `is_requested` and writes them.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar, Literal

from finetune_trainer.attempt.fence import AttemptFence

End = Literal["Finished", "Interrupted", "Failed"]
"""How an attempt ends. After an interruption another one may continue."""


class Interrupted(BaseException):
    """A stop was requested. Not an Exception, so that no library catches it as its own error and continues."""


class Interruption:
    """Whether a stop was requested. One per process; `install` installs signal handlers.

    Args:
        patience: message to stderr for a Ctrl-C that has to wait. With it, a second one stops deferred work too.
    """

    ends_the_process: ClassVar[bool] = False
    """Whether the process ends with its run, as a command does: then signals after the end of the run must not change
    the exit code. Otherwise, inside another program, the previous handlers are restored."""

    def __init__(self, patience: str | None = None) -> None:
        self._requested = threading.Event()
        self._deferred = False
        self._raised = False
        self._over = False
        self._fence: AttemptFence | None = None
        self._patience = patience

    @property
    def is_requested(self) -> bool:
        """Whether a stop was requested."""
        return self._requested.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait up to this long for a stop request; returns whether there is one. For threads other than the run's."""
        return self._requested.wait(seconds)

    def request(self, *, insist: bool = False) -> None:
        """Request a stop; raises Interrupted at once, but only once, unless the current work is deferred.

        A second request with `insist` does not wait for deferred work either.
        """
        again = self._requested.is_set()
        self._requested.set()
        if self._raised:
            return
        if not self._deferred or (insist and again):
            self._raised = True
            raise Interrupted
        if insist:
            self._say_patience()

    def set_by_other_rank(self) -> None:
        """Another rank got a stop request, so this one, whose current work is deferred, stops too."""
        self._requested.set()

    def _say_patience(self) -> None:
        """Written to the descriptor: the signal may arrive while Python's own stderr is writing a line."""
        if self._patience:
            os.write(2, f"\n{self._patience}\n".encode())

    def ignore_from_now_on(self) -> None:
        """Nothing is left to stop: from now on signals have no effect."""
        self._raised = self._over = True

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """For work that polls `is_requested` itself and stops where nothing is lost."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def stop_when_superseded(self, fence: AttemptFence) -> None:
        """From now on, a newer attempt in the same output folder is a reason to stop.

        Raises:
            Interrupted: there already is one.
            TrainerError: it cannot be found out.
            OSError: the folder cannot be written.
        """
        self._fence = fence
        if not fence.take():
            raise Interrupted

    def is_superseded(self) -> bool:
        """Whether a newer attempt has started; if so, requests a stop.

        Raises:
            TrainerError: it cannot be found out.
        """
        if self._fence is None or not self._fence.is_superseded():
            return False
        self._requested.set()
        return True

    def before_writing(self) -> None:
        """Call this right before writing something that a newer attempt may be writing too.

        Raises:
            Interrupted: there is a newer attempt.
            TrainerError: it cannot be found out.
        """
        if self.is_superseded():
            raise Interrupted

    def check(self) -> None:
        """Stop here if a stop was requested.

        Raises:
            Interrupted: a stop was requested.
        """
        if self.is_requested:
            raise Interrupted

    @contextmanager
    def install(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT while the block runs; only allowed on the main thread."""

        def on_signal(number: int, _frame: FrameType | None) -> None:
            self.request(insist=number == signal.SIGINT and self._patience is not None)

        before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {
            number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            to_the_end = self._over and self.ends_the_process
            for number, handler in before.items():
                # At exit Python removes its own handlers, and libraries may make the exit long.
                signal.signal(number, signal.SIG_IGN if to_the_end else handler)
