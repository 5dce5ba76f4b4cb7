"""Next steps for rows that cannot be used, if all of them have the same problem: a command that fixes it.

Problems are recognized by the words of their messages.
"""

import json
from collections.abc import Sequence

from finetune_trainer.data.columns import Unusable
from finetune_trainer.data.files.lines import CESU_8
from finetune_trainer.data.files.source import AS_UTF8, WITH_LINE_FEEDS
from finetune_trainer.data.fixes import conversations
from finetune_trainer.data.fixes.conversations import by_command
from finetune_trainer.data.fixes.jq import python_rows
from finetune_trainer.data.fixes.nearly_json import all_contain, is_about_json, json_step
from finetune_trainer.data.fixes.tables import leave_out_step, table_step
from finetune_trainer.data.turns import A_MAP, AS_PYTHON_WRITES, AS_STRUCTS, NO_JSON

_SOME_AS_UTF8 = (
    " If other lines of the file are UTF-8 already, that would garble them: `python3 -c 'import codecs, sys; "
    'codecs.register_error("old", lambda e: (e.object[e.start:e.end].decode("cp1252", "replace"), e.end)); '
    'sys.stdout.reconfigure(encoding="utf-8", newline=""); '
    '[print(line.decode("utf-8", "old"), end="") for line in sys.stdin.buffer]\' < FILE > ROWS` takes '
    "only the rest for WINDOWS-1252."
)
REFUSED_BY_TEMPLATE = "the model's chat template refuses it"
_AS_TEMPLATE_WANTS = (
    "Leave out what the model's chat template refuses, by its own words where it has any: often a system message, or "
    "turns that do not alternate. If it refuses every row, name another base model, such as this one's instruct "
    "variant. Then apply the job under a new name."
)
_WITHOUT_NUL = (
    r"`tr -d '\000' < FILE > ROWS` takes the NUL bytes away. A write that broke off leaves many of them: then rows are "
    "missing, too, and the file is to be written again."
)
_FROM_CESU = (
    '`python3 -c \'import sys; [sys.stdout.buffer.write(line.decode("utf-8", "surrogatepass").encode("utf-16", '
    '"surrogatepass").decode("utf-16").encode()) for line in sys.stdin.buffer]\' < FILE > ROWS` writes the file as '
    "UTF-8: old Java, Oracle's UTF8 and MySQL's utf8 have CESU-8."
)
_STEPS_OF_ANY_FORMAT = (
    (CESU_8, _FROM_CESU),
    ("lone carriage return", WITH_LINE_FEEDS),
    ("NUL byte", _WITHOUT_NUL),
    (REFUSED_BY_TEMPLATE, _AS_TEMPLATE_WANTS),
)
"""Words of a problem, and the next step if all rows have it, for any format."""


def step_for_problems(
    problems: Sequence[Unusable], rows: int, bad_rows: int, file_format: str, field: str
) -> str | None:
    """The next step for the rows; None if nothing better is known than to correct them.

    `problems` are the named ones, perhaps not all; `field` is the job's field for the file's format.
    """
    if file_format.startswith("Parquet") and all_contain(problems, "UTF-8"):
        return "Make the text again, from what it was read from, by bytes.decode with the encoding that it has there."
    if known := next((step for what, step in _STEPS_OF_ANY_FORMAT if all_contain(problems, what)), None):
        return known
    encoded = [problem for problem in problems if "UTF-8" in problem.what]
    if encoded and not file_format.startswith("Parquet"):  # comes first, whatever the other rows' problems
        return AS_UTF8 + (_SOME_AS_UTF8 if bad_rows < rows or len(encoded) < len(problems) else "")
    all_rows_step = next(
        (step for what, step in _STEPS_IF_ALL_ROWS if bad_rows == rows and all_contain(problems, what)), None
    )
    present = [problem for problem in problems if problem.kind not in ("Missing", "Empty")] or problems
    columns = {problem.field for problem in present if problem.field}
    if len(columns) == 1:
        column = columns.pop()
        if step := all_rows_step(column, file_format) if all_rows_step else _column_step(present, column, file_format):
            return step
    is_unread = bad_rows == rows and all(problem.field is None and is_about_json(problem.what) for problem in problems)
    found = json_step(problems, file_format, field if is_unread else None) if file_format.startswith("JSON") else None
    fix = found or table_step(problems, file_format, are_all=bad_rows == rows)
    return fix or leave_out_step(problems, rows, bad_rows, file_format)


def _column_step(problems: Sequence[Unusable], column: str, file_format: str) -> str | None:
    """The step if all problems are in the same column."""
    texts = [problem.what for problem in problems]
    if all(what.startswith("content of message") and what.endswith(", not text") for what in texts):
        kinds = {what.partition(" is ")[2].removesuffix(", not text") for what in texts}
        return conversations.contents_step(kinds, column, file_format)
    if all(what.endswith(_WRITTEN_AS_TEXT) for what in texts):
        return _to_text_step(column, file_format)
    return next((step(column, file_format) for what, step in _STEPS_OF_COLUMN if all_contain(problems, what)), None)


