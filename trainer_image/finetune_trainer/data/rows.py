"""What a dataset is made of: positions in a file, records as read, and rows that can be learnt from.

Only types. Nothing here reads, checks or tokenises.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, Literal, NamedTuple, Self, get_args

ROW_LIMIT = 4 * 1024 * 1024
"""Most bytes of one row: about the text of 1,048,576 tokens, the largest maxSequenceLength. Bounds the memory."""
ORDINARY_NAME = re.compile(r"\w[\w .:/-]{0,39}")
"""Names of columns that messages may show."""

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)


class Position(NamedTuple):
    """Where a row stands: line (from 1), line and element of a JSON array (from 0), or row group and row (from 0)."""

    line: int | None = None
    row_group: int | None = None
    row: int | None = None

    def __str__(self) -> str:
        """As messages say it: `line 17`, `row 3 (line 17)`, `row group 2 row 5`."""
        if self.row is None:
            return f"line {self.line}"
        if self.row_group is not None:
            return f"row group {self.row_group} row {self.row}"
        return f"row {self.row}" + ("" if self.line is None else f" (line {self.line})")

    def packed(self) -> int:
        """As a number that sorts as the file does; the lowest bits tell which kind it is."""
        if self.row is None:
            return (self.line or 0) << _KIND_BITS
        if self.row_group is not None:
            return (self.row_group << _GROUP_SHIFT | self.row) << _KIND_BITS | _OF_GROUP
        most = (1 << _ELEMENT_SHIFT) - 1
        return (min(self.row, most) << _ELEMENT_SHIFT | min(self.line or 0, most)) << _KIND_BITS | _OF_ARRAY

    @classmethod
    def unpacked(cls, place: int) -> Self:
        """The position that was packed."""
        kind, number = place & ((1 << _KIND_BITS) - 1), place >> _KIND_BITS
        if kind == _OF_ARRAY:
            return cls(line=number & ((1 << _ELEMENT_SHIFT) - 1) or None, row=number >> _ELEMENT_SHIFT)
        if kind == _OF_GROUP:
            return cls(row_group=number >> _GROUP_SHIFT, row=number & ((1 << _GROUP_SHIFT) - 1))
        return cls(line=number)


_KIND_BITS, _OF_ARRAY, _OF_GROUP = 2, 1, 2
_GROUP_SHIFT = 40  # a row group holds fewer rows than 2^40
_ELEMENT_SHIFT = 30  # rows and lines of a JSON array beyond 2^30 are called the last one before; 62 bits for both


def line_places(first: int, count: int) -> Sequence[int]:
    """Packed positions of rows that stand on lines of their own, one after the other."""
    return range(first << _KIND_BITS, first + count << _KIND_BITS, 1 << _KIND_BITS)


def group_places(group: int, count: int) -> Sequence[int]:
    """Packed positions of the rows of one row group, one after the other."""
    start = Position(row_group=group, row=0).packed()
    return range(start, start + (count << _KIND_BITS), 1 << _KIND_BITS)


def element_places(first: int, line: int, breaks: Sequence[int]) -> Sequence[int]:
    """Packed positions of elements of one array, one after the other.

    `breaks` are line breaks between the first one, which begins on `line`, and each.
    """
    if max(first + len(breaks), line + breaks[-1]) >> _ELEMENT_SHIFT:
        return [Position(line + before, row=row).packed() for row, before in enumerate(breaks, first)]
    start, step = Position(line, row=first).packed(), 1 << _ELEMENT_SHIFT + _KIND_BITS
    places = range(start, start + len(breaks) * step, step)
    return (
        [place + (before << _KIND_BITS) for place, before in zip(places, breaks, strict=True)]
        if any(breaks)
        else places
    )


class Record(NamedTuple):
    """One row as a format's reader found it: its fields, or why it cannot be read. Fields may be of any JSON type."""

    position: Position
    fields: Mapping[str, Any] | None
    problem: str | None = None
    """Why `fields` is None. Never quotes the file."""


class Turn(NamedTuple):
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One usable row: a conversation that ends with the assistant's turn, with text in every turn."""

    position: Position
    turns: tuple[Turn, ...]
    rejected: str | None = None
    """Of a row with two answers the worse one; `completion` is the better."""
    unlearnt: tuple[int, ...] = ()
    """Which turns of the assistant are a part of what is asked: they carry no loss. Never the last."""

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """What the model is asked with: all turns but the last."""
        return self.turns[:-1]

    @property
    def completion(self) -> str:
        """What the model should answer: the last turn."""
        return self.turns[-1].content

    @property
    def swapped(self) -> "Row":
        """The same row with its worse answer in the place of the better."""
        if self.rejected is None:
            raise ValueError("a row with one answer has none to swap it with")
        return Row(self.position, (*self.prompt, Turn("assistant", self.rejected)), self.completion)


@dataclass(frozen=True)
class Rows:
    """Usable rows that stand one after the other, with the same roles in the same order."""

    places: Sequence[int]
    """Packed positions."""
    roles: tuple[Role, ...]
    contents: tuple[Sequence[str], ...]
    """For each role what its turn says, row by row."""
    together: tuple[str, ...] = ()
    """The same of each role put together, where somebody has done so."""

    def __len__(self) -> int:
        """How many rows."""
        return len(self.places)

    @cached_property
    def whole(self) -> str:
        """All that they say, put together: what is not in it is in no row, and one look at it tells that of all."""
        return "".join(self.together or map("".join, self.contents))

    def rows(self) -> Iterator[Row]:
        """The rows one by one."""
        turns = (zip(repeat(role), contents) for role, contents in zip(self.roles, self.contents, strict=True))
        for place, *row in zip(self.places, *turns, strict=True):
            yield Row(Position.unpacked(place), tuple(map(Turn._make, row)))
