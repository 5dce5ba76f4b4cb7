"""CSV as RFC 4180 has it → rows: commas, quotes that may span lines, and a header with the columns' names."""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress

from finetune_trainer.data.blocks import Block, Table
from finetune_trainer.data.formats import broken_file
from finetune_trainer.data.lines import TOO_LONG, Line, Lines
from finetune_trainer.data.rows import ROW_LIMIT, Position, Record, line_places

_NO_MARKS = bytes(set(range(256)) - set(b',"\r\n'))
"""All bytes that say nothing of where cells and rows end."""


def read_csv(
    stream: io.BufferedReader,
    file_name: str,
    wanted: Collection[str] = (),
    tell_header: Callable[[list[str]], None] = lambda _: None,
) -> Iterator[Record | Block]:
    """Every row below the header, by itself or in a block. All cells are text; blank lines are passed over.

    A row's line is the one on which it begins. `tell_header` gets the header's names before the first row. None of
    those in `wanted` may stand in it twice.

    Raises:
        TrainerError: DatasetInvalid, the header cannot be used.
    """
    if stream.peek(1)[:1] in (b"{", b"["):
        step = "Set the format to JSONLines or JSON, or let the name end in .jsonl or .json."
        raise broken_file(file_name, "begins like JSON, not like CSV", step)
    csv.field_size_limit(ROW_LIMIT)
    source = Lines(stream)
    one_by_one = _rows(_RowLines(source))
    header = _header(one_by_one, file_name, wanted)
    tell_header(header)
    while source.more():
        ahead, count = source.ahead()
        places, last = line_places(source.number + 1, count), source.number + max(1, count)
        columns, ends = _together(ahead, count, len(header))
        if ends:
            one_a_line = len(ends) == ends[-1]
            where = places[: len(ends)] if one_a_line else [places[start] for start in (0, *ends[:-1])]
            yield Table(where, dict(zip(header, columns, strict=True)))
            source.skip(ends[-1])
        while source.number < last and (row := next(one_by_one, None)):
            yield row if isinstance(row, Record) else _record(*row, header)


def _together(lines: bytes, count: int, width: int) -> tuple[Iterable[Sequence[str]], Sequence[int]]:
    """Columns of some lines up to the first row that is not as it should be, and how many lines end with each row."""
    if b"\0" in lines:
        return (), ()
    try:
        return _unquoted(lines, count, width) or _quoted(lines.decode(), width)
    except UnicodeDecodeError:
        return (), ()


def _unquoted(lines: bytes, count: int, width: int) -> tuple[Iterable[Sequence[str]], Sequence[int]] | None:
    """The same of lines without quotes, blank lines and stray ends, in a third of the time that csv needs.

    Such lines have the same marks, one after the other. So all cells are split at once, and every so many are a column.
    """
    end = b"\r\n" if lines.endswith(b"\r\n") else b"\n"
    if width < 2 or not count or lines.translate(None, _NO_MARKS) != (b"," * (width - 1) + end) * count:
        return None
    cells = lines.replace(b"\r", b"").replace(b"\n", b",").decode().split(",")
    return [cells[column:-1:width] for column in range(width)], range(1, count + 1)


def _quoted(text: str, width: int) -> tuple[Iterable[Sequence[str]], Sequence[int]]:
    rows: list[list[str]] = []
    ends: list[int] = []
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    with suppress(csv.Error):
        for row in reader:
            if len(row) != width:
                break
            rows.append(row)
            ends.append(reader.line_num)
    return zip(*rows, strict=True), ends


def _record(position: Position, cells: list[str], header: list[str]) -> Record:
    if len(cells) == len(header):
        return Record(position, dict(zip(header, cells, strict=True)))
    return Record(position, None, f"{len(cells)} cell{_s(cells)} where the header has {len(header)}")


def _s(cells: list[str]) -> str:
    return "" if len(cells) == 1 else "s"


def _header(
    rows: Iterator["tuple[Position, list[str]] | Record"], file_name: str, wanted: Collection[str]
) -> list[str]:
    first = next(rows, None)
    if first is None:
        return []
    if isinstance(first, Record):
        raise broken_file(file_name, f"the header cannot be read: {first.problem}")
    names = [name.strip() for name in first[1]]
    twice = next((name for name in wanted if names.count(name) > 1), None)
    if twice is not None:
        raise broken_file(file_name, f"two columns of the header are called {twice!r}", "Rename one of them.")
    return names


def _rows(source: "_RowLines") -> Iterator["tuple[Position, list[str]] | Record"]:
    reader = csv.reader(source, strict=True)
    while True:
        source.begin()
        problem = None
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = _in_words(error)
        except _TooLongError:
            problem = f"the row is {TOO_LONG}; a quote may not be closed"
            source.skip_row()
        if problem or source.problem:
            yield Record(Position(line=source.first), None, problem or source.problem)
        elif cells:
            yield Position(line=source.first), cells


def _in_words(error: csv.Error) -> str:
    said = str(error)
    if "unexpected end" in said:
        return "a quote is opened and never closed"
    if "new-line" in said:
        return "a line ends with a lone carriage return; end lines with a line feed"
    if "field larger" in said:
        return f"a cell is {TOO_LONG}; a quote may not be closed"
    return "the quotes are not as CSV has them: a quote inside a quoted cell is doubled, and a comma follows the cell"


class _TooLongError(Exception):
    pass


class _RowLines:
    """Lines as text for csv.reader, which asks for as many as a row needs."""

    def __init__(self, source: Iterator[Line]) -> None:
        self._source = source
        self._size = 0
        self._quotes = 0
        self.first = 0
        """Number of the line at which the present row begins."""
        self.problem: str | None = None
        """Why the bytes of the present row are no text."""

    def begin(self) -> None:
        """A new row begins."""
        self._size = self._quotes = self.first = 0
        self.problem = None

    def skip_row(self) -> None:
        """Pass over what is left of a row that is too long: up to a line at whose end every quote is closed."""
        while self._quotes % 2 and (line := next(self._source, None)):
            self._count(line)

    def __iter__(self) -> "_RowLines":
        return self

    def __next__(self) -> str:
        line = next(self._source)
        self.first = self.first or line.number
        self._count(line)
        if line.text is None or self._size > ROW_LIMIT:
            raise _TooLongError
        if b"\0" in line.text:
            self.problem = "the row has a NUL byte"
        try:
            return line.text.decode("utf-8")
        except UnicodeDecodeError:
            self.problem = "the row is not UTF-8 text: save the file as UTF-8"
            return line.text.decode("utf-8", errors="replace")

    def _count(self, line: Line) -> None:
        self._size += ROW_LIMIT + 1 if line.text is None else len(line.text)
        self._quotes += line.quotes if line.text is None else line.text.count(b'"')
