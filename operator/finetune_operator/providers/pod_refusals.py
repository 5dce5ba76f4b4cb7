"""Why the Job controller could make no pod of a Job: quota, policy, a missing service account. Only its Events say so.

One listing answers for all Jobs of a namespace: on a cluster that is busy many of them wait for their pods at once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from finetune_operator.runtime.kube import EVENTS, Kube

Manifest = dict[str, Any]

GOOD_FOR = timedelta(seconds=10)


class PodRefusals:
    """The newest refusal of each Job.

    Args:
        kube: the API.
        clock: now, with a time zone.
    """

    def __init__(self, kube: Kube, clock: Callable[[], datetime]) -> None:
        self._kube = kube
        self._clock = clock
        self._listed: dict[str, tuple[datetime, dict[str, str]]] = {}
        self._listing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def of(self, batch_job: Manifest) -> str | None:
        """What the Job controller was told when it last tried, some seconds ago at most.

        Raises:
            KubeError: the events cannot be listed.
        """
        namespace, uid = batch_job["metadata"]["namespace"], batch_job["metadata"]["uid"]
        async with self._listing[namespace]:
            moment, notes = self._listed.get(namespace, (None, {}))
            if moment is None or self._clock() - moment >= GOOD_FOR:
                notes = await self._list(namespace)
                self._listed[namespace] = self._clock(), notes
        # By UID: the events of an earlier Job of the same name stay for an hour.
        return notes.get(uid)

    async def _list(self, namespace: str) -> dict[str, str]:
        events = await self._kube.list(EVENTS, namespace, field_selector="reason=FailedCreate")
        events.sort(key=lambda event: str(event["metadata"]["creationTimestamp"]))
        return {str(event["regarding"].get("uid")): str(event["note"]) for event in events if event.get("note")}
