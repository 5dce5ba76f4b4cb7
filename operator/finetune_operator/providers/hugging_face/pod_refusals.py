"""Causes that only Events tell: why the Job controller cannot create a pod, and why the kubelet cannot start one.

One listing serves all objects of a namespace, since on a busy cluster many of them wait at once.
"""

import asyncio
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from finetune_api.job_status import Failure
from finetune_api.manifest import Manifest, conditions_of
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.pods.containers import containers, memory_limit_too_low
from finetune_operator.runtime.kube import EVENTS, PODS, Kube
from finetune_operator.runtime.lru_cache import LRUCache

MIN_CACHE = timedelta(seconds=10)
MAX_CACHE = timedelta(seconds=60)
CACHE_FACTOR = 30
"""A listing is cached for this many times as long as it took: the API server reads all Events of a namespace for it,
and there are three per job."""

NAMESPACES = 1024
"""For how many namespaces the objects that had Events are remembered."""

START_IS_LATE = timedelta(seconds=10)
"""If a pod's containers take longer to start, a volume or something on its node may be missing."""

NO_NODE_IS_LATE = timedelta(seconds=60)
"""A scheduler that runs and waits for nothing has set a pod's condition long before."""

JOB_EVENTS = "reason=FailedCreate"
POD_EVENTS = "type=Warning,regarding.kind=Pod"
CLAIM_EVENTS = "regarding.kind=PersistentVolumeClaim"

_WAITS_FOR_VOLUME = frozenset({"ProvisioningFailed", "ExternalProvisioning", "FailedBinding", "Provisioning"})

_NO_NODE = "the pod has no node, and the scheduler has not said why: it waits for a claim's volume, or does not run"
_NO_NODE_STEP = (
    "kubectl describe pvc says whether a claim waits for its volume, and for whom; where none does, ask an admin "
    "whether the scheduler runs. The pod continues automatically."
)

_UP = ("PodReadyToStartContainers", "True")

_REASONS = {
    "FailedMount": Reason.VOLUME_UNAVAILABLE,
    "FailedAttachVolume": Reason.VOLUME_UNAVAILABLE,
    "FailedMapVolume": Reason.VOLUME_UNAVAILABLE,
    "FailedMountOnFilesystemMismatch": Reason.VOLUME_UNAVAILABLE,
    "FailedCreatePodSandBox": Reason.POD_NOT_STARTED,
    "FailedPodSandBoxStatus": Reason.POD_NOT_STARTED,
    "FailedCreatePodContainer": Reason.POD_NOT_STARTED,
    "FailedPrepareDynamicResources": Reason.POD_NOT_STARTED,
    "FailedSync": Reason.POD_NOT_STARTED,
    "NetworkNotReady": Reason.POD_NOT_STARTED,
}
"""Warnings of the kubelet and the attach-detach controller that keep a pod's containers from starting. Others are in
the pod's status too, or keep nothing from starting."""

_COMBINED = "(combined from similar events): "
"""Prefix that Kubernetes adds after ten similar Events of one object."""

_SUMMARY = "Unable to attach or mount volumes"
"""The kubelet's summary of its own and the attach-detach controller's more detailed Events."""


News = Callable[[Mapping[str, Any]], None]


def ignore_news(_regarding: Mapping[str, Any]) -> None:
    """A `News` callback that does nothing, for callers that poll anyway."""


class _Listed(NamedTuple):
    at: datetime
    cached_for: timedelta
    notes: dict[str, tuple[str, str]]


class ObjectEvents:
    """The most informative and newest Event of each object.

    Args:
        kube: the API.
        clock: now, with a time zone.
        selector: field selector of the Events.
        known: reasons of Events that count; None for all.
        news: called with the Event's `regarding` for each object that appears in a listing for the first time.
    """

    def __init__(
        self,
        kube: Kube,
        clock: Callable[[], datetime],
        selector: str = JOB_EVENTS,
        known: frozenset[str] | None = None,
        news: News = ignore_news,
    ) -> None:
        self._kube = kube
        self._clock = clock
        self._selector = selector
        self._known = known
        self._news = news
        self._listed: dict[str, _Listed] = {}
        self._reported: LRUCache[frozenset[str]] = LRUCache(NAMESPACES, is_spent=operator.not_)
        self._listing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def of(self, obj: Manifest) -> tuple[str, str] | None:
        """Reason and note of the object's Event, cached for some seconds.

        Raises:
            KubeError: the events cannot be listed.
        """
        namespace, uid = obj["metadata"]["namespace"], obj["metadata"]["uid"]
        lock = self._listing.setdefault(namespace, asyncio.Lock())
        async with lock:
            self._drop_expired()
            if namespace not in self._listed:
                began = self._clock()
                notes = await self._list(namespace, but=uid)
                cached_for = max(MIN_CACHE, (self._clock() - began) * CACHE_FACTOR)
                self._listed[namespace] = _Listed(began, min(cached_for, MAX_CACHE), notes)
            notes = self._listed[namespace].notes
        # By UID: the events of an earlier object of the same name stay for an hour.
        return notes.get(uid)

    def _drop_expired(self) -> None:
        now = self._clock()
        self._listed = {
            name: one for name, one in self._listed.items() if timedelta(0) <= now - one.at < one.cached_for
        }

    async def _list(self, namespace: str, but: str) -> dict[str, tuple[str, str]]:
        """Reason and note by UID. Calls `news` for new objects, except the one with the UID `but`."""
        events = await self._kube.list(EVENTS, namespace, field_selector=self._selector)
        informative = [event for event in events if event.get("note") and self._counts(event)]
        informative.sort(key=_event_order)
        newest = {str((event.get("regarding") or {}).get("uid")): event for event in informative}
        before = self._reported.get(namespace) or frozenset()
        self._reported.put(namespace, frozenset(newest))
        for uid in newest.keys() - before - {but}:
            self._news(newest[uid].get("regarding") or {})
        return {uid: (str(event["reason"]), _note_of(event)) for uid, event in newest.items()}

    def _counts(self, event: Manifest) -> bool:
        return self._known is None or event["reason"] in self._known


