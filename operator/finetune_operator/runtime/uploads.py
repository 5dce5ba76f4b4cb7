"""Files that pods send for providers outside of the cluster: taken in as a stream and handed on as one.

    PUT /v1/uploads?…, bearer token ─▶ leader? ─▶ length, target ─▶ token review ─▶ authorise ─▶ accept(target, …)
                                        503        411/413/400        401             403         200, 424, 503

Nothing is kept: memory holds a chunk at a time. What becomes of the file is `accept`'s matter.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from aiohttp import web
from pydantic import ValidationError

from finetune_api.job_status import ProviderFile
from finetune_api.names import UPLOAD_MAX_BYTES
from finetune_api.trainer import UploadTarget
from finetune_operator.runtime import metrics
from finetune_operator.runtime.bodies import broken_off
from finetune_operator.runtime.errors import KubeError, LeadershipLost
from finetune_operator.runtime.kube import TokenIdentity
from finetune_operator.runtime.refusals import Refusal, settled

SILENCE_SECONDS = 60.0
"""A body that brings nothing for this long is given up."""

CHUNK_BYTES = 256 * 1024

AcceptUpload = Callable[[UploadTarget, int, AsyncIterator[bytes]], Awaitable[ProviderFile]]

logger = logging.getLogger(__name__)


class Claimed(Protocol):
    """Of which attempt of which job a pod says to be."""

    @property
    def namespace(self) -> str:
        """The FineTuneJob's."""
        ...

    @property
    def name(self) -> str:
        """The FineTuneJob's."""
        ...

    @property
    def uid(self) -> str:
        """The FineTuneJob's."""
        ...

    @property
    def attempt(self) -> int:
        """From 1."""
        ...


class Authorise(Protocol):
    """The reason to refuse what this identity says, or None; plain or async."""

    def __call__(self, identity: TokenIdentity, claim: Claimed, /) -> Awaitable[str | None] | str | None:
        """Decide."""
        ...


class UploadRoute:
    """Answers uploads.

    Args:
        identify: who sends a request; raises Refusal.
        authorise: the reason to refuse this upload from this identity, or None.
        accept: takes target, size in bytes and body; raises Refusal.
        is_leader: files are taken by the leader alone, as it alone asks providers.
        at_once: uploads at once.
    """

    def __init__(
        self,
        *,
        identify: Callable[[web.Request], Awaitable[TokenIdentity]],
        authorise: Authorise,
        accept: AcceptUpload,
        is_leader: Callable[[], bool],
        at_once: int,
    ) -> None:
        self._identify = identify
        self._authorise = authorise
        self._accept = accept
        self._is_leader = is_leader
        self._free = at_once

    async def answer(self, request: web.Request) -> web.Response:
        """One upload."""
        status = 500
        try:
            response = await self._response(request)
            status = response.status
            return response
        finally:
            metrics.UPLOADS.labels(str(status)).inc()

    async def _response(self, request: web.Request) -> web.Response:
        try:
            file = await self._handle(request)
        except Refusal as refusal:
            return refusal.response()
        except (KubeError, LeadershipLost) as error:
            logger.warning("an upload could not be taken: %r", error)
            return Refusal(503, "the file cannot be taken now", retry_after=5, close=True).response()
        return web.json_response(file.wire())

    async def _handle(self, request: web.Request) -> ProviderFile:
        if not self._is_leader():
            raise Refusal(503, "this replica does not lead", retry_after=2, close=True)
        if self._free < 1:
            raise Refusal(503, "too many uploads at once", retry_after=10, close=True)
        self._free -= 1
        try:
            size, target = _size(request), _target(request)
            identity = await self._identify(request)
            reason = await settled(self._authorise(identity, target))
            if reason is not None:
                logger.warning("upload of pod %s/%s refused: %s", identity.namespace, identity.pod_name, reason)
                raise Refusal(403, reason, close=True)
            return await self._accept(target, size, _chunks(request))
        finally:
            self._free += 1


def _size(request: web.Request) -> int:
    """The length that the head gives: a provider has to be told it before the body."""
    if request.content_length is None:
        raise Refusal(411, "an upload says how long it is", close=True)
    if request.content_length > UPLOAD_MAX_BYTES:
        raise Refusal(413, f"a file has at most {UPLOAD_MAX_BYTES} bytes", close=True)
    return request.content_length


def _target(request: web.Request) -> UploadTarget:
    try:
        return UploadTarget.model_validate(dict(request.query))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        named = [f"{'.'.join(str(place) for place in p['loc'])}: {p['msg']}" for p in problems]
        raise Refusal(400, "; ".join(named[:5]), close=True) from None


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        Refusal: it stands still, or breaks off.
    """
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                chunk = await request.content.read(CHUNK_BYTES)
        except TimeoutError:
            raise Refusal(408, f"the body brought nothing for {SILENCE_SECONDS:g} s", close=True) from None
        except ConnectionError:
            raise broken_off() from None
        if not chunk:
            return
        yield chunk
