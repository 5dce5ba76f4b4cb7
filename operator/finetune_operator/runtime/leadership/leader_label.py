"""The label by which the report Service selects the leader's pod, for as long as it leads.

Set again every half minute: otherwise, once removed or refused for a while, all reports would be lost until a restart.
"""

import asyncio
import logging
import time
from contextlib import suppress

from finetune_operator.runtime.errors import KubeError, LeadershipLost, NotFound, Transient
from finetune_operator.runtime.kube import PODS, Kube
from finetune_operator.runtime.repeats import Repeats

LABEL = "finetune.dev/leader"
RETRY_SECONDS = 2.0
KEPT_SECONDS = 30.0
"""Pause after success or refusal: a patch that changes nothing causes no write at the API server."""

logger = logging.getLogger(__name__)


class LeaderLabel:
    """The label of one pod.

    Args:
        kube: unguarded: a follower removes the label.
        guarded: for the leader.
        namespace: of the pod.
        pod: its name.
    """

    def __init__(self, kube: Kube, guarded: Kube, namespace: str, pod: str) -> None:
        self._kube = kube
        self._guarded = guarded
        self._namespace = namespace
        self._pod = pod
        self._refusals = Repeats(time.monotonic)

    async def keep(self, leads: asyncio.Event) -> None:
        """Keep it set once `leads` is set. Before that remove one that an earlier process of this pod left."""
        while not leads.is_set() and (again := await self._set_label(leading=False)):  # noqa: ASYNC110 - as below
            await asyncio.sleep(again)
        await leads.wait()
        with suppress(LeadershipLost):
            while again := await self._set_label(leading=True):  # noqa: ASYNC110 - nothing tells when it can be done
                await asyncio.sleep(again)

    async def _set_label(self, *, leading: bool) -> float | None:
        """Set or remove it; returns the seconds until the next try, or None if none is needed.

        Outside of a cluster there is no pod to label.
        """
        body = {"metadata": {"labels": {LABEL: "true" if leading else None}}}
        try:
            await (self._guarded if leading else self._kube).merge_patch(PODS, self._pod, self._namespace, body)
        except KubeError as error:
            self._log_failure(error)
            if isinstance(error, NotFound):
                return None
            return RETRY_SECONDS if isinstance(error, Transient) else KEPT_SECONDS
        self._refusals.over()
        return KEPT_SECONDS if leading else None

    def _log_failure(self, error: KubeError) -> None:
        """Log only new failures, as it is retried again and again."""
        if self._refusals.is_news(str(error)):
            logger.warning("pod %s/%s cannot be labelled: %s", self._namespace, self._pod, error)
