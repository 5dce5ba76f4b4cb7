"""Where what is held by our finalizer was begun, noted beside it in the same write: a status may be lost. Pure.

Whoever may write annotations can only keep an object of their own from being looked for.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from finetune_api.manifest import Manifest, annotations_of, finalizers_of
from finetune_api.names import BEGUN_ANNOTATION, PROVIDER_FINALIZER


class Begun(NamedTuple):
    """Where a connection led when something was begun through it, and to whose account, as far as that was known."""

    place: str | None
    account: str | None
    provider: str | None = None
    """By its block; of a job alone, whose connection may be one to another provider by now."""


def begun(obj: Manifest) -> dict[str, Begun]:
    """By connection, where something of the object may be at a provider; nothing where no note tells."""
    if PROVIDER_FINALIZER not in finalizers_of(obj):
        return {}
    noted = _read(annotations_of(obj).get(BEGUN_ANNOTATION))
    return {name: Begun(*(_text(at, field) for field in Begun._fields)) for name, at in noted.items() if _is_note(at)}


def with_place(
    obj: Manifest, connection: str, place: str | None, account: str | None, provider: str | None = None
) -> str | None:
    """The note once something is begun through a connection, or begun there for longer; None for no change.

    What is held without a note was begun by an earlier release: that one place of several is known would say too much.
    """
    held, known = PROVIDER_FINALIZER in finalizers_of(obj), begun(obj)
    if held and not known:
        return None
    told = known if connection in known else known | {connection: Begun(place, account, provider)}
    notes = {name: {field: value for field, value in at._asdict().items() if value} for name, at in told.items()}
    return json.dumps(notes, separators=(",", ":"))


def _read(note: str | None) -> Mapping[str, Any]:
    try:
        found = json.loads(note or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_note(at: Any) -> bool:
    return isinstance(at, dict) and all(isinstance(value, str) for value in at.values())


def _text(at: Mapping[str, str], field: str) -> str | None:
    return at.get(field) or None
