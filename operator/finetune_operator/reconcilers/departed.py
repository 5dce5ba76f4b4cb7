"""Objects that are gone though our finalizer was to keep them while something of theirs is at a provider.

    watch: gone ── with the note beside our finalizer, and we did not let go ──▶ taken ──▶ looked at under a key of its
    own, as one on its way out whose writes stay here ──▶ nothing is left at the provider ──▶ forgotten

What is billed would else stand for ever: nobody is left who knows of it. Kept in memory alone, as by then nothing in
the cluster tells of them any more. A watch shows an object that is gone as it was before its last finalizer was taken
off, whoever did that: so who lets go of one says so here first.
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

_HELD = (FINE_TUNE_JOBS, MODEL_DEPLOYMENTS)


class Departed:
    """What is known of them. Each has a key of its own: one that was made since may have its name."""

    def __init__(self) -> None:
        self._last: dict[Key, Manifest] = {}
        self._let_go: set[str] = set()

    def let_go(self, obj: Mapping[str, Any]) -> None:
        """We are about to take our finalizer off: nothing of the object is left, or all of it is to stay."""
        if wants_deletion(obj):
            self._let_go.add(obj["metadata"]["uid"])

    def take(self, resource: Resource, obj: Mapping[str, Any], now: Callable[[], datetime]) -> Key | None:
        """Keep what was last seen of an object that is gone; its key, None where nothing of it is to be ended.

        Whoever lets go of one that stays takes the note off in the same write. One that is abandoned is left alone.
        """
        metadata = obj["metadata"]
        if metadata.get("uid") in self._let_go:
            self._let_go.discard(metadata["uid"])
            return None
        if resource not in _HELD or BEGUN_ANNOTATION not in annotations_of(obj) or is_abandoned(obj):
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
        """One of them, as it was last seen and as was said of it since."""
        return deepcopy(self._last.get(key))

    def has(self, obj: Mapping[str, Any]) -> bool:
        """Whether this is one of them: nothing can be written to it."""
        return bool(self._last) and _key_of(obj) in self._last

    def say(self, obj: Manifest, status: Manifest) -> Manifest:
        """Remember a status in place of writing it."""
        said = {**obj, "status": status}
        self._last[_key_of(obj)] = deepcopy(said)
        return said

    def settle(self, obj: Mapping[str, Any]) -> Key:
        """Nothing of it is left to be ended; the key of whatever has its name now."""
        del self._last[_key_of(obj)]
        metadata = obj["metadata"]
        return Key(obj["kind"], metadata["namespace"], metadata["name"])


def _key_of(obj: Mapping[str, Any]) -> Key:
    """No object's name has a slash."""
    metadata = obj["metadata"]
    return Key(obj.get("kind", ""), metadata.get("namespace") or "", f"{metadata['name']}/{metadata.get('uid')}")


def is_of_one(key: Key) -> bool:
    """Whether it is the key of one of them, and of nothing that the API has."""
    return "/" in key.name
