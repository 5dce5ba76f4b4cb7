"""CSV as RFC 4180 has it → records: commas, quotes that may span lines, and a header with the columns' names."""

import csv
import io
from collections.abc import Iterator

from finetune_trainer.data.formats import broken_file
from finetune_trainer.data.lines import TOO_LONG, Line, lines
from finetune_trainer.data.rows import ROW_LIMIT, Position, Record


def read_csv(stream: io.BufferedReader, file_name: str, columns: dict[str, None]) -> Iterator[Record]:
    """Every row below the header. `line` is where the row begins; all cells are text. Blank lines are passed over.

    The header's names are put into `columns` before the first row is read.

    Raises:
        TrainerError: DatasetInvalid, the header cannot be used.
    """
    csv.field_size_limit(ROW_LIMIT)
    rows = _rows(_Lines(lines(stream)))
    header = _header(rows, file_name)
    columns.update(dict.fromkeys(header))
    for record in rows:
        if isinstance(record, Record):
            yield record
            continue
        position, cells = record
        if len(cells) == len(header):
            yield Record(position, dict(zip(header, cells, strict=True)))
        else:
            yield Record(position, None, f"{len(cells)} cells where the header has {len(header)}")


def _header(rows: Iterator["tuple[Position, list[str]] | Record"], file_name: str) -> list[str]:
    first = next(rows, None)
    if first is None:
        return []
    if isinstance(first, Record):
        raise broken_file(file_name, f"the header cannot be read: {first.problem}")
    names = [name.strip() for name in first[1]]
    if len(set(names)) < len(names):
        raise broken_file(file_name, "two columns of the header have the same name")
    return names


def _rows(source: "_Lines") -> Iterator["tuple[Position, list[str]] | Record"]:
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
        if problem or source.not_text:
            yield Record(Position(line=source.first), None, problem or "the row is not UTF-8 text")
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


class _Lines:
    """Lines as text for csv.reader, which asks for as many as a row needs."""

    def __init__(self, source: Iterator[Line]) -> None:
        self._source = source
        self._size = 0
        self.first = 0
        """Number of the line at which the present row begins."""
        self.not_text = False
        """Whether a line of the present row is not UTF-8."""

    def begin(self) -> None:
        """A new row begins."""
        self._size, self.first, self.not_text = 0, 0, False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        number, text = next(self._source)
        self.first = self.first or number
        self._size += ROW_LIMIT + 1 if text is None else len(text)
        if text is None or self._size > ROW_LIMIT:
            raise _TooLongError
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            self.not_text = True
            return text.decode("utf-8", errors="replace")
