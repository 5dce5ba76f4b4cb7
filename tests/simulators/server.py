"""Serves a simulator over HTTP from its own thread, with faults before and after calls, and a control API for tests."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from email.utils import formatdate
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from pydantic import ValidationError

from tests.simulators.certificates import Tls
from tests.simulators.faults import Fault
from tests.simulators.http import ApiError, Call, Cut, Reply, Route
from tests.simulators.shapes import DriftError
from tests.simulators.simulator import Recorded, Simulator

CONTROL = "/_simulator"
LARGEST_BODY = 2 * 1024**3
PIECE = 64 * 1024


@dataclass
class Front:
    """Passes a request through the simulator."""

    simulator: Simulator
    route: Route

    async def handle(self, request: web.Request) -> web.StreamResponse:
        recorded, fault = self._admit()
        if fault is not None and not fault.after_commit and fault.outcome != "torn":
            if fault.midway:
                await request.content.readany()
            if fault.outcome != "delay":
                return await self._fail(request, recorded, fault)
            await asyncio.sleep(fault.delay_seconds)
        body = await self.route.receive(request)
        call = _call(self.route, request, body)
        try:
            reply = await self.simulator.meddle(call.operation, lambda: self._carry_out(call, recorded))
        except Cut:
            return _cut(request)
        if fault is not None and fault.after_commit and fault.outcome != "torn":
            if fault.outcome != "delay":
                return await self._fail(request, recorded, fault)
            await asyncio.sleep(fault.delay_seconds)
        recorded.seen = str(reply.status)
        if fault is not None and fault.outcome == "torn" and isinstance(reply.body, bytes):
            reply.body = reply.body[: len(reply.body) // 2]
        return await _send(request, reply, self.simulator)

    def _admit(self) -> tuple[Recorded, Fault | None]:
        with self.simulator.lock:
            self.simulator.clock.catch_up()
            recorded = Recorded(self.simulator.clock.now, self.route.operation)
            self.simulator.calls.append(recorded)
            return recorded, self.simulator.faults.take(self.route.operation)

    def _carry_out(self, call: Call, recorded: Recorded) -> Reply:
        with self.simulator.lock:
            self.simulator.clock.catch_up()
            try:
                self.simulator.authorize(call)
                reply = self.route.handler(call)
                reply.headers.update(self.simulator.headers())
            except ApiError as error:
                return self.simulator.error(error, call.operation)
            except DriftError as drift:
                self.simulator.defects.append(f"{call.operation}: {drift}")
                return Reply.json({"simulator": f"{call.operation} drifted from the SDK's model: {drift}"}, 501)
            except Exception as error:
                self.simulator.defects.append(f"{call.operation}: {error!r}")
                raise
            recorded.committed = True
            return reply

    async def _fail(self, request: web.Request, recorded: Recorded, fault: Fault) -> web.StreamResponse:
        recorded.seen = fault.outcome if fault.outcome != "answer" else str(fault.status)
        await asyncio.sleep(fault.delay_seconds)
        if fault.outcome == "hang":
            await asyncio.Event().wait()
        if fault.outcome == "cut":
            return _cut(request)
        if fault.outcome == "page":
            page = "<html><body>Please sign in</body></html>"
            return web.Response(text=page, content_type="text/html", status=fault.page_status)
        if fault.outcome == "empty":
            return web.json_response({})
        error = ApiError(fault.status, fault.code, fault.message)
        error.headers.update(fault.headers)
        async for _ in request.content.iter_chunked(PIECE):
            pass  # a client that is still sending would not see the answer
        return await _send(request, self.simulator.error(error, self.route.operation), self.simulator)


def _cut(request: web.Request) -> web.Response:
    """Close the connection; the returned response is not sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _call(route: Route, request: web.Request, body: Any) -> Call:
    url = f"{request.scheme}://{request.host}"
    return Call(
        route.operation, route.path, request.method, url, request.rel_url.raw_path_qs, request.match_info,
        request.query, request.headers, body,
    )  # fmt: skip


async def _send(request: web.Request, reply: Reply, simulator: Simulator) -> web.StreamResponse:
    dated = {"Date": formatdate(simulator.clock.now, usegmt=True)}
    headers = {"Content-Type": reply.content_type, **dated, **reply.headers}
    if isinstance(reply.body, bytes):
        return web.Response(status=reply.status, body=reply.body, headers=headers)
    if isinstance(reply.body, Path):
        return web.FileResponse(reply.body, status=reply.status, headers=headers, chunk_size=PIECE)
    response = web.StreamResponse(status=reply.status, headers=headers)
    await response.prepare(request)
    for piece in reply.body:
        await response.write(piece)
    await response.write_eof()
    return response


