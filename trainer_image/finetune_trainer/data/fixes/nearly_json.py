"""Next steps for rows of text that is nearly JSON: a command for each kind that turns it into JSON.

Problems are recognized by their words, as written by `json_lines` and `json_array`.
"""

from collections.abc import Sequence

from finetune_trainer.data.columns import Unusable
from finetune_trainer.data.files.json_array import AFTER_ARRAY, CUT
from finetune_trainer.data.files.json_lines import BEFORE_OBJECT, DOUBLED, NO_OBJECT, OF_CALLS
from finetune_trainer.data.files.lines import TOO_LONG

_LISTS_PROGRAM = (
    '[.[] | if type == "array" and all(.[]; type == "array" or (type == "string" and test("^\\\\s*\\\\{"))) then .[] '
    'else . end] | if .[0] | type == "array" and any(.[]; type == "string" and (ascii_downcase | IN("prompt", '
    '"completion", "question", "answer", "instruction", "input", "output", "text", "label"))) then .[0] as $names '
    "| .[1:][] | [$names, .] | transpose | map({key: .[0], value: .[1]}) | from_entries else .[] "
    '| if type == "string" then fromjson elif type != "array" then . elif all(.[]; type == "object") then '
    "(if all(.[]; .role // .from) then {messages: .} else .[] end) elif length == 2 then {prompt: .[0], completion: "
    '.[1]} else with_entries(.key |= "column\\(.)") end end'
)
"""jq: makes rows of lists of conversations, of rows, of texts or of objects as text, in one list or one per line; the
first may be the header of a table."""
_OBJECTS_STEP = (
    f"A row is an object with names: `jq -sc '{_LISTS_PROGRAM}' FILE > ROWS.jsonl` makes rows of lists of messages, of "
    "pairs of texts and of objects that are written as text, on lines of their own or all in one array; the cells of "
    "longer lists get the names of the first, or become column0, column1, and so on, for spec.dataset.columns."
)
_PYTHON_STEP = (
    "Write rows by json.dumps and not by str or print: `python3 -c 'import ast, json, sys; "
    'sys.stdout.reconfigure(encoding="utf-8"); [print(json.dumps(row, ensure_ascii=False)) for row in {}]\' < FILE > '
    "ROWS.jsonl` does it with those that there are."
)
_WITH_NULL = (
    "Write null, or leave the column out, as to_json of pandas does: `jq -c '{}' FILE > ROWS.jsonl` writes null."
)
_EACH_LINE = "(ast.literal_eval(line.decode()) for line in sys.stdin.buffer if line.strip())"
_WHOLE = "ast.literal_eval(sys.stdin.buffer.read().decode())"
_JAVASCRIPT_PROBLEMS = (
    "JSON has no comments",
    "there is a comma before a closing bracket",
    "names must be in double quotes",
    "there is nothing between two commas",
    OF_CALLS,
)
"""Problems of JavaScript literals, which MongoDB's shells write."""
_TOKENS = (
    r"(\"(?:\\.|[^\"\\\n])*\")", r"\x27((?:\\.|[^\x27\\\n])*)\x27", r"([A-Za-z_$][\w$]*)(?=\s*:)",
    r"/\*(?s:.*?)\*/", "(?://|#).*", r",(?=(?:\s|(?://|#).*\n)*[]},])", r"(?:new +)?[A-Za-z]\w*\(", r"\)",
)  # fmt: skip
"""Double-quoted texts, which are kept; single-quoted ones and names, which get double quotes; the rest is removed."""
_FROM_JAVASCRIPT = (
    '`python3 -c \'import re, sys; sys.stdout.reconfigure(encoding="utf-8", newline=""); text = open("FILE", '
    r"""newline="", encoding="utf-8-sig").read(); plain = lambda one: re.sub(r"\\(\x27)|(\\.)|\"", lambda part: """
    rf"""part[1] or part[2] or r"\"", one); sys.stdout.write(re.sub(r"{"|".join(_TOKENS)}", """
    r"""lambda one: one[1] or ("" if one[2] is one[3] else f"\"{one[3] or plain(one[2])}\""), text))' > ROWS.jsonl` """
    "removes comments, commas after the last part and calls such as ObjectId(...), and puts double quotes around "
    "names and texts."
)
_AS_JSON = "Write rows by a library that escapes text: json.dumps of Python, JSON.stringify, to_json of pandas."
_STEPS = (
    ("a comma follows its end", "`sed 's/,[[:space:]]*$//' FILE > ROWS.jsonl` takes the commas away."),
    (
        "there is a byte order mark before",
        r"`sed 's/^\(\xEF\xBB\xBF\)*//' FILE > ROWS.jsonl` takes the marks away: `cat` of files that begin "
        "with one leaves them in the middle.",
    ),
    (
        r"a \u escape is half of a character",
        "A text was cut in the middle of a character, such as an emoji: cut texts by characters and not by UTF-16 "
        "units (as substring of JavaScript and Java does), and write the rows again.",
    ),
    (
        DOUBLED,
        r"`sed 's/\\\\/\\/g' FILE > ROWS.jsonl` takes half of the backslashes away; so does `psql -At`, for COPY.",
    ),
    (
        AFTER_ARRAY,
        "`jq -c 'if type == \"array\" then .[] else . end' FILE > ROWS.jsonl` makes one object a line of all that is "
        "there.",
    ),
    (
        "typographic",
        "`sed 's/“\\|”\\|„/\"/g' FILE > ROWS.jsonl` writes plain quotes for those that a word processor has put there.",
    ),
    ("a number that is too large", "Leave the number out, or write it as text, in quotes."),
    ("tabs and line breaks within text", _AS_JSON),
    ("a backslash", _AS_JSON),
    ("a quote within text", _AS_JSON),
)
"""Words of a problem, and the next step if all rows have it."""

