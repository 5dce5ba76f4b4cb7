"""What only Events say: why the Job controller could make no pod, and why the kubelet could not mount its volumes.

One listing answers for all objects of a namespace: on a cluster that is busy many of them wait at once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import moment
from finetune_operator.runtime.kube import EVENTS, PODS, Kube

Manifest = dict[str, Any]

GOOD_FOR = timedelta(seconds=10)

POD_IS_LATE = timedelta(seconds=10)
"""A pod whose containers do not start within this may lack a volume."""

_MOUNTED = ("PodReadyToStartContainers", "True")


class PodRefusals:
    """The newest refusal of each object.

    Args:
        kube: the API.
        clock: now, with a time zone.
        reason: of the Events: FailedCreate, of Jobs whose pod is refused; FailedMount, of pods whose volumes are not
            there.
    """

    def __init__(self, kube: Kube, clock: Callable[[], datetime], reason: str = "FailedCreate") -> None:
        self._kube = kube
        self._clock = clock
        self._reason = reason
        self._listed: dict[str, tuple[datetime, dict[str, str]]] = {}
        self._listing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def of(self, obj: Manifest) -> str | None:
        """What was said when it was last tried, some seconds ago at most.

        Raises:
            KubeError: the events cannot be listed.
        """
        namespace, uid = obj["metadata"]["namespace"], obj["metadata"]["uid"]
        async with self._listing[namespace]:
            moment, notes = self._listed.get(namespace, (None, {}))
            if moment is None or self._clock() - moment >= GOOD_FOR:
                notes = await self._list(namespace)
                self._listed[namespace] = self._clock(), notes
        # By UID: the events of an earlier object of the same name stay for an hour.
        return notes.get(uid)

    async def _list(self, namespace: str) -> dict[str, str]:
        events = await self._kube.list(EVENTS, namespace, field_selector=f"reason={self._reason}")
        events.sort(key=_last_seen)
        return {str(event["regarding"].get("uid")): str(event["note"]) for event in events if event.get("note")}


class UnmountedVolumes:
    """Why containers of pods do not start: a ConfigMap, a Secret or a volume that cannot be mounted.

    Args:
        kube: the API.
        clock: now, with a time zone.
    """

    def __init__(self, kube: Kube, clock: Callable[[], datetime]) -> None:
        self._kube = kube
        self._clock = clock
        self._refusals = PodRefusals(kube, clock, "FailedMount")

    async def of(self, pods: Sequence[Manifest], selector: str) -> Failure | None:
        """The first volume that one of the pods waits for; young pods are not asked about.

        Args:
            pods: pods of one namespace, as the store has them.
            selector: labels by which the API finds them.

        Raises:
            KubeError: events or pods cannot be listed.
        """
        for pod in pods:
            late = self._clock() - moment(pod["metadata"]["creationTimestamp"]) > POD_IS_LATE
            note = await self._refusals.of(pod) if late and _may_wait(pod) else None
            if note and not await self._is_mounted(pod, selector):
                return Failure.because(Reason.CONTAINER_CONFIG_INVALID, note)
        return None

    async def _is_mounted(self, pod: Manifest, selector: str) -> bool:
        """Whether its volumes are there by now. The store does not keep this: it changes with every pod."""
        listed = await self._kube.list(PODS, pod["metadata"]["namespace"], selector)
        now = next((one for one in listed if one["metadata"]["uid"] == pod["metadata"]["uid"]), {})
        conditions = now.get("status", {}).get("conditions") or ()
        return not now or any((one["type"], one["status"]) == _MOUNTED for one in conditions)


def _may_wait(pod: Manifest) -> bool:
    """Whether its containers have not started, and a node has it."""
    status = pod.get("status", {})
    placed = all(one["type"] != "PodScheduled" or one["status"] == "True" for one in status.get("conditions") or ())
    return status.get("phase") == "Pending" and placed


def _last_seen(event: Manifest) -> str:
    """When it was said last: what is said again and again is one Event."""
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(series or event.get("deprecatedLastTimestamp") or event["metadata"]["creationTimestamp"])
