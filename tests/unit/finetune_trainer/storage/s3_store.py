"""A real S3 over HTTP (moto's), behind a proxy that injects faults."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import boto3

from finetune_api.trainer import StoreRef
from tests.simulators.aws.moto import moto
from tests.unit.finetune_trainer.fake_service import take

BUCKET = "models"
KEYS = {"AWS_ACCESS_KEY_ID": "key\n", "AWS_SECRET_ACCESS_KEY": "secret\n", "AWS_REGION": "us-east-1"}
"""With line breaks, as in a Secret created from files."""

Fault = Literal["break", "busy", "denied", "lost"]
"""Aborted before it arrives, refused with a status, or answered lost after it was carried out."""

STATUS = {"busy": 503, "denied": 403}


class Bucket:
    """The bucket for tests, without the proxy, and the proxy's faults."""

    root: ClassVar[str] = f"s3://{BUCKET}"
    """The bucket's URI."""
    keys: ClassVar[dict[str, str]] = KEYS
    """The keys of its Secret."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        self._client: Any = boto3.client("s3", endpoint_url=endpoint, **keys)
        self._client.create_bucket(Bucket=BUCKET)
        self.fault: Callable[[str, str], Fault | None] = lambda _method, _path: None
        """The fault of a request by method and path."""
        self.asked: list[tuple[str, str]] = []
        self.endpoint = ""

    def ref(self, path: str) -> StoreRef:
        """A folder of the bucket, through the proxy."""
        return StoreRef(uri=f"{self.root}/{path}", endpoint=self.endpoint)

    def names(self, below: str) -> list[str]:
        """Names of all objects below a folder, relative to it."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{below}/")
        return sorted(entry["Key"][len(below) + 1 :] for page in pages for entry in page.get("Contents", ()))

    def read(self, name: str) -> bytes:
        """An object's content."""
        content: bytes = self._client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        """Replace an object."""
        self._client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def delete(self, name: str) -> None:
        """Delete an object."""
        self._client.delete_object(Bucket=BUCKET, Key=name)

    def unfinished_uploads(self) -> int:
        """Number of uploads in parts that were neither completed nor aborted."""
        return len(self._client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()))


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: ClassVar[Bucket]
    behind: ClassVar[str]

    def _pass(self) -> None:
        if (taken := take(self, self.bucket)) is None:
            return
        fault, body = taken
        if fault is not None:
            self._answer(STATUS[fault], [], b"")
            return
        behind = http.client.HTTPConnection(urlsplit(self.behind).netloc, timeout=30)
        behind.request(self.command, self.path, body, dict(self.headers.items()))
        response = behind.getresponse()
        self._answer(response.status, response.getheaders(), response.read())
        behind.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815 - http.server's names

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(body)))
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_args: Any) -> None:
        """Requests are in `asked`."""


@contextmanager
def serving() -> Iterator[Bucket]:
    """Serve an empty bucket behind a proxy."""
    with moto() as behind:
        bucket = Bucket(behind)
        handler = type("Proxy", (_Proxy,), {"bucket": bucket, "behind": behind})
        proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
        bucket.endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
        yield bucket
        proxy.shutdown()
