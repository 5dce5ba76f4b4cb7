"""Extracts messages from errors of services with OpenAI's API, in all their formats, without quoting data. Pure.

    {"error": {"message": "…", "code": "…", "param": "…"}}      OpenAI, Azure
    {"detail": [{"loc": […], "msg": "…", "input": ROW}]}        FastAPI, for invalid requests
    [{"error": {"message": "…", "status": "…"}}]                Google
    {"message": ["…"], "error": "Bad Request"}, "…", …          others: strings, lists, nested, JSON in a string

Only fields known to contain messages are read. Quoted parts that may be a row are removed: objects, strings of several
words, and the text after a line number and colon.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_operator.providers.calls.values import sanitized

_MESSAGE_FIELDS = ("message", "msg", "detail", "error_description", "description", "error", "title", "reason")
"""Fields with a message; the first that is not empty counts."""
_LIST_FIELDS = ("errors", "details")
_DEPTH, _MOST = 8, 3
_READ_LIMIT = 16 * 1024
_WORD_LIMIT = 64

_ERROR = re.compile(r"""["'](?:error["']\s*:\s*[{]|loc["']\s*:\s*[(\[])""")
_MESSAGE = re.compile(r"""["'](?:message|msg)["']\s*:\s*(["'])(.*?)(?<!\\)\1""", re.DOTALL)
"""Detect an error, and find its message, in an object that is not JSON."""

_PLACE = re.compile(r"[A-Za-z_][\w-]{0,63}", re.ASCII)
_PARTS_OF_REQUESTS = frozenset({"body", "query", "path", "header"})

LINE = re.compile(r"\b(lines?|examples?|rows?|records?) #?(\d+)\b", re.IGNORECASE)
"""A reference to a row in a provider's message."""

_AFTER_LINE_NUMBER = re.compile(rf"({LINE.pattern}[^:=\n]{{0,80}})[:=].*", re.IGNORECASE | re.DOTALL)
_OBJECT = re.compile(r"""[{]\s*\\*["'].*[}][\])]*|[{]\s*\\*["'].*""", re.DOTALL)
_INPUT = re.compile(r"\binput(_value)?=.*?(?=,\s*input_type=|$)", re.DOTALL)
_QUOTED = re.compile(r"""(?<!\w)(["'`])(.*?)(\1(?!\w)|$)""", re.DOTALL)


@dataclass(frozen=True)
class ErrorText:
    """An error's message, code and field: each on one line, short, and without secrets."""

    words: str = ""
    code: str = ""
    param: str = ""
    """The provider's name of the invalid field."""


def error_text(told: Any) -> ErrorText:
    """Extract the error from an answer of any format."""
    found = _read(told, _DEPTH)
    return ErrorText(sanitized(found.words), *(sanitized(one)[:_WORD_LIMIT] for one in (found.code, found.param)))


def _read(told: Any, depth: int) -> ErrorText:
    if depth == 0:
        return ErrorText()
    if isinstance(told, str):
        return _of_text(told, depth)
    if isinstance(told, Mapping):
        return _of_fields(told, depth)
    return _joined([_read(one, depth - 1) for one in told[:_MOST]]) if isinstance(told, list | tuple) else ErrorText()


def _of_fields(told: Mapping[str, Any], depth: int) -> ErrorText:
    says = (_read(told.get(name), depth - 1) for name in _MESSAGE_FIELDS)
    first = next((one for one in says if one.words), ErrorText())
    found = _joined([first, *(_read(told.get(name), depth - 1) for name in _LIST_FIELDS)])
    where = _place(told.get("loc"))
    words = f"{where}: {found.words}" if where and found.words else found.words
    code = next((one for name in ("code", "status") if (one := _word(told.get(name)))), found.code)
    return ErrorText(words, code, _word(told.get("param")) or found.param or where)


def _joined(parts: Sequence[ErrorText]) -> ErrorText:
    words = dict.fromkeys(one.words for one in parts if one.words)
    code = next((one.code for one in parts if one.code), "")
    return ErrorText("; ".join(words), code, next((one.param for one in parts if one.param), ""))


def _of_text(text: str, depth: int) -> ErrorText:
    """From a string that may contain JSON: gateways embed the backend's whole answer."""
    text = text[:_READ_LIMIT].strip()
    for begins, ends in (("{", "}"), ("[", "]")):
        start = text.find(begins)
        inner = _object(text[start : text.rfind(ends) + 1]) if start >= 0 else None
        if inner is not None:
            within, before = _read(inner, depth - 1), _without_data(text[:start]).rstrip(" -:")
            return ErrorText(": ".join(filter(None, (before, within.words))), within.code, within.param)
    return ErrorText(_without_data(text))


def _object(text: str) -> Any:
    """An error object in a string, in JSON or Python notation; None for others, as a row has `messages` as well."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        told = _MESSAGE.search(text) if _ERROR.search(text) else None
        return {"message": told[2]} if told else None
    return found if _is_error(found[0] if isinstance(found, list) and found else found) else None


def _is_error(found: Any) -> bool:
    if not isinstance(found, Mapping):
        return False
    error, detail = found.get("error"), found.get("detail")
    wrongs = detail if isinstance(detail, list) else []
    return (
        isinstance(error, Mapping)
        or {"message", "code", "type"} <= found.keys()
        or any(isinstance(one, Mapping) and {"loc", "msg"} <= one.keys() for one in wrongs)
    )


def _without_data(text: str) -> str:
    """Remove quoted parts that may be of a row."""
    text = _AFTER_LINE_NUMBER.sub(r"\1", _INPUT.sub("", _OBJECT.sub("{…}", text)))
    return _QUOTED.sub(_masked, text).strip()


def _masked(quoted: re.Match[str]) -> str:
    """Keep quoted names: short, closed and without white space."""
    mark, text, end = quoted[1], quoted[2], quoted[3]
    is_name = end and len(text) <= _WORD_LIMIT and not re.search(r"\s", text)
    return quoted[0] if is_name else f"{mark}…{mark}"


def _place(loc: Any) -> str:
    """The field of FastAPI's `loc`, without the leading part of the request such as `body`."""
    parts = [str(one) for one in loc if isinstance(one, str | int)] if isinstance(loc, list | tuple) else []
    named = [one for one in parts if one.isdigit() or _PLACE.fullmatch(one)]
    return ".".join(named[1:] if named[:1] and named[0] in _PARTS_OF_REQUESTS else named)


def _word(told: Any) -> str:
    """A code or a field's name; not a number that repeats the HTTP status."""
    is_number = isinstance(told, int) and not isinstance(told, bool) and not 100 <= told < 600
    return str(told) if is_number or isinstance(told, str) else ""