_WITHOUT_PREFIX = (
    "`sed -n 's/^[^{]*{/{/p' FILE > ROWS.jsonl` removes what precedes the first brace of each line, and lines "
    "without one."
)
_STEPS_OF_LINES = (
    ("has NaN or Infinity", _WITH_NULL.format(".")),
    ("another object follows its end", "`jq -c . FILE > ROWS.jsonl` writes each object on a line of its own."),
)
_STEPS_OF_ARRAYS = (
    (
        CUT,
        "The file is not whole, or a quote or a bracket is missing in it: fetch or write it again. `jq -cn --stream "
        "'fromstream(1 | truncate_stream(inputs))' FILE > ROWS.jsonl` keeps the rows before that place, and names it.",
    ),
    ("has NaN or Infinity", _WITH_NULL.format(".[]")),
    (
        "another object follows its end",
        r"Write a comma between two elements; or `sed '1s/^[[:space:]]*\[//; $s/\][[:space:]]*$//' FILE | jq -c . > "
        "ROWS.jsonl` makes lines of an array without commas.",
    ),
)


def json_step(problems: Sequence[Unusable], file_format: str, field: str | None) -> str | None:
    """The next step for rows of JSON; None if nothing specific is known.

    Args:
        problems: The problems that are named.
        file_format: How the file was read.
        field: The job's field for the format, if no row could be read: the file may have another one.
    """
    problems = [problem for problem in problems if problem.what == CUT] or problems  # it comes first
    if all_contain(problems, "Python's"):
        return _PYTHON_STEP.format(_EACH_LINE if file_format.startswith("JSONLines") else _WHOLE)
    are_javascript = [any(what in problem.what for what in _JAVASCRIPT_PROBLEMS) for problem in problems]
    # What follows single quotes may be split as if it were JSON.
    if all(are_javascript) or (field is not None and are_javascript[0]):
        return f"Write rows by json.dumps or JSON.stringify; or {_FROM_JAVASCRIPT}"
    steps = _STEPS_OF_LINES if file_format.startswith("JSONLines") else _STEPS_OF_ARRAYS
    if 2 * sum(BEFORE_OBJECT in problem.what for problem in problems) > len(problems) and steps is _STEPS_OF_LINES:
        return _WITHOUT_PREFIX
    known = next((step for what, step in steps + _STEPS if all_contain(problems, what)), None)
    if known or field is None:
        return known
    if all_contain([problem for problem in problems if AFTER_ARRAY not in problem.what], NO_OBJECT):
        return _OBJECTS_STEP
    over_lines = any(problem.what.endswith(("it breaks off", TOO_LONG)) for problem in problems)
    how = " (`jq -c . FILE > ROWS.jsonl` does it with objects over several lines)" if over_lines else ""
    return f"The file was read as {file_format}: set {field} if it is something else, or write one object a line{how}."


def is_about_json(what: str) -> bool:
    """Whether a problem is about invalid JSON."""
    return "JSON" in what or AFTER_ARRAY in what or what.endswith(TOO_LONG)


def all_contain(problems: Sequence[Unusable], what: str) -> bool:
    """Whether each of the problems contains these words."""
    return all(what in problem.what for problem in problems)
