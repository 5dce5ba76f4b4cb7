"""A proxy between one operator and its API server, with which a test simulates network failures.

The operator's kubeconfig points to it. Every request passes `meddle`, which may forward, refuse or hold it, or kill the
operator before or after the API server has received it. Every watch passes `meddle_watch`, line by line. `freeze` makes
all current connections half-open: they stay, and nothing answers.
"""

import asyncio
import base64
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import yaml
from aiohttp import web

from finetune_api.manifest import Manifest
from tests.chaos.clocks import Clocks, Stamps

_VERBS = {"POST": "create", "DELETE": "delete", "PUT": "update"}
_PATCHES = {"application/apply-patch+yaml": "apply", "application/merge-patch+json": "patch"}
_HOP_BY_HOP = {"transfer-encoding", "content-length", "connection", "content-encoding", "audit-id", "date"}
READS = {"get", "list", "watch", "log", "dry_run"}


@dataclass(frozen=True)
class Call:
    """One request, in the terms of the operator's own metrics."""

    verb: str
    resource: str
    namespace: str
    name: str
    body: Manifest

    @property
    def writes(self) -> bool:
        """Whether it changes something in the cluster; a token review does not."""
        return self.verb not in READS and self.resource != "tokenreviews"

    @property
    def point(self) -> str:
        """The name of the fault point: verb, resource, and the written stage of the object's life."""
        return " ".join(part for part in (self.verb, self.resource, _of_life(self)) if part)


