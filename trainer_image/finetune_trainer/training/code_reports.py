"""How the code of `spec.code` and its trainer hear of each other: reports by a pipe, and a mark that asks to stop.

Both have names in a folder, so that whatever the code starts can report too, and knows when to stop: launchers of
ranks pass no descriptors on and no signal, and a descriptor's number would be another file there.
"""

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

from pydantic import Field

from finetune_api.base import ApiModel

_PIPE, _STOP = "reports", "stop"

_MOST = 10**15
"""Of what code counts: sums of such numbers are still some that JSON and a status can hold."""
_Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e100, le=1e100)]
"""The same of what it measures."""

_LOOK_MILLISECONDS = 200
"""How often it is looked whether the code is gone, where it reports nothing."""

_LINE_BYTES, _PIPE_BYTES = 1 << 16, 1 << 20
"""More than a report takes, and the most that a pipe may hold of what was written before."""


class CodeReport(ApiModel):
    """One line of progress from the code."""

    step: int = Field(ge=0, le=_MOST, description="Steps done.")
    total_steps: int | None = Field(None, ge=1, le=_MOST, description="Steps in all.")
    epoch: Annotated[_Finite, Field(ge=0)] | None = Field(None, description="Passes over the data done.")
    loss: _Finite | None = Field(None, description="Training loss of this step.")
    validation_loss: _Finite | None = Field(None, description="Validation loss after this step.")
    tokens: int = Field(0, ge=0, le=_MOST, description="Tokens of this step, without padding.")


@contextmanager
def opened(folder: Path) -> Iterator[IO[bytes]]:
    """Make the pipe and read from it; nobody's end closes it, as the next writer may be yet to come."""
    os.mkfifo(folder / _PIPE, mode=0o600)
    with os.fdopen(os.open(folder / _PIPE, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        writing = os.open(folder / _PIPE, os.O_WRONLY)
        try:
            yield pipe
        finally:
            os.close(writing)


def lines(pipe: IO[bytes], gone: threading.Event) -> Iterator[bytes]:
    """What is written into the pipe, line by line, until the code is gone and nothing is left in it.

    A process that it has left in a session of its own may write for ever.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    begun, left = b"", _PIPE_BYTES
    while left > 0:
        was_gone = gone.is_set()
        if not poll.poll(0 if was_gone else _LOOK_MILLISECONDS):
            if was_gone:
                break
            continue
        part = pipe.read(_LINE_BYTES)
        left -= len(part) if was_gone else 0
        *whole, begun = (begun + part).split(b"\n")
        yield from whole
        if len(begun) > _LINE_BYTES:
            break  # it is no report, however it goes on
    if begun:
        yield begun


def ask_to_stop(folder: Path) -> None:
    """Leave the mark."""
    (folder / _STOP).touch()


class Writer:
    """The end of a process of the code."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether the mark is there."""
        return (self._folder / _STOP).exists()

    def line(self, text: bytes) -> None:
        """Write one, whole among those of other processes, as it is shorter than what a pipe takes at once.

        Raises:
            OSError: the trainer is gone.
        """
        if self._descriptor is None:
            self._descriptor = os.open(self._folder / _PIPE, os.O_WRONLY | os.O_NONBLOCK)  # never waits for a reader
            os.set_blocking(self._descriptor, True)
        os.write(self._descriptor, text + b"\n")
