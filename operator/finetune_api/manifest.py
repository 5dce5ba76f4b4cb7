"""An object of the cluster as plain JSON, as the API sends it."""

from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.names import ABANDON_ANNOTATION

Manifest = dict[str, Any]
"""One object: apiVersion, kind, metadata and the rest."""


def labels_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """Its labels."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """Its annotations."""
    return obj["metadata"].get("annotations") or {}


def owners_of(obj: Mapping[str, Any]) -> Sequence[Manifest]:
    """References to its owners."""
    return obj["metadata"].get("ownerReferences") or ()


def finalizers_of(obj: Mapping[str, Any]) -> Sequence[str]:
    """Its finalizers."""
    return obj["metadata"].get("finalizers") or ()


def conditions_of(obj: Mapping[str, Any]) -> Sequence[Manifest]:
    """The conditions of its status."""
    return (obj.get("status") or {}).get("conditions") or ()


def has_condition(obj: Mapping[str, Any], kind: str, status: str) -> bool:
    """Whether its status has this condition in this state."""
    return any((one["type"], one["status"]) == (kind, status) for one in conditions_of(obj))


def wants_deletion(obj: Mapping[str, Any]) -> bool:
    """Whether it is being deleted."""
    return "deletionTimestamp" in obj["metadata"]


def kept_by(obj: Mapping[str, Any]) -> str:
    """The finalizers that keep an object that is being deleted, as a list in words; empty for any other object."""
    return ", ".join(finalizers_of(obj)) if wants_deletion(obj) else ""


def is_abandoned(obj: Mapping[str, Any]) -> bool:
    """Whether a user wants it released although what it has elsewhere cannot be deleted."""
    return annotations_of(obj).get(ABANDON_ANNOTATION) == "true"
