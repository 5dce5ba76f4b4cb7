"""Services that a run calls, as small real HTTP servers: subclasses of FakeService define the answers."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

Answer = tuple[int, dict[str, str], bytes]


class FakeService:
    """Base class: records every request in `asked`, with faults by method and path ("break", "cut", or a status).

    "break" gives no answer, "cut" half of one.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], Any] = lambda _method, _path: None
        self.address = ""

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        """The service's answer."""
        raise NotImplementedError


class Faulty(Protocol):
    """A service that records requests and injects faults."""

    asked: Any
    fault: Callable[[str, str], Any]


def take(handler: BaseHTTPRequestHandler, service: Faulty) -> tuple[Any, bytes] | None:
    """The fault of a request, and its body; None if the connection was broken in the middle of it."""
    service.asked.append((handler.command, handler.path))
    fault = service.fault(handler.command, handler.path)
    length = int(handler.headers.get("Content-Length", 0))
    if fault == "break":
        handler.rfile.read(length // 2)
        handler.close_connection = True
        handler.connection.close()
        return None
    return fault, handler.rfile.read(length)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: FakeService

    def _serve(self) -> None:
        if (taken := take(self, self.service)) is None:
            return
        fault, body = taken
        refused = fault if isinstance(fault, int) else None
        status, headers, said = (
            (refused, {}, b"") if refused else self.service.answer(self.command, self.path, self.headers, body)
        )
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "0" if self.command == "HEAD" else str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said[: len(said) // 2] if fault == "cut" else said)
        self.close_connection = fault == "cut"

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = _serve  # noqa: N815 - http.server's names

    def log_message(self, *_args: Any) -> None:
        """Requests are in `asked`."""


@contextmanager
def serving(service: FakeService) -> Iterator[Any]:
    """The service on a port of this machine."""
    handler = type("Handler", (_Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    service.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield service
    server.shutdown()
    server.server_close()
