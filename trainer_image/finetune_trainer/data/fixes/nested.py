"""Rows within an object: a command that extracts them, using the object's names.

Column names are shown, as in other messages, but not their values.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

import msgspec

from finetune_api.dataset import Columns
from finetune_trainer.data.fixes.column_names import (
    is_called_messages,
    may_be_shown,
    missing_columns,
    probable_columns,
    satisfies,
)
from finetune_trainer.data.fixes.jq import field, jq_rows, key
from finetune_trainer.data.layouts import Layouts
from finetune_trainer.data.turns import ROLE_OF, is_message, messages_in

_LINES = "JSONLines"
_DEPTH, _MOST_PLACES = 3, 8
_DEPTH_OF_ROWS = 4
"""Maximum depth of rows in an object, as in responses of GraphQL and Elasticsearch."""
_TYPES = ("S", "stringValue", "string_value", "string")
"""Names under which DynamoDB, Firestore, BigQuery and Avro wrap a text value in an object."""
_JQ_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)

_AS_ROWS = "$names, .] | transpose | map({key: .[0], value: .[1]}) | from_entries"
_SQUAD_PROGRAM = (
    r'.data[].paragraphs[] | .context as $context | .qas[] | select(.answers[0].text) | {prompt: ($context + "\n\n" '
    "+ .question), completion: .answers[0].text}"
)
_SINGLE_OBJECT_STEP = (
    "Write one object a line: `sed 's/^},/}/' FILE | jq -c . > ROWS.jsonl` does it with objects that follow one after "
    "the other, with commas between them or without, and with one that holds the rows: check that then."
)


_LIST_TYPES = frozenset({"L", "M", "arrayValue", "mapValue"})
"""Names under which DynamoDB and Firestore wrap lists and objects."""
_PLAIN = (
    'def plain: if type == "object" and length == 1 and (keys[0] | IN("S", "N", "BOOL", "L", "M", '
    '"stringValue", "integerValue", "doubleValue", "booleanValue", "arrayValue", "mapValue", "values", "fields")) '
    'then .[] | plain elif type == "object" then if has(.type? // "" | tostring) then .[.type] | if . == [] then null '
    'else plain end else map_values(plain) end elif type == "array" then if . != [] and all(.[]; type == "object" and '
    'has("plain_text")) then map(.plain_text) | add else map(plain) end else . end; '
    '(.Item // .fields // (select(.object == "page") | .properties) // .) | plain'
)


def wrapper_step(fields: Mapping[str, Any] | None, serves: Callable[[Mapping[str, Any]], bool]) -> str:
    """The next step for a file that begins with an object containing its rows or columns.

    `fields` are the object's; None if it continues after its line.
    """
    if fields is not None and (plain := typed_values_step(fields, _LINES)):
        return plain
    found = None if fields is None else next(_extraction_programs(fields, serves), None)
    if found is None:
        return _SINGLE_OBJECT_STEP
    program, does = found
    return f"Write one object a line: `{jq_rows(_LINES, program)}` {does}."


_HEADERS = frozenset({"cols", "columns", "column_names", "fields", "header", "headers", "meta", "names", "schema"})


def _extraction_programs(
    fields: Mapping[str, Any], serves: Callable[[Mapping[str, Any]], bool]
) -> Iterator[tuple[str, str]]:
    """Programs for jq that make rows of the object, with what each does; the most likely first."""
    if _is_squad(fields):
        yield _SQUAD_PROGRAM, "makes a row of each question of SQuAD that has an answer, below its context"
    tables = list(islice(_lists(fields, ()), _MOST_PLACES))
    yield from _cells_programs(tables, serves)
    for path, (head, *_) in tables:
        if isinstance(head, list) and all(isinstance(one, str) for one in head) and serves(dict.fromkeys(head, "")):
            rows = path_of(path)
            yield f"{rows}[0] as $names | {rows}[1:][] | [{_AS_ROWS}", "puts the names of the first row to their cells"
    if found := _rows_program(fields, serves):
        yield found
    values = list(fields.values())
    if values and all(isinstance(value, dict) and serves(value) for value in values):
        yield ".[]", "takes the rows out of the object"
    if values and serves(fields):
        yield (
            f"keys_unsorted as $names | [.[] | [.[]]] | transpose[] | [{_AS_ROWS}",
            "makes rows of the columns",
        )
    if lists := [path for path, _ in places_of_rows(fields)]:
        yield f"{path_of(lists[0])}[]", _taken_out(lists)


def _cells_programs(
    lists: Sequence[tuple[list[str], list[Any]]], serves: Callable[[Mapping[str, Any]], bool]
) -> Iterator[tuple[str, str]]:
    """Programs for a list of column names, or of objects with a name each, and another list with the rows' cells."""
    for (place, heads), (rows, cells) in product(lists, repeat=2):
        names = [one.get("name") if isinstance(one, dict) else one for one in heads]
        if not isinstance(cells[0], list) or not all(isinstance(name, str) for name in names):
            continue
        are_names = place[-1] in _HEADERS or serves({str(name): "" for name in names})  # not e.g. the names of labels
        if are_names and len(cells[0]) == len(names):
            program = f"({path_of(place)} | map(.name? // .)) as $names | {path_of(rows)}[] | [{_AS_ROWS}"
            yield program, "puts the names of the columns to their cells"


