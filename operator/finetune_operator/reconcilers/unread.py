"""What a status holds that this release cannot read: a newer one has written it, and has it back after a rollback.

A field that is not known stays where it was for as long as the part that holds it stays. In lists, which are records,
that also goes for values, and whole parts, that cannot be read. Elsewhere a known field is this release's to say anew.
"""

from collections.abc import Mapping
from typing import Any

from finetune_api.base import ApiModel

_NAMED_BY = ("name", "id", "type", "version", "step", "target")
"""Fields that tell the parts of a list apart; a list without any of them is written as a whole."""


def with_unread(held: Any, read: ApiModel, status: ApiModel) -> dict[str, Any]:
    """The status as it is to be written.

    Args:
        held: the status as the object has it.
        read: what was understood of that.
        status: what is to be said from now on.
    """
    understood, said = read.wire(), status.wire()
    if held == understood:
        return said  # as nearly always: looking at each part takes twenty times as long
    kept: dict[str, Any] = _kept(held, understood, status, said)
    return kept


def _kept(held: Any, read: Any, part: Any, wire: Any, *, recorded: bool = False) -> Any:
    """A part as it is to be written, `wire`, with what is `held` beyond what was `read`. `recorded`: in a list."""
    if isinstance(part, ApiModel) and isinstance(held, Mapping):
        known = {field.alias: name for name, field in type(part).model_fields.items()}
        before = read or {}
        told = {
            key: _kept(held.get(key), before.get(key), getattr(part, known[key]), value, recorded=recorded)
            for key, value in wire.items()
        }
        said = before.keys() if recorded else known.keys()
        return {key: value for key, value in held.items() if key not in said} | told
    if isinstance(part, list) and isinstance(held, list):
        return _kept_list(held, read or (), part, wire)
    return wire


def _kept_list(held: list[Any], read: Any, parts: list[Any], wire: list[Any]) -> list[Any]:
    present, before = {_identity(one): one for one in held}, {_identity(one): one for one in read}
    told = [
        _kept(present.get(_identity(one)), before.get(_identity(one)), part, one, recorded=True)
        for part, one in zip(parts, wire, strict=True)
    ]
    ours = before.keys() | {_identity(one) for one in wire} | {None}
    for at, one in enumerate(held):
        if _identity(one) not in ours:
            told.insert(at, one)
    return told


def _identity(part: Any) -> tuple[str, str] | None:
    """What a part of a list is known by; None where nothing tells."""
    if not isinstance(part, Mapping):
        return None
    return next(((key, str(part[key])) for key in _NAMED_BY if key in part), None)
