"""Sequences of any length that need little memory: lines of a file, or items computed on access.

A line costs 8 bytes of memory, whatever its length.
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
"""Items that are in memory at once during iteration."""


class Portioned(Sequence[T]):
    """A sequence that is iterated in portions; a subclass implements `portion` and `__len__`."""

    @abstractmethod
    def portion(self, places: range) -> list[T]:
        """The items at these indices."""

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        """One item, or a slice."""
        if isinstance(place, slice):
            return self.portion(range(len(self))[place])
        at = range(len(self))[place]
        return self.portion(range(at, at + 1))[0]

    def __iter__(self) -> Iterator[T]:
        for part in portions(self):
            yield from part


def spans(count: int) -> Iterator[slice]:
    """Slices that cover 0 to `count`, one portion each."""
    return (slice(start, start + PORTION) for start in range(0, count, PORTION))


def portions(parts: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in such slices."""
    return (parts[span] for span in spans(len(parts)))


class Lines(Portioned[T]):
    """Values on the scratch disk, one line of JSON each; the file is deleted with the object.

    `shown` turns a value into JSON types, and `read` turns it back.
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
        """Append values.

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
        """These values, read from the file."""
        if places.step == 1 and places:
            start, end = self._ends[places.start], self._ends[places.stop]
            return [self._read(json.loads(line)) for line in self._bytes(start, end).splitlines()]
        return [self._read(json.loads(self._bytes(self._ends[at], self._ends[at + 1]))) for at in places]

    def _bytes(self, start: int, end: int) -> bytes:
        return os.pread(self._file.fileno(), end - start, start)


class Each(Portioned[T]):
    """Computes an item with `make` from each number, on every access."""

    def __init__(self, numbers: Iterable[int], make: Callable[[int], T]) -> None:
        self._numbers, self._make = array("q", numbers), make

    def __len__(self) -> int:
        return len(self._numbers)

    def portion(self, places: range) -> list[T]:
        """Compute these items."""
        return [self._make(self._numbers[at]) for at in places]

    def without(self, known: Callable[[int], bool]) -> "Each[T]":
        """The same without numbers that are known."""
        return Each((number for number in self._numbers if not known(number)), self._make)