class Answer(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    headers: dict[str, str]


class HangUp(Exception):
    """Raised by a meddler to close the connection without an answer."""


Forward = Callable[[], Awaitable[Answer]]
Meddle = Callable[[Call, Forward], Awaitable[Answer]]
Lines = AsyncIterator[bytes]
MeddleWatch = Callable[[Call, Lines], Lines]


async def pass_on(_: Call, forward: Forward) -> Answer:
    """The meddler that does nothing."""
    return await forward()


def pass_lines_on(_: Call, lines: Lines) -> Lines:
    """The meddler of watches that does nothing."""
    return lines


def refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> Answer:
    """A Status object, as in the API server's errors."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status,
            "message": f"{reason} by the test", "metadata": {}}  # fmt: skip
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})


@dataclass
class Wire:
    """A proxy in front of one API server. Created by `open_wire`."""

    url: str
    namespace: str
    meddle: Meddle = pass_on
    meddle_watch: MeddleWatch = pass_lines_on
    seen: list[Call] = field(default_factory=list)
    """Every request that changes something, in the order of arrival."""
    created: Counter[str] = field(default_factory=Counter)
    """How often an object was created, by resource and name."""
    clocks: Clocks | None = None
    """Clocks for the answers' Date, instead of this machine's."""
    stamps: Stamps | None = None
    """Rewrites objects' times by the same clocks."""
    unanswered: int = 0
    """Number of pending requests, without watches."""
    _session: aiohttp.ClientSession | None = None
    _upstream: str = ""
    _connections: set[asyncio.Transport] = field(default_factory=set)
    _frozen: set[asyncio.Transport] = field(default_factory=set)

    async def is_watched(self) -> bool:
        """Whether the operator has more connections than pending requests, and so open watches."""
        return len(self._connections) > 3

    async def answers(self) -> bool:
        """Whether the API server answers, however long that takes."""
        assert self._session is not None
        try:
            async with self._session.get(self._upstream + "/readyz") as answer:
                return bool(await answer.read())
        except aiohttp.ClientError:
            return False

    def freeze(self) -> int:
        """Stop answering on all current connections; returns how many there are."""
        self._frozen |= self._connections
        return len(self._frozen)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._connections.add(transport)
        if transport in self._frozen:
            await asyncio.Event().wait()
        body = await request.read()
        call = _read(request, body)
        if call.writes:
            self.seen.append(call)
        if call.verb == "watch":
            return await self._watch(request, call)
        self.unanswered += 1
        try:
            answer = await self.meddle(call, lambda: self._forward_whole(request, call, body))
        except (HangUp, aiohttp.ClientError):
            transport.abort()
            return web.Response()
        finally:
            self.unanswered -= 1
        if transport in self._frozen:
            await asyncio.Event().wait()
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    def _is_own(self, obj: Manifest) -> bool:
        """Whether an object is not another operator's connection, as these are cluster-scoped.

        With its own control plane an operator would not see them. Nor would operators with different clocks share one:
        each would take the others' checks for overdue.
        """
        shared = set() if self.clocks else {"local"}
        return obj["metadata"].get("name") in {None, self.namespace} | shared

    def _own(self, call: Call, text: bytes) -> bytes:
        """A list without others' connections."""
        if call.resource != "llmconnections" or call.verb != "list":
            return text
        listed = json.loads(text)
        return json.dumps({**listed, "items": [one for one in listed.get("items") or () if self._is_own(one)]}).encode()

    def _stamped(self, call: Call, text: bytes) -> bytes:
        """Objects with times by these clocks."""
        if self.stamps is None or call.verb == "log" or not text.startswith(b"{"):
            return text
        read = json.loads(text)
        self.stamps.put_right(read)
        return json.dumps(read).encode()

    async def _own_lines(self, call: Call, lines: Lines) -> Lines:
        """A watch without others' connections."""
        async for line in lines:
            if call.resource != "llmconnections" or self._is_own({"metadata": {}, **json.loads(line)["object"]}):
                yield self._stamped(call, line).rstrip() + b"\n"

    def _dated(self) -> dict[str, str]:
        return {"Date": self.clocks.date()} if self.clocks else {}

    async def _forward_whole(self, request: web.Request, call: Call, body: bytes) -> Answer:
        """Forward a request completely, even if its sender is killed."""
        sent = asyncio.ensure_future(self._forward(request, call, body))
        sent.add_done_callback(lambda over: over.cancelled() or over.exception())  # the sender may be gone
        return await asyncio.shield(sent)

    async def _forward(self, request: web.Request, call: Call, body: bytes) -> Answer:
        assert self._session is not None
        url, headers = self._upstream + request.raw_path, _kept(request.headers)
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            text = await answer.read()
            if answer.status == 201:
                self.created[f"{call.resource}/{json.loads(text)['metadata'].get('name', '')}"] += 1
            return Answer(
                answer.status, self._stamped(call, self._own(call, text)), _kept(answer.headers) | self._dated()
            )

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        assert self._session is not None
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        try:
            url = self._upstream + request.raw_path
            async with self._session.get(url, headers=_kept(request.headers)) as answer:
                if answer.status != 200:
                    return web.Response(status=answer.status, body=await answer.read(), headers=_kept(answer.headers))
                response = web.StreamResponse(status=answer.status, headers=_kept(answer.headers) | self._dated())
                await response.prepare(request)
                async for line in self.meddle_watch(call, self._own_lines(call, _lines(answer.content))):
                    if transport in self._frozen:
                        await asyncio.Event().wait()
                    await response.write(line)
                await response.write_eof()
                return response
        except (HangUp, aiohttp.ClientError, ConnectionError):
            transport.abort()
            return web.Response()


def _redirected(kubeconfig: Path, url: str, own: Path) -> None:
    """Write `own`: the same credentials with another server address."""
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = url
    own.write_text(yaml.safe_dump(config))


def _cluster(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """The API server's address, and its TLS context."""
    cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    return cluster["server"], ssl.create_default_context(cadata=authority)


@asynccontextmanager
async def open_wire(kubeconfig: Path, own: Path, namespace: str, clocks: Clocks | None = None) -> AsyncIterator[Wire]:
    """A proxy to the cluster of `kubeconfig`; `own` is written as the kubeconfig that leads through it.

    The operator behind it only sees the connection with the namespace's name, and `local`, unless the proxy has
    `clocks`, by which answers are dated and objects stamped.
    """
    server, context = _cluster(kubeconfig)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=True) as session:
        stamps = Stamps(clocks) if clocks else None
        wire = Wire("", namespace, clocks=clocks, stamps=stamps, _session=session, _upstream=server)
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", wire.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            wire.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            _redirected(kubeconfig, wire.url, own)
            yield wire
        finally:
            await runner.cleanup()


def _read(request: web.Request, body: bytes) -> Call:
    """Parse a request: /api/v1/namespaces/NS/pods/NAME/SUBRESOURCE, or without some of these."""
    parts = [part for part in urlsplit(request.path).path.split("/") if part]
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = (*parts, "", "", "")[:3]
    if request.method == "GET":
        verb = "watch" if request.query.get("watch") in {"true", "1"} else "get" if name else "list"
        verb = "log" if subresource == "log" else verb
    elif request.method == "PATCH":
        verb = "patch_status" if subresource == "status" else _PATCHES.get(request.content_type, "patch")
    else:
        verb = "dry_run" if request.query.get("dryRun") else _VERBS[request.method]
    read = json.loads(body) if body and request.method != "GET" else {}
    value = next((row["value"] for row in read if row["path"] == "/status"), {}) if isinstance(read, list) else read
    name = name or (value.get("metadata") or {}).get("name", "")
    return Call(verb, resource, namespace, name, value)


def _of_life(call: Call) -> str:
    """The written stage of an object's life: the attempt of a Job, the phase of a status, the versions of a model."""
    labels = (call.body.get("metadata") or {}).get("labels") or {}
    if "finalizers" in (call.body.get("metadata") or {}):
        return "held" if call.body["metadata"]["finalizers"] else "released"
    if call.resource in {"jobs", "jobsets"}:
        return str(labels.get("finetune.dev/attempt") or ("prune" if "prune" in call.name else call.name[-1:]))
    if call.verb != "patch_status":
        return ""
    ready = next((c for c in call.body.get("conditions") or () if c["type"] == "Ready"), {})
    if call.resource != "finetunedmodels":
        return str(call.body.get("phase") or ready.get("reason"))
    state = "ready" if ready.get("status") == "True" else "active" if "activeVersion" in call.body else "registered"
    return " ".join([state, *(str(version["version"]) for version in call.body.get("versions") or ())])


async def _lines(stream: aiohttp.StreamReader) -> Lines:
    while line := await stream.readline():
        yield line


def _kept(headers: Any) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key.lower() not in _HOP_BY_HOP | {"host"}}
