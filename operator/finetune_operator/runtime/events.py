"""Kubernetes Events for people: the same one at most every ten minutes, and never an obstacle to a reconcile."""

import hashlib
import logging
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from finetune_api.manifest import Manifest
from finetune_api.words import cut, unstyled
from finetune_operator.runtime import metrics
from finetune_operator.runtime.errors import Conflict, KubeError, LeadershipLost
from finetune_operator.runtime.kube import EVENTS, Kube
from finetune_operator.runtime.leadership.lease import micro_time
from finetune_operator.runtime.logs import redact
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.token_bucket import TokenBuckets
from finetune_operator.runtime.uptime import Clock

REPEAT_SECONDS = 600.0
NORMAL_PER_SECOND = 1.0
NORMAL_AT_ONCE = 50
"""Limits for Normal Events of a namespace: more are dropped, as in Kubernetes' own clients. Warnings never are."""
REMEMBERED = 4096
CONTROLLER = "finetune.dev/operator"
ACTION = "Reconcile"
_MAX_NOTE = 1024  # bytes; the API's own limits
_MAX_WORD = 128

logger = logging.getLogger(__name__)


class Recorder:
    """Posts Events, and remembers what it has posted.

    Args:
        kube: the API server.
        instance: name of this replica (reportingInstance).
    """

    def __init__(self, kube: Kube, instance: str, clock: Clock = time.monotonic) -> None:
        self._kube = kube
        self._instance = instance[:_MAX_WORD]
        self._clock = clock
        self._posted: LRUCache[float] = LRUCache(REMEMBERED, self._is_long_ago)
        self._budgets = TokenBuckets(NORMAL_PER_SECOND, NORMAL_AT_ONCE, clock, REMEMBERED)

    async def post(self, regarding: Mapping[str, Any], event_type: str, reason: str, note: str) -> None:
        """Posts an Event about an object, unless the same one was posted in the last ten minutes. Never raises.

        Normal Events are dropped if their namespace has too many: when a thousand jobs end at once, their status
        says so, and the API server is busy enough.

        Args:
            regarding: the object's manifest; apiVersion, kind, and metadata with name and uid are used.
            event_type: Normal or Warning.
            reason: one word in CamelCase.
            note: a sentence for people.
        """
        event = event_type, reason, cut(redact(unstyled(note)), _MAX_NOTE, as_bytes=True)
        fingerprint = _fingerprint(regarding, event)
        posted = self._posted.get(fingerprint)
        if posted is not None and not self._is_long_ago(posted):
            metrics.EVENTS.labels("repeated").inc()
            return
        self._posted.put(fingerprint, self._clock())
        if event_type == "Normal" and self._budgets.take(regarding["metadata"].get("namespace", "")) > 0:
            metrics.EVENTS.labels("dropped").inc()
            return
        try:
            await self._kube.create(EVENTS, _manifest(self._instance, regarding, event, fingerprint, self._kube.now()))
            metrics.EVENTS.labels("posted").inc()
        except Conflict:
            metrics.EVENTS.labels("repeated").inc()  # by another process, or by a request whose answer was lost
        except (KubeError, LeadershipLost, ValueError) as error:
            self._posted.drop(fingerprint)
            metrics.EVENTS.labels("failed").inc()
            logger.warning("event %s could not be posted: %s", reason, error)

    def _is_long_ago(self, posted: float) -> bool:
        return self._clock() - posted >= REPEAT_SECONDS


def _manifest(
    instance: str, regarding: Mapping[str, Any], event: tuple[str, str, str], fingerprint: str, moment: datetime
) -> Manifest:
    event_type, reason, note = event
    metadata = regarding["metadata"]
    reference = {
        "apiVersion": regarding["apiVersion"],
        "kind": regarding["kind"],
        "name": metadata["name"],
        "namespace": metadata.get("namespace"),
        "uid": metadata.get("uid"),
    }
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {
            # The same for all who would post it in these ten minutes: another release of the operator, or the next
            # process, perhaps on another node: so `moment` is by the API server's clock.
            "name": f"{_name(metadata['name'])}.{int(moment.timestamp() // REPEAT_SECONDS):x}{fingerprint[:10]}",
            # The API requires that Events of cluster-scoped objects are in the namespace default.
            "namespace": metadata.get("namespace") or "default",
        },
        "eventTime": micro_time(moment),
        "type": event_type,
        "reason": reason[:_MAX_WORD],
        "action": ACTION,
        "note": note,
        "regarding": {key: value for key, value in reference.items() if value},
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
    }


def _fingerprint(regarding: Mapping[str, Any], event: tuple[str, str, str]) -> str:
    metadata = regarding["metadata"]
    parts = (regarding["kind"], metadata.get("namespace", ""), metadata["name"], metadata.get("uid", ""))
    return hashlib.sha256("\0".join((*parts, *event)).encode()).hexdigest()[:32]


def _name(name: str) -> str:
    """The object's name, shortened so that the Event's name stays within 253 characters."""
    return re.sub(r"[^a-z0-9]+$", "", name[:220])
