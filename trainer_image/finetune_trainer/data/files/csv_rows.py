"""CSV as RFC 4180 has it → rows: quotes that may span lines, and a header with the columns' names.

Cells are separated by commas, or by what else gives the header the columns that the job needs: Excel writes semicolons
where the comma is part of numbers, and a first line `sep=;` which says so.
"""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import compress, islice
from typing import NamedTuple

from finetune_trainer.data.blocks import Block, Table
from finetune_trainer.data.files.csv_blocks import Found, rows_together
from finetune_trainer.data.files.csv_commands import UNQUOTED, anew, with_plain_quotes, without_spaces
from finetune_trainer.data.files.lines import TOO_LONG, Line, Lines, other_than_utf8
from finetune_trainer.data.files.source import AS_UTF8, WITH_LINE_FEEDS, broken_file
from finetune_trainer.data.rows import ROW_LIMIT, Position, Record, line_places

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""What may stand between cells, as people say it."""

SEPARATED_BY = "separated by "
"""Beginning of what is said of others."""

NO_UTF8 = f"the row is {other_than_utf8(b'')}"
"""Problem of a row in another encoding."""

SPACE_BEFORE_QUOTE = ": there is a space before a quote, which then does not quote"
"""End of what is said of rows whose cells are told apart wrongly for that."""

TYPOGRAPHIC = ": cells are in typographic quotes, which CSV does not know"
"""End of the same for quotes that a word processor has put there."""

ESCAPED = ": there is a backslash before a separator or the end of a line, as databases escape those"
"""End of the same of a row that is parted within a text, or begins with the rest of one."""

BY_OTHERS = ": it has as many by "
"""Beginning of what else is said of rows that another separator cuts as the header is cut."""

ROW_NUMBER = ": the first is its number"
"""End of what is said of rows that have one cell more than the header, which has no name for their numbers."""

TO_REMOVE = ": remove the line"
"""End of what is said of lines that are no rows."""

_END = re.compile(r"\\\.|\([0-9]+ rows?( affected)?\)|[0-9]+ rows? selected\.?")
"""What COPY, psql, sqlcmd and sqlplus write below a table."""

_HEADER_LINES = 256
"""Most lines of a header with quotes: to find out by which separator it is read, they are read by each."""

_TITLE_LINES = 16
"""Most lines in which a header is looked for where it is not the first."""

_BREAK = frozenset("\r\n")
_OF_NO_DATABASE = re.compile(r"(?<!\\)(?:\\\\)*\\[^\W0bnrtNZ]")
"""A backslash that is of LaTeX, a pattern or a path: then those before n and t are no escapes, either."""

_SAID = re.compile(rb'"?sep=([!#-/:-@[-`{-~\t])"?\r?\n')
"""Excel's own first line, which says what separates the cells."""


_JSON = re.compile(rb"""(\xef\xbb\xbf)?[{\[](\s*+(["'{}\[\]]|\Z)|[ \t\r]*+\n)""")
"""How objects and lists begin: names of columns may have brackets around them."""


class Header(NamedTuple):
    """What the first row says."""

    names: list[str]
    separator: str


