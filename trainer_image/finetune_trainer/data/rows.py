"""What a dataset is made of: positions in a file, records as read, and rows that can be learnt from.

Only types. Nothing here reads, checks or tokenises.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

ROW_LIMIT = 4 * 1024 * 1024
"""Most bytes of one row: about the text of 1,048,576 tokens, the largest maxSequenceLength. Bounds the memory."""

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

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """What the model is asked with: all turns but the last."""
        return self.turns[:-1]

    @property
    def completion(self) -> str:
        """What the model should answer: the last turn."""
        return self.turns[-1].content
