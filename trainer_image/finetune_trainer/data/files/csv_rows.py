"""CSV as in RFC 4180 → rows: quoted cells may span lines, and a header has the columns' names.

Cells are separated by commas, or by whatever other separator gives the header the required columns: Excel writes
semicolons where the comma is the decimal mark, and optionally a first line `sep=;`.
"""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import compress, islice
from typing import NamedTuple

from finetune_trainer.data.blocks import Block, Table
from finetune_trainer.data.files.csv_blocks import Found, read_rows
from finetune_trainer.data.files.csv_commands import UNQUOTED, rewritten, with_plain_quotes, without_spaces
from finetune_trainer.data.files.lines import TOO_LONG, Line, Lines, other_than_utf8
from finetune_trainer.data.files.source import AS_UTF8, WITH_LINE_FEEDS, broken_file
from finetune_trainer.data.rows import ROW_LIMIT, Position, Record, line_places

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators of cells, with their names in messages."""

SEPARATED_BY = "separated by "
"""Start of the description of other separators."""

NO_UTF8 = f"the row is {other_than_utf8(b'')}"
"""Problem of a row that is not UTF-8."""

SPACE_BEFORE_QUOTE = ": there is a space before a quote, which then does not quote"
"""End of the problem of rows that are split wrongly because of it."""

TYPOGRAPHIC = ": cells are in typographic quotes, which CSV does not know"
"""The same for quotes of a word processor."""

ESCAPED = ": there is a backslash before a separator or the end of a line, as databases escape those"
"""The same for a row that was split within a text, or starts with the rest of one."""

BY_OTHERS = ": it has as many by "
"""Start of a hint for rows that another separator splits into as many cells as the header has."""

ROW_NUMBER = ": the first is its number"
"""End of the problem of rows with one more cell than the header, which has no name for row numbers."""

TO_REMOVE = ": remove the line"
"""End of the problem of lines that are not rows."""

_FOOTER = re.compile(r"\\\.|\([0-9]+ rows?( affected)?\)|[0-9]+ rows? selected\.?")
"""What COPY, psql, sqlcmd and sqlplus write below a table."""

_HEADER_LINES = 256
"""Maximum lines of a header with quotes; they are parsed with each separator."""

_TITLE_LINES = 16
"""Maximum lines in which to look for a header that is not the first line."""

_BREAK = frozenset("\r\n")
_OTHER_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\[^\W0bnrtNZ]")
"""A backslash of LaTeX, a pattern or a path: then those before n and t are not escapes either."""

_SEP_LINE = re.compile(rb'"?sep=([!#-/:-@[-`{-~\t])"?\r?\n')
"""Excel's first line that names the separator."""


_JSON = re.compile(rb"""(\xef\xbb\xbf)?[{\[](\s*+(["'{}\[\]]|\Z)|[ \t\r]*+\n)""")
"""Start of JSON objects and lists; mere brackets may be part of column names."""


class Header(NamedTuple):
    """The contents of the header row."""

    names: list[str]
    separator: str