class EmptyRows:
    """How many rows without anything in them were passed over, and where the first of them stands."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Position | None = None

    def add(self, position: Position) -> None:
        """One more."""
        self.count += 1
        self.first = self.first or position

    def add_lines(self, lines: Sequence[int]) -> None:
        """Some more, or none, each on a line of its own."""
        self.count += len(lines)
        if lines:
            self.first = self.first or Position(line=lines[0])


def read_csv(
    stream: io.BufferedReader,
    file_name: str,
    wanted: Collection[str] = (),
    tell_header: Callable[[Header], None] = lambda _: None,
    empty: EmptyRows | None = None,
    *,
    separator: str = ",",
    serves: Callable[[Collection[str]], bool] = lambda _: False,
) -> Iterator[Record | Block]:
    """Every row below the header, by itself or in a block. All cells are text.

    Blank lines are passed over, and rows of empty cells, as spreadsheets write their empty rows. A row's line is the
    one on which it begins. `tell_header` gets the header before the first row.

    Args:
        stream: The file.
        file_name: For messages.
        wanted: Names of columns of which none may stand in the header twice.
        tell_header: Called once.
        empty: Counts the rows of which all cells are empty.
        separator: Of cells, where the header fits no better with another one.
        serves: Whether columns with such names are what the job needs.

    Raises:
        TrainerError: DatasetInvalid, the header cannot be used.
    """
    if _JSON.match(stream.peek()):
        step = "Set the format to JSONLines or JSON, or let the name end in .jsonl or .json."
        raise broken_file(file_name, "begins like JSON, not like CSV", step)
    csv.field_size_limit(ROW_LIMIT)
    source = Lines(stream)
    header, begun = _header(source, file_name, wanted, separator, serves)
    tell_header(header)
    telling = next((name for name in reversed(header.names) if name in wanted), "".join(header.names[-1:]))
    empty = empty or EmptyRows()
    one_by_one = _records(_rows(_RowLines(_popped(begun, source), header.separator)), header, empty)
    while begun and (row := next(one_by_one, None)):
        yield row
    yield from _in_blocks(source, header, telling, one_by_one, empty)


def _in_blocks(
    source: Lines, header: Header, telling: str, one_by_one: Iterator[Record], empty: EmptyRows
) -> Iterator[Record | Block]:
    """What is left of the file: rows that can be read together in blocks, and the others between them one by one."""
    while source.more():
        ahead, first = source.ahead(), source.number + 1
        if hollow := _hollow_lines(ahead, header.separator):
            empty.add_lines([number for number, line in enumerate(hollow, first) if line.strip(b"\r")])
            source.skip(len(hollow), are_all=len(hollow) == ahead.count(b"\n"))
            continue
        found, columns = _together(ahead, *header, telling)
        if not found.ends and (parted := _without_hollow_rows(ahead, first, header, telling)):
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


def _hollow_lines(ahead: bytes, separator: str) -> list[bytes]:
    """The lines at its beginning that are blank, or separators alone: spreadsheets end with a million of them."""
    found = _hollow(separator).match(ahead)
    return found[0].split(b"\n")[:-1] if found else []


def _without_hollow_rows(ahead: bytes, first: int, header: Header, telling: str) -> tuple[Table, list[int]] | None:
    """The rows as one table, and the lines of those between them that are separators alone; None where it is not so.

    In quotes such a line may be a part of a cell.
    """
    if b'"' in ahead:
        return None
    lines, mark = ahead.split(b"\n")[:-1], header.separator.encode()
    full = [bool(line.removesuffix(b"\r").strip(mark)) for line in lines]
    rows = [number for number, line in enumerate(lines, first) if not full[number - first] and line.strip(b"\r")]
    if not rows:
        return None
    found, columns = _together(b"\n".join([*compress(lines, full), b""]), *header, telling)
    return (Table(list(compress(line_places(first, len(lines)), full)), columns), rows) if found.are_all else None


@cache
def _hollow(separator: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?:[%b]*+\r?+\n)+" % re.escape(separator.encode()))


def _together(ahead: bytes, names: list[str], separator: str, telling: str) -> tuple[Found, dict[str, Sequence[str]]]:
    """The rows at its beginning that are read together, and their columns.

    None where the header may stand among them again, by the column that is `telling`, or a row may be empty: then each
    is looked at.
    """
    found = rows_together(ahead, len(names), separator)
    columns = dict(zip(names, found.columns, strict=True)) if found.ends else {}
    header_again = {telling, telling.lower(), telling.upper(), telling.title()}
    if not header_again.isdisjoint(columns.get(telling, ())) or all("" in cells for cells in columns.values()):
        return Found(), {}
    return found, columns


def _popped(begun: list[Line], source: Iterator[Line]) -> Iterator[Line]:
    """Lines that were read before, as long as there are any, and then further ones."""
    while begun:
        yield begun.pop(0)
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
    return Record(position, None, f"{len(cells)} cell{_s(cells)} where the header has {len(names)}{why}")


def _why(cells: list[str], wanted: int, separator: str, line: int) -> str:
    """What is known of a row that has another number of cells than the header, as the end of what is said of it."""
    whole = separator.join(cells)  # of others those that texts rarely have first
    others = (mark for mark in reversed(SEPARATORS) if mark != separator and whole.count(mark) == wanted - 1 > 0)
    other = next(others, "")
    known = (
        (any(cell.startswith(' "') for cell in cells) and cells[-1].endswith('"'), SPACE_BEFORE_QUOTE),
        (any(cell.startswith(("“", "„")) for cell in cells) and cells[-1].endswith(("”", "“")), TYPOGRAPHIC),
        (any(map(_ends_escaped, cells)) and not any(map(_OF_NO_DATABASE.search, cells)), ESCAPED),
        (len(cells) == wanted + 1 and cells[0] in (str(line - 2), str(line - 1)), ROW_NUMBER),
        (len(cells) == 1 and _END.fullmatch(cells[0]) is not None, f": databases write it below a table{TO_REMOVE}"),
        (other, f"{BY_OTHERS}{SEPARATORS.get(other)}"),
    )
    return next((words for is_so, words in known if is_so), "")


def _ends_escaped(cell: str) -> bool:
    return (len(cell) - len(cell.rstrip("\\"))) % 2 == 1


def _is_name(cell: str, name: str) -> bool:
    return cell.strip(' "\ufeff\x1a').casefold() == name.casefold()


def _s(cells: list[str]) -> str:
    return "" if len(cells) == 1 else "s"


def _header(
    source: Lines,
    file_name: str,
    wanted: Collection[str],
    separator: str,
    serves: Callable[[Collection[str]], bool],
) -> tuple[Header, list[Line]]:
    """The header, and lines behind it that were read to find it."""
    said, first = _first_line(source)
    usual = said or separator
    begun = [first] if first else []
    found = {mark: _names(begun, source, mark) for mark in ((said,) if said else (separator, *SEPARATORS))}
    mark = _separator({mark: names for mark, (names, _) in found.items()}, usual, serves, file_name)
    names, lines = found[mark]
    if isinstance(names, Record):
        known = {NO_UTF8: AS_UTF8, _LONE_RETURN: WITH_LINE_FEEDS}.get(names.problem or "")
        step = {"next_step": known} if known else {}
        raise broken_file(file_name, f"the header cannot be read: {names.problem}", **step)
    is_one = len(names) == 1 and _BREAK.isdisjoint(names[0])  # csv takes no line with a break within
    within = (next(csv.reader(names, delimiter=one), []) for one in SEPARATORS if is_one)
    if not serves(names) and any(map(serves, within)):
        raise broken_file(file_name, "each of its lines stands in quotes as a whole", UNQUOTED)
    if not serves(names) and serves([name.strip('"') for name in names]):
        raise broken_file(
            file_name, "there is a space before its quotes, which then do not quote", without_spaces(mark)
        )
    if not serves(names) and serves([name.strip("'") for name in names]):
        how = anew(mark, r'quotechar="\x27"')
        raise broken_file(file_name, "its cells are in single quotes", f"CSV has double ones: {how} writes those.")
    if not serves(names) and serves([name.strip("“”„") for name in names]):
        raise broken_file(file_name, "its cells are in typographic quotes", with_plain_quotes(mark))
    if not serves(names) and (other := _other_mark(names, serves)):
        what, how = f"its cells are separated by {other!r}", f"{anew(other, 'strict=True')} writes commas."
        raise broken_file(file_name, what, how)
    if not serves(names) and (below := _header_below(source, serves)):
        what = f"the header is on line {below}, below lines that are not part of the table"
        how = f"Remove the lines before it: `tail -n +{below} FILE > ROWS.csv` does it."
        raise broken_file(file_name, what, how)
    twice = next((name for name in wanted if names.count(name) > 1), None)
    if twice is not None:
        raise broken_file(file_name, f"two columns of the header are called {twice!r}", "Rename one of them.")
    return Header(names, mark), begun[lines:]


def _separator(
    found: Mapping[str, list[str] | Record], usual: str, serves: Callable[[Collection[str]], bool], file_name: str
) -> str:
    """What separates cells: the one that gives the columns which the job needs. Several do with one column alone.

    Where none does the file is of no use as it is, and its columns can be named by the only one that finds several.
    """
    names = {mark: cells for mark, cells in found.items() if isinstance(cells, list)}
    serving = [mark for mark, cells in names.items() if serves(cells)]
    if len(serving) > 1 and usual not in serving:
        ways = " and by ".join(SEPARATORS[one] for one in serving)
        raise broken_file(
            file_name, f"its header can be read by {ways}", "Rename the columns, or write it with commas."
        )
    fitting = serving or [mark for mark, cells in names.items() if len(cells) > 1]
    return fitting[0] if len(fitting) == 1 else usual


def _other_mark(names: list[str], serves: Callable[[Collection[str]], bool]) -> str | None:
    """The character that parts the only cell of a header into the columns which the job needs; no quote is one.

    Or a control character, as Hive has one between cells: no text has it.
    """
    if control := next((one for one in "\x01\x1e\x1f" if any(one in name for name in names)), None):
        return control
    marks = (mark for mark in dict.fromkeys("".join(names)) if not (mark.isalnum() or mark in "_- '\"`"))
    return next((mark for mark in marks if len(names) == 1 and serves(names[0].split(mark))), None)


def _header_below(source: Lines, serves: Callable[[Collection[str]], bool]) -> int | None:
    """The line, one of the next few, that has the columns which the first one has not."""
    for number, line in enumerate(source.ahead().splitlines()[:_TITLE_LINES], source.number + 1):
        for mark in SEPARATORS:
            cells = line.decode(errors="replace").split(mark)
            if serves([cell.strip().strip('"') for cell in cells]):
                return number
    return None


def _first_line(source: Lines) -> tuple[str | None, Line | None]:
    """What Excel says that cells are separated by, and the first line that is not blank."""
    said: str | None = None
    for line in source:
        found = _SAID.fullmatch(line.text or b"") if line.number == 1 else None
        if found:
            said = found[1].decode()
        elif line.text is None or line.text.strip(b"\r\n"):
            return said, line
    return said, None


def _names(begun: list[Line], source: Lines, separator: str) -> tuple[list[str] | Record, int]:
    """The cells of the first row without spaces around them, and how many lines it has; none where there is no row.

    Lines beyond those that were read before are added to them.
    """
    lines = _RowLines(_again(begun, source), separator)
    row = _row(csv.reader(lines, strict=True, delimiter=separator), lines)
    if row is None or isinstance(row, Record):
        return row or [], lines.count
    return [name.strip() for name in row[1]], lines.count


def _again(begun: list[Line], source: Iterator[Line]) -> Iterator[Line]:
    """Lines that were read, and then further ones, which are kept with them, as many as a header may have."""
    yield from begun
    for line in islice(source, _HEADER_LINES - len(begun)):
        begun.append(line)
        yield line


_Row = tuple[Position, list[str]] | Record


def _rows(source: "_RowLines") -> Iterator[_Row]:
    reader = csv.reader(source, strict=True, delimiter=source.separator)
    while (row := _row(reader, source)) is not None:
        if source.too_long:
            source.skip_row()
        yield row


def _row(reader: Iterator[list[str]], source: "_RowLines") -> _Row | None:
    """The next row that is not blank, or what is wrong with it; None at the end."""
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
"""What is said of rows whose quotes part no cells."""

OTHERS_IN_QUOTES = "quoted cells are not separated as the header's are"
"""Beginning of what is said of them where another separator stands between quotes."""


def _in_words(error: csv.Error) -> str:
    said = str(error)
    if "unexpected end" in said:
        return "a quote is opened and never closed"
    if "new-line" in said:
        return _LONE_RETURN
    if "field larger" in said:
        return f"a cell is {TOO_LONG}; a quote may not be closed"
    return OTHER_QUOTES


class _TooLongError(Exception):
    pass


class _RowLines:
    """Lines as text for csv.reader, which asks for as many as a row needs."""

    def __init__(self, source: Iterator[Line], separator: str) -> None:
        self._source = source
        self.separator = separator
        self._size = 0
        self._quotes = 0
        self.first = 0
        """Number of the line at which the present row begins."""
        self.count = 0
        """Lines of all rows so far."""
        self.too_long = False
        """Whether the present row is, and not all of it was read."""
        self.text = ""
        """The last line."""
        self.problem: str | None = None
        """Why the bytes of the present row are no text."""

    def begin(self) -> None:
        """A new row begins."""
        self._size = self._quotes = self.first = 0
        self.too_long = False
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
