"""Kubernetes Events for people: the same one at most every ten minutes, and never in a reconcile's way."""

import asyncio
import hashlib
import logging
import re
import socket
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from finetune_operator.runtime import metrics
from finetune_operator.runtime.errors import Conflict, KubeError, LeadershipLost
from finetune_operator.runtime.kube import EVENTS, Kube
from finetune_operator.runtime.lease import micro_time
from finetune_operator.runtime.limits import TokenBucket
from finetune_operator.runtime.logs import redact
from finetune_operator.runtime.tokens import Recent

EventType = Literal["Normal", "Warning"]

REPEAT_SECONDS = 600.0
NORMAL_PER_SECOND = 1.0
NORMAL_AT_ONCE = 50
"""Normal Events of a namespace: what comes faster is dropped, as Kubernetes' own clients do. Warnings never are."""
REMEMBERED = 4096
CONTROLLER = "finetune.dev/operator"
_MAX_NOTE = 1024  # the API's own limits
_MAX_WORD = 128

logger = logging.getLogger(__name__)


class Occurrence(NamedTuple):
    """What happened: Normal or Warning, one CamelCase word why, a sentence for people, one CamelCase word what."""

    type: EventType
    reason: str
    note: str
    action: str


class Recorder:
    """Posts Events.

    Args:
        instance: name of this replica (reportingInstance).
        clock: seconds, never running backwards; default: the event loop's.
    """

    def __init__(self, instance: str, clock: Callable[[], float] | None = None) -> None:
        self._instance = instance[:_MAX_WORD]
        self._clock = clock
        self._posted: OrderedDict[bytes, float] = OrderedDict()
        self._budgets: Recent[TokenBucket] = Recent(REMEMBERED, TokenBucket.is_full)

    async def post(self, kube: Kube, regarding: dict[str, Any], occurrence: Occurrence) -> None:
        """Posts an Event about an object, unless the same one was posted in the last ten minutes. Never raises.

        A Normal one is dropped where its namespace has many of them: when a thousand jobs end at once, their status
        says so, and the API server has better things to do.

        Args:
            kube: the API server.
            regarding: the object's manifest; apiVersion, kind, and metadata with name and uid are used.
            occurrence: what happened.
        """
        occurrence = occurrence._replace(note=_shortened(redact(occurrence.note)))
        fingerprint = _fingerprint(regarding, occurrence)
        clock = self._clock or asyncio.get_running_loop().time
        if not self._is_new(fingerprint, clock()):
            metrics.EVENTS.labels("repeated").inc()
            return
        if occurrence.type == "Normal" and not self._has_room(regarding["metadata"].get("namespace", ""), clock):
            metrics.EVENTS.labels("dropped").inc()
            return
        try:
            await kube.create(EVENTS, _manifest(self._instance, regarding, occurrence, fingerprint))
            metrics.EVENTS.labels("posted").inc()
        except Conflict:
            metrics.EVENTS.labels("repeated").inc()  # the answer to an earlier attempt was lost
        except (KubeError, LeadershipLost, ValueError) as error:
            self._posted.pop(fingerprint, None)
            metrics.EVENTS.labels("failed").inc()
            logger.warning("event %s could not be posted: %s", occurrence.reason, error)

    def _has_room(self, namespace: str, clock: Callable[[], float]) -> bool:
        budget = self._budgets.get(namespace)
        if budget is None:
            budget = TokenBucket(NORMAL_PER_SECOND, NORMAL_AT_ONCE, clock)
            self._budgets.put(namespace, budget)
        return budget.take() == 0

    def _is_new(self, fingerprint: bytes, now: float) -> bool:
        posted = self._posted.get(fingerprint)
        if posted is not None and now - posted < REPEAT_SECONDS:
            return False
        self._posted[fingerprint] = now
        self._posted.move_to_end(fingerprint)
        while len(self._posted) > REMEMBERED or now - next(iter(self._posted.values())) >= REPEAT_SECONDS:
            self._posted.popitem(last=False)
        return True


_OF_THIS_PROCESS = Recorder(socket.gethostname())


async def record(  # noqa: PLR0917 - reads like the Event's own fields, in their order
    kube: Kube,
    regarding: dict[str, Any],
    type: EventType,  # noqa: A002 - the Event's field is called so
    reason: str,
    note: str,
    action: str,
) -> None:
    """Posts an Event as this process, which remembers what it has posted: see Recorder.post. Never raises."""
    await _OF_THIS_PROCESS.post(kube, regarding, Occurrence(type, reason, note, action))


def _manifest(instance: str, regarding: dict[str, Any], occurrence: Occurrence, fingerprint: bytes) -> dict[str, Any]:
    metadata = regarding["metadata"]
    moment = datetime.now(UTC)
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
            "name": f"{_name(metadata['name'])}.{int(moment.timestamp()):x}{fingerprint.hex()[:10]}",
            # Events of cluster-scoped objects live in the namespace default: so the API demands.
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


def _fingerprint(regarding: dict[str, Any], occurrence: Occurrence) -> bytes:
    metadata = regarding["metadata"]
    parts = (regarding["kind"], metadata.get("namespace", ""), metadata["name"], metadata.get("uid", ""))
    return hashlib.sha256("\0".join((*parts, *occurrence[:3])).encode()).digest()[:16]


def _name(name: str) -> str:
    """The object's name, short enough that the Event's name stays within 253 characters."""
    return re.sub(r"[^a-z0-9]+$", "", name[:220])


def _shortened(note: str) -> str:
    """At most 1024 bytes, as the API counts them."""
    encoded = note.encode()
    return note if len(encoded) <= _MAX_NOTE else encoded[: _MAX_NOTE - 3].decode(errors="ignore") + "..."
