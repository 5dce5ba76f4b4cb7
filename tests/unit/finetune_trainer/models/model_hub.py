"""A hub for downloads of base models, with the part of the API that these need."""

import hashlib
import json
from typing import Any

from tests.unit.finetune_trainer.fake_service import Answer, FakeService

NAME = "org/model"
_COMMIT = "1" * 40


class ModelHub(FakeService):
    """One model of a few files."""

    def __init__(self) -> None:
        super().__init__()
        self.files = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 4096, "tokenizer.json": b"[]"}

    def fetched(self, file: str) -> list[str]:
        """Methods of the requests for a file, in order."""
        return [method for method, path in self.asked if path.endswith(f"/{file}")]

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:  # noqa: ARG002 - nothing has a body
        place = path.partition("?")[0]
        if place == f"/api/models/{NAME}/tree/{_COMMIT}":
            return 200, {}, json.dumps([self._entry(name) for name in self.files]).encode()
        if place.startswith(f"/api/models/{NAME}"):
            return 200, {}, json.dumps({"id": NAME, "sha": _COMMIT, "siblings": [], "tags": []}).encode()
        content = self.files.get(place.rpartition("/")[2])
        if content is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        about = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": _COMMIT, "X-Linked-Size": str(len(content))}
        if spans := headers.get("Range"):
            start = int(spans.removeprefix("bytes=").partition("-")[0])
            about["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return 206, about, content[start:]
        return 200, about, content

    def _entry(self, name: str) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": _oid(self.files[name])}


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
