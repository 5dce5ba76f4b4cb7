"""The annotation that says where an object was begun at a provider, in case its status is lost. Pure.

It is written together with the finalizer. Users who edit it can only hide their own object from lookups.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from finetune_api.manifest import Manifest, annotations_of, finalizers_of
from finetune_api.names import BEGUN_ANNOTATION, PROVIDER_FINALIZER


class Begun(NamedTuple):
    """Where a connection led, and its account if known, when something was begun through it."""

    place: str | None
    account: str | None
    provider: str | None = None
    """The provider's block; only for jobs, whose connection may belong to another provider by now."""


def begun(obj: Manifest) -> dict[str, Begun]:
    """By connection, where the object may have something at a provider; empty without an annotation."""
    if PROVIDER_FINALIZER not in finalizers_of(obj):
        return {}
    noted = _read(annotations_of(obj).get(BEGUN_ANNOTATION))
    return {
        name: Begun(*(at.get(field) or None for field in Begun._fields)) for name, at in noted.items() if _is_note(at)
    }


def with_place(
    obj: Manifest, connection: str, place: str | None, account: str | None, provider: str | None = None
) -> str | None:
    """The annotation with an entry for this connection, unless it has one; None for no change.

    An object with the finalizer but no annotation was begun by an earlier release, possibly in several places. It stays
    without one, since an entry for one place would suggest that there are no others.
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
