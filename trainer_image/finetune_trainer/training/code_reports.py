"""The channel between the code of `spec.code` and the trainer: a pipe for reports, and a file that requests a stop.

Both are named files in a folder, so that every process that the code starts can use them: launchers of ranks pass on
neither descriptors nor signals, and the number of a descriptor would mean another file there.
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
"""Limit of the code's counters: their sums must still fit into JSON and a status."""
_Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e100, le=1e100)]
"""The same for measured values."""

_LOOK_MILLISECONDS = 200
"""How often to check whether the code has ended while it reports nothing."""

_LINE_BYTES, _PIPE_BYTES = 1 << 16, 1 << 20
"""More than a report needs, and the limit of what is read from the pipe after the code has ended."""


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
    """Create the pipe and open it for reading. We hold a writing end too: the last writer's close must not end it."""
    os.mkfifo(folder / _PIPE, mode=0o600)
    with os.fdopen(os.open(folder / _PIPE, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        writing = os.open(folder / _PIPE, os.O_WRONLY)
        try:
            yield pipe
        finally:
            os.close(writing)


def lines(pipe: IO[bytes], gone: threading.Event) -> Iterator[bytes]:
    """Lines from the pipe, until the code has ended and the pipe is empty.

    A process that the code left behind in its own session may keep on writing, hence the limit.
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
            break  # too long for a report
    if begun:
        yield begun


def ask_to_stop(folder: Path) -> None:
    """Create the file that requests a stop."""
    (folder / _STOP).touch()


class Writer:
    """The writing end, in a process of the code."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether a stop was requested."""
        return (self._folder / _STOP).exists()

    def line(self, text: bytes) -> None:
        """Write one line. Lines of several processes do not mix, since each is shorter than PIPE_BUF.

        Raises:
            OSError: the trainer is gone.
        """
        if self._descriptor is None:
            self._descriptor = os.open(self._folder / _PIPE, os.O_WRONLY | os.O_NONBLOCK)  # never waits for a reader
            os.set_blocking(self._descriptor, True)
        os.write(self._descriptor, text + b"\n")
