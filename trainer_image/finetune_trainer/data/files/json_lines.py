"""JSON Lines → rows: one object per line. Blank lines are skipped; an invalid line does not end the file."""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any

import msgspec

from finetune_trainer.data.blocks import Block, Objects, Table
from finetune_trainer.data.files.duplicate_keys import has_unique_names, repeated_name
from finetune_trainer.data.files.lines import BOM, CTRL_Z, TOO_LONG, Line, Lines, other_than_utf8
from finetune_trainer.data.rows import ORDINARY_NAME, Position, Record, line_places

_COMMENTS = (b"//", b"/*")
_BREAKS_OFF = "is not valid JSON: it breaks off"
LINE_BREAKS_OFF = f"the line {_BREAKS_OFF}"
"""Problem of a line that ends within an object."""
NO_OBJECT = "is not a JSON object"
"""End of the problem of text that is valid JSON but not a row."""
LINE_TOO_LONG = f"the line is {TOO_LONG}"

_decoder = msgspec.json.Decoder()
_text_decoder = msgspec.json.Decoder(dict[str, str])
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'{}",\n'))
"""All bytes that do not matter for where objects begin and end; deleting them is very fast."""
_MAX_NAMES = 32
_MAX_KINDS = 16
"""Maximum number of different row types in one file for which a decoder is made."""
_BYTE = re.compile(r"\(byte (\d+)\)")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_TRAILS = "trailing characters"
_GOES_ON = "expected ',' or '}'"
BEFORE_OBJECT = "there is something before the object"
"""Problem of lines that have a time, a number or a name before the object, as logs do."""
DOUBLED = "backslashes are doubled, as COPY of Postgres doubles them"
OF_CALLS = "there is a call such as ObjectId(...) where JSON has a value"
_CALL = re.compile(rb"(new +)?[A-Za-z]\w*\(")
_TYPOGRAPHIC = ("\N{LEFT DOUBLE QUOTATION MARK}".encode(), "\N{RIGHT DOUBLE QUOTATION MARK}".encode())
_PYTHON_LITERAL = re.compile(rb"(None|True|False)\b")
_NOT_JSON_NUMBER = re.compile(rb"NaN|Inf")


def read_json_lines(stream: io.BufferedReader) -> Iterator[Record | Block]:
    """Every line that is not blank, as a Record or in a Block."""
    source, column_decoder = Lines(stream), _ColumnDecoder()
    while source.has_more():
        ahead = source.ahead()
        marks = ahead.translate(None, _NOT_STRUCTURE)
        count = marks.count(b"\n")
        one_each = _one_a_line(marks, count)
        if one_each and (columns := column_decoder.columns(ahead, count, quotes=marks.count(b'"'))):
            yield Table(line_places(source.number + 1, count), columns)
            source.skip(count, are_all=True)
        elif one_each and (rows := _objects(ahead, marks, count)):
            yield Objects(line_places(source.number + 1, count), rows)
            column_decoder.learn(rows[0])
            source.skip(count, are_all=True)
        elif ahead.isspace():
            source.skip(count, are_all=True)
        else:
            yield from _one_by_one(islice(source, max(1, count)))


def _one_a_line(marks: bytes, count: int) -> bool:
    """Whether each line holds one object, provided that there are `count` valid objects.

    `marks` are the lines reduced to the bytes that tell where objects begin and end. Valid JSON never has `}`, a line
    break and `{` in sequence there: two objects have a comma between them, and strings contain no line breaks. So if
    every line break is in such a sequence, none is within an object, and as many objects as lines means one per line.
    """
    return marks.startswith(b"{") and marks.endswith(b"}\n") and marks.count(b"}\n{") == count - 1


class _ColumnDecoder:
    """Decodes rows that have the same names and only text straight into columns, in three quarters of the time.

    The names are those of the last row that was read as an object; rows with other names are not decoded.
    """

    def __init__(self) -> None:
        self._names: Sequence[str] = ()
        self._decoder: msgspec.json.Decoder[Any] | None = None
        self._kinds = 0

    def learn(self, row: Mapping[str, Any]) -> None:
        """Decode rows like this one from now on."""
        self._decoder, self._names = None, list(row)
        if not 0 < len(row) <= _MAX_NAMES or self._kinds == _MAX_KINDS or set(map(type, row.values())) != {str}:
            return
        self._kinds += 1
        places = {f"column_{place}": name for place, name in enumerate(row)}
        try:
            row_type = msgspec.defstruct(
                "Row", [(place, str) for place in places], rename=places, forbid_unknown_fields=True, gc=False
            )
        except ValueError:  # names with quotes or backslashes are not supported
            return
        self._decoder = msgspec.json.Decoder(row_type)

    def columns(self, lines: bytes, count: int, *, quotes: int) -> Mapping[str, Sequence[str]] | None:
        """The values of each column; None if any row differs from the one learnt from."""
        if self._decoder is None:
            return None
        try:
            rows = self._decoder.decode_lines(lines)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            return None
        parts = 2 * count * len(self._names)  # names and texts
        if len(rows) != count or not has_unique_names(lines, (), quotes=quotes, parts=parts):
            return None
        return {name: list(map(attrgetter(f"column_{place}"), rows)) for place, name in enumerate(self._names)}


