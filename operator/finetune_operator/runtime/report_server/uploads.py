"""Files that pods send for providers outside of the cluster: taken in as a stream and handed on as one.

    PUT /v1/uploads?…, bearer token ─▶ leader? ─▶ length, target ─▶ token review ─▶ authorise ─▶ accept(target, …)
                                        503        411/413/400        401          403, 429       200, 424, 503

Nothing is kept: memory holds a chunk at a time. What becomes of the file is `accept`'s matter.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

from aiohttp import web
from pydantic import ValidationError

from finetune_api.job_status import ProviderFile
from finetune_api.names import UPLOAD_MAX_BYTES
from finetune_api.trainer import UploadTarget
from finetune_operator.runtime.report_server.bodies import broken_off
from finetune_operator.runtime.report_server.refusals import Refusal, invalid_fields
from finetune_operator.runtime.report_server.route import Authorise, Handler, Identify, require_allowed

SILENCE_SECONDS = 60.0
"""A body that brings nothing for this long is given up."""

LEAST_PER_SECOND = 256 * 1024
"""Bytes that a body has to bring for each second that it is waited for beyond that: others wait for its place."""

PAUSE_SECONDS = 10

CHUNK_BYTES = 256 * 1024

AcceptUpload = Callable[[UploadTarget, int, AsyncIterator[bytes]], Awaitable[ProviderFile]]


def handler(identify: Identify, authorise: Authorise, accept: AcceptUpload) -> Handler:
    """Takes one upload, which `accept` gets as target, size in bytes and body; both raise Refusal."""
    sending: set[str] = set()

    async def take(request: web.Request) -> web.Response:
        size, target = _size(request), _target(request)
        identity = await identify(request)
        require_allowed(authorise(identity, target), identity, "upload")
        with _alone(identity.pod_uid or identity.username, sending):
            file = await accept(target, size, _chunks(request))
        return web.json_response(file.wire())

    return take


@contextmanager
def _alone(pod: str, sending: set[str]) -> Iterator[None]:
    """One file of a pod at a time: the places are for all.

    Raises:
        Refusal: it is sending one; or the end of that one's connection has not been seen yet.
    """
    if pod in sending:
        raise Refusal(429, "this pod is sending another file", retry_after=PAUSE_SECONDS, close=True)
    sending.add(pod)
    try:
        yield
    finally:
        sending.discard(pod)


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
        raise Refusal(400, invalid_fields(error), close=True) from None


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes. Only the time that its sender takes counts, not what becomes of it.

    Raises:
        Refusal: it stands still, is too slow on the whole, or breaks off.
    """
    clock = asyncio.get_running_loop().time
    patience = SILENCE_SECONDS
    while True:
        asked = clock()
        try:
            async with asyncio.timeout(min(patience, SILENCE_SECONDS)):
                chunk = await request.content.read(CHUNK_BYTES)
        except TimeoutError:
            least = f"less than {LEAST_PER_SECOND // 1024} KiB/s"
            raise Refusal(408, f"the body brought {least}, or nothing for {SILENCE_SECONDS:g} s", close=True) from None
        except ConnectionError:
            raise broken_off() from None
        if not chunk:
            return
        patience += len(chunk) / LEAST_PER_SECOND - (clock() - asked)
        yield chunk
