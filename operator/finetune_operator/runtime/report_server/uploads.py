"""Files that pods send for providers outside of the cluster: received and passed on as a stream.

    PUT /v1/uploads?…, bearer token ─▶ leader? ─▶ length, target ─▶ token review ─▶ authorise ─▶ accept(target, …)
                                        503        411/413/400        401          403, 429       200, 424, 503

Nothing is stored: memory holds one chunk at a time. `accept` decides what happens to the file.
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
"""A body without data for this long is aborted."""

MIN_BYTES_PER_SECOND = 256 * 1024
"""Minimum rate of a body beyond that time, in bytes per second: others wait for its place."""

PAUSE_SECONDS = 10

CHUNK_BYTES = 256 * 1024

AcceptUpload = Callable[[UploadTarget, int, AsyncIterator[bytes]], Awaitable[ProviderFile]]


def handler(identify: Identify, authorise: Authorise, accept: AcceptUpload) -> Handler:
    """A handler for one upload; `accept` gets target, size in bytes and body. Both raise Refusal."""
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
    """Allow one file per pod at a time, as places are shared by all.

    Raises:
        Refusal: the pod is sending one, or the end of its last connection has not been noticed yet.
    """
    if pod in sending:
        raise Refusal(429, "this pod is sending another file", retry_after=PAUSE_SECONDS, close=True)
    sending.add(pod)
    try:
        yield
    finally:
        sending.discard(pod)


def _size(request: web.Request) -> int:
    """The Content-Length: providers need it before the body."""
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
    """The body as it arrives. Only the time spent waiting for the sender counts, not that of the receiver.

    Raises:
        Refusal: it stalls, is too slow on average, or is incomplete.
    """
    clock = asyncio.get_running_loop().time
    patience = SILENCE_SECONDS
    while True:
        asked = clock()
        try:
            async with asyncio.timeout(min(patience, SILENCE_SECONDS)):
                chunk = await request.content.read(CHUNK_BYTES)
        except TimeoutError:
            least = f"less than {MIN_BYTES_PER_SECOND // 1024} KiB/s"
            raise Refusal(408, f"the body brought {least}, or nothing for {SILENCE_SECONDS:g} s", close=True) from None
        except ConnectionError:
            raise broken_off() from None
        if not chunk:
            return
        patience += len(chunk) / MIN_BYTES_PER_SECOND - (clock() - asked)
        yield chunk