def _lists(fields: Mapping[str, Any], before: Sequence[str]) -> Iterator[tuple[list[str], list[Any]]]:
    """The paths to the lists in nested objects, with their contents."""
    for name, one in fields.items():
        if isinstance(one, list) and one and may_be_shown(name):
            yield [*before, name], one
        elif isinstance(one, dict) and may_be_shown(name) and len(before) < _DEPTH:
            yield from _lists(one, [*before, name])


def _rows_program(fields: Mapping[str, Any], serves: Callable[[Mapping[str, Any]], bool]) -> tuple[str, str] | None:
    """The program for lists of usable rows, which may be within an object each; None if there are none."""
    found = list[tuple[list[str], list[str]]]()
    for path, first in places_of_rows(fields):
        within = (name for name, one in first.items() if isinstance(one, dict) and serves(one) and may_be_shown(name))
        if serves(first):
            found.append((path, []))
        elif (inner := next(within, None)) is not None:
            found.append((path, [inner]))
    if not found:
        return None
    path, below = found[0]
    return f"{path_of(path)}[]{path_of(below) if below else ''}", _taken_out([path for path, _ in found])


def _taken_out(lists: Sequence[list[str]]) -> str:
    first, *others = map(".".join, lists)
    more = f"; {' and '.join(others)} would be files of their own" if others else ""
    return f"takes the rows of {first} out{more}"


def nested_rows_step(layouts: Layouts, fields: Mapping[str, Any], file_format: str) -> str | None:
    """The next step for a file of objects that each hold some of the rows, or the turns of one; otherwise None.

    Rows must use the job's column names: others, such as text and label, may be annotations within a row's text.
    """
    columns = layouts.requested.columns
    for name, turns in fields.items():
        if _is_of_objects(turns) and is_called_messages(name) and satisfies(layouts, turns[0]):
            parts = columns.named | probable_columns(columns, list(turns[0]), turns[0])
            asked, answered = (path_of([parts[part]]) for part in ("prompt", "completion"))
            each = f'{{role: "user", content: {asked}}}, {{role: "assistant", content: {answered}}}'
            how = jq_rows(file_format, f"{{messages: [{path_of([name])}[] | {each}]}}")
            return f"Turns are in pairs: `{how}` makes messages of them."
    found = _rows_program(fields, lambda one: not missing_columns(layouts.of(one).columns, one))
    return found and f"Rows are within those of the file: `{jq_rows(file_format, found[0])}` {found[1]}."


def typed_values_step(fields: Mapping[str, Any], file_format: str) -> str | None:
    """The next step for values wrapped in their types, as in DynamoDB and Firestore."""
    if not _has_typed(fields, _DEPTH):
        return None
    return f"Values are within their types: `{jq_rows(file_format, _PLAIN)}` takes them out."


def _has_typed(fields: Mapping[str, Any], depth: int) -> bool:
    """Whether it contains a list or an object wrapped in an object under the name of its type."""
    texts = fields.get(str(fields.get("type")))
    if isinstance(texts, list) and texts and all(isinstance(one, dict) and "plain_text" in one for one in texts):
        return True  # Notion's form
    within = [value for value in fields.values() if isinstance(value, dict)] if depth else []
    is_one = len(fields) == 1 and not _LIST_TYPES.isdisjoint(fields)
    return (is_one and all(isinstance(one, list | dict) for one in fields.values())) or any(
        _has_typed(value, depth - 1) for value in within
    )