def _json(body: Any, status: int = 200) -> web.Response:
    text = orjson.dumps(body, default=lambda value: str(value) if isinstance(value, Decimal) else repr(value))
    return web.Response(body=text, status=status, content_type="application/json")


@dataclass
class Control:
    """The control API for tests in another process: GET the state, POST to clock, faults and settings."""

    simulator: Simulator

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{CONTROL}/state", self._state),
            web.post(f"{CONTROL}/clock", self._clock),
            web.post(f"{CONTROL}/faults", self._fault),
            web.delete(f"{CONTROL}/faults", self._no_faults),
            web.post(f"{CONTROL}/settings", self._settings),
        ]

    async def _state(self, _: web.Request) -> web.Response:
        return _json(self.simulator.state())

    async def _clock(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        with self.simulator.lock:
            self.simulator.clock.advance(float(wanted.get("advance", 0)))
            if "rate" in wanted:
                self.simulator.clock.run(float(wanted["rate"]))
            return _json({"now": self.simulator.clock.now, "rate": self.simulator.clock.rate})

    async def _fault(self, request: web.Request) -> web.Response:
        return await self._try(request, self._planned)

    def _planned(self, wanted: Any) -> None:
        fault = Fault.model_validate(wanted)
        with self.simulator.lock:
            self.simulator.faults.plan(fault)

    async def _no_faults(self, _: web.Request) -> web.Response:
        with self.simulator.lock:
            self.simulator.faults.clear()
        return _json({})

    async def _settings(self, request: web.Request) -> web.Response:
        return await self._try(request, lambda wanted: self.simulator.set(**wanted))

    async def _try(self, request: web.Request, change: Any) -> web.Response:
        try:
            change(await request.json())
        except (ValidationError, ValueError) as error:
            return _json({"error": str(error)}, 400)
        return _json({})


def application(simulator: Simulator) -> web.Application:
    """The simulator as an aiohttp application."""
    app = web.Application(client_max_size=LARGEST_BODY)
    app.add_routes(Control(simulator).routes())
    for place, route in enumerate(simulator.routes()):
        app.router.add_route(route.method, route.path, _entrance(simulator, place, route))
    app.router.add_route("*", "/{path:.*}", Front(simulator, _nowhere(simulator)).handle)
    return app


def _entrance(simulator: Simulator, place: int, own: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        whose = simulator.of(request.headers.get("Authorization", ""))
        route = own if whose is simulator else whose.routes()[place]
        return await Front(whose, route.choose(request) if route.choose else route).handle(request)

    return handle


def _nowhere(simulator: Simulator) -> Route:
    def refuse(call: Call) -> Reply:
        return simulator.error(ApiError(404, None, f"Invalid URL ({call.method} /{call.path['path']})"), call.operation)

    return Route("*", "/", "unknown", refuse)


@asynccontextmanager
async def _listening(simulator: Simulator, host: str, port: int, tls: Tls | None) -> AsyncIterator[int]:
    runner = web.AppRunner(application(simulator), shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls.context() if tls else None).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def run_for_ever(simulator: Simulator, host: str, port: int, tls: Tls | None = None) -> None:
    """Serve in this process until it ends; the first line on stdout is the address."""
    async with _listening(simulator, host, port, tls) as bound:
        print(f"{_scheme(tls)}://{host}:{bound}", flush=True)
        await asyncio.Event().wait()


def _scheme(tls: Tls | None) -> str:
    return "https" if tls else "http"


@contextmanager
def serve(simulator: Simulator, host: str = "127.0.0.1", port: int = 0, tls: Tls | None = None) -> Iterator[str]:
    """Serve from a thread; yields the address, `http://host:port` or with TLS https."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    started: list[int] = []
    ready = threading.Event()

    async def life() -> None:
        async with _listening(simulator, host, port, tls) as bound:
            started.append(bound)
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(life())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run, name=type(simulator).__name__, daemon=True)
    thread.start()
    ready.wait()
    assert started, f"the simulator cannot listen on {host}:{port}"
    try:
        yield f"{_scheme(tls)}://{host}:{started[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        simulator.close()
