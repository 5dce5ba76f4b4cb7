"""Many rows of CSV at once.

All cells are split at once, with a mark behind each row; where the mark is every so many cells, every so many are a
column. What stands in quotes is taken out before, and put back after.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from operator import methodcaller
from typing import NamedTuple


class Found(NamedTuple):
    """Rows, one behind the other."""

    columns: Iterable[Sequence[str]] = ()
    ends: Sequence[int] = ()
    """How many lines have ended with each row."""
    are_all: bool = False
    """Whether they are known to be all rows of the lines that were looked at."""


def rows_together(lines: bytes, width: int, separator: str) -> Found:
    """The rows that some lines are, up to the first one that is not as it should be, or is cut by the lines' end.

    Args:
        lines: Whole ones.
        width: How many cells a row has.
        separator: Of cells.
    """
    if b"\0" in lines or not lines:
        return Found()
    try:
        text = lines.decode()
    except UnicodeDecodeError:
        return Found()
    found = _quoted(text, width, separator) if '"' in text else _unquoted(text, width, separator)
    return found or _by_csv(text, width, separator)


def _unquoted(text: str, width: int, separator: str) -> Found | None:
    """All rows of lines without quotes, in a third of the time that csv needs; None where any is odd."""
    cells = _cells(text, width, separator)
    if not cells:
        return None
    columns = _columns(cells, width)
    return Found(columns, range(1, len(columns[0]) + 1), are_all=True)


def _quoted(text: str, width: int, separator: str) -> Found | None:
    """The same of lines with quotes, but for a row that their end cuts."""
    rest, quoted = _parted(text)
    cells = _cells(rest, width, separator)
    if not cells or cells.count(_PLACE) != len(quoted):
        return None
    following = iter(quoted).__next__
    columns = _columns([following() if cell == _PLACE else cell for cell in cells], width)
    rows = len(columns[0])
    return Found(columns, range(1, rows + 1) if text.count("\n") == rows else _ends(columns))


_PLACE = "\0"
"""Where something in quotes stood; no text that is read here has it."""


def _parted(text: str) -> tuple[str, list[str]]:
    """Whole rows with a mark for each piece in quotes, and the pieces; a quote in a piece is written twice."""
    pieces = text.split('"')
    twice = "" in pieces[2:-1:2]
    if twice:
        pieces = _QUOTED.split(text)
    elif len(pieces) % 2 == 0:
        pieces.pop()  # a cell that goes on behind the end
    rest = _PLACE.join(pieces[::2]).partition('"')[0]
    rest = rest[: rest.rfind("\n") + 1]
    quoted = pieces[1 : 2 * rest.count(_PLACE) : 2]
    return rest, [piece.replace('""', '"') if '"' in piece else piece for piece in quoted] if twice else quoted


_QUOTED = re.compile('"((?:[^"]++|"")*+)"')


_END = "\n"
"""A cell of its own behind the cells of each row."""


def _cells(text: str, width: int, separator: str) -> list[str] | None:
    """All cells of lines without quotes, row by row, each row with its end; None where a row has another number.

    Only where there are as many ends as rows, and one stands in each place where a row has to end, does every row have
    `width` cells.
    """
    rows = text.count(_END)
    if "\r" in text:
        if not text.count("\r") == text.count("\r\n") == rows:
            return None
        text = text.replace("\r\n", _END)
    cells = text.replace(_END, f"{separator}{_END}{separator}").split(separator)
    cells.pop()  # behind the last end
    ends = cells[width :: width + 1].count(_END)
    return cells if width > 1 and ends == rows and len(cells) == rows * (width + 1) else None


def _columns(cells: list[str], width: int) -> list[list[str]]:
    return [cells[column :: width + 1] for column in range(width)]


def _ends(columns: list[list[str]]) -> list[int]:
    """How many lines have ended with each row, where cells have ends of lines in them."""
    breaks = (map(methodcaller("count", "\n"), column) for column in columns)
    return [row + before for row, before in enumerate(accumulate(map(sum, zip(*breaks, strict=True))), 1)]


def _by_csv(text: str, width: int, separator: str) -> Found:
    """The rows up to the first odd one, whatever stands in them."""
    rows: list[list[str]] = []
    ends: list[int] = []
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True, delimiter=separator)
    with suppress(csv.Error):
        for row in reader:
            if len(row) != width:
                break
            rows.append(row)
            ends.append(reader.line_num)
    return Found(zip(*rows, strict=True), ends)
