"""A container of Azure Blob Storage: the part of the REST API that adlfs uses, with Azurite's answers."""

import base64
import hashlib
from typing import ClassVar
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from tests.unit.finetune_trainer.storage.object_server import BUCKET, PAGE, Answer, MemoryBucket, Request, fault_status
from tests.unit.finetune_trainer.storage.s3_store import Fault

ACCOUNT = "modelstore"
SIGNATURE = "c2lnbmF0dXJl"
_DATE = "Thu, 26 Nov 2026 00:00:00 GMT"


class AzureBucket(MemoryBucket):
    """Accepts requests that are signed with the account's key, or have a SAS token's signature."""

    root: ClassVar[str] = f"abfs://{BUCKET}@{ACCOUNT}.dfs.core.windows.net"

    def __init__(self) -> None:
        super().__init__()
        self.keys = {"AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(b"key").decode()}
        self.signed_by: str | None = None
        self._blocks: dict[str, dict[str, bytes]] = {}
        self._numbers: dict[str, int] = {}

    def meaning(self, request: Request) -> tuple[str, str]:
        name = request.path.removeprefix(f"/{BUCKET}").removeprefix("/")
        part = ""
        if request.query.get("comp") == "block":
            number = self._numbers.setdefault(request.query["blockid"], len(self._numbers) + 1)
            part = f"?partNumber={number}"
        return request.method, f"/{BUCKET}/{name or '?prefix=' + request.query.get('prefix', '')}{part}"

    def refused(self, fault: Fault) -> Answer:
        return _error(fault_status(fault), "AuthorizationFailure" if fault == "denied" else "ServerBusy")

    def answer(self, request: Request) -> Answer:
        self.signed_by = _signed_by(request)
        if self.signed_by is None:
            return _error(403, "AuthenticationFailed")
        container, _, name = request.path.removeprefix("/").partition("/")
        if container != BUCKET:
            return _error(404, "ContainerNotFound")
        if not name:
            return self._list(request.query)
        if request.method == "PUT":
            return self._put(name, request)
        if name not in self.objects:
            return _error(404, "BlobNotFound")
        if request.method == "DELETE":
            del self.objects[name]
            return Answer(202)
        return self._content(name, request)

    def _put(self, name: str, request: Request) -> Answer:
        said = request.headers.get("Content-MD5")
        if said is not None and said != _md5(request.body):
            return _error(400, "Md5Mismatch")
        if request.headers.get("If-None-Match") == "*" and name in self.objects:
            return _error(409, "BlobAlreadyExists")
        match request.query.get("comp"):
            case "block":
                self._blocks.setdefault(name, {})[request.query["blockid"]] = request.body
            case "blocklist":
                listed = [str(one.text) for one in ET.fromstring(request.body)]
                blocks = self._blocks.pop(name)
                self.objects[name] = b"".join(blocks[one] for one in listed)
            case _:
                self.objects[name] = request.body
        return Answer(201, headers=(("ETag", '"1"'), ("Last-Modified", _DATE)))

    def _list(self, query: dict[str, str]) -> Answer:
        found = sorted(name for name in self.objects if name.startswith(query.get("prefix", "")))
        first = int(query.get("marker", 0))
        last = first + PAGE
        blobs = "".join(self._listed(name) for name in found[first:last])
        more = str(last) if last < len(found) else ""
        text = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{BUCKET}"><Blobs>{blobs}</Blobs>'
            f"<NextMarker>{more}</NextMarker></EnumerationResults>"
        )
        return Answer(200, text.encode(), (("Content-Type", "application/xml"),))

    def _listed(self, name: str) -> str:
        return (
            f"<Blob><Name>{escape(name)}</Name><Properties><Creation-Time>{_DATE}</Creation-Time>"
            f"<Last-Modified>{_DATE}</Last-Modified><Etag>1</Etag><BlobType>BlockBlob</BlobType>"
            f"<Content-Length>{len(self.objects[name])}</Content-Length></Properties><Metadata/></Blob>"
        )

    def _content(self, name: str, request: Request) -> Answer:
        content = self.objects[name]
        about = (("ETag", '"1"'), ("Last-Modified", _DATE), ("x-ms-blob-type", "BlockBlob"))
        wanted = request.range(len(content))
        if request.method == "HEAD" or wanted is None:
            return Answer(200, content, about)
        if wanted.start >= len(content):
            return _error(416, "InvalidRange")
        span = f"bytes {wanted.start}-{wanted.stop - 1}/{len(content)}"
        return Answer(206, content[wanted], (*about, ("Content-Range", span)))


def _signed_by(request: Request) -> str | None:
    if request.headers.get("Authorization", "").startswith(f"SharedKey {ACCOUNT}:"):
        return "key"
    return "sas" if request.query.get("sig") == SIGNATURE else None


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _error(status: int, code: str) -> Answer:
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>No.</Message></Error>'
    return Answer(status, text.encode(), (("x-ms-error-code", code), ("Content-Type", "application/xml")))
