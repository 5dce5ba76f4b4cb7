"""Many rows at once, as a reader yields them, so that valid ones can be checked in bulk.

A reader yields a Block for rows that it could read together, and a Record for a row that it had to read on its own.
Both are equivalent: `records()` of a block gives what reading the rows one by one would have given.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

from finetune_trainer.data.rows import Position, Record


@dataclass(frozen=True, slots=True)
class Block(ABC):
    """Consecutive rows of a file, none of which exceeds the size limit."""

    places: Sequence[int]
    """Packed positions of the rows."""

    @abstractmethod
    def names(self) -> AbstractSet[str]:
        """Columns that any of the rows has."""

    @abstractmethod
    def column(self, name: str) -> Sequence[Any]:
        """Each row's value of a column, None where it has none."""

    @abstractmethod
    def fields(self) -> Iterator[Mapping[str, Any]]:
        """The fields of each row, in file order."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.places)

    def records(self) -> Iterator[Record]:
        """The rows one by one."""
        positions = map(Position.unpacked, self.places)
        return (Record(position, fields) for position, fields in zip(positions, self.fields(), strict=True))


@dataclass(frozen=True)
class Objects(Block):
    """Rows that each carry their own column names."""

    rows: list[dict[str, Any]]

    def names(self) -> AbstractSet[str]:
        """Columns that any of the rows has."""
        return self._names

    @cached_property
    def _names(self) -> AbstractSet[str]:
        return set().union(*self.rows)

    def column(self, name: str) -> Sequence[Any]:
        """Each row's value of a column."""
        if name not in self._names:
            return [None] * len(self.rows)
        try:
            return list(map(itemgetter(name), self.rows))
        except KeyError:
            return [row.get(name) for row in self.rows]

    def fields(self) -> Iterator[Mapping[str, Any]]:
        """The objects."""
        return iter(self.rows)


@dataclass(frozen=True, slots=True)
class Table(Block):
    """Rows that all have the same columns."""

    columns: Mapping[str, Sequence[Any]]

    def names(self) -> AbstractSet[str]:
        """The table's columns."""
        return self.columns.keys()

    def column(self, name: str) -> Sequence[Any]:
        """Each row's value of a column."""
        return self.columns.get(name) or [None] * len(self)

    def fields(self) -> Iterator[Mapping[str, Any]]:
        """One object per row."""
        return (dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True))


def one_by_one(found: Iterable[Record | Block]) -> Iterator[Record]:
    """All rows as records, including those of blocks."""
    for one in found:
        yield from one.records() if isinstance(one, Block) else (one,)
