"""A bucket of Google Cloud Storage: the part of the JSON API that gcsfs uses, with OAuth by a service account's key."""

import base64
import hashlib
import itertools
import json
from typing import Any, ClassVar
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from finetune_trainer.storage import store_clients
from tests.unit.finetune_trainer.storage.object_server import BUCKET, PAGE, Answer, MemoryBucket, Request, fault_status
from tests.unit.finetune_trainer.storage.s3_store import Fault

ACCOUNT = "trainer@project.iam.gserviceaccount.com"
_AUDIENCE = "https://oauth2.googleapis.com/token"  # whatever the address of the token service
_TOKEN = "ya29.test"
_OBJECTS = f"/storage/v1/b/{BUCKET}/o"
_SESSION = "/upload/resumable-session/"


class GoogleBucket(MemoryBucket):
    """A client that signs with the account's key gets a token, which gives access to the bucket."""

    root: ClassVar[str] = f"gs://{BUCKET}"

    def __init__(self) -> None:
        super().__init__()
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        self._public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._sessions: dict[str, tuple[str, bytes]] = {}
        self._numbers = itertools.count(1)

    @property
    def keys(self) -> dict[str, str]:  # type: ignore[override] - the address is known when it is served
        key = {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "1",
            "private_key": self._private,
            "client_email": ACCOUNT,
            "client_id": "1",
            "token_uri": f"{self.endpoint}/token",
        }
        return {"GOOGLE_APPLICATION_CREDENTIALS_JSON": json.dumps(key)}

    def meaning(self, request: Request) -> tuple[str, str] | None:
        if request.path == "/token":
            return None
        if request.path.startswith(_SESSION):
            name, _ = self._sessions.get(request.path, ("", b""))
            first = int(request.headers.get("Content-Range", "bytes 0-").split()[1].partition("-")[0])
            return "PUT", f"/{BUCKET}/{name}?partNumber={first // store_clients._PART + 1}"
        if request.path.startswith("/upload/"):
            return "PUT", f"/{BUCKET}/{request.query.get('name') or _multipart(request.body)[0]}"
        name = request.path.partition("/o/")[2]
        return request.method, f"/{BUCKET}/{name or '?prefix=' + request.query.get('prefix', '')}"

    def refused(self, fault: Fault) -> Answer:
        return _error(fault_status(fault), f"{ACCOUNT} may not do this")

    def answer(self, request: Request) -> Answer:
        if request.path == "/token":
            return self._token(request)
        if request.headers.get("Authorization") != f"Bearer {_TOKEN}":
            return _error(401, "Invalid Credentials")
        if request.path.startswith(_SESSION):
            return self._part(request)
        if f"/b/{BUCKET}/o" not in request.path:
            return _error(404, "The specified bucket does not exist.")
        if request.path.startswith("/upload/"):
            return self._upload(request)
        name = request.path.partition("/o/")[2]
        if not name:
            return self._list(request.query)
        if name not in self.objects:
            return _error(404, f"No such object: {BUCKET}/{name}")
        if request.method == "DELETE":
            del self.objects[name]
            return Answer(204)
        return self._content(name, request) if request.query.get("alt") == "media" else _json(self._about(name))

    def _token(self, request: Request) -> Answer:
        assertion = parse_qs(request.body.decode())["assertion"][0]
        jwt.decode(assertion, certs=self._public, audience=_AUDIENCE)  # type: ignore[no-untyped-call]
        return _json({"access_token": _TOKEN, "expires_in": 3600, "token_type": "Bearer"})

    def _upload(self, request: Request) -> Answer:
        resumable = request.query["uploadType"] == "resumable"
        name, content = (request.query["name"], b"") if resumable else _multipart(request.body)
        if request.query.get("ifGenerationMatch") == "0" and name in self.objects:
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        if resumable:
            session = f"{_SESSION}{next(self._numbers)}"
            self._sessions[session] = (name, b"")
            return Answer(200, headers=(("Location", self.endpoint + session),))
        return self._stored(name, content)

    def _part(self, request: Request) -> Answer:
        if request.method == "DELETE":
            self._sessions.pop(request.path, None)
            return Answer(499)
        name, so_far = self._sessions[request.path]
        which, _, total = request.headers["Content-Range"].removeprefix("bytes ").partition("/")
        if int(which.partition("-")[0]) != len(so_far):
            return _error(503, "Not the next part.")
        so_far += request.body
        if len(so_far) == int(total):
            del self._sessions[request.path]
            return self._stored(name, so_far)
        self._sessions[request.path] = (name, so_far)
        return Answer(308, headers=(("Range", f"bytes=0-{len(so_far) - 1}"),))

    def _stored(self, name: str, content: bytes) -> Answer:
        self.objects[name] = content
        return _json(self._about(name))

    def _list(self, query: dict[str, str]) -> Answer:
        found = sorted(name for name in self.objects if name.startswith(query.get("prefix", "")))
        first = int(query.get("pageToken", 0))
        last = first + min(int(query.get("maxResults", PAGE)), PAGE)
        more = {"nextPageToken": str(last)} if last < len(found) else {}
        return _json({"kind": "storage#objects", "items": [self._about(name) for name in found[first:last]], **more})

    def _content(self, name: str, request: Request) -> Answer:
        content = self.objects[name]
        wanted = request.range(len(content))
        return Answer(200, content) if wanted is None else Answer(206, content[wanted])

    def _about(self, name: str) -> dict[str, Any]:
        content = self.objects[name]
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": BUCKET,
            "size": str(len(content)),
            "md5Hash": base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode(),
            "generation": "1",
            "updated": "2026-11-26T00:00:00.000Z",
            "timeCreated": "2026-11-26T00:00:00.000Z",
        }


def _multipart(body: bytes) -> tuple[str, bytes]:
    """Name and content in a multipart/related body of gcsfs."""
    _, about, content = body.split(b"\n\n", 2)
    end = b"\n--==0==--"
    assert content.endswith(end)
    return json.loads(about.partition(b"\n--==0==")[0])["name"], content.removesuffix(end)


def _json(body: Any) -> Answer:
    return Answer(200, json.dumps(body).encode(), (("Content-Type", "application/json"),))


def _error(status: int, message: str) -> Answer:
    return Answer(status, json.dumps({"error": {"code": status, "message": message}}).encode())