def places_of_rows(fields: Mapping[str, Any]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Paths to lists of objects that are not messages, or to objects of similar objects; with the first of each."""
    return islice(_places_of_rows(fields, ()), _MOST_PLACES)


def _places_of_rows(fields: Mapping[str, Any], before: Sequence[str]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    for name, value in fields.items() if len(before) < _DEPTH_OF_ROWS else ():
        path, values = [*before, name], value
        if isinstance(value, dict):
            values = list(value.values()) if len(value) > 1 else []
            similar = all(isinstance(one, dict) and one.keys() == values[0].keys() for one in values)
            values = values if similar and values and not set(values[0]) <= set(_TYPES) else []
        if may_be_shown(name) and _is_of_objects(values):
            yield path, values[0]
        elif may_be_shown(name) and isinstance(value, dict):
            yield from _places_of_rows(value, path)


def _is_squad(fields: Mapping[str, Any]) -> bool:
    data = fields.get("data")
    return isinstance(data, list) and bool(data) and isinstance(data[0], dict) and "paragraphs" in data[0]


def _is_of_objects(value: Any) -> bool:
    is_full = isinstance(value, list) and bool(value)
    return is_full and all(isinstance(one, dict) and not is_message(one) for one in value)


def path_of(names: list[str]) -> str:
    """The path to a part of an object, in jq syntax."""
    whole = "".join(f".{name}" if _JQ_NAME.fullmatch(name) else f'["{name}"]' for name in names)
    return whole if whole.startswith(".") else f".{whole}"


def lift_step(columns: Columns, row: Mapping[str, Any], file_format: str) -> str | None:
    """The next step for a row with its columns within objects, by name; None if they are not found there."""
    paths = list(_paths(row, []))
    places = {path[-2]: path for path in paths if path[-1] in _TYPES} | {path[-1]: path for path in paths}
    places |= {".".join(path): path for path in paths}
    lacking = [part for part in columns.needed if columns.named[part] not in row]
    asked = {part: name for part in lacking if (name := columns.named[part]) in places}
    found = asked | {part: name for part, name in probable_columns(columns, list(places)).items() if part not in asked}
    if columns.messages in places and _is_answered(row, places[columns.messages]):
        lacking, found = ["messages"], {"messages": columns.messages}
    if not lacking or not found.keys() >= set(lacking):
        return None
    inside = ", ".join(f"{_as_key(columns.named[part])}: {path_of(places[found[part]])}" for part in lacking)
    is_all = lacking == ["messages"] or len(lacking) == len(columns.needed)
    how = jq_rows(file_format, f"{{{inside}}}" if is_all else f". + {{{inside}}}")
    return f"Columns must be at the top of a row: `{how}` takes them out of objects."


def json_text_step(columns: Columns, row: Mapping[str, Any], file_format: str) -> str | None:
    """The next step for rows that are JSON in a text column, as in logs and databases; otherwise None."""
    for name, value in row.items():
        found = _object(value)
        is_row = found and (not missing_columns(columns, found) or probable_columns(columns, list(found)))
        if is_row and may_be_shown(name):
            how = jq_rows(file_format, f"{field(name)} | fromjson")
            return f"Column {name} holds rows as JSON text: `{how}` makes columns of what is in it."
    return None


def _object(value: Any) -> dict[str, Any]:
    """The object in a JSON text; {} if it is not one."""
    try:
        found = msgspec.json.decode(value) if isinstance(value, str) and value.lstrip().startswith("{") else None
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_answered(row: Mapping[str, Any], path: list[str]) -> bool:
    """Whether a conversation ends with an answer. In a logged request it does not, and the answer would be lost."""
    found: Any = row
    for name in path:
        found = found[name]
    last = (messages_in(found) or [{}])[-1]
    speaks = (last.get("role") or last.get("from")) if isinstance(last, dict) else None
    return isinstance(speaks, str) and ROLE_OF.get(speaks) == "assistant"


def _as_key(name: str) -> str:
    return name if _JQ_NAME.fullmatch(name) else key(name)


def texts_hint(row: Mapping[str, Any]) -> str:
    """A sentence that lists the texts within the objects of a row; "" if none has an ordinary name."""
    paths = [".".join(path) for path in _paths(row, [])]
    return f" Texts are {', '.join(paths)}." if 0 < len(paths) <= _MOST_PLACES else ""  # many names may be data


def _paths(value: Mapping[str, Any], before: list[str]) -> Iterator[list[str]]:
    """The paths to texts and conversations within the objects of a row."""
    for name, one in value.items():
        if not may_be_shown(name):
            continue
        path = [*before, name]
        if isinstance(one, dict) and not is_message(one) and len(path) < _DEPTH:
            yield from _paths(one, path)
        elif len(path) > 1 and (isinstance(one, str) or messages_in(one)):
            yield path
