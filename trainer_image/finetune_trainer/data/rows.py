"""Types of a dataset: positions in a file, records as read, and rows that can be trained on.

Only types. Nothing here reads, checks or tokenizes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, Literal, NamedTuple, Self, get_args

ROW_LIMIT = 4 * 1024 * 1024
"""Maximum bytes of a row, about the text of 1,048,576 tokens (the largest maxSequenceLength). Bounds the memory."""
ORDINARY_NAME = re.compile(r"\w[\w .:/-]{0,39}")
"""Column names that are safe to show in messages."""

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)


class Position(NamedTuple):
    """Where a row is: line (from 1), line and element of a JSON array (from 0), or row group and row (from 0)."""

    line: int | None = None
    row_group: int | None = None
    row: int | None = None

    def __str__(self) -> str:
        """As shown in messages: `line 17`, `row 3 (line 17)`, `row group 2 row 5`."""
        if self.row is None:
            return f"line {self.line}"
        if self.row_group is not None:
            return f"row group {self.row_group} row {self.row}"
        return f"row {self.row}" + ("" if self.line is None else f" (line {self.line})")

    def packed(self) -> int:
        """As an integer that sorts in file order; the lowest bits are the kind of position."""
        if self.row is None:
            return (self.line or 0) << _KIND_BITS
        if self.row_group is not None:
            return (self.row_group << _GROUP_SHIFT | self.row) << _KIND_BITS | _ROW_GROUP_KIND
        largest = (1 << _ELEMENT_SHIFT) - 1
        return (min(self.row, largest) << _ELEMENT_SHIFT | min(self.line or 0, largest)) << _KIND_BITS | _ARRAY_KIND

    @classmethod
    def unpacked(cls, place: int) -> Self:
        """The position for an integer made by `packed`."""
        kind, number = place & ((1 << _KIND_BITS) - 1), place >> _KIND_BITS
        if kind == _ARRAY_KIND:
            return cls(line=number & ((1 << _ELEMENT_SHIFT) - 1) or None, row=number >> _ELEMENT_SHIFT)
        if kind == _ROW_GROUP_KIND:
            return cls(row_group=number >> _GROUP_SHIFT, row=number & ((1 << _GROUP_SHIFT) - 1))
        return cls(line=number)


_KIND_BITS, _ARRAY_KIND, _ROW_GROUP_KIND = 2, 1, 2
_GROUP_SHIFT = 40  # a row group holds fewer rows than 2^40
_ELEMENT_SHIFT = 30  # rows and lines of a JSON array are capped at 2^30 - 1, so that both fit into 62 bits


def line_places(first: int, count: int) -> Sequence[int]:
    """Packed positions of consecutive rows, one per line."""
    return range(first << _KIND_BITS, first + count << _KIND_BITS, 1 << _KIND_BITS)


def group_places(group: int, count: int) -> Sequence[int]:
    """Packed positions of consecutive rows of one row group."""
    start = Position(row_group=group, row=0).packed()
    return range(start, start + (count << _KIND_BITS), 1 << _KIND_BITS)


def element_places(first: int, line: int, breaks: Sequence[int]) -> Sequence[int]:
    """Packed positions of consecutive elements of one array.

    `line` is where the first element starts; `breaks` counts the line breaks between there and each element.
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
    """One row as read from the file: its fields, or why it cannot be read. Fields may be of any JSON type."""

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
    """A valid row: a conversation that ends with the assistant's turn, with text in every turn."""

    position: Position
    turns: tuple[Turn, ...]
    rejected: str | None = None
    """The rejected answer of a preference pair; `completion` is the chosen one."""
    unlearnt: tuple[int, ...] = ()
    """Indices of assistant turns that carry no loss, because they are part of the prompt. Never the last turn."""

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """The model's input: all turns but the last."""
        return self.turns[:-1]

    @property
    def completion(self) -> str:
        """The expected answer: the last turn."""
        return self.turns[-1].content

    @property
    def swapped(self) -> "Row":
        """The same row with the chosen and the rejected answer swapped."""
        if self.rejected is None:
            raise ValueError("a row with one answer has none to swap it with")
        return Row(self.position, (*self.prompt, Turn("assistant", self.rejected)), self.completion)


@dataclass(frozen=True)
class Rows:
    """Consecutive valid rows with the same sequence of roles."""

    places: Sequence[int]
    """Packed positions."""
    roles: tuple[Role, ...]
    contents: tuple[Sequence[str], ...]
    """One sequence per role: the text of its turn in each row."""
    joined: tuple[str, ...] = ()
    """The texts of each role concatenated, if already computed."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.places)

    @cached_property
    def all_text(self) -> str:
        """All texts concatenated: one search rules out a string for all rows at once."""
        return "".join(self.joined or map("".join, self.contents))

    def rows(self) -> Iterator[Row]:
        """The rows one by one."""
        turns = (zip(repeat(role), contents) for role, contents in zip(self.roles, self.contents, strict=True))
        for place, *row in zip(self.places, *turns, strict=True):
            yield Row(Position.unpacked(place), tuple(map(Turn._make, row)))
