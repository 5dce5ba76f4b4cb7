"""Reads our objects even if another release wrote them; what this release cannot read is written back unchanged.

So a newer release finds its fields again after a rollback. An unknown field stays where it was as long as its parent
stays. In lists, which are records, that also holds for values, and whole elements, that cannot be read. Elsewhere this
release sets a known field anew.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finetune_api.base import NOT_RECONCILED, SHAPES, ApiModel
from finetune_api.manifest import Manifest

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=ApiModel)

_NEWER_DEFINITIONS = ": the definitions on the cluster are newer than the operator, upgrade it to their release"

_UNKNOWN = {"extra_forbidden", "literal_error", "enum"}
"""pydantic's error types for a field, or a word of a closed set, that the model does not have."""

_READING_ROUNDS = 8
"""Removing a field may make its parent incomplete, so parsing is repeated; a status is no deeper than this."""

_DEFAULT_STATUS_FIELDS = {"observedGeneration", "phase", "conditions"}
"""The fields of a definition's default status."""

_NAMED_BY = ("name", "id", "type", "version", "step", "target")
"""Fields that identify the elements of a list; a list without any of them is written as a whole."""


def parse_spec(model: type[M], obj: Mapping[str, Any]) -> tuple[M | None, str]:
    """The spec, or None and a sentence that names the invalid fields."""
    try:
        return model.model_validate(obj.get("spec") or {}), ""
    except ValidationError as error:
        found = [f"spec{_path(one['loc'])}: {_explain(one)}" for one in error.errors(include_input=False)]
        return None, "; ".join(found[:5])


def _path(parts: Iterable[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _explain(error: ErrorDetails) -> str:
    """What the field must look like, if known: an older definition may have let an invalid text pass."""
    if error["type"] == "extra_forbidden":
        return "this release of the operator does not know the field"
    return SHAPES.get(str(error.get("ctx", {}).get("pattern")), error["msg"].removeprefix("Value error, "))


def is_of_newer_definitions(model: type[M], obj: Mapping[str, Any]) -> bool:
    """Whether the spec has a field or word that this release does not know: only newer definitions accept those."""
    try:
        model.model_validate(obj.get("spec") or {})
    except ValidationError as error:
        return any(one["type"] in _UNKNOWN for one in error.errors(include_input=False, include_url=False))
    return False


def unread_spec(model: type[M], obj: Mapping[str, Any], problem: str) -> str:
    """The problem that `parse_spec` found, and what to do if this release is too old for the spec.

    Not for jobs: their failure has its own next step.
    """
    return f"{problem}{_NEWER_DEFINITIONS}" if problem and is_of_newer_definitions(model, obj) else problem


def parse_status(model: type[M], obj: Mapping[str, Any]) -> M:
    """The status, without what this release does not know; `with_unread` keeps that.

    Another release may have written it. What can be read counts: one unreadable field must not restart an ended job or
    make a model forget its versions. A definition's default status counts as empty, as nobody has written it; a status
    that is restored from a backup is patched onto it, and counts.
    """
    status = written_status(obj)
    for _ in range(_READING_ROUNDS):
        try:
            return model.model_validate(status, extra="ignore")
        except ValidationError as error:
            logger.warning("status of %s: %d fields cannot be read", obj["metadata"]["name"], error.error_count())
            problems = error.errors(include_input=False, include_url=False)
            # If a field is missing, remove its parent.
            unread = {p["loc"][:-1] if p["type"] == "missing" else p["loc"] for p in problems}
            status = _without(status, unread)
    logger.error("status of %s cannot be read at all", obj["metadata"]["name"])
    return model()


def is_default_status(status: Mapping[str, Any]) -> bool:
    """Whether this is the default status that the definition gives a new object."""
    return status.get("observedGeneration") == NOT_RECONCILED and status.keys() <= _DEFAULT_STATUS_FIELDS


def written_status(obj: Mapping[str, Any]) -> Manifest:
    """The status that was written by someone; empty if it is the definition's default."""
    status = obj.get("status") or {}
    return {} if is_default_status(status) else status


def _without(value: Any, unread: set[tuple[int | str, ...]], path: tuple[int | str, ...] = ()) -> Any:
    """A copy without the values at these paths."""
    if isinstance(value, Mapping):
        kept = {key: inner for key, inner in value.items() if (*path, key) not in unread}
        return {key: _without(inner, unread, (*path, key)) for key, inner in kept.items()}
    if isinstance(value, list):
        numbered = enumerate(value)
        return [_without(inner, unread, (*path, at)) for at, inner in numbered if (*path, at) not in unread]
    return value


def with_unread(stored: Any, read: ApiModel, status: ApiModel) -> dict[str, Any]:
    """The status to write.

    Args:
        stored: the status as the object has it.
        read: what was understood of that.
        status: the new status.
    """
    understood, wire = read.wire(), status.wire()
    if stored == understood:
        return wire  # the usual case: comparing each part takes twenty times as long
    kept: dict[str, Any] = _merge_unread(stored, understood, status, wire)
    return kept


def _merge_unread(stored: Any, read: Any, part: Any, wire: Any, *, recorded: bool = False) -> Any:
    """A part as it is to be written: `wire`, and what is `stored` but was not `read`. `recorded`: it is in a list."""
    if isinstance(part, ApiModel) and isinstance(stored, Mapping):
        known = {field.alias: name for name, field in type(part).model_fields.items()}
        before = read or {}
        told = {
            key: _merge_unread(stored.get(key), before.get(key), getattr(part, known[key]), value, recorded=recorded)
            for key, value in wire.items()
        }
        ours = before.keys() if recorded else known.keys()
        return {key: value for key, value in stored.items() if key not in ours} | told
    if isinstance(part, list) and isinstance(stored, list):
        return _merge_unread_list(stored, read or (), part, wire)
    return wire


def _merge_unread_list(stored: list[Any], read: Any, parts: list[Any], wire: list[Any]) -> list[Any]:
    present, before = {_identity(one): one for one in stored}, {_identity(one): one for one in read}
    told = [
        _merge_unread(present.get(_identity(one)), before.get(_identity(one)), part, one, recorded=True)
        for part, one in zip(parts, wire, strict=True)
    ]
    ours = before.keys() | {_identity(one) for one in wire} | {None}
    for at, one in enumerate(stored):
        if _identity(one) not in ours:
            told.insert(at, one)
    return told


def _identity(part: Any) -> tuple[str, str] | None:
    """The field and value that identify an element of a list; None if it has none."""
    if not isinstance(part, Mapping):
        return None
    return next(((key, str(part[key])) for key in _NAMED_BY if key in part), None)
