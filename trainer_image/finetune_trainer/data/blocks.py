"""Many rows at once, as a format's reader found them: quick to look at where nothing is wrong with any of them.

A reader gives a Block for rows that it could read together, and a Record for a row that it had to read by itself.
Both hold the same rows: a block's `records()` are what reading them one by one would have given.
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
    """Rows that stand one after the other in a file; none is longer than a row may be."""

    places: Sequence[int]
    """Where each row stands: packed positions."""

    @abstractmethod
    def names(self) -> AbstractSet[str]:
        """Columns that any of the rows has."""

    @abstractmethod
    def column(self, name: str) -> Sequence[Any]:
        """What each row has in a column: None where it has none."""

    @abstractmethod
    def fields(self) -> Iterator[Mapping[str, Any]]:
        """Row by row, in the order of the file."""

    def __len__(self) -> int:
        """How many rows."""
        return len(self.places)

    def records(self) -> Iterator[Record]:
        """The rows one by one."""
        positions = map(Position.unpacked, self.places)
        return (Record(position, fields) for position, fields in zip(positions, self.fields(), strict=True))


@dataclass(frozen=True)
class Objects(Block):
    """Rows that name their columns themselves."""

    rows: list[dict[str, Any]]

    def names(self) -> AbstractSet[str]:
        """Columns that any of the rows has."""
        return self._names

    @cached_property
    def _names(self) -> AbstractSet[str]:
        return set().union(*self.rows)

    def column(self, name: str) -> Sequence[Any]:
        """What each row has in a column."""
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
        """The table's."""
        return self.columns.keys()

    def column(self, name: str) -> Sequence[Any]:
        """What each row has in a column."""
        return self.columns.get(name) or [None] * len(self)

    def fields(self) -> Iterator[Mapping[str, Any]]:
        """An object for each row."""
        return (dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True))


def one_by_one(found: Iterable[Record | Block]) -> Iterator[Record]:
    """All rows, those of blocks too, as records."""
    for one in found:
        yield from one.records() if isinstance(one, Block) else (one,)
