"""Sequences of any length that take little memory: lines of a file, or what a function makes when it is asked.

A line costs 8 bytes here, whatever stands in it.
"""

import json
import os
import tempfile
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from finetune_trainer.storage.durable import MORE_SCRATCH, write_errors

T = TypeVar("T")

PORTION = 1024
"""Parts that are in memory at once while all are gone through."""


class Portioned(Sequence[T]):
    """A sequence that is gone through portion by portion; a subclass knows `portion` and `__len__`."""

    @abstractmethod
    def portion(self, places: range) -> list[T]:
        """The parts in these places."""

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        """One part, or several."""
        if isinstance(place, slice):
            return self.portion(range(len(self))[place])
        at = range(len(self))[place]
        return self.portion(range(at, at + 1))[0]

    def __iter__(self) -> Iterator[T]:
        for part in portions(self):
            yield from part


def spans(count: int) -> Iterator[slice]:
    """Places from 0 to `count`, as many at once as may be in memory."""
    return (slice(start, start + PORTION) for start in range(0, count, PORTION))


def portions(parts: Sequence[T]) -> Iterator[Sequence[T]]:
    """The parts in such spans."""
    return (parts[span] for span in spans(len(parts)))


class Lines(Portioned[T]):
    """Values on the machine's scratch disk, one line of JSON each; the file goes with the object.

    `shown` makes of a value what JSON has, and `read` the same back.
    """

    def __init__(
        self, values: Iterable[T] = (), *, shown: Callable[[T], Any] = lambda value: value, read: Callable[[Any], T]
    ) -> None:
        self._shown, self._read = shown, read
        self._ends = array("q", [0])
        self._folder = Path(tempfile.gettempdir())
        with write_errors(self._folder, MORE_SCRATCH):
            self._file: Any = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - it lives as long as this
        self.extend(values)

    def extend(self, values: Iterable[T]) -> None:
        """Write more of them.

        Raises:
            TrainerError: ArtifactFailed, the scratch disk is full.
        """
        with write_errors(self._folder, MORE_SCRATCH):
            for value in values:
                line = json.dumps(self._shown(value)).encode("ascii")
                self._file.write(line + b"\n")
                self._ends.append(self._ends[-1] + len(line) + 1)
            self._file.flush()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def portion(self, places: range) -> list[T]:
        """These values, read anew."""
        if places.step == 1 and places:
            start, end = self._ends[places.start], self._ends[places.stop]
            return [self._read(json.loads(line)) for line in self._bytes(start, end).splitlines()]
        return [self._read(json.loads(self._bytes(self._ends[at], self._ends[at + 1]))) for at in places]

    def _bytes(self, start: int, end: int) -> bytes:
        return os.pread(self._file.fileno(), end - start, start)


class Each(Portioned[T]):
    """What `make` makes of each number, every time that it is asked for."""

    def __init__(self, numbers: Iterable[int], make: Callable[[int], T]) -> None:
        self._numbers, self._make = array("q", numbers), make

    def __len__(self) -> int:
        return len(self._numbers)

    def portion(self, places: range) -> list[T]:
        """Made one after the other."""
        return [self._make(self._numbers[at]) for at in places]

    def without(self, known: Callable[[int], bool]) -> "Each[T]":
        """The same of the numbers that are not known."""
        return Each((number for number in self._numbers if not known(number)), self._make)
