"""The benchmark's client is told of each change once, however often its watches are ended."""

import asyncio

import aiohttp
import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench.scale.load import Api


def event(kind: str, version: str) -> bytes:
    return orjson.dumps({"type": kind, "object": {"metadata": {"name": "a", "resourceVersion": version}}}) + b"\n"


GONE = orjson.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}}) + b"\n"


async def watched(*answers: bytes | int) -> tuple[list[str], list[str]]:
    """From which versions a watch was begun with these answers, and the types of the events that it gave."""
    asked, given = [], iter(answers)

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.query["resourceVersion"])
        found = next(given)
        return web.Response(status=found) if isinstance(found, int) else web.Response(body=found)

    app = web.Application()
    app.router.add_get("/jobs", answer)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        events = Api(session, str(server.make_url("")).rstrip("/")).watch("/jobs")
        wanted = sum(found.count(b"\n") for found in answers if isinstance(found, bytes))
        told = [(await anext(events))[0] for _ in range(wanted)]
    return asked, told


def test_a_watch_that_was_ended_goes_on_from_what_it_has_told() -> None:
    answers = (event("ADDED", "5") + event("MODIFIED", "7"), event("MODIFIED", "9"))
    assert asyncio.run(watched(*answers)) == (["0", "7"], ["ADDED", "MODIFIED", "MODIFIED"])


def test_what_the_server_knows_no_more_is_told_anew() -> None:
    asked, _ = asyncio.run(watched(event("ADDED", "5"), GONE, event("ADDED", "8"), 410, event("ADDED", "9")))
    assert asked == ["0", "5", "0", "8", "0"]
