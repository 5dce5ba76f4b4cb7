"""A small aiohttp server that slow and idle clients cannot block: connections are limited and have deadlines.

Routes come with the application. The base of the report server and of the probe server.
"""

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from finetune_operator.runtime import metrics

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SSLProtocol.max_size = 32 * 1024
"""asyncio keeps a buffer of this size for each open TLS connection. With its default of 256 KiB the maximum number of
connections would take all the memory that the chart allows; a TLS record has at most 16 KiB."""

_HANDSHAKE_SECONDS = 10.0
"""A TLS handshake that takes longer is aborted."""


class Listener:
    """Serves an application on one port until `stop`.

    Args:
        app: routes and handlers.
        host: address to listen on; "" for all.
        port: 0 picks a free one, see `port`.
        tls: for HTTPS; may be reloaded in place, new connections then get the new certificate.
        max_connections: further ones are closed at once.
        idle_seconds: a connection on which no whole request head arrives for this long is closed.
    """

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        max_connections: int,
        idle_seconds: float = 30.0,
    ) -> None:
        app.middlewares.append(self._watched)
        # Bodies are not decompressed: a small one could become a large one.
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=5.0, lingering_time=1.0, auto_decompress=False, handle_signals=False
        )
        self._address = (host or None, port)
        self._tls = tls
        self._max_connections = max_connections
        self._idle_seconds = idle_seconds
        self._server: asyncio.Server | None = None
        self._deadlines: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            raise RuntimeError("the listener has not been started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listens.

        Raises:
            OSError: the port is taken or not allowed.
        """
        await self._runner.setup()
        tls: dict[str, Any] = {}
        if self._tls is not None:
            tls = {"ssl": self._tls, "ssl_handshake_timeout": _HANDSHAKE_SECONDS, "ssl_shutdown_timeout": 5.0}
        host, port = self._address
        self._server = await asyncio.get_running_loop().create_server(self._protocol, host, port, backlog=512, **tls)

    async def stop(self) -> None:
        """Stops listening and lets running requests finish, for at most 5 s."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
        for deadline in self._deadlines.values():
            deadline.cancel()
        self._deadlines.clear()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def _protocol(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        if server is None or len(server.connections) >= self._max_connections:
            metrics.CONNECTIONS_CLOSED.labels("too-many").inc()
            return _Closed()
        protocol = server()
        self._await_request(protocol)
        return protocol

    def _await_request(self, protocol: web.RequestHandler) -> None:
        """Gives the client until the deadline to send a whole request head."""
        self._deadlines[protocol] = asyncio.get_running_loop().call_later(self._idle_seconds, self._expire, protocol)

    def _expire(self, protocol: web.RequestHandler) -> None:
        self._deadlines.pop(protocol, None)
        if protocol.transport is not None:
            metrics.CONNECTIONS_CLOSED.labels("idle").inc()
            protocol.force_close()

    @web.middleware
    async def _watched(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """No deadline while a request is handled (the handler has its own), and a new one after it."""
        deadline = self._deadlines.pop(request.protocol, None)
        if deadline is not None:
            deadline.cancel()
        try:
            return await handler(request)
        finally:
            if request.transport is not None and not request.transport.is_closing():
                self._await_request(request.protocol)


class _Closed(asyncio.Protocol):
    """Closes the connection without an answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        with suppress(OSError):
            transport.close()
