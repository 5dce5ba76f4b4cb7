"""What to do about rows that cannot be used, where all of them have the same thing wrong: a command that mends it.

Problems are known by their words, as they are told to people.
"""

from collections.abc import Sequence

from finetune_trainer.data.columns import Unusable
from finetune_trainer.data.json_array import AFTER_ARRAY
from finetune_trainer.data.json_lines import NO_OBJECT
from finetune_trainer.data.source import AS_UTF8, WITH_LINE_FEEDS

_OBJECTS = (
    "A row is an object with names: `jq -c '.[] | {messages: .}' FILE` makes rows of an array of conversations, and "
    "`jq -c '.[] | {prompt: .[0], completion: .[1]}' FILE` of an array of pairs of texts, "
    "`jq -c '{prompt: .[0], completion: .[1]}' FILE` of pairs that stand on lines of their own, and `jq -c fromjson "
    "FILE` of lines that are objects written as text."
)
_OF_PYTHON = (
    "Write rows by json.dumps and not by str or print: `python3 -c 'import ast, json, sys; "
    'sys.stdout.reconfigure(encoding="utf-8"); [print(json.dumps(row, ensure_ascii=False)) for row in {}]\' < FILE > '
    "ROWS.jsonl` does it with those that there are."
)
_EACH_LINE = "(ast.literal_eval(line.decode()) for line in sys.stdin.buffer if line.strip())"
_WHOLE = "ast.literal_eval(sys.stdin.buffer.read().decode())"
_SOME_AS_UTF8 = (
    " If other lines of the file are UTF-8 already, that would garble them: `python3 -c 'import codecs, sys; "
    'codecs.register_error("old", lambda e: (e.object[e.start:e.end].decode("cp1252", "replace"), e.end)); '
    'sys.stdout.reconfigure(encoding="utf-8", newline=""); '
    '[print(line.decode("utf-8", "old"), end="") for line in sys.stdin.buffer]\' < FILE > ROWS.jsonl` takes '
    "only the rest for WINDOWS-1252."
)
REFUSED_BY_TEMPLATE = "the model's chat template refuses it"
_AS_TEMPLATE_WANTS = (
    "Leave out what the model's chat template refuses, by its own words where it has any: often a system message, or "
    "turns that do not alternate. If it refuses every row, name another base model, such as this one's instruct "
    "variant. Then apply the job under a new name."
)
_AS_JSON = "Write rows by a library that escapes text: json.dumps of Python, JSON.stringify, to_json of pandas."
_WITHOUT_NUL = (
    r"`tr -d '\000' < FILE > ROWS` takes the NUL bytes away. A write that broke off leaves many of them: then rows are "
    "missing, too, and the file is to be written anew."
)
_STEPS_OF_ANY = (
    ("lone carriage return", WITH_LINE_FEEDS),
    ("NUL byte", _WITHOUT_NUL),
    (REFUSED_BY_TEMPLATE, _AS_TEMPLATE_WANTS),
)
"""What is said of each of the rows, and what helps, whatever the format."""

_STEPS = (
    ("has NaN or Infinity", "Write null, or leave the column out: to_json of pandas does."),
    ("a comma follows its end", "`sed 's/,[[:space:]]*$//' FILE > ROWS.jsonl` takes the commas away."),
    (
        "a byte order mark stands",
        r"`sed 's/^\(\xEF\xBB\xBF\)*//' FILE > ROWS.jsonl` takes the marks away: `cat` of files that begin "
        "with one leaves them in the middle.",
    ),
    (
        r"a \u escape is half of a character",
        "A text was cut in the middle of a character, such as an emoji: cut texts by characters and not by UTF-16 "
        "units (as substring of JavaScript and Java does), and write the rows anew.",
    ),
    (AFTER_ARRAY, "`jq -c '.[]' FILE > ROWS.jsonl` makes one object a line of several arrays."),
    ("nothing stands between two commas", "Take away the comma behind the last element, or one of two neighbours."),
    ("tabs and line breaks within text", _AS_JSON),
    ("a backslash", _AS_JSON),
)
"""The same of JSON."""


def mending(problems: Sequence[Unusable], rows: int, bad_rows: int, file_format: str, field: str) -> str | None:
    """What to do about the rows; None where nothing better is known than to correct them.

    Args:
        problems: Those that are named, perhaps not all.
        rows: Of the file.
        bad_rows: How many of them have a problem.
        file_format: As which it was read.
        field: Of the job, that says which format the file has.
    """
    if file_format.startswith("Parquet") and (step := _of_bytes(problems)):
        return step
    if known := next((step for what, step in _STEPS_OF_ANY if _all_say(problems, what)), None):
        return known
    if _all_say(problems, "UTF-8"):
        return AS_UTF8 + (_SOME_AS_UTF8 if bad_rows < rows else "")
    columns = {problem.field for problem in problems}
    if len(columns) == 1 and any(_all_say(problems, f"is {kind}, not text") for kind in ("a number", "true or false")):
        return _as_text(columns.pop() or "", file_format)
    is_unread = bad_rows == rows and all(problem.field is None and _is_of_json(problem.what) for problem in problems)
    return _of_json(problems, file_format, field if is_unread else None) if file_format.startswith("JSON") else None


def _is_of_json(what: str) -> bool:
    return "JSON" in what or AFTER_ARRAY in what


def _all_say(problems: Sequence[Unusable], what: str) -> bool:
    return all(what in problem.what for problem in problems)


def _of_bytes(problems: Sequence[Unusable]) -> str | None:
    """How bytes of Parquet become text, where that is what is wrong with all rows."""
    if _all_say(problems, "UTF-8"):
        return "Make the text anew, from what it was read from, by bytes.decode with the encoding that it has there."
    columns = {problem.field for problem in problems}
    if len(columns) == 1 and _all_say(problems, "is bytes, not text"):
        return f"Only text is learnt: frame['{columns.pop()}'].str.decode('utf-8') of pandas makes it of bytes."
    return None


def _of_json(problems: Sequence[Unusable], file_format: str, field: str | None) -> str | None:
    """The same of JSON. `field` is the job's where no row could be read, so that it may be something else."""
    if _all_say(problems, "Python's"):
        return _OF_PYTHON.format(_EACH_LINE if file_format.startswith("JSONLines") else _WHOLE)
    known = next((step for what, step in _STEPS if _all_say(problems, what)), None)
    if known or field is None:
        return known
    if _all_say([problem for problem in problems if AFTER_ARRAY not in problem.what], NO_OBJECT):
        return _OBJECTS
    return (
        f"The file was read as {file_format}: set {field} if it is something else, or write one object a line "
        "(`jq -c . FILE` does it with objects over several lines)."
    )


def _as_text(column: str, file_format: str) -> str:
    """How numbers become text: which text that is, is for their author to say."""
    if file_format.startswith("Parquet"):
        return f"Only text is learnt: frame['{column}'].astype(str) of pandas makes it of numbers; better are words."
    each = ".[] | " if file_format.startswith("JSON") and not file_format.startswith("JSONLines") else ""
    how = f"jq -c '{each}.[\"{column}\"] |= tostring' FILE > ROWS.jsonl"
    return f"Only text is learnt: `{how}` makes it of numbers; of classes better write the words."