class StartFailures:
    """Why no container of a pod starts: a volume that is missing or cannot be mounted, a network failure.

    Args:
        kube: the API.
        clock: now, with a time zone.
        news: called with the Event's `regarding` for each pod that has Events for the first time.
    """

    def __init__(self, kube: Kube, clock: Callable[[], datetime], news: News = ignore_news) -> None:
        self._kube = kube
        self._clock = clock
        self._events = ObjectEvents(kube, clock, POD_EVENTS, frozenset(_REASONS), news)

    async def of(self, pods: Sequence[Manifest], selector: str) -> tuple[Failure, Manifest] | None:
        """What blocks the oldest pod that does not start, and that pod; young pods are skipped.

        Args:
            pods: pods of one namespace, as the store has them.
            selector: labels by which the API finds them.

        Raises:
            KubeError: events or pods cannot be listed.
        """
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"])):
            late = self._clock() - moment(pod["metadata"]["creationTimestamp"]) > START_IS_LATE
            event = await self._events.of(pod) if late and _is_pending(pod) else None
            if event and not await self._is_up(pod, selector):
                return _failure(*event), pod
            if event is None and _is_pending(pod) and (unplaced := await self._unplaced(pod, selector)):
                return unplaced, pod
        return None

    async def _is_up(self, pod: Manifest, selector: str) -> bool:
        """Whether volumes and network are ready by now. The store drops this condition, which changes in every pod."""
        now = await self._from_api(pod, selector)
        conditions = conditions_of(now)
        return not now or any((one["type"], one["status"]) == _UP for one in conditions)

    async def _unplaced(self, pod: Manifest, selector: str) -> Failure | None:
        """The failure if the scheduler has not reported a pod: it waits up to ten minutes for a volume, or is down."""
        lasted = self._clock() - moment(pod["metadata"]["creationTimestamp"])
        if lasted <= NO_NODE_IS_LATE or any(containers(pod)):  # the kubelet has reported its containers
            return None
        now = await self._from_api(pod, selector)
        conditions = conditions_of(now)
        spec = now.get("spec", {})
        if not now or spec.get("nodeName") or any(one["type"] == "PodScheduled" for one in conditions):
            return None
        claims = {volume.get("persistentVolumeClaim", {}).get("claimName") for volume in spec.get("volumes") or ()}
        said = await self._claim_note(pod["metadata"]["namespace"], claims)
        return Failure(reason=Reason.UNSCHEDULABLE, message=_NO_NODE + said, next_step=_NO_NODE_STEP)

    async def _claim_note(self, namespace: str, claims: set[str | None]) -> str:
        """The latest Event of a claim that waits for its volume."""
        events = await self._kube.list(EVENTS, namespace, field_selector=CLAIM_EVENTS)
        events = [event for event in events if event["reason"] in _WAITS_FOR_VOLUME and event.get("note")]
        events = [event for event in events if (event.get("regarding") or {}).get("name") in claims]
        newest = max(events, key=_event_order, default=None)
        return f"; claim {newest['regarding']['name']}: {newest['note']}" if newest else ""

    async def _from_api(self, pod: Manifest, selector: str) -> Manifest:
        """The whole pod as the API has it; empty if it is gone."""
        listed = await self._kube.list(PODS, pod["metadata"]["namespace"], selector)
        return next((one for one in listed if one["metadata"]["uid"] == pod["metadata"]["uid"]), {})


def _is_pending(pod: Manifest) -> bool:
    """Whether it is pending and not reported as unschedulable."""
    status = pod.get("status", {})
    placed = all(one["type"] != "PodScheduled" or one["status"] == "True" for one in status.get("conditions") or ())
    return status.get("phase") == "Pending" and placed


def _failure(event: str, note: str) -> Failure:
    """Tell a missing object, which the user can create, from one that exists but is unavailable."""
    missing = event == "FailedMount" and ("not found" in note or "non-existent" in note)
    return memory_limit_too_low(note) or Failure.because(
        Reason.CONTAINER_CONFIG_INVALID if missing else _REASONS[event], note
    )


def _event_order(event: Manifest) -> tuple[bool, str]:
    """Sort key: summaries before detailed Events, then by last occurrence, as repeated Events are merged into one."""
    series = (event.get("series") or {}).get("lastObservedTime")
    last = series or event.get("deprecatedLastTimestamp") or event["metadata"]["creationTimestamp"]
    return not _note_of(event).startswith(_SUMMARY), str(last)


def _note_of(event: Manifest) -> str:
    return str(event["note"]).removeprefix(_COMBINED)