class EmptyRows:
    """Counts skipped empty rows, and keeps the position of the first."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Position | None = None

    def add(self, position: Position) -> None:
        """Count one row."""
        self.count += 1
        self.first = self.first or position

    def add_lines(self, lines: Sequence[int]) -> None:
        """Count rows on these lines, possibly none."""
        self.count += len(lines)
        if lines:
            self.first = self.first or Position(line=lines[0])


def read_csv(
    stream: io.BufferedReader,
    file_name: str,
    wanted: Collection[str] = (),
    on_header: Callable[[Header], None] = lambda _: None,
    empty: EmptyRows | None = None,
    *,
    separator: str = ",",
    serves: Callable[[Collection[str]], bool] = lambda _: False,
) -> Iterator[Record | Block]:
    """Every row below the header, as a Record or in a Block. All cells are text.

    Blank lines are skipped, and rows of empty cells, which spreadsheets write for their empty rows. A row's line is the
    one on which it begins.

    Args:
        stream: The file.
        file_name: For messages.
        wanted: Column names that the header may not contain twice.
        on_header: Called once with the header, before the first row.
        empty: Counts the rows whose cells are all empty.
        separator: Of cells, unless the header fits another one better.
        serves: Whether columns with these names satisfy the job.

    Raises:
        TrainerError: DatasetInvalid, the header cannot be used.
    """
    if _JSON.match(stream.peek()):
        step = "Set the format to JSONLines or JSON, or let the name end in .jsonl or .json."
        raise broken_file(file_name, "begins like JSON, not like CSV", step)
    csv.field_size_limit(ROW_LIMIT)
    source = Lines(stream)
    header, read_lines = _header(source, file_name, wanted, separator, serves)
    on_header(header)
    repeat_column = next((name for name in reversed(header.names) if name in wanted), "".join(header.names[-1:]))
    empty = empty or EmptyRows()
    one_by_one = _records(_rows(_RowLines(_drained(read_lines, source), header.separator)), header, empty)
    while read_lines and (row := next(one_by_one, None)):
        yield row
    yield from _in_blocks(source, header, repeat_column, one_by_one, empty)


def _in_blocks(
    source: Lines, header: Header, repeat_column: str, one_by_one: Iterator[Record], empty: EmptyRows
) -> Iterator[Record | Block]:
    """The rest of the file: blocks of rows that can be read together, and single rows between them."""
    while source.has_more():
        ahead, first = source.ahead(), source.number + 1
        if empty_lines := _leading_empty_lines(ahead, header.separator):
            empty.add_lines([number for number, line in enumerate(empty_lines, first) if line.strip(b"\r")])
            source.skip(len(empty_lines), are_all=len(empty_lines) == ahead.count(b"\n"))
            continue
        found, columns = _in_bulk(ahead, *header, repeat_column)
        if not found.ends and (parted := _without_empty_rows(ahead, first, header, repeat_column)):
            table, rows = parted
            yield table
            empty.add_lines(rows)
            source.skip(ahead.count(b"\n"), are_all=True)
            continue
        if found.ends:
            lines = line_places(first, found.ends[-1])
            one_a_line = len(found.ends) == len(lines)
            yield Table(lines if one_a_line else [lines[start] for start in (0, *found.ends[:-1])], columns)
            source.skip(len(lines), are_all=found.are_all)
        last = source.number if found.are_all else first - 1 + max(1, ahead.count(b"\n"))
        while source.number < last and (row := next(one_by_one, None)):
            yield row


def _leading_empty_lines(ahead: bytes, separator: str) -> list[bytes]:
    """The leading lines that are blank or only separators: spreadsheets may end with a million of them."""
    found = _empty_lines_pattern(separator).match(ahead)
    return found[0].split(b"\n")[:-1] if found else []


def _without_empty_rows(ahead: bytes, first: int, header: Header, repeat_column: str) -> tuple[Table, list[int]] | None:
    """The rows as one table, and the lines of separator-only rows among them; None if there are none.

    Not for text with quotes, where such a line may be part of a cell.
    """
    if b'"' in ahead:
        return None
    lines, mark = ahead.split(b"\n")[:-1], header.separator.encode()
    has_text = [bool(line.removesuffix(b"\r").strip(mark)) for line in lines]
    rows = [number for number, line in enumerate(lines, first) if not has_text[number - first] and line.strip(b"\r")]
    if not rows:
        return None
    found, columns = _in_bulk(b"\n".join([*compress(lines, has_text), b""]), *header, repeat_column)
    return (Table(list(compress(line_places(first, len(lines)), has_text)), columns), rows) if found.are_all else None


@cache
def _empty_lines_pattern(separator: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?:[%b]*+\r?+\n)+" % re.escape(separator.encode()))


def _in_bulk(
    ahead: bytes, names: list[str], separator: str, repeat_column: str
) -> tuple[Found, dict[str, Sequence[str]]]:
    """The leading rows that can be read together, and their columns.

    None if the header may be repeated among them (judged by the column `repeat_column`) or a row may be empty: such
    rows are checked one by one.
    """
    found = read_rows(ahead, len(names), separator)
    columns = dict(zip(names, found.columns, strict=True)) if found.ends else {}
    header_again = {repeat_column, repeat_column.lower(), repeat_column.upper(), repeat_column.title()}
    if not header_again.isdisjoint(columns.get(repeat_column, ())) or all("" in cells for cells in columns.values()):
        return Found(), {}
    return found, columns


def _drained(read_lines: list[Line], source: Iterator[Line]) -> Iterator[Line]:
    """The lines already read, then further ones."""
    while read_lines:
        yield read_lines.pop(0)
    yield from source


def _records(rows: Iterator["_Row"], header: Header, empty: EmptyRows) -> Iterator[Record]:
    for row in rows:
        if isinstance(row, Record):
            yield row
        elif any(row[1]):
            yield _record(*row, header)
        else:
            empty.add(row[0])


def _record(position: Position, cells: list[str], header: Header) -> Record:
    names = header.names
    if len(cells) == len(names) and all(map(_is_name, cells, names)):
        return Record(position, None, f"the header is repeated here{TO_REMOVE}")
    if len(cells) == len(names):
        return Record(position, dict(zip(names, cells, strict=True)))
    why = _why(cells, len(names), header.separator, position.line or 0)
    found = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    return Record(position, None, f"{found} where the header has {len(names)}{why}")


def _why(cells: list[str], wanted: int, separator: str, line: int) -> str:
    """The likely reason why a row has another number of cells than the header, as the end of its problem."""
    whole = separator.join(cells)  # separators that are rare in texts are tried first
    others = (mark for mark in reversed(SEPARATORS) if mark != separator and whole.count(mark) == wanted - 1 > 0)
    other = next(others, "")
    known = (
        (any(cell.startswith(' "') for cell in cells) and cells[-1].endswith('"'), SPACE_BEFORE_QUOTE),
        (any(cell.startswith(("“", "„")) for cell in cells) and cells[-1].endswith(("”", "“")), TYPOGRAPHIC),
        (any(map(_ends_escaped, cells)) and not any(map(_OTHER_ESCAPE.search, cells)), ESCAPED),
        (len(cells) == wanted + 1 and cells[0] in (str(line - 2), str(line - 1)), ROW_NUMBER),
        (len(cells) == 1 and _FOOTER.fullmatch(cells[0]) is not None, f": databases write it below a table{TO_REMOVE}"),
        (other, f"{BY_OTHERS}{SEPARATORS.get(other)}"),
    )
    return next((hint for applies, hint in known if applies), "")


def _ends_escaped(cell: str) -> bool:
    return (len(cell) - len(cell.rstrip("\\"))) % 2 == 1


def _is_name(cell: str, name: str) -> bool:
    return cell.strip(' "\ufeff\x1a').casefold() == name.casefold()


def _header(
    source: Lines,
    file_name: str,
    wanted: Collection[str],
    separator: str,
    serves: Callable[[Collection[str]], bool],
) -> tuple[Header, list[Line]]:
    """The header, and the lines after it that were read to find it."""
    declared, first = _first_line(source)
    default = declared or separator
    read_lines = [first] if first else []
    found = {mark: _names(read_lines, source, mark) for mark in ((declared,) if declared else (separator, *SEPARATORS))}
    mark = _separator({mark: names for mark, (names, _) in found.items()}, default, serves, file_name)
    names, lines = found[mark]
    if isinstance(names, Record):
        known = {NO_UTF8: AS_UTF8, _LONE_RETURN: WITH_LINE_FEEDS}.get(names.problem or "")
        step = {"next_step": known} if known else {}
        raise broken_file(file_name, f"the header cannot be read: {names.problem}", **step)
    is_one = len(names) == 1 and _BREAK.isdisjoint(names[0])  # csv accepts no line with a line break inside
    within = (next(csv.reader(names, delimiter=one), []) for one in SEPARATORS if is_one)
    if not serves(names) and any(map(serves, within)):
        raise broken_file(file_name, "each of its lines stands in quotes as a whole", UNQUOTED)
    if not serves(names) and serves([name.strip('"') for name in names]):
        raise broken_file(
            file_name, "there is a space before its quotes, which then do not quote", without_spaces(mark)
        )
    if not serves(names) and serves([name.strip("'") for name in names]):
        how = rewritten(mark, r'quotechar="\x27"')
        raise broken_file(file_name, "its cells are in single quotes", f"CSV has double ones: {how} writes those.")
    if not serves(names) and serves([name.strip("“”„") for name in names]):
        raise broken_file(file_name, "its cells are in typographic quotes", with_plain_quotes(mark))
    if not serves(names) and (other := _other_mark(names, serves)):
        option = "strict=True" if other.isprintable() else "quoting=3"  # Hive does not quote
        what, how = f"its cells are separated by {other!r}", f"{rewritten(other, option)} writes commas."
        raise broken_file(file_name, what, how)
    if not serves(names) and (below := _header_below(source, serves)):
        what = f"the header is on line {below}, below lines that are not part of the table"
        how = f"Remove the lines before it: `tail -n +{below} FILE > ROWS.csv` does it."
        raise broken_file(file_name, what, how)
    duplicate = next((name for name in wanted if names.count(name) > 1), None)
    if duplicate is not None:
        raise broken_file(file_name, f"two columns of the header are called {duplicate!r}", "Rename one of them.")
    return Header(names, mark), read_lines[lines:]


def _separator(
    found: Mapping[str, list[str] | Record], default: str, serves: Callable[[Collection[str]], bool], file_name: str
) -> str:
    """The separator: the one that gives the required columns. Several of them do if there is only one column.

    If none does, the file cannot be used as it is; the only separator that finds several columns is used to report
    them.
    """
    names = {mark: cells for mark, cells in found.items() if isinstance(cells, list)}
    serving = [mark for mark, cells in names.items() if serves(cells)]
    if len(serving) > 1 and default not in serving:
        ways = " and by ".join(SEPARATORS[one] for one in serving)
        raise broken_file(
            file_name, f"its header can be read by {ways}", "Rename the columns, or write it with commas."
        )
    fitting = serving or [mark for mark, cells in names.items() if len(cells) > 1]
    return fitting[0] if len(fitting) == 1 else default


def _other_mark(names: list[str], serves: Callable[[Collection[str]], bool]) -> str | None:
    """The character that splits the header's only cell into the required columns; quotes do not count.

    Or a control character between cells, as Hive writes it: it never occurs in text.
    """
    if control := next((one for one in "\x01\x1e\x1f" if any(one in name for name in names)), None):
        return control
    marks = (mark for mark in dict.fromkeys("".join(names)) if not (mark.isalnum() or mark in "_- '\"`"))
    return next((mark for mark in marks if len(names) == 1 and serves(names[0].split(mark))), None)


def _header_below(source: Lines, serves: Callable[[Collection[str]], bool]) -> int | None:
    """The first of the next few lines that has the required columns, which the first line lacks."""
    for number, line in enumerate(source.ahead().splitlines()[:_TITLE_LINES], source.number + 1):
        for mark in SEPARATORS:
            cells = line.decode(errors="replace").split(mark)
            if serves([cell.strip().strip('"') for cell in cells]):
                return number
    return None


def _first_line(source: Lines) -> tuple[str | None, Line | None]:
    """The separator in Excel's first line, if present, and the first line that is not blank."""
    declared: str | None = None
    for line in source:
        found = _SEP_LINE.fullmatch(line.text or b"") if line.number == 1 else None
        if found:
            declared = found[1].decode()
        elif line.text is None or line.text.strip(b"\r\n"):
            return declared, line
    return declared, None


