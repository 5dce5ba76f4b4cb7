"""An S3 server that refuses everything: the error code is in the body of a GET, and a HEAD has none."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

SECRET = "https://signed.example.com/?X-Amz-Signature=0a1b"


class _Refuses(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status: ClassVar[int]
    code: ClassVar[str]
    more: ClassVar[str]
    headers_too: ClassVar[dict[str, str]]
    asked: ClassVar[list[tuple[str, str]]]

    def _refuse(self) -> None:
        self.asked.append((self.command, self.headers.get("Authorization", "")))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{self.code}</Code><Message>{SECRET}</Message>'
            f"{self.more}<RequestId>1</RequestId></Error>"
        ).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/xml")
        for name, value in self.headers_too.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0" if self.command == "HEAD" else str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _refuse  # noqa: N815 - http.server's names

    def log_message(self, *_args: Any) -> None:
        """Requests are in `asked`."""


@contextmanager
def refusing(status: int, code: str, more: str = "", headers: dict[str, str] | None = None) -> Iterator[Any]:
    """The store on a port of this machine: its address, and the method and signature of each request."""
    asked: list[tuple[str, str]] = []
    said = {"status": status, "code": code, "more": more, "headers_too": headers or {}, "asked": asked}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Refuses", (_Refuses,), said))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()
