"""What all routes of the report server have in common: leader only, a limit of concurrent requests, metrics."""

import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import Counter

from finetune_api.base import AttemptRef
from finetune_api.reasons import Reason
from finetune_operator.runtime.errors import KubeError, LeadershipLost
from finetune_operator.runtime.kube import TokenIdentity
from finetune_operator.runtime.report_server.refusals import Refusal
from finetune_operator.runtime.token_bucket import TokenBucket
from finetune_operator.runtime.uptime import Clock

logger = logging.getLogger(__name__)


Handler = Callable[[web.Request], Awaitable[web.Response]]

Identify = Callable[[web.Request], Awaitable[TokenIdentity]]
"""Returns the sender of a request; raises Refusal."""

Authorise = Callable[[TokenIdentity, AttemptRef], str | None]
"""The reason to refuse what this identity sends for an attempt, or None."""


class Outlived(str):
    """A permanent reason to refuse: the attempt is over, so there is no point in retrying."""

    __slots__ = ()


class Route:
    """Answers one kind of request.

    Args:
        what: what is sent, in one word.
        handle: handles it; raises Refusal.
        is_leader: whether this replica leads: only the leader writes, and calls providers.
        at_once: maximum number of concurrent requests.
        pause: Retry-After for further ones, longer if there are many: no more return per pause than there are places.
        answers: counts by HTTP code.
    """

    def __init__(
        self,
        what: str,
        handle: Handler,
        *,
        is_leader: Callable[[], bool],
        at_once: int,
        pause: float,
        answers: Counter,
        clock: Clock = time.monotonic,
    ) -> None:
        self._what = what
        self._handle = handle
        self._is_leader = is_leader
        self._free = at_once
        self._pause = pause
        self._turns = TokenBucket(at_once / pause, at_once, clock)
        self._answers = answers

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request."""
        status = 500  # what aiohttp answers, and logs, after an unexpected exception
        try:
            response = await self._response(request)
            status = response.status
            return response
        finally:
            self._answers.labels(str(status)).inc()

    async def _response(self, request: web.Request) -> web.Response:
        try:
            return await self._admitted(request)
        except Refusal as refusal:
            return refusal.response()
        except (KubeError, LeadershipLost) as error:
            logger.warning("a pod's %s could not be taken: %r", self._what, error)
            unread = not request.content.is_eof()
            return Refusal(503, f"the {self._what} cannot be taken now", retry_after=5, close=unread).response()

    async def _admitted(self, request: web.Request) -> web.Response:
        if not self._is_leader():
            raise Refusal(503, "this replica does not lead", retry_after=2, close=True)
        if self._free < 1:
            sentence = f"{Reason.RATE_LIMITED}: too many {self._what}s at once"
            raise Refusal(503, sentence, retry_after=max(self._pause, self._turns.reserve()), close=True)
        self._free -= 1
        try:
            return await self._handle(request)
        finally:
            self._free += 1


def require_allowed(reason: str | None, identity: TokenIdentity, what: str, *, outlived: int = 403) -> None:
    """Raise if there is a reason to refuse; `outlived` is the HTTP status if that reason is permanent.

    Raises:
        Refusal: with that reason.
    """
    if reason is not None:
        logger.warning("%s of pod %s/%s refused: %s", what, identity.namespace, identity.pod_name, reason)
        raise Refusal(outlived if isinstance(reason, Outlived) else 403, reason, close=True)
