"""What to do about rows that cannot be used, where all of them have the same thing wrong: a command that mends it.

Problems are known by their words, as they are told to people.
"""

import json
from collections.abc import Sequence

from finetune_trainer.data import mending_messages
from finetune_trainer.data.columns import Unusable
from finetune_trainer.data.jq import by_python
from finetune_trainer.data.json_array import AFTER_ARRAY
from finetune_trainer.data.json_lines import BEFORE_OBJECT, DOUBLED, NO_OBJECT, OF_SEQUENCES
from finetune_trainer.data.lines import CESU_8
from finetune_trainer.data.mending_messages import by_command
from finetune_trainer.data.mending_rows import of_table, without_rows
from finetune_trainer.data.source import AS_UTF8, WITH_LINE_FEEDS
from finetune_trainer.data.turns import A_MAP, AS_PYTHON_WRITES

_OF_LISTS = (
    '[.[] | if type == "array" and all(.[]; type == "array" or (type == "string" and test("^\\\\s*\\\\{"))) then .[] '
    'else . end] | if .[0] | type == "array" and any(.[]; type == "string" and (ascii_downcase | IN("prompt", '
    '"completion", "question", "answer", "instruction", "input", "output", "text", "label"))) then .[0] as $names '
    "| .[1:][] | [$names, .] | transpose | map({key: .[0], value: .[1]}) | from_entries else .[] "
    '| if type == "string" then fromjson elif type != "array" then . elif all(.[]; type == "object") then '
    "(if all(.[]; .role // .from) then {messages: .} else .[] end) elif length == 2 then {prompt: .[0], completion: "
    '.[1]} else with_entries(.key |= "column\\(.)") end end'
)
"""Of jq: rows of lists of conversations, of rows, of texts or of objects as text, in one list or on lines; the first
may be the header of a table."""
_OBJECTS = (
    f"A row is an object with names: `jq -sc '{_OF_LISTS}' FILE > ROWS.jsonl` makes rows of lists of messages, of "
    "pairs of texts and of objects that are written as text, on lines of their own or all in one array; the cells of "
    "longer lists get the names of the first, or become column0, column1, and so on, for spec.dataset.columns."
)
_OF_PYTHON = (
    "Write rows by json.dumps and not by str or print: `python3 -c 'import ast, json, sys; "
    'sys.stdout.reconfigure(encoding="utf-8"); [print(json.dumps(row, ensure_ascii=False)) for row in {}]\' < FILE > '
    "ROWS.jsonl` does it with those that there are."
)
_WITH_NULL = (
    "Write null, or leave the column out, as to_json of pandas does: `jq -c '{}' FILE > ROWS.jsonl` writes null."
)
_EACH_LINE = "(ast.literal_eval(line.decode()) for line in sys.stdin.buffer if line.strip())"
_WHOLE = "ast.literal_eval(sys.stdin.buffer.read().decode())"
_SOME_AS_UTF8 = (
    " If other lines of the file are UTF-8 already, that would garble them: `python3 -c 'import codecs, sys; "
    'codecs.register_error("old", lambda e: (e.object[e.start:e.end].decode("cp1252", "replace"), e.end)); '
    'sys.stdout.reconfigure(encoding="utf-8", newline=""); '
    '[print(line.decode("utf-8", "old"), end="") for line in sys.stdin.buffer]\' < FILE > ROWS` takes '
    "only the rest for WINDOWS-1252."
)
_WITHOUT_COMMENTS = (
    '`python3 -c \'import re, sys; sys.stdout.reconfigure(encoding="utf-8", newline=""); '
    'text = open("FILE", newline="", encoding="utf-8-sig").read(); '
    r'sys.stdout.write(re.sub(r"(\"(?:\\.|[^\"\\\n])*\")|/\*(?s:.*?)\*/|//.*|(?m:^\s*#.*|#[^\"\n]*$)", '
    'lambda found: found[1] or "", text))\' > ROWS.jsonl` takes comments away, and nothing within quotes.'
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
_FROM_CESU = (
    '`python3 -c \'import sys; [sys.stdout.buffer.write(line.decode("utf-8", "surrogatepass").encode("utf-16", '
    '"surrogatepass").decode("utf-16").encode()) for line in sys.stdin.buffer]\' < FILE > ROWS` writes the file as '
    "UTF-8: old Java, Oracle's UTF8 and MySQL's utf8 have CESU-8."
)
_STEPS_OF_ANY = (
    (CESU_8, _FROM_CESU),
    ("lone carriage return", WITH_LINE_FEEDS),
    ("NUL byte", _WITHOUT_NUL),
    (REFUSED_BY_TEMPLATE, _AS_TEMPLATE_WANTS),
)
"""What is said of each of the rows, and what helps, whatever the format."""

_STEPS = (
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
    (
        DOUBLED,
        r"`sed 's/\\\\/\\/g' FILE > ROWS.jsonl` takes half of the backslashes away; so does `psql -At`, for COPY.",
    ),
    (OF_SEQUENCES, r"`tr -d '\036' < FILE > ROWS.jsonl` takes the separators of JSON text sequences away."),
    (
        AFTER_ARRAY,
        "`jq -c 'if type == \"array\" then .[] else . end' FILE > ROWS.jsonl` makes one object a line of all that is "
        "there.",
    ),
    ("JSON has no comments", _WITHOUT_COMMENTS),
    (
        "typographic",
        "`sed 's/“\\|”\\|„/\"/g' FILE > ROWS.jsonl` writes plain quotes for those that a word processor has put there.",
    ),
    ("a number that is too large", "Leave the number out, or write it as text, in quotes."),
    ("names stand in double quotes", _AS_JSON),
    ("nothing stands between two commas", "Take away the comma behind the last element, or one of two neighbours."),
    ("tabs and line breaks within text", _AS_JSON),
    ("a backslash", _AS_JSON),
    ("a quote within text", _AS_JSON),
)
"""The same of JSON."""

_NO_LAST_COMMA = "Take away the comma behind the last part of an object or list: json.dumps writes none."
_WITHOUT_PREFIX = (
    "`sed -n 's/^[^{]*{/{/p' FILE > ROWS.jsonl` takes away what stands before the first brace of each line, and lines "
    "without one."
)
_STEPS_OF_LINES = (
    ("has NaN or Infinity", _WITH_NULL.format(".")),
    (
        "a comma stands before a closing bracket",
        f"{_NO_LAST_COMMA} `sed 's/,[[:space:]]*}}[[:space:]]*$/}}/' FILE > ROWS.jsonl` does it at the ends of lines.",
    ),
)
_STEPS_OF_ARRAYS = (
    ("has NaN or Infinity", _WITH_NULL.format(".[]")),
    ("a comma stands before a closing bracket", _NO_LAST_COMMA),
    (
        "another object follows its end",
        r"Write a comma between two elements; or `sed '1s/^[[:space:]]*\[//; $s/\][[:space:]]*$//' FILE | jq -c . > "
        "ROWS.jsonl` makes lines of an array without commas.",
    ),
)


def mending(problems: Sequence[Unusable], rows: int, bad_rows: int, file_format: str, field: str) -> str | None:
    """What to do about the rows; None where nothing better is known than to correct them.

    `problems` are those that are named, perhaps not all; `field` of the job says which format the file has.
    """
    if file_format.startswith("Parquet") and _all_say(problems, "UTF-8"):
        return "Make the text anew, from what it was read from, by bytes.decode with the encoding that it has there."
    if known := next((step for what, step in _STEPS_OF_ANY if _all_say(problems, what)), None):
        return known
    encoded = [problem for problem in problems if "UTF-8" in problem.what]
    if encoded and not file_format.startswith("Parquet"):  # first, whatever else is wrong with other rows
        return AS_UTF8 + (_SOME_AS_UTF8 if bad_rows < rows or len(encoded) < len(problems) else "")
    of_all = next((step for what, step in _STEPS_OF_ALL if bad_rows == rows and _all_say(problems, what)), None)
    there = [problem for problem in problems if problem.kind not in ("Missing", "Empty")] or problems
    columns = {problem.field for problem in there if problem.field}
    if len(columns) == 1:
        column = columns.pop()
        if step := of_all(column, file_format) if of_all else _of_column(there, column, file_format):
            return step
    is_unread = bad_rows == rows and all(problem.field is None and _is_of_json(problem.what) for problem in problems)
    found = _of_json(problems, file_format, field if is_unread else None) if file_format.startswith("JSON") else None
    mended = found or of_table(problems, file_format, are_all=bad_rows == rows)
    return mended or without_rows(problems, rows, bad_rows, file_format)


def _is_of_json(what: str) -> bool:
    return "JSON" in what or AFTER_ARRAY in what


def _all_say(problems: Sequence[Unusable], what: str) -> bool:
    return all(what in problem.what for problem in problems)


def _of_json(problems: Sequence[Unusable], file_format: str, field: str | None) -> str | None:
    """The same of JSON. `field` is the job's where no row could be read, so that it may be something else."""
    if _all_say(problems, "Python's"):
        return _OF_PYTHON.format(_EACH_LINE if file_format.startswith("JSONLines") else _WHOLE)
    steps = _STEPS_OF_LINES if file_format.startswith("JSONLines") else _STEPS_OF_ARRAYS
    if 2 * sum(BEFORE_OBJECT in problem.what for problem in problems) > len(problems) and steps is _STEPS_OF_LINES:
        return _WITHOUT_PREFIX
    known = next((step for what, step in steps + _STEPS if _all_say(problems, what)), None)
    if known or field is None:
        return known
    if _all_say([problem for problem in problems if AFTER_ARRAY not in problem.what], NO_OBJECT):
        return _OBJECTS
    return (
        f"The file was read as {file_format}: set {field} if it is something else, or write one object a line "
        "(`jq -c . FILE > ROWS.jsonl` does it with objects over several lines)."
    )


def _of_column(problems: Sequence[Unusable], column: str, file_format: str) -> str | None:
    """How what stands in one column of all rows becomes what can be learnt."""
    said = [problem.what for problem in problems]
    if all(what.startswith("content of message") and what.endswith(", not text") for what in said):
        kinds = {what.partition(" is ")[2].removesuffix(", not text") for what in said}
        return mending_messages.of_contents(kinds, column, file_format)
    if any(_all_say(problems, f"is {kind}, not text") for kind in _WRITTEN_AS_TEXT):
        return _as_text(column, file_format)
    return next((step(column, file_format) for what, step in _STEPS_OF_COLUMN if _all_say(problems, what)), None)


_WRITTEN_AS_TEXT = ("a number", "true or false", "a time", "a date", "a time of day", "a duration")
"""What values are that have one text each, which pandas and jq know."""


def _as_text(column: str, file_format: str) -> str:
    """How numbers become text: which text that is, is for their author to say."""
    name = json.dumps(column)
    as_text = "json.dumps(one) if isinstance(one, (int, float)) else one"  # of Python: jq rounds large ones
    each = f"{{**row, {name}: (lambda one: None if one != one else {as_text})(row.get({name}))}}"
    how = by_python(file_format, each)
    return f"Only text is learnt: `{how} > ROWS.jsonl` makes it of these; of classes better write the words."


def _of_python(column: str, file_format: str) -> str:
    """How a list that str has written becomes JSON. Where numpy has, nothing stands between two messages."""
    anew = f"frame[{column!r}] = frame[{column!r}].map(lambda one: json.dumps(list(one)))"
    name = json.dumps(column)
    how = by_python(file_format, f"{{**row, {name}: ast.literal_eval(row[{name}])}}")
    return (
        f"Write messages by json.dumps and not by str: `{how} > ROWS.jsonl` makes lists of them. Arrays of numpy have "
        f"no commas between their messages: write those anew, by {anew}."
    )


def _asked_alike(column: str, file_format: str) -> str:
    """How rows get a prompt, of which none has one."""
    said = "An answer is learnt as that to a prompt: write what asks for it into each row, such as an instruction"
    with_one = by_command(f"{said}; HOW writes one TEXT into all.", 'COLUMN = "TEXT"')
    return with_one(column, file_format) if file_format.startswith("JSON") else f"{said}."


_STEPS_OF_ALL = (*mending_messages.OF_ALL, ("prompt is empty", _asked_alike))
"""The same where no row would be left without those that have a problem; None where one is mended without that."""

_TO_OBJECT = "def to_object: map({key: .[0], value: .[1]}) | from_entries; "
_OF_MAPS = 'if .[0][0]? | type == "string" then to_object else map(to_object) end'
_OF_TYPED = 'if type == "object" and length == 1 then .S // .stringValue // .string_value // .string // . else . end'
"""Of jq: the text of an object that is a type and its value, as DynamoDB, Firestore, BigQuery and Avro write it."""
_TO_TEXT = (
    # As Spark writes objects where a table says map, not struct; Python has lists of pairs.
    (A_MAP, "HOW makes objects of maps.",
     f'{_TO_OBJECT}COLUMN |= (if type == "array" then {_OF_MAPS} else . end)'),
    # The command that reads Parquet makes text of all bytes that there are.
    ("is bytes, not text", "Only text is learnt: HOW makes it of bytes, where those are UTF-8.", "."),
    ("is a list, not text", "Only text is learnt: HOW takes the first of each list; of lists with several texts write "
     "the one that is meant.", 'COLUMN |= (if type == "array" then .[0] else . end)'),
    # Answers of SQuAD are lists within an object.
    ("is an object, not text", "Only text is learnt: HOW writes objects as JSON, which is learnt then, but takes the "
     "text of those that are one with its type, as DynamoDB has it; of an object HOW takes what it calls NAME; "
     ".text[0] is an answer of SQuAD.", f'COLUMN |= ({_OF_TYPED} | if type == "object" then tojson else . end)',
     'COLUMN |= (if type == "object" then .NAME else . end)'),
)  # fmt: skip
_STEPS_OF_COLUMN = (
    (AS_PYTHON_WRITES, _of_python),
    *mending_messages.OF_COLUMN,
    *((what, by_command(said, *programs)) for what, said, *programs in _TO_TEXT),
)
"""The same by what is said of a column, and how that is mended there."""
