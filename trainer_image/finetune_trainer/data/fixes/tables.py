"""Next steps if some rows cannot be used: a command that leaves them out, or one that fixes the cells of a table.

Given only if it is known which rows these are, or what they lack: no command may leave out any others.
"""

import json
from collections import Counter
from collections.abc import Sequence

from finetune_api.reasons import NEXT_STEP, Reason
from finetune_trainer.data.columns import Unusable
from finetune_trainer.data.files.csv_commands import rewritten, unescaped, with_plain_quotes, without_spaces
from finetune_trainer.data.files.csv_rows import (
    BY_OTHERS,
    ESCAPED,
    OTHER_QUOTES,
    OTHERS_IN_QUOTES,
    ROW_NUMBER,
    SEPARATORS,
    SPACE_BEFORE_QUOTE,
    TO_REMOVE,
    TYPOGRAPHIC,
)
from finetune_trainer.data.fixes.jq import field, jq_rows, quoted, separator_in

_LONG_CELLS = "csv.field_size_limit(1 << 30); "
_OPENED = 'open("FILE", newline="", encoding="utf-8-sig")'
_JOIN_PROGRAM = (
    r'join = lambda row: "\x1f".join(row).replace("\x1f ", {mark} + " ").split("\x1f"); size = len(head); '
    "[print(rows.line_num, file=sys.stderr) if len(row) < size or any(row[size:]) else out.writerow(row[:size]) "
    "for row in (join(row) if any(row[size:]) else row for row in rows if row)]"
)
"""Python: joins cells of a text that was split, in rows with too many cells. Where the parts belong is ambiguous, the
rest of a question could become part of the answer: such rows are left out."""
_WHOLE_ROWS_PROGRAM = (
    "import itertools; before, here, behind = itertools.tee(itertools.chain([head], filter(None, rows), [head]), 3); "
    r'plain = lambda row: [one.strip(" \"\ufeff\x1a").casefold() for one in row]; '
    "next(here); next(behind); next(behind); [out.writerow(row) for row, *beside in zip(here, before, behind) "
    "if plain(row) != plain(head) and {len(head)} == set(map(len, [row, *beside]))]"
)
"""Python: keeps rows that have as many cells as the header and whose neighbours have so too."""
_FILL_PROGRAM = '[out.writerow(row + [""] * (len(head) - len(row))) for row in rows if row]'
"""Python: fills rows that lack cells at the end."""
_MESSAGE_STARTS = ("message", "content")
"""Start of problems of a single message."""


def leave_out_step(problems: Sequence[Unusable], rows: int, bad_rows: int, file_format: str) -> str | None:
    """How to leave out invalid rows, if at least as many others remain; None if it is unknown which ones, or how.

    `problems` are the named ones, perhaps not all.
    """
    if 2 * bad_rows > rows:
        return None
    if bad_rows == 1 and problems[0].position.line == rows and problems[0].what.endswith("it breaks off"):
        return (
            "The file ends within a row, as it does where writing or uploading broke off: write and upload it again. "
            f"`sed '{rows}d' FILE > ROWS.jsonl` leaves that row out; others may be missing, too."
        )
    how = _by_lines(problems, bad_rows, file_format) or _by_columns(problems, file_format)
    how = how or _by_cells(problems, file_format)
    return how and f"{NEXT_STEP[Reason.DATASET_INVALID]} To leave such rows out: {how}."


def _by_lines(problems: Sequence[Unusable], bad_rows: int, file_format: str) -> str | None:
    lines = [problem.position.line for problem in problems]
    are_lines = file_format.startswith("JSONLines") or all(problem.what.endswith(TO_REMOVE) for problem in problems)
    if not are_lines or len(problems) < bad_rows or None in lines:
        return None
    ending = "csv" if file_format.startswith("CSV") else "jsonl"
    return f"`sed '{';'.join(f'{line}d' for line in lines)}' FILE > ROWS.{ending}`"


def _by_columns(problems: Sequence[Unusable], file_format: str) -> str | None:
    """The same if all of them lack a text. Known from the named problems: in which columns."""
    columns = sorted({problem.field or "" for problem in problems})
    lack = all(problem.kind in ("Missing", "Empty") for problem in problems)
    if not lack or "" in columns or any(problem.what.startswith(_MESSAGE_STARTS) for problem in problems):
        return None
    texts = ", ".join(map(field, columns))
    how = jq_rows(file_format, rf'select(all({texts}; type == "string" and test("\\S")))')
    return f"`{how}`"