def _names(read_lines: list[Line], source: Lines, separator: str) -> tuple[list[str] | Record, int]:
    """The stripped cells of the first row and its number of lines; no cells if there is no row.

    Further lines read for this are appended to `read_lines`.
    """
    lines = _RowLines(_replayed(read_lines, source), separator)
    row = _row(csv.reader(lines, strict=True, delimiter=separator), lines)
    if row is None or isinstance(row, Record):
        return row or [], lines.count
    return [name.strip() for name in row[1]], lines.count


def _replayed(read_lines: list[Line], source: Iterator[Line]) -> Iterator[Line]:
    """The lines already read, then further ones, which are appended to them, up to the limit of a header."""
    yield from read_lines
    for line in islice(source, _HEADER_LINES - len(read_lines)):
        read_lines.append(line)
        yield line


_Row = tuple[Position, list[str]] | Record


def _rows(source: "_RowLines") -> Iterator[_Row]:
    reader = csv.reader(source, strict=True, delimiter=source.separator)
    while (row := _row(reader, source)) is not None:
        if source.too_long:
            source.skip_row()
        yield row


def _row(reader: Iterator[list[str]], source: "_RowLines") -> _Row | None:
    """The next row that is not blank, or its problem; None at the end."""
    cells: list[str] = []
    problem = None
    while not cells and not problem:
        source.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return None
        except csv.Error as error:
            problem = _in_words(error)
            if problem == OTHER_QUOTES:
                found = (mark for mark in SEPARATORS if mark != source.separator and f'"{mark}"' in source.text)
                problem = next((f"{OTHERS_IN_QUOTES}{BY_OTHERS}{SEPARATORS[mark]}" for mark in found), problem)
        except _TooLongError:
            problem = f"the row is {TOO_LONG}; a quote may not be closed"
        problem = problem or source.problem
    return Record(Position(line=source.first), None, problem) if problem else (Position(line=source.first), cells)


