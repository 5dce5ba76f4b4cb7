"""Uploads over real TLS with a real client: who may send, how much, and that nothing is held."""

import asyncio
import hashlib
from contextlib import asynccontextmanager

import aiohttp
import pytest

from finetune_api.job_status import ProviderFile
from finetune_api.names import UPLOAD_MAX_BYTES, UPLOAD_PATH
from finetune_operator.runtime.report_server import uploads
from finetune_operator.runtime.report_server.refusals import Refusal
from tests.unit.finetune_operator.runtime.report_server import POD, serving, token

TOKEN = token()
BODY = b"line\n" * 1000


def target(body=BODY, **changes):
    of = {"namespace": "team", "name": "job", "uid": "u1", "attempt": 1, "split": "train"}
    return {key: str(value) for key, value in (of | {"sha256": hashlib.sha256(body).hexdigest()} | changes).items()}


class World:
    def __init__(self):
        self.leads = True
        self.taken = []
        self.refusal = None
        self.hold = None
        self.upload_by = None
        self.inside = asyncio.Event()
        self.ended = asyncio.Event()

    async def review(self, asked, _audience):
        return POD if asked == TOKEN else None

    def authorise(self, identity, claim):
        return None if (identity.namespace, claim.uid) == (claim.namespace, "u1") else "not this pod's job"

    async def upload(self, of, size, body):
        if self.refusal:
            raise self.refusal
        if self.upload_by:
            return await self.upload_by(of, size, body)
        self.inside.set()
        if self.hold:
            await self.hold.wait()
        try:
            chunks = [chunk async for chunk in body]
        finally:
            self.ended.set()
        self.taken.append((of.split, size, b"".join(chunks), max(map(len, chunks), default=0)))
        return ProviderFile(split=of.split, id="file-1", bytes=size, sha256=of.sha256)

    async def send(self, body=BODY, query=None, bearer=TOKEN, headers=None):
        query = query or target(body if isinstance(body, bytes) else BODY)
        headers = {"Authorization": f"Bearer {bearer}"} | (headers or {})
        async with self.session.put(self.url, params=query, data=body, headers=headers, ssl=self.tls) as response:
            return response.status, response.headers, await response.json()


@asynccontextmanager
async def server(**settings):
    world = World()
    async with serving(world, UPLOAD_PATH, settings, accept=lambda _: None, upload=world.upload):
        yield world


async def test_a_file_is_passed_on_in_small_pieces():
    large = b"x" * (3 * uploads.CHUNK_BYTES)
    async with server() as world:
        status, _, answer = await world.send(large)
        assert (status, answer["id"], answer["bytes"]) == (200, "file-1", len(large))
        [(split, size, body, largest)] = world.taken
        assert (split, size, body == large) == ("train", len(large), True)
        assert largest <= uploads.CHUNK_BYTES


REFUSED = {
    "no token": ({"bearer": "x"}, 401),
    "another's job": ({"query": target(uid="u2")}, 403),
    "no such split": ({"query": target(split="tset")}, 400),
    "no checksum": ({"query": target(sha256="abc")}, 400),
    "a field too many": ({"query": target(more="x")}, 400),
    "another namespace": ({"query": target(namespace="other")}, 403),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_who_may_not_send_is_refused_before_the_body(name):
    how, expected = REFUSED[name]
    async with server() as world:
        status, _, answer = await world.send(**how)
        assert (status, bool(answer["error"])) == (expected, True)
        assert world.taken == []


async def test_a_body_says_how_long_it_is_and_that_is_not_too_long():
    async def chunked():
        yield BODY

    async with server() as world:
        status, _, _ = await world.send(chunked(), query=target())
        assert status == 411
        reader, writer = await asyncio.open_connection(
            "localhost", world.session and int(world.url.split(":")[2].split("/")[0]), ssl=world.tls
        )
        query = "&".join(f"{key}={value}" for key, value in target().items())
        writer.write(
            f"PUT {UPLOAD_PATH}?{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Length: {UPLOAD_MAX_BYTES + 1}\r\n\r\n".encode()
        )
        assert b" 413 " in await reader.readline()
        writer.close()
        assert world.taken == []


async def test_only_the_leader_takes_files():
    async with server() as world:
        world.leads = False
        status, headers, _ = await world.send()
        assert (status, headers["Retry-After"]) == (503, "2")


async def test_no_more_uploads_than_may_be_are_worked_on_at_once():
    async with server(upload_concurrency=1) as world:
        world.hold = asyncio.Event()
        first = asyncio.create_task(world.send())
        await world.inside.wait()
        assert (await world.send())[0] == 503
        world.hold.set()
        assert (await first)[0] == 200


async def test_who_finds_no_place_comes_back_in_a_row():
    async with server(upload_concurrency=1) as world:
        world.hold = asyncio.Event()
        first = asyncio.create_task(world.send())
        await world.inside.wait()
        sent_away = [await world.send() for _ in range(4)]
        world.hold.set()
        await first
    assert [(status, headers["Retry-After"]) for status, headers, _ in sent_away] == [
        (503, "2"),
        (503, "2"),
        (503, "4"),
        (503, "6"),
    ]


async def test_what_the_provider_says_reaches_the_pod():
    async with server() as world:
        world.refusal = Refusal(424, "the provider refuses the file", close=True)
        status, _, answer = await world.send()
        assert (status, answer["error"]) == (424, "the provider refuses the file")


async def test_a_body_that_stands_still_is_given_up(monkeypatch):
    monkeypatch.setattr(uploads, "SILENCE_SECONDS", 0.05)

    async def slow():
        yield BODY[:10]
        await asyncio.sleep(30)

    async with server() as world:
        status, _, _ = await world.send(slow(), query=target(), headers={"Content-Length": str(len(BODY))})
        assert status == 408


async def test_a_body_that_trickles_is_given_up_though_it_never_stands_still(monkeypatch):
    monkeypatch.setattr(uploads, "SILENCE_SECONDS", 0.3)

    async def trickling():
        for byte in BODY:
            yield bytes([byte])
            await asyncio.sleep(0.02)

    async with server() as world, asyncio.timeout(20):
        status, _, _ = await world.send(trickling(), query=target(), headers={"Content-Length": str(len(BODY))})
        assert status == 408


async def test_the_time_that_a_provider_takes_is_not_its_senders(monkeypatch):
    monkeypatch.setattr(uploads, "SILENCE_SECONDS", 1.0)
    large = b"x" * (40 * uploads.CHUNK_BYTES)
    async with server() as world:

        async def slow(of, size, body):
            async for _ in body:
                await asyncio.sleep(0.05)
            return ProviderFile(split=of.split, id="file-1", bytes=size, sha256=of.sha256)

        world.upload_by = slow
        assert (await world.send(large))[0] == 200


async def test_a_pod_sends_one_file_at_a_time():
    async with server() as world:
        world.hold = asyncio.Event()
        first = asyncio.create_task(world.send())
        await world.inside.wait()
        status, headers, _ = await world.send()
        assert (status, headers["Retry-After"]) == (429, "10")
        world.hold.set()
        assert (await first)[0] == 200
        assert (await world.send())[0] == 200


async def test_a_pod_that_is_gone_in_the_middle_of_its_file_is_no_error_of_ours(caplog):
    async def broken():
        yield BODY[:10]
        await world.inside.wait()
        raise RuntimeError("the pod is gone")

    async with server() as world:
        with pytest.raises((RuntimeError, aiohttp.ClientError)):
            await world.send(broken(), query=target(), headers={"Content-Length": str(len(BODY))})
        await world.ended.wait()
    assert world.taken == []
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