def _by_cells(problems: Sequence[Unusable], file_format: str) -> str | None:
    """The same for a table whose bad rows have other numbers of cells, or repeat its header."""
    known = ("where the header has ", "the header is repeated here")
    if not file_format.startswith("CSV") or not all(any(one in problem.what for one in known) for problem in problems):
        return None
    how = _by_python(_header_program(file_format) + _WHOLE_ROWS_PROGRAM)
    return (
        f"{how}, with the ones right before and behind those that have other numbers of cells: they may be parts of "
        "one text with line breaks in it"
    )


def table_step(problems: Sequence[Unusable], file_format: str, *, are_all: bool) -> str | None:
    """The command that rewrites a table, if all bad rows have the same problem with their cells.

    `are_all`: the file has no other rows.
    """
    if not file_format.startswith("CSV"):
        return None
    mark = separator_in(file_format)
    separator = json.loads(mark)
    if any(ESCAPED in problem.what for problem in problems):  # the other part of a split row may have another problem
        return unescaped(separator)
    ways = ((SPACE_BEFORE_QUOTE, without_spaces), (TYPOGRAPHIC, with_plain_quotes))
    if way := next((how for what, how in ways if all(what in problem.what for problem in problems)), None):
        return way(separator)
    if counted := _cell_counts_step(problems, file_format, are_all=are_all):
        return counted
    if any(OTHER_QUOTES in problem.what for problem in problems):  # may cause the problems of other rows
        return (
            "Quotes within a cell are doubled, as to_csv of pandas and csv.writer write them. "
            r"""`sed 's/\\\\/\x01/g; s/\\"/""/g; s/\x01/\\/g' FILE > ROWS.csv` does it where a backslash is before """
            "them, and writes one of two backslashes, which mean one there; the others are for you to "
            f"double, since nothing tells where their cell ends. {rewritten(separator, 'quoting=3')} takes all "
            "quotes for a part of the text, as tables with tabs mostly have them."
        )
    return None


def _cell_counts_step(problems: Sequence[Unusable], file_format: str, *, are_all: bool) -> str | None:
    """The same for rows with other numbers of cells than the header, for one of three reasons."""
    mark = separator_in(file_format)
    others = Counter(problem.what.partition(BY_OTHERS)[2] for problem in problems)
    other, count = others.most_common(1)[0]
    lacks_own = any(
        problem.what.startswith(("1 cell ", OTHERS_IN_QUOTES)) for problem in problems
    )  # otherwise there are only rows with too many cells
    if other and lacks_own and count > max(1, len(problems) // 2):
        return _separators_step(mark, other)
    if are_all and all(ROW_NUMBER in problem.what for problem in problems):
        return (
            "Rows begin with their numbers, for which the header has no name, as write.table of R leaves it: "
            f"`sed '1s/^/number{mark[1:-1]}/' FILE > ROWS.csv` gives them one."
        )
    surplus = {_surplus_cells(problem.what) for problem in problems}
    if are_all and not lacks_own and len(surplus) == 1 and min(surplus) < 0:
        how = _by_python(_header_program(file_format) + _FILL_PROGRAM)
        return (
            "Rows lack the header's last cells, as spreadsheets leave empty ones out: "
            f"{how} adds them, where those that are there are the first ones."
        )
    if min(surplus) > 0:
        how = _by_python(_header_program(file_format) + _JOIN_PROGRAM.format(mark=mark))
        return (
            "A cell with a separator in it must be in double quotes, as to_csv of pandas and csv.writer put them. "
            f"{how} joins cells where a space follows the separator, as it does within a sentence; rows that have too "
            "many cells even so are left out, and their lines printed: in which cell the separator belongs is for you "
            "to say."
        )
    return None


def _separators_step(mark: str, other: str) -> str:
    """The step if rows have another separator than the header, whose separator is `mark` as a Python literal."""
    wanted = next(one for one, name in SEPARATORS.items() if name == other)
    how = f"1s/{mark[1:-1]}/{json.dumps(wanted)[1:-1]}/g"
    return (
        f"Header and rows have different separators: `sed '{how}' FILE > ROWS.csv` gives the header those of the rows. "
        "Where only some rows are so, two files were put together: check each by itself."
    )


def _header_program(file_format: str) -> str:
    """Python: reads the header of a table and writes it."""
    return (
        f"rows = csv.reader({_OPENED}, delimiter={separator_in(file_format)}); head = next(rows); out.writerow(head); "
    )


def _by_python(how: str) -> str:
    prelude = f'import csv, sys; {_LONG_CELLS}out = csv.writer(sys.stdout, lineterminator="\\n"); '
    return f"`python3 -c {quoted(prelude + how)} > ROWS.csv`"


def _surplus_cells(what: str) -> int:
    """Number of cells in excess of the header's, negative if some are missing; 0 for other problems."""
    cells, _, wanted = what.partition(" where the header has ")
    return int(cells.split()[0]) - int(wanted.partition(":")[0]) if wanted else 0