def _objects(lines: bytes, marks: bytes, count: int) -> list[dict[str, Any]]:
    """The objects of lines that hold one each; none if any line does not, or is invalid."""
    try:
        found, parts = _decoded(lines)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return []
    if len(found) != count or set(map(type, found)) != {dict}:
        return []
    return found if has_unique_names(lines, found, quotes=marks.count(b'"'), parts=parts) else []


def _decoded(lines: bytes) -> tuple[list[Any], int | None]:
    """The decoded lines and, if all are objects of text only, the number of their names and texts: two per field."""
    try:
        found = _text_decoder.decode_lines(lines)
    except msgspec.ValidationError:
        return _decoder.decode_lines(lines), None
    return found, 2 * sum(map(len, found))


def objects(texts: Iterable[Any]) -> list[dict[str, Any]]:
    """The decoded objects, one per text; none if any text is something else."""
    try:
        found = list(map(_decoder.decode, texts))
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return []
    return found if set(map(type, found)) == {dict} else []


def _one_by_one(lines: Iterator[Line]) -> Iterator[Record]:
    for number, text, _ in lines:
        if text is None:
            yield Record(Position(line=number), None, LINE_TOO_LONG)
        elif text and not text.isspace():
            yield json_record(Position(line=number), text, "line")


def json_record(position: Position, text: bytes | bytearray, name: str) -> Record:
    """The object in `text`, or what is wrong with it. `name` is the name of the text in messages."""
    try:
        fields = _decoder.decode(text)
        duplicate = None if has_unique_names(text, [fields]) else repeated_name(text)
    except UnicodeDecodeError:
        problem = f"the {name} is {other_than_utf8(text)}"
    except msgspec.DecodeError as error:
        problem = f"the {name} {_not_json(str(error), text)}"
    except RecursionError:
        problem = f"the {name} is nested too deeply"
    else:
        if isinstance(fields, dict) and duplicate is None:
            return Record(position, fields)
        problem = f"the {name} {NO_OBJECT}" if duplicate is None else f"the {name} has {_duplicate_name(duplicate)}"
    return Record(position, None, problem)


def _duplicate_name(name: str) -> str:
    """Column names are shown as in other messages; names in nested objects may be data."""
    column = f"the column {name}" if ORDINARY_NAME.fullmatch(name) else "a name"
    return f"{column} twice in one object, and only the last would be read: write it once"


def _not_json(error: str, text: bytes | bytearray) -> str:
    """The decoder's error without its text: only the kind and the position."""
    if "out of range" in error:
        return "has a number that is too large"
    found = _BYTE.search(error)
    if "surrogate" in error or (found is None and _SURROGATE.search(text)):
        return "is not valid JSON: a \\u escape is half of a character"
    if found is None:
        return _BREAKS_OFF
    place = int(found[1]) - (_TRAILS in error)  # for trailing characters the decoder has read one byte too many
    if _NOT_JSON_NUMBER.match(text, place):
        return "has NaN or Infinity, which JSON does not know: write null"
    return f"is not valid JSON at byte {place + 1}{_why(error, text, place)}"


def _why(error: str, text: bytes | bytearray, place: int) -> str:
    """The likely cause, from what often occurs in place of JSON."""
    start, before, after = text.lstrip(), text[:place].rstrip(b" \t"), text[place:].strip()
    trails = _TRAILS in error
    known = (
        (start.startswith(b"{'"), "it has Python's single quotes, where json.dumps writes double ones"),
        (
            _PYTHON_LITERAL.match(text, place) is not None,
            "None, True and False are Python's: JSON has null, true, false",
        ),
        (_CALL.match(text, place) is not None, OF_CALLS),
        (start.startswith(BOM), "there is a byte order mark before the object"),
        (start.startswith(CTRL_Z), "there is the end of a DOS file (Ctrl-Z) before the object: remove it"),
        (b"\0" in text, "a NUL byte is in it"),
        (_GOES_ON in error and before.endswith(rb'\\"') and _is_letter(after[:1]), DOUBLED),
        (text[place : place + 1] in (b"\t", b"\n", b"\r"), r"tabs and line breaks within text are written \t and \n"),
        ("escape" in error, "a backslash that is part of text is written twice"),
        (any(mark in text[place : place + 3] for mark in _TYPOGRAPHIC), "its quotes are typographic ones"),
        ("trailing comma" in error, "there is a comma before a closing bracket"),
        (start.startswith((b"#", *_COMMENTS)) or after.startswith(_COMMENTS), "JSON has no comments"),
        (trails and after.startswith(b"#"), "JSON has no comments"),
        (start[:1] not in b'{"' and place <= text.find(b"{") and start.rstrip().endswith(b"}"), BEFORE_OBJECT),
        ("keys must be" in error, "names must be in double quotes"),
        (_GOES_ON in error and before.endswith(b'"') and _is_letter(after[:1]), r"a quote within text is written \""),
        (trails and before.endswith(b"\r"), "lines end with a lone carriage return, not with a line feed"),
        (trails and after == b",", "a comma follows its end"),
        (trails and after.startswith(b"{"), "another object follows its end"),
        (trails, "something follows its end"),
    )
    return next((f": {hint}" for applies, hint in known if applies), "")


def _is_letter(byte: bytes | bytearray) -> bool:
    """Whether a word in any script may begin with it."""
    return byte.isalnum() or byte >= b"\x80"