_LONE_RETURN = "a line ends with a lone carriage return; end lines with a line feed"


OTHER_QUOTES = (
    "the quotes are not as CSV has them: within a quoted cell a quote is doubled, and a separator follows the cell"
)
"""Problem of rows with misplaced quotes."""

OTHERS_IN_QUOTES = "quoted cells are not separated as the header's are"
"""Start of the same problem if another separator is between the quotes."""


def _in_words(error: csv.Error) -> str:
    message = str(error)
    if "unexpected end" in message:
        return "a quote is opened and never closed"
    if "new-line" in message:
        return _LONE_RETURN
    if "field larger" in message:
        return f"a cell is {TOO_LONG}; a quote may not be closed"
    return OTHER_QUOTES


class _TooLongError(Exception):
    pass


class _RowLines:
    """Feeds csv.reader with lines as text, as many as a row needs."""

    def __init__(self, source: Iterator[Line], separator: str) -> None:
        self._source = source
        self.separator = separator
        self._size = 0
        self._quotes = 0
        self.first = 0
        """Line on which the current row begins."""
        self.count = 0
        """Number of lines of all rows so far."""
        self.too_long = False
        """Whether the current row is too long, and was not read completely."""
        self.text = ""
        """The last line."""
        self.problem: str | None = None
        """Why the bytes of the current row are not text."""

    def begin(self) -> None:
        """Start a new row."""
        self._size = self._quotes = self.first = 0
        self.too_long = False
        self.problem = None

    def skip_row(self) -> None:
        """Skip the rest of a row that is too long: up to a line at whose end all quotes are closed."""
        while self._quotes % 2 and (line := next(self._source, None)):
            self._count(line)

    def __iter__(self) -> "_RowLines":
        return self

    def __next__(self) -> str:
        line = next(self._source)
        self.first = self.first or line.number
        self._count(line)
        self.too_long = line.text is None or self._size > ROW_LIMIT
        if line.text is None or self.too_long:
            raise _TooLongError
        if b"\0" in line.text:
            self.problem = "the row has a NUL byte"
        try:
            self.text = line.text.decode("utf-8")
        except UnicodeDecodeError:
            self.problem = f"the row is {other_than_utf8(line.text)}"
            self.text = line.text.decode("utf-8", errors="replace")
        return self.text

    def _count(self, line: Line) -> None:
        self.count += 1
        self._size += ROW_LIMIT + 1 if line.text is None else len(line.text)
        self._quotes += line.quotes if line.text is None else line.text.count(b'"')
