"""Shared by the simulated object stores: a bucket in memory behind real HTTP, with faults.

Requests are recorded in S3's form, so that one test works for all stores: `("PUT", "/models/NAME?partNumber=2")`.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

from finetune_api.trainer import StoreRef
from tests.unit.finetune_trainer.storage.s3_store import BUCKET, STATUS, Fault

PAGE = 3
"""Objects per page of a list: stores may return fewer than requested."""


@dataclass(frozen=True)
class Request:
    """A client's request."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    def range(self, size: int) -> slice | None:
        """The requested bytes of an object of this size."""
        asked = self.headers.get("x-ms-range") or self.headers.get("Range")
        if not asked:
            return None
        first, _, last = asked.removeprefix("bytes=").partition("-")
        return slice(int(first), min(int(last) + 1, size) if last else size)


@dataclass(frozen=True)
class Answer:
    """The store's answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class MemoryBucket:
    """The bucket for tests, without HTTP, and the HTTP faults."""

    root: ClassVar[str]
    """The bucket's URI."""
    keys: dict[str, str]
    """The keys of its Secret."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fault: Callable[[str, str], Fault | None] = lambda _method, _path: None
        self.asked: list[tuple[str, str]] = []
        self.endpoint = ""
        self.lock = threading.Lock()

    def ref(self, path: str) -> StoreRef:
        """A folder of the bucket."""
        return StoreRef(uri=f"{self.root}/{path}", endpoint=self.endpoint)

    def names(self, below: str) -> list[str]:
        """Names of all objects below a folder, relative to it."""
        return sorted(name[len(below) + 1 :] for name in self.objects if name.startswith(f"{below}/"))

    def read(self, name: str) -> bytes:
        """An object's content."""
        return self.objects[name]

    def write(self, name: str, content: bytes) -> None:
        """Replace an object."""
        self.objects[name] = content

    def delete(self, name: str) -> None:
        """Delete an object."""
        del self.objects[name]

    def unfinished_uploads(self) -> int:
        """Number of incomplete uploads to clean up: none, as these stores remove them after a week."""
        return 0

    def meaning(self, request: Request) -> tuple[str, str] | None:
        """The request in S3's form; None if it is not about the bucket."""
        raise NotImplementedError

    def refused(self, fault: Fault) -> Answer:
        """The store's error for a fault."""
        raise NotImplementedError

    def answer(self, request: Request) -> Answer:
        """The store's answer."""
        raise NotImplementedError


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: ClassVar[MemoryBucket]

    def _serve(self) -> None:
        split = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        request = Request(self.command, unquote(split.path), query, self.headers, body)
        with self.bucket.lock:
            meaning = self.bucket.meaning(request)
            if meaning is not None:
                self.bucket.asked.append(meaning)
        fault = self.bucket.fault(*meaning) if meaning else None
        if fault == "break":
            return self._hang_up()
        with self.bucket.lock:
            said = self.bucket.refused(fault) if fault in STATUS else self.bucket.answer(request)
        return self._hang_up() if fault == "lost" else self._say(said)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _say(self, said: Answer) -> None:
        self.send_response(said.status)
        for name, value in said.headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in said.headers):
            self.send_header("Content-Length", str(len(said.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

    def log_message(self, *_args: Any) -> None:
        """Requests are in `asked`."""


@contextmanager
def served(bucket: MemoryBucket) -> Iterator[None]:
    """Serve the bucket on a local port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"bucket": bucket}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    bucket.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    yield
    server.shutdown()
    server.server_close()


def fault_status(fault: Fault) -> int:
    """The HTTP status of a fault."""
    return STATUS[fault]


__all__ = ["BUCKET", "PAGE", "Answer", "MemoryBucket", "Request", "fault_status", "served"]
