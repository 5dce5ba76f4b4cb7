"""Validates values against botocore's shapes, and converts them from and to JSON. Timestamps: seconds since 1970."""

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from botocore.model import Shape

KINDS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "long": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "double": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "timestamp": lambda value: isinstance(value, int | float),
    "blob": lambda value: isinstance(value, bytes),
    "structure": lambda value: isinstance(value, dict),
    "map": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
}


def problems(shape: Shape, value: Any, at: str = "") -> list[str]:
    """What is wrong with a value: kinds, required and unknown members, enumerations, patterns, bounds."""
    if getattr(shape, "is_document_type", False):
        return []
    if not KINDS[shape.type_name](value):
        return [f"{at or 'value'} is no {shape.type_name}"]
    if shape.type_name == "structure":
        return _problems_of_structure(shape, value, at)
    if shape.type_name == "list":
        inner = [problems(shape.member, item, f"{at}[{place}]") for place, item in enumerate(value)]
    elif shape.type_name == "map":
        inner = [problems(shape.value, item, f"{at}.{key}") for key, item in value.items()]
    else:
        inner = []
    return _problems_of_bounds(shape, value, at) + [problem for found in inner for problem in found]


def _problems_of_structure(shape: Any, value: dict[str, Any], at: str) -> list[str]:
    missing = [f"{at}.{name} is missing" for name in shape.required_members if name not in value]
    unknown = [f"{at}.{name} is unknown" for name in value if name not in shape.members]
    known = [(name, value[name]) for name in shape.members if name in value]
    return (
        missing
        + unknown
        + [found for name, item in known for found in problems(shape.members[name], item, f"{at}.{name}")]
    )


def _problems_of_bounds(shape: Any, value: Any, at: str) -> list[str]:
    rules = shape.metadata
    if shape.type_name == "string":
        if shape.enum and value not in shape.enum:
            return [f"{at} is none of {', '.join(shape.enum)}"]
        if not _matches(rules.get("pattern"), value):
            return [f"{at} does not match {rules['pattern']}"]
    size = value if isinstance(value, int | float) else len(value)
    if not rules.get("min", size) <= size <= rules.get("max", size):
        return [f"{at} is out of its bounds"]
    return []


def _matches(pattern: str | None, value: str) -> bool:
    if pattern is None or "\\p{" in pattern or "\\z" in pattern:  # Java's, which Python does not have
        return True
    return re.fullmatch(pattern, value, re.DOTALL) is not None


def to_json(shape: Any, value: Any) -> Any:
    """A value in a JSON body."""
    if shape.type_name == "structure" and not getattr(shape, "is_document_type", False):
        return {shape.members[name].serialization.get("name", name): to_json(shape.members[name], item)
                for name, item in value.items()}  # fmt: skip
    if shape.type_name == "list":
        return [to_json(shape.member, item) for item in value]
    if shape.type_name == "map":
        return {key: to_json(shape.value, item) for key, item in value.items()}
    if shape.type_name == "timestamp" and shape.serialization.get("timestampFormat") == "iso8601":
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if shape.type_name == "blob":
        return base64.b64encode(value).decode()
    return value


def from_json(shape: Any, value: Any) -> Any:
    """The value of a JSON body."""
    if shape.type_name == "structure" and isinstance(value, dict) and not getattr(shape, "is_document_type", False):
        return {name: from_json(shape.members[name], item) if name in shape.members else item
                for name, item in value.items()}  # fmt: skip
    if shape.type_name == "list" and isinstance(value, list):
        return [from_json(shape.member, item) for item in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: from_json(shape.value, item) for key, item in value.items()}
    if shape.type_name == "timestamp" and isinstance(value, str):
        return datetime.fromisoformat(value).timestamp()
    if shape.type_name == "blob" and isinstance(value, str):
        return base64.b64decode(value)
    return value


def from_text(shape: Any, text: str) -> Any:
    """The value of a path, query or header."""
    if shape.type_name in {"integer", "long"} and text.lstrip("-").isdecimal():
        return int(text)
    if shape.type_name == "boolean":
        return text == "true"
    return from_json(shape, text)
