"""Targets of pushes: an OCI registry with a token service, and a hub."""

import base64
import hashlib
import json
import re
from typing import Any

from tests.unit.finetune_trainer.fake_service import Answer, FakeService

USER, PASSWORD, TOKEN = "robot", "push-secret", "hub-token"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


class FakeRegistry(FakeService):
    """The distribution API: pushes need a token, and the token service requires user and password."""

    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.scheme = "bearer"
        self._tokens: set[str] = set()

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        if path.startswith("/token"):
            return self._token(path, headers)
        allowed = self._allowed(method, headers)
        if allowed is not None:
            return allowed
        place, _, query = path.partition("?")
        if place.endswith("/blobs/uploads/"):
            return 202, {"Location": "/v2/team/model/blobs/uploads/1?state=x"}, b""
        if "/blobs/uploads/" in place and method == "PUT":
            return self._put_blob(query, body)
        if "/blobs/" in place:
            return (200 if place.rpartition("/")[2] in self.blobs else 404), {}, b""
        return self._manifest(method, place.rpartition("/")[2], body)

    def _token(self, path: str, headers: Any) -> Answer:
        if headers.get("Authorization") != f"Basic {BASIC}":
            return 401, {}, b""
        token = f"{len(self._tokens)}-{'push' if 'push' in path else 'pull'}"
        self._tokens.add(token)
        return 200, {}, json.dumps({"token": token}).encode()

    def forget_tokens(self) -> None:
        """Let all tokens expire."""
        self._tokens.clear()

    def _allowed(self, method: str, headers: Any) -> Answer | None:
        given = headers.get("Authorization", "")
        if self.scheme == "basic":
            realm = {"WWW-Authenticate": 'Basic realm="here"'}
            return None if given == f"Basic {BASIC}" else (401, realm, b"")
        right = "pull" if method in ("GET", "HEAD") else "push"
        token = given.removeprefix("Bearer ")
        if token in self._tokens and (right == "pull" or token.endswith("push")):
            return None
        scope = f'scope="repository:team/model:pull{",push" if right == "push" else ""}"'
        return 401, {"WWW-Authenticate": f'Bearer realm="{self.address}/token",service="registry",{scope}'}, b""

    def _put_blob(self, query: str, body: bytes) -> Answer:
        found = re.search("digest=sha256(?::|%3A)([0-9a-f]{64})", query)
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if found is None or digest != f"sha256:{found[1]}" or "state=x" not in query:
            return 400, {}, b""
        self.blobs[digest] = body
        return 201, {}, b""

    def _manifest(self, method: str, tag: str, body: bytes) -> Answer:
        if method == "PUT":
            said = json.loads(body)
            named = [said["config"]["digest"], *(layer["digest"] for layer in said["layers"])]
            if any(digest not in self.blobs for digest in named):
                return 400, {}, b"MANIFEST_BLOB_UNKNOWN"
            self.manifests[tag] = body
        if tag not in self.manifests:
            return 404, {}, b""
        digest = f"sha256:{hashlib.sha256(self.manifests[tag]).hexdigest()}"
        return (201 if method == "PUT" else 200), {"Docker-Content-Digest": digest}, b""


class FakeHub(FakeService):
    """The part of the hub's API that a commit needs; weights are sent by LFS, all else within the commit."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.private: bool | None = None
        self._objects: dict[str, bytes] = {}

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        if path.startswith("/objects/"):
            self._objects[path.rpartition("/")[2]] = body
            return 200, {}, b""
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {}, b""
        for ending, said in (
            ("/api/repos/create", self._create),
            ("/api/validate-yaml", lambda _card: {"errors": [], "warnings": []}),
            ("/preupload/main", self._modes),
            ("/info/lfs/objects/batch", self._batch),
            ("/commit/main", self._commit),
        ):
            if path.partition("?")[0].endswith(ending):
                return 200, {}, json.dumps(said(body)).encode()
        if "/api/models/" in path and method == "GET":
            about = {"id": "team/model", "sha": self.commits[-1] if self.commits else "0" * 40}
            return 200, {}, json.dumps(about | {"private": self.private, "tags": [], "siblings": []}).encode()
        return 404, {}, b""

    def _create(self, body: bytes) -> Any:
        if self.private is None:
            self.private = json.loads(body).get("private", json.loads(body).get("visibility") == "private")
        return {"url": f"{self.address}/team/model", "name": "team/model", "id": "1"}

    def _modes(self, body: bytes) -> Any:
        files = []
        for asked in json.loads(body)["files"]:
            name = asked["path"]
            mode = "lfs" if name.endswith(".safetensors") else "regular"
            files.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": self._oid(name, mode)})
        return {"files": files}

    def _oid(self, name: str, mode: str) -> str | None:
        content = self.files.get(name)
        if content is None:
            return None
        if mode == "lfs":
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def _batch(self, body: bytes) -> Any:
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.address}/objects/{one['oid']}", "header": {}}},
            }
            for one in json.loads(body)["objects"]
        ]
        return {"transfer": "basic", "objects": objects}

    def _commit(self, body: bytes) -> Any:
        for line in body.splitlines():
            said = json.loads(line)
            if said["key"] == "file":
                self.files[said["value"]["path"]] = base64.b64decode(said["value"]["content"])
            elif said["key"] == "lfsFile":
                self.files[said["value"]["path"]] = self._objects[said["value"]["oid"]]
        self.commits.append(f"{len(self.commits) + 1:040x}")
        return {"commitUrl": f"{self.address}/team/model/commit/{self.commits[-1]}", "commitOid": self.commits[-1]}
