"""Objects that vanished although our finalizer should have kept them while they own something at a provider.

    watch: gone ── it had the annotation beside our finalizer, which we did not remove ──▶ taken ──▶ reconciled under a
    key of its own, as being deleted, with writes kept in memory ──▶ nothing is left at the provider ──▶ forgotten

Otherwise billed resources would exist for ever, as nothing else knows of them. Only in memory, as nothing in the
cluster tells of these objects any more. A watch shows a deleted object as it was before its last finalizer was removed,
whoever removed it: so our own removals are announced here first.
"""

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any

from finetune_api.manifest import Manifest, annotations_of, is_abandoned, wants_deletion
from finetune_api.names import ABANDON_ANNOTATION, BEGUN_ANNOTATION, PROVIDER_FINALIZER
from finetune_operator.decide.conditions import timestamp
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, MODEL_DEPLOYMENTS, Resource
from finetune_operator.runtime.queue import Key

logger = logging.getLogger(__name__)

SETTLED = (
    "somebody else removed its finalizer; what it had at its provider, and was to go with it, is ended all the same"
)

_KINDS = (FINE_TUNE_JOBS, MODEL_DEPLOYMENTS)


class Departed:
    """The vanished objects. Each has a key of its own, since a new object may have its name."""

    def __init__(self) -> None:
        self._last: dict[Key, Manifest] = {}
        self._expected_removals: set[str] = set()

    def expect_removal(self, obj: Mapping[str, Any]) -> None:
        """Announce that we are about to remove our finalizer: nothing of the object is left, or all of it stays."""
        if wants_deletion(obj):
            self._expected_removals.add(obj["metadata"]["uid"])

    def expects_removal(self, obj: Mapping[str, Any]) -> bool:
        """Whether we have removed our finalizer from this object that is being deleted, or were about to."""
        return obj["metadata"].get("uid") in self._expected_removals

    def take(self, resource: Resource, obj: Mapping[str, Any], now: Callable[[], datetime]) -> Key | None:
        """Keep an object that is gone as it was last seen; returns its key, or None if there is nothing to clean up.

        An object that is released without being deleted loses the annotation in the same write. An abandoned one is
        left alone.
        """
        metadata = obj["metadata"]
        if self.expects_removal(obj):
            self._expected_removals.discard(metadata["uid"])
            return None
        if resource not in _KINDS or BEGUN_ANNOTATION not in annotations_of(obj) or is_abandoned(obj):
            return None
        gone: Manifest = deepcopy({**obj, "apiVersion": resource.api_version, "kind": resource.kind})
        gone["metadata"] |= {"finalizers": [PROVIDER_FINALIZER]}
        gone["metadata"].setdefault("deletionTimestamp", timestamp(now()))
        gone["metadata"].pop("managedFields", None)
        key = _key_of(gone)
        self._last[key] = gone
        logger.warning(
            "%s %s/%s is gone, and somebody else removed its finalizer: what it had at its provider is ended now, by "
            "what was last known of it. The annotation %s=true would have left everything there",
            resource.kind, metadata["namespace"], metadata["name"], ABANDON_ANNOTATION,
        )  # fmt: skip
        return key

    def get(self, key: Key) -> Manifest | None:
        """A vanished object as it was last seen, with the status that was set since."""
        return deepcopy(self._last.get(key))

    def has(self, obj: Mapping[str, Any]) -> bool:
        """Whether this is a vanished object, to which nothing can be written."""
        return bool(self._last) and _key_of(obj) in self._last

    def set_status(self, obj: Manifest, status: Manifest) -> Manifest:
        """Keep a status in memory instead of writing it."""
        changed = {**obj, "status": status}
        self._last[_key_of(obj)] = deepcopy(changed)
        return changed

    def settle(self, obj: Mapping[str, Any]) -> Key:
        """Forget an object of which nothing is left; returns the key of whatever object has its name now."""
        del self._last[_key_of(obj)]
        metadata = obj["metadata"]
        return Key(obj["kind"], metadata["namespace"], metadata["name"])


def _key_of(obj: Mapping[str, Any]) -> Key:
    """A key that no object of the API can have, as names contain no slash."""
    metadata = obj["metadata"]
    return Key(obj.get("kind", ""), metadata.get("namespace") or "", f"{metadata['name']}/{metadata.get('uid')}")


def is_departed(key: Key) -> bool:
    """Whether this is the key of a vanished object."""
    return "/" in key.name
