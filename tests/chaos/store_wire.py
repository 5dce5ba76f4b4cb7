"""A proxy between one operator and an S3 bucket, which names requests by S3's operations."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from tests.chaos.wire import HangUp

LARGEST_BODY = 32 * 1024 * 1024

_HOP_BY_HOP = {"connection", "transfer-encoding", "expect", "date", "server"}


class Stored(NamedTuple):
    """An answer."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


Meddle = Callable[[str, Callable[[], Awaitable[Stored]]], Awaitable[Stored]]


def operation(request: web.Request) -> str:
    """The operation, if it changes something; "" if it only reads."""
    asked = request.query
    match request.method:
        case "PUT":
            return "UploadPart" if "partNumber" in asked else "PutObject"
        case "DELETE":
            return "AbortMultipartUpload" if "uploadId" in asked else "DeleteObject"
        case "POST" if "delete" in asked:
            return "DeleteObjects"
        case "POST":
            return "CreateMultipartUpload" if "uploads" in asked else "CompleteMultipartUpload"
    return ""


@asynccontextmanager
async def open_store_wire(store: str, meddle: Meddle) -> AsyncIterator[str]:
    """A proxy to the S3 at `store`; yields its address. Each call that changes something passes `meddle`."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:

        async def forward(request: web.Request) -> Stored:
            body, headers = await request.read(), _kept(request.headers)
            async with session.request(request.method, store + request.raw_path, data=body, headers=headers) as answer:
                return Stored(answer.status, _kept(answer.headers), await answer.read())

        async def handle(request: web.Request) -> web.Response:
            await request.read()
            named = operation(request)
            try:
                answer = await (meddle(named, lambda: forward(request)) if named else forward(request))
            except HangUp:
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


def _kept(headers: "CIMultiDict[str]") -> "CIMultiDict[str]":
    return CIMultiDict((key, value) for key, value in headers.items() if key.lower() not in _HOP_BY_HOP)