_WRITTEN_AS_TEXT = tuple(
    f"is {kind}, not text" for kind in ("a number", "true or false", "a time", "a date", "a time of day", "a duration")
)
"""Types whose values have a single text form, known to pandas and jq."""


def _to_text_step(column: str, file_format: str) -> str:
    """The step for numbers and the like; only their author knows the right words."""
    name = json.dumps(column)
    as_text = "json.dumps(one) if isinstance(one, (int, float)) else one"  # in Python, because jq rounds large numbers
    each = f"{{**row, {name}: (lambda one: None if one != one else {as_text})(row.get({name}))}}"
    how = python_rows(file_format, each)
    return f"Only text is learnt: `{how} > ROWS.jsonl` makes it of these; of classes better write the words."


def _python_text_step(column: str, file_format: str) -> str:
    """The step for lists written by Python's str."""
    name = json.dumps(column)
    with_commas = rf're.sub(r"\}}\n *\{{", "}}, {{", row[{name}])'  # numpy prints arrays without commas
    how = python_rows(file_format, f"{{**row, {name}: ast.literal_eval({with_commas})}}")
    return f"Write messages by json.dumps and not by str: `{how} > ROWS.jsonl` makes lists of them."


_WHO = r"\{(?:\W?(?:role|from)\W{1,3})?(\w+), "
_STRUCT = (
    rf"{_WHO}(?:\x27(?:content|value)\x27: \x27(.*?)\x27|(?:(?:content|value)=|\x27(?:content|value)\x27: )?(.*?))\}}"
    rf"(?=, {_WHO}|\]\s*\Z)"
)
"""Python: one message of a list as displayed by Athena, Spark and DuckDB, which may quote it."""
_AS_JSON = (
    "Write messages as JSON where they are exported: to_json(COLUMN) of Spark and DuckDB, TO_JSON_STRING(COLUMN) of "
    "BigQuery, json_format(CAST(COLUMN AS JSON)) of Athena, json.dumps of Python"
)


def _structs_step(column: str, file_format: str) -> str:
    """The step for a list in a database's display format, which is not meant to be parsed."""
    name = json.dumps(column)
    message = r'{"role": who, "content": re.sub(r"\\(.)", r"\1", quoted) or plain}'
    found = f're.findall(r"{_STRUCT}", row[{name}], re.DOTALL)'
    how = python_rows(file_format, f"{{**row, {name}: [{message} for who, quoted, plain, _ in {found}]}}")
    return f"{_AS_JSON}; or `{how} > ROWS.jsonl` makes messages of these, where each is a role and a text alone."


def _prompt_step(column: str, file_format: str) -> str:
    """The step for rows without prompts, if no row has one."""
    step = "An answer is learnt as that to a prompt: write what asks for it into each row, such as an instruction"
    with_one = by_command(f"{step}; HOW writes one TEXT into all.", 'COLUMN = "TEXT"')
    return with_one(column, file_format) if file_format.startswith("JSON") else f"{step}."


_STEPS_IF_ALL_ROWS = (*conversations.IF_ALL_ROWS, ("prompt is empty", _prompt_step))
"""Steps if dropping the rows with a problem would leave none; None for a problem that can be fixed in place."""

_TO_OBJECT = "def to_object: map({key: .[0], value: .[1]}) | from_entries; "
_MAPS_PROGRAM = 'if .[0][0]? | type == "string" then to_object else map(to_object) end'
_TYPED_PROGRAM = (
    'if type == "object" and length == 1 then .S // .stringValue // .string_value // .string // . else . end'
)
"""jq: the text of an object of a type and its value, as written by DynamoDB, Firestore, BigQuery and Avro."""
_TO_TEXT = (
    # Spark writes such objects if a table's type is map, not struct; Python reads them as lists of pairs.
    (A_MAP, "HOW makes objects of maps.",
     f'{_TO_OBJECT}COLUMN |= (if type == "array" then {_MAPS_PROGRAM} else . end)'),
    # The command that reads Parquet decodes all bytes itself.
    ("is bytes, not text", "Only text is learnt: HOW makes it of bytes, where those are UTF-8.", "."),
    ("is a list, not text", "Only text is learnt: HOW takes the first of each list; of lists with several texts write "
     "the one that is meant.", 'COLUMN |= (if type == "array" then .[0] else . end)'),
    # SQuAD has answers in lists within an object.
    ("is an object, not text", "Only text is learnt: HOW writes objects as JSON, which is learnt then, but takes the "
     "text of those that are one with its type, as DynamoDB has it; of an object HOW takes what it calls NAME; "
     ".text[0] is an answer of SQuAD.", f'COLUMN |= ({_TYPED_PROGRAM} | if type == "object" then tojson else . end)',
     'COLUMN |= (if type == "object" then .NAME else . end)'),
)  # fmt: skip
_STEPS_OF_COLUMN = (
    (AS_PYTHON_WRITES, _python_text_step),
    (AS_STRUCTS, _structs_step),
    (NO_JSON, conversations.constant(f"{_AS_JSON}.")),
    *conversations.COLUMN_STEPS,
    *((what, by_command(text, *programs)) for what, text, *programs in _TO_TEXT),
)
"""Steps by the words of a problem, each for a column."""
