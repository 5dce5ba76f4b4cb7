"""Compares an object with its desired state, ignoring the API server's defaults."""

from collections.abc import Iterator, Mapping
from functools import reduce
from hashlib import sha256
from typing import Any

import orjson

from finetune_api.manifest import Manifest, labels_of
from finetune_api.names import DIGEST_ANNOTATION, FIELD_MANAGER, MANAGED_BY_LABEL

_WHOLE = frozenset({"spec.selector", "spec.template.spec.nodeSelector"})
"""Maps in which an added key matters, as it narrows a selection: for example, a Service would lose its pods."""

_CONTAINERS = "spec.template.spec.containers["
"""What somebody adds to a list that has nothing of ours (`kubectl set env`) is a difference all the same."""


def stamped(wanted: Manifest) -> Manifest:
    """The object with its own digest as an annotation, so that a removed field shows as a difference, too."""
    metadata = wanted["metadata"]
    digest = sha256(orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    annotations = {**metadata.get("annotations", {}), DIGEST_ANNOTATION: digest}
    return {**wanted, "metadata": {**metadata, "annotations": annotations}}


def unstamped(wanted: Manifest) -> Manifest:
    """The object without its digest, which marks an apply that is not complete yet."""
    annotations = {key: value for key, value in wanted["metadata"]["annotations"].items() if key != DIGEST_ANNOTATION}
    return {**wanted, "metadata": {**wanted["metadata"], "annotations": annotations}}


def is_managed(present: Manifest) -> bool:
    """Whether an object has the label by which the operator watches its own objects."""
    return labels_of(present).get(MANAGED_BY_LABEL) == FIELD_MANAGER


def is_ours(present: Manifest) -> bool:
    """Whether the operator created an object: by its label or, if that was removed, by its managedFields."""
    if is_managed(present):
        return True
    return any(map(_is_applied, present["metadata"].get("managedFields") or ()))


def with_transferred_fields(present: Manifest) -> list[Manifest] | None:
    """Its managedFields with fields of a restored copy transferred to us; None if there are none.

    A manager that wrote our label wrote a copy of the whole object: a restore, or the API server after managedFields
    were removed. Unwanted fields of the copy would stay for ever, as apply removes only fields that we alone own.
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
    """Whether a manager wrote a copy once, by Update. One that applies it, such as a Git sync, would claim it again."""
    labels = writer.get("fieldsV1", {}).get("f:metadata", {}).get("f:labels", {})
    return writer.get("operation") == "Update" and f"f:{MANAGED_BY_LABEL}" in labels


def _joined(one: Manifest, other: Manifest) -> Manifest:
    """The union of two sets of fields."""
    return {key: _joined(one.get(key, {}), other.get(key, {})) for key in one | other}


def covers(present: Any, wanted: Any) -> bool:
    """Whether everything wanted is present; the server's additions are ignored."""
    return next(differences(present, wanted), None) is None


def differences(present: Any, wanted: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Paths that differ from what is wanted, and their present values.

    Quantities that the server normalizes (1000m to 1) count as a difference.
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
    """Whether two values are equal; empty values count as absent, as the server omits them."""
    if isinstance(wanted, Mapping) and not wanted:
        return present is None or isinstance(present, Mapping)
    return not present if wanted == [] else bool(present == wanted)
