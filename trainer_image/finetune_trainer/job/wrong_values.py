"""What to write if a field of a manifest has a value of the wrong type, or an unknown enum value."""

import difflib
import math
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from finetune_api.near_names import plain
from finetune_api.trainer import LARGEST_NUMBER
from finetune_api.uris import AROUND, PLACEHOLDER, PLACEHOLDER_HELP
from finetune_trainer.job.other_names import PREFERENCE, SUPERVISED, hint_for_value, meaning_of

_MIN_SIMILARITY = 0.6
"""Minimum similarity of a misspelled value, as computed by difflib."""

_CHOICE = re.compile("'([^']+)'")
_WITH_UNIT = re.compile(r"[-+]?\d[\d.,_]*\s*[A-Za-z%]+")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(
    r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)(?:ec(?:ond)?s?|in(?:ute)?s?|(?:ou)?rs?|ays?|eeks?)?\s*", re.IGNORECASE
)
"""A number with a unit of time; 1h30m contains two."""

_THOUSANDS = re.compile(r"(\d+)\s*k", re.IGNORECASE)
_AROUND = f"{AROUND}\r\n"
_MODEL_PAGE = re.compile(r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://(?:models/)?)([\w.-]+/[\w.-]+)")
"""The URL of a model's page, which contains its name."""

_MAX_LENGTH = 32
"""Maximum length of a number with a unit."""

_DURATIONS = TypeAdapter(timedelta)
_DECIMAL_COMMA = re.compile(r"\d+[,' ]\d+")
_SUM = re.compile(r"[\d.()\s]+(\s*(\*\*?|/|\^|x)\s*[-\d.()e]+)+")
_DIGIT = re.compile(r"[\d½¼¾]")
_DEFAULT = frozenset({"auto", "default", "none", "null", ""})
_BOOLEAN = frozenset({"yes", "no", "on", "off", "y", "n", "true", "false"})


def instead(kind: str, message: str, value: Any) -> str:
    """What to write instead, if known: by pydantic's error type and message, and the value."""
    if isinstance(value, float) and not math.isfinite(value) and kind not in _NOT_NUMBER_ERRORS:
        return ": write a finite number"
    if kind == "literal_error":
        return _choice(_CHOICE.findall(message), value)
    hint = _HINTS.get(kind)
    return hint(value) if hint else ""


def in_field_unit(field: str, value: Any) -> str:
    """The value converted to the field's unit, if it has one; the number alone would mean something else."""
    text = value.strip() if isinstance(value, str) and len(value) < _MAX_LENGTH else ""
    if "Seconds" in field and (seconds := _seconds(text)) is not None:
        return f"; {text} is {seconds}"
    if text[:1].isdigit() and text.endswith("%") and _is_number(text[:-1]):
        return f"; {text} is {float(text[:-1]) / 100:g}"
    thousands = _THOUSANDS.fullmatch(text)
    return f"; {text} is {int(thousands[1]) * 1000} or {int(thousands[1]) * 1024}" if thousands else ""


def _seconds(text: str) -> int | None:
    """Length of a duration such as 6h, 1h30m, PT6H or 1:30:00; None if it is not one."""
    if text and not _PART.sub("", text):
        return round(sum(float(number) * _SECONDS[unit.lower()] for number, unit in _PART.findall(text)))
    with suppress(ValidationError):
        return None if _is_number(text) else round(_DURATIONS.validate_python(text).total_seconds())
    return None


def text_problem(value: Any) -> str:
    """A general problem of a text: a template placeholder, surrounding characters, or a URL instead of a name."""
    if not isinstance(value, str):
        return ""
    if re.search(PLACEHOLDER, value):
        return f"; {PLACEHOLDER_HELP}"
    if value.strip(_AROUND) != value:
        return "; a space, a line break or a quotation mark is at its beginning or end"
    page = _MODEL_PAGE.match(value)
    return f"; did you mean {page[1]}?" if page else ""


def _choice(choices: list[str], value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return ": write one of them alone"
    if len(choices) == 1:
        return ""  # the message already names it
    if remark := hint_for_value(value, choices):
        return f"; {remark}"
    if plain(value) in PREFERENCE and "LoRA" in choices:
        return "; learning from two answers is spec.preference: {}, with any method"
    if plain(value) in SUPERVISED and "LoRA" in choices:
        return "; each of them learns from the answers of the rows: leave method out for LoRA"
    same = {plain(one): one for one in choices}
    meant = same.get(plain(value)) or next((one for one in choices if one == meaning_of(value)), None)
    near = difflib.get_close_matches(plain(value), same, n=1, cutoff=_MIN_SIMILARITY)
    meant = meant or (same[near[0]] if near else None)
    return f"; did you mean {meant}?" if meant else ""


def expected_type(value: Any) -> str:
    """What to write if a field takes a number or text, and the value is neither."""
    if isinstance(value, list):
        return "write one number or text, no list"
    if isinstance(value, float):
        return "write a whole number, or text"
    return "write one number or text" + (", without fields below it" if isinstance(value, dict) else "")


def _number(value: Any) -> str:
    if isinstance(value, list):
        return ": write one number, no list"
    if isinstance(value, dict):
        return ": write the number alone, without fields below it"
    if isinstance(value, float):
        return ": write a smaller number" if abs(value) >= LARGEST_NUMBER else ": write a whole number"
    return _number_of_text(value.strip()) if isinstance(value, str) else ""


def _number_of_text(text: str) -> str:
    if not text.isascii() and _DIGIT.search(text):
        return ": it has a character that only looks like one of a number: write digits, a point, - and e"
    if _is_number(text):
        return ": write it without quotes"
    if _WITH_UNIT.fullmatch(text):
        return ": write the number alone, without a unit"
    if len(text) < _MAX_LENGTH and _SUM.fullmatch(text):
        return ": write the number itself, nothing is calculated"
    if _DECIMAL_COMMA.fullmatch(text):
        return ": write a point for a fraction, and nothing between thousands"
    return ": leave the field out for its default" if text.lower() in _DEFAULT else ""


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _boolean(value: Any) -> str:
    if value in ("true", "false"):
        return ": write it without quotes"
    known = isinstance(value, int) or (isinstance(value, str) and value.strip().lower() in _BOOLEAN)
    return ": write true or false, without quotes" if known else ""


def _text(value: Any) -> str:
    if isinstance(value, int | float):
        return ": write it in quotes"
    if isinstance(value, list):
        return ": write one text, no list"
    return ": write the text alone, without fields below it" if isinstance(value, dict) else ""


def _list(value: Any) -> str:
    return ": write [ and ] around its items" if isinstance(value, str) else ": write - before each item"


_NOT_NUMBER_ERRORS = ("string_type", "bool_type", "literal_error")
"""Error types of fields that are not numbers."""

_HINTS: dict[str, Callable[[Any], str]] = {
    "int_type": _number,
    "float_type": _number,
    "bool_type": _boolean,
    "list_type": _list,
    "string_type": _text,
}
"""Hints by pydantic's error type."""
