"""The client: applies N objects as fast as the API server accepts them, and watches what happens to them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

from finetune_api.manifest import Manifest

WORKERS = 16
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass
class Times:
    """Times of each object by name, in seconds of the monotonic clock."""

    sent: dict[str, float] = field(default_factory=dict)
    job_created: dict[str, float] = field(default_factory=dict)
    complete: dict[str, float] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def until(self, moments: Mapping[str, float]) -> list[float]:
        """Seconds from an object's POST to another time."""
        return [at - self.sent[name] for name, at in moments.items() if name in self.sent]


class Api:
    """The API server, as administrator, by plain HTTP: a client library would cost more than what is measured."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session, self._server = session, server

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: Path) -> AsyncIterator[Api]:
        """Connect with the kubeconfig's token."""
        config = yaml.safe_load(await asyncio.to_thread(kubeconfig.read_text))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # a throw-away cluster on this machine
        connector = aiohttp.TCPConnector(ssl=context, limit=WORKERS + 8)
        headers = {"Authorization": f"Bearer {user['token']}"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            yield cls(session, cluster["server"])

    async def create(self, path: str, body: Manifest) -> Manifest:
        """POST one object.

        Raises:
            RuntimeError: the server refused it.
        """
        async with self._session.post(self._server + path, data=orjson.dumps(body), headers=_JSON) as answer:
            return await _object(answer, HTTPStatus.CREATED)

    async def merge(self, path: str, body: Manifest) -> Manifest:
        """Merge-patch one object.

        Raises:
            RuntimeError: the server refused it.
        """
        async with self._session.patch(self._server + path, data=orjson.dumps(body), headers=_MERGE) as answer:
            return await _object(answer, HTTPStatus.OK)

    async def watch(self, path: str, accept: str = "application/json") -> AsyncIterator[tuple[str, Manifest]]:
        """Events from now on, without end. A watch that ends is resumed at its last version, as informers do.

        The API server ends watches whose reader is too slow; starting again with all objects would take longer each
        time. If the version has expired, or there was no event yet, it starts again from now.
        """
        version, headers = "0", {"Accept": accept}
        while True:
            parameters = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "3600"}
            async with self._session.get(self._server + path, params=parameters, headers=headers) as answer:
                if answer.status == HTTPStatus.GONE:
                    version = "0"
                    continue
                if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                    await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
                    continue
                answer.raise_for_status()
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = orjson.loads(line)
                        gone = event["type"] == "ERROR"
                        version = "0" if gone else event["object"]["metadata"]["resourceVersion"]
                        yield event["type"], event["object"]


_JSON = {"Content-Type": "application/json"}
_MERGE = {"Content-Type": "application/merge-patch+json"}


async def _object(answer: aiohttp.ClientResponse, wanted: HTTPStatus) -> Manifest:
    body = await answer.read()
    if answer.status != wanted:
        raise RuntimeError(f"{answer.status}: {body[:500].decode(errors='replace')}")
    found: Manifest = orjson.loads(body)
    return found


async def in_turns(items: Iterable[Any], do: Callable[[Any], Awaitable[Any]]) -> list[Any]:
    """Results of `do` for each item, unordered, with as many at once as the client has workers."""
    waiting, done = deque(items), []

    async def work() -> None:
        while waiting:
            done.append(await do(waiting.popleft()))

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return done


async def play(
    kubeconfig: Path,
    manifests: Iterable[Manifest],
    *,
    path: str,
    jobs_path: str,
    owner_of: Callable[[Manifest], str | None],
    check: Callable[[], None],
    seconds: float,
) -> Times:
    """Apply all manifests at once; returns when each is Complete or Failed.

    Args:
        kubeconfig: of the administrator.
        manifests: objects of one kind.
        path: where they are created and watched.
        jobs_path: where batch Jobs are watched.
        owner_of: returns the name of the object that a batch Job belongs to.
        check: called periodically; raises if waiting is pointless.
        seconds: time limit from the first POST.

    Raises:
        TimeoutError: they did not all end.
    """
    times, waiting = Times(), list(manifests)
    async with Api.connect(kubeconfig) as api, _within(seconds, times):
        wanted = len(waiting)
        watching = [
            asyncio.create_task(_see_ends(api, path, times)),
            asyncio.create_task(_see_jobs(api, jobs_path, times, owner_of)),
        ]
        try:
            await asyncio.gather(*(_submit(api, path, waiting, times) for _ in range(WORKERS)))
            while len(times.complete) + len(times.failed) < wanted or len(times.job_created) < wanted:
                await asyncio.wait(watching, timeout=0.05)
                check()
                _raise_what_ended(watching)
        finally:
            for task in watching:
                task.cancel()
    return times


def _raise_what_ended(watching: Iterable[asyncio.Task[None]]) -> None:
    """A watch only ends with an error."""
    for task in watching:
        if task.done():
            task.result()


@asynccontextmanager
async def _within(seconds: float, times: Times) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        seen = f"{len(times.sent)} sent, {len(times.job_created)} have a Job, {len(times.complete)} are Complete"
        error.add_note(f"after {seconds:g} s: {seen}, {len(times.failed)} Failed")
        raise


async def _submit(api: Api, path: str, waiting: list[Manifest], times: Times) -> None:
    while waiting:
        manifest = waiting.pop()
        times.sent[manifest["metadata"]["name"]] = time.monotonic()
        await api.create(path, manifest)


async def _see_ends(api: Api, path: str, times: Times) -> None:
    async for kind, obj in api.watch(path):
        if kind not in {"ADDED", "MODIFIED"}:
            continue
        now, name = time.monotonic(), obj["metadata"]["name"]
        for condition in (obj.get("status") or {}).get("conditions") or ():
            if condition["type"] == "Complete" and condition["status"] == "True":
                times.complete.setdefault(name, now)
            elif condition["type"] == "Failed" and condition["status"] == "True":
                times.failed.add(name)


async def _see_jobs(api: Api, path: str, times: Times, owner_of: Callable[[Manifest], str | None]) -> None:
    async for kind, obj in api.watch(path, METADATA_ONLY):
        owner = owner_of(obj) if kind == "ADDED" else None
        if owner is not None:
            times.job_created.setdefault(owner, time.monotonic())
