"""Kubernetes Events for people: the same one at most every ten minutes, and never an obstacle to a reconcile."""

import hashlib
import logging
import re
import socket
import time
from datetime import datetime
from typing import Literal, NamedTuple

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

EventType = Literal["Normal", "Warning"]

REPEAT_SECONDS = 600.0
NORMAL_PER_SECOND = 1.0
NORMAL_AT_ONCE = 50
"""Limits for Normal Events of a namespace: more are dropped, as in Kubernetes' own clients. Warnings never are."""
REMEMBERED = 4096
CONTROLLER = "finetune.dev/operator"
_MAX_NOTE = 1024  # bytes; the API's own limits
_MAX_WORD = 128

logger = logging.getLogger(__name__)


class Occurrence(NamedTuple):
    """What happened: Normal or Warning, the reason in CamelCase, a sentence for people, the action in CamelCase."""

    type: EventType
    reason: str
    note: str
    action: str


class Recorder:
    """Posts Events.

    Args:
        instance: name of this replica (reportingInstance).
    """

    def __init__(self, instance: str, clock: Clock = time.monotonic) -> None:
        self._instance = instance[:_MAX_WORD]
        self._clock = clock
        self._posted: LRUCache[float] = LRUCache(REMEMBERED, self._is_long_ago)
        self._budgets = TokenBuckets(NORMAL_PER_SECOND, NORMAL_AT_ONCE, clock, REMEMBERED)

    async def post(self, kube: Kube, regarding: Manifest, occurrence: Occurrence) -> None:
        """Posts an Event about an object, unless the same one was posted in the last ten minutes. Never raises.

        Normal Events are dropped if their namespace has too many: when a thousand jobs end at once, their status
        says so, and the API server is busy enough.

        Args:
            kube: the API server.
            regarding: the object's manifest; apiVersion, kind, and metadata with name and uid are used.
            occurrence: what happened.
        """
        occurrence = occurrence._replace(note=cut(redact(unstyled(occurrence.note)), _MAX_NOTE, as_bytes=True))
        fingerprint = _fingerprint(regarding, occurrence)
        posted = self._posted.get(fingerprint)
        if posted is not None and not self._is_long_ago(posted):
            metrics.EVENTS.labels("repeated").inc()
            return
        self._posted.put(fingerprint, self._clock())
        if occurrence.type == "Normal" and self._budgets.take(regarding["metadata"].get("namespace", "")) > 0:
            metrics.EVENTS.labels("dropped").inc()
            return
        try:
            await kube.create(EVENTS, _manifest(self._instance, regarding, occurrence, fingerprint, kube.now()))
            metrics.EVENTS.labels("posted").inc()
        except Conflict:
            metrics.EVENTS.labels("repeated").inc()  # by another process, or by a request whose answer was lost
        except (KubeError, LeadershipLost, ValueError) as error:
            self._posted.drop(fingerprint)
            metrics.EVENTS.labels("failed").inc()
            logger.warning("event %s could not be posted: %s", occurrence.reason, error)

    def _is_long_ago(self, posted: float) -> bool:
        return self._clock() - posted >= REPEAT_SECONDS


_OF_THIS_PROCESS = Recorder(socket.gethostname())


async def record(  # noqa: PLR0917 - reads like the Event's own fields, in their order
    kube: Kube,
    regarding: Manifest,
    type: EventType,  # noqa: A002 - the Event's field is called so
    reason: str,
    note: str,
    action: str,
) -> None:
    """Posts an Event in this process's name, which remembers what it posted: see Recorder.post. Never raises."""
    await _OF_THIS_PROCESS.post(kube, regarding, Occurrence(type, reason, note, action))


def _manifest(
    instance: str, regarding: Manifest, occurrence: Occurrence, fingerprint: str, moment: datetime
) -> Manifest:
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
        "type": occurrence.type,
        "reason": occurrence.reason[:_MAX_WORD],
        "action": occurrence.action[:_MAX_WORD],
        "note": occurrence.note,
        "regarding": {key: value for key, value in reference.items() if value},
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
    }


def _fingerprint(regarding: Manifest, occurrence: Occurrence) -> str:
    metadata = regarding["metadata"]
    parts = (regarding["kind"], metadata.get("namespace", ""), metadata["name"], metadata.get("uid", ""))
    return hashlib.sha256("\0".join((*parts, *occurrence[:3])).encode()).hexdigest()[:32]


def _name(name: str) -> str:
    """The object's name, shortened so that the Event's name stays within 253 characters."""
    return re.sub(r"[^a-z0-9]+$", "", name[:220])
