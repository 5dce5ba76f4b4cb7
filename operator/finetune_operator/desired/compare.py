"""Whether an object is as it should be, defaults of the API server aside."""

from collections.abc import Iterator, Mapping
from functools import reduce
from hashlib import sha256
from typing import Any

import orjson

from finetune_api.manifest import Manifest, labels_of
from finetune_api.names import DIGEST_ANNOTATION, FIELD_MANAGER, MANAGED_BY_LABEL

_WHOLE = frozenset({"spec.selector", "spec.template.spec.nodeSelector"})
"""Maps whose every key narrows what is chosen: one that somebody has added leaves a Service without its pods."""

_CONTAINERS = "spec.template.spec.containers["
"""What somebody adds to a list that has nothing of ours (`kubectl set env`) is a difference all the same."""


def stamped(wanted: Manifest) -> Manifest:
    """The object with its own digest in an annotation: a field that is not wanted any more shows as a difference."""
    metadata = wanted["metadata"]
    digest = sha256(orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    annotations = {**metadata.get("annotations", {}), DIGEST_ANNOTATION: digest}
    return {**wanted, "metadata": {**metadata, "annotations": annotations}}


def unstamped(wanted: Manifest) -> Manifest:
    """The object without its digest: what is applied so has not come to its end."""
    annotations = {key: value for key, value in wanted["metadata"]["annotations"].items() if key != DIGEST_ANNOTATION}
    return {**wanted, "metadata": {**wanted["metadata"], "annotations": annotations}}


def is_managed(present: Manifest) -> bool:
    """Whether an object has the label by which the operator watches what it has made."""
    return labels_of(present).get(MANAGED_BY_LABEL) == FIELD_MANAGER


def is_ours(present: Manifest) -> bool:
    """Whether the operator has made an object: by its label or, where somebody has taken that off, by who wrote it."""
    if is_managed(present):
        return True
    return any(map(_is_applied, present["metadata"].get("managedFields") or ()))


def handed_over(present: Manifest) -> list[Manifest] | None:
    """Its managedFields, in which what others have written of a copy of it is ours; None where nobody has.

    Whoever has written our label has written the whole object, as somebody does who restores it, or the API server for
    one whose managedFields were taken off. What the copy has and is not wanted any more would stay for ever: applying
    takes away only what is ours alone.
    """
    managed: list[Manifest] = present["metadata"].get("managedFields") or []
    copies = [one for one in managed if _is_copy(one)]
    if not copies:
        return None
    applied = [one for one in managed if _is_applied(one)]
    fields = reduce(_joined, (one["fieldsV1"] for one in (*applied, *copies)))
    ours = {**(applied or copies)[0], "manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields}
    return [ours, *(one for one in managed if one not in (*applied, *copies))]


def _is_applied(writer: Manifest) -> bool:
    return (writer.get("manager"), writer.get("operation")) == (FIELD_MANAGER, "Apply")


def _is_copy(writer: Manifest) -> bool:
    """Who applies a copy again and again, as a tool that syncs from Git, keeps its fields: it would take them back."""
    labels = writer.get("fieldsV1", {}).get("f:metadata", {}).get("f:labels", {})
    return writer.get("operation") == "Update" and f"f:{MANAGED_BY_LABEL}" in labels


def _joined(one: Manifest, other: Manifest) -> Manifest:
    """Fields that are in either of two sets."""
    return {key: _joined(one.get(key, {}), other.get(key, {})) for key in one | other}


def covers(present: Any, wanted: Any) -> bool:
    """Whether all that is wanted is present; what the server has added does not matter."""
    return next(differences(present, wanted), None) is None


def differences(present: Any, wanted: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Where something else is than what is wanted, and what.

    Quantities that the server spells anew (1000m as 1) count as a difference.
    """
    if isinstance(wanted, Mapping) and wanted and isinstance(present, Mapping):
        if path.startswith(_CONTAINERS) and path.endswith("]"):
            wanted = {"env": [], **wanted}
        if path in _WHOLE and present.keys() - wanted.keys():
            yield path, repr(present)
        for key, value in wanted.items():
            yield from differences(present.get(key), value, f"{path}.{key}" if path else str(key))
    elif isinstance(wanted, list) and wanted and isinstance(present, list) and len(present) == len(wanted):
        for at, (one, other) in enumerate(zip(present, wanted, strict=True)):
            yield from differences(one, other, f"{path}[{at}]")
    elif not _is_same(present, wanted):
        yield path, repr(present)


def _is_same(present: Any, wanted: Any) -> bool:
    """The server leaves out what is empty."""
    if isinstance(wanted, Mapping) and not wanted:
        return present is None or isinstance(present, Mapping)
    return not present if wanted == [] else bool(present == wanted)
