"""What to write where a field of a manifest has a value of another type, or none of those that it can have."""

import difflib
import math
import re
from collections.abc import Callable
from typing import Any

from finetune_trainer.job.other_names import PREFERENCE, meaning_of, plain

_NEAR = 0.6
"""How alike values are that may be one misspelt, as difflib counts."""

_CHOICE = re.compile("'([^']+)'")
_WITH_UNIT = re.compile(r"[-+]?\d[\d.,_]*\s*[A-Za-z%]+")
_DEFAULT = frozenset({"auto", "default", "none", "null", ""})
_BOOLEAN = frozenset({"yes", "no", "on", "off", "y", "n", "true", "false"})


def instead(kind: str, said: str, value: Any) -> str:
    """What to write instead, if that is known: by pydantic's kind of error, what it says, and what is there."""
    if isinstance(value, float) and not math.isfinite(value):
        return ": write a finite number"
    if kind == "literal_error":
        return _choice(_CHOICE.findall(said), value)
    words = _WORDS.get(kind)
    return words(value) if words else ""


def _choice(choices: list[str], value: Any) -> str:
    if not isinstance(value, str):
        return ": write one of them alone"
    if plain(value) in PREFERENCE and "LoRA" in choices:
        return "; learning from two answers is spec.preference: {}, with any method"
    same = {plain(one): one for one in choices}
    meant = same.get(plain(value)) or next((one for one in choices if one == meaning_of(value)), None)
    near = difflib.get_close_matches(plain(value), same, n=1, cutoff=_NEAR)
    meant = meant or (same[near[0]] if near else None)
    return f"; did you mean {meant}?" if meant else ""


def of_no_type(value: Any) -> str:
    """What to write where a field takes a number or text, and has neither."""
    if isinstance(value, list):
        return "write one number or text, no list"
    return "write one number or text" + (", without fields below it" if isinstance(value, dict) else "")


def _number(value: Any) -> str:
    if isinstance(value, list):
        return ": write one number, no list"
    if isinstance(value, dict):
        return ": write the number alone, without fields below it"
    if not isinstance(value, str):
        return ""
    if _is_number(value):
        return ": write it without quotes"
    if _WITH_UNIT.fullmatch(value.strip()):
        return ": write the number alone, without a unit"
    return ": leave the field out for its default" if value.strip().lower() in _DEFAULT else ""


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


_WORDS: dict[str, Callable[[Any], str]] = {
    "int_type": _number,
    "float_type": _number,
    "bool_type": _boolean,
    "list_type": _list,
    "string_type": _text,
}
"""What is said of a value by the type that its field has."""
