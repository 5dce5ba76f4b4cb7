"""Reasons to stop: SIGTERM, Ctrl-C, a newer attempt. At once where nothing is lost, else with a checkpoint.

It writes no checkpoint: work that is `deferred` looks at `asked` and does.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar, Literal

from finetune_trainer.attempt.fence import Passable

End = Literal["Finished", "Interrupted", "Failed"]
"""How an attempt ends. After an interruption another one may go on."""


class Interrupted(BaseException):
    """The run was asked to stop. No Exception: no library may take it for an error of its own and go on."""


class Interruption:
    """Whether the run was asked to stop. One per process; `install` takes the signals.

    Args:
        patience: what stderr says to a Ctrl-C that has to wait. With it, a second one stops deferred work too.
    """

    ends_the_process: ClassVar[bool] = False
    """Whether the process ends with its run, as a command does: then signals that come after the end of the one must
    not make the other's exit code theirs. Where it goes on, in somebody's own program, it gets its handlers back."""

    def __init__(self, patience: str | None = None) -> None:
        self._asked = threading.Event()
        self._deferred = False
        self._raised = False
        self._over = False
        self._fence: Passable | None = None
        self._patience = patience

    @property
    def asked(self) -> bool:
        """Whether somebody wants the run to stop."""
        return self._asked.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until somebody asks, for so long at most; whether somebody did. For other threads than the run's own."""
        return self._asked.wait(seconds)

    def ask(self, *, insist: bool = False) -> None:
        """Ask the run to stop; raises Interrupted at once, but only once, unless the present work is deferred.

        Whoever insists, and asked before, does not wait for deferred work either.
        """
        again = self._asked.is_set()
        self._asked.set()
        if self._raised:
            return
        if not self._deferred or (insist and again):
            self._raised = True
            raise Interrupted
        if insist:
            self._say_patience()

    def spread(self) -> None:
        """Another rank was asked to stop: so is this one, whose present work is deferred."""
        self._asked.set()

    def _say_patience(self) -> None:
        """By the descriptor: a signal may come while Python's own stderr is in the middle of a line."""
        if self._patience:
            os.write(2, f"\n{self._patience}\n".encode())

    def over(self) -> None:
        """Nothing is left that could be stopped: from now on signals change nothing."""
        self._raised = self._over = True

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Work that looks at `asked` itself and stops where it loses nothing."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def stop_when_passed(self, fence: Passable) -> None:
        """From now on, a newer attempt in the same output folder is a reason to stop.

        Raises:
            Interrupted: there is one already.
            TrainerError: it cannot be told.
            OSError: the folder cannot be written.
        """
        self._fence = fence
        if not fence.take():
            raise Interrupted

    def is_passed(self) -> bool:
        """Whether a newer attempt has begun; then this one is asked to stop.

        Raises:
            TrainerError: it cannot be told.
        """
        if self._fence is None or not self._fence.is_passed():
            return False
        self._asked.set()
        return True

    def before_writing(self) -> None:
        """Call it right before something is written that a newer attempt may be writing too.

        Raises:
            Interrupted: there is a newer attempt.
            TrainerError: it cannot be told.
        """
        if self.is_passed():
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

        def on_signal(number: int, _frame: FrameType | None) -> None:
            self.ask(insist=number == signal.SIGINT and self._patience is not None)

        before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {
            number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            to_the_end = self._over and self.ends_the_process
            for number, handler in before.items():
                # Python takes handlers of its own away when it begins to end, which libraries may make long.
                signal.signal(number, signal.SIG_IGN if to_the_end else handler)
