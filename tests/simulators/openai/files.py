"""Files: uploaded in pieces to disk, listed, read back, deleted."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web
from openai.types import FileDeleted, FileObject

from tests.simulators.clock import Clock
from tests.simulators.http import Call, Reply
from tests.simulators.openai import errors
from tests.simulators.openai.naming import Naming
from tests.simulators.openai.pages import Page, page
from tests.simulators.openai.settings import OpenAISettings
from tests.simulators.shapes import conform

LARGEST = 512 * 1024 * 1024
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")


@dataclass
class Upload:
    """A multipart form with its file on disk."""

    path: Path
    filename: str | None
    fields: dict[str, str]


@dataclass
class StoredFile:
    """A file of the organization."""

    id: str
    path: Path
    filename: str
    purpose: str
    created_at: float
    ready_at: float
    expires_at: float | None = None

    @property
    def size(self) -> int:
        return self.path.stat().st_size


class Files:
    """All files of an organization."""

    def __init__(self, clock: Clock, naming: Naming, settings: OpenAISettings, folder: Path) -> None:
        self._clock, self._naming, self._settings, self._folder = clock, naming, settings, folder
        self._files: dict[str, StoredFile] = {}

    def all(self) -> list[StoredFile]:
        """Every file, oldest first."""
        return list(self._files.values())

    def find(self, file_id: str) -> StoredFile | None:
        """An existing file."""
        return self._files.get(file_id)

    def keep(self, content: bytes, filename: str, purpose: str) -> StoredFile:
        """Store a file that the provider itself creates."""
        path = self._folder / uuid.uuid4().hex
        path.write_bytes(content)
        return self._add(path, filename, purpose, 0.0)

    def receiver(self) -> Callable[[web.Request], Awaitable[Upload]]:
        """A function that receives a streamed upload."""

        async def receive(request: web.Request) -> Upload:
            upload = Upload(self._folder / uuid.uuid4().hex, None, {})
            if not request.headers.get("Content-Type", "").startswith("multipart/form-data;"):
                return upload  # like servers that only accept lower case
            async for part in await request.multipart():
                assert isinstance(part, BodyPartReader)
                if part.filename is None:
                    upload.fields[str(part.name)] = await part.text()
                    continue
                upload.filename = part.filename
                with upload.path.open("wb") as content:
                    while piece := await part.read_chunk(65536):
                        content.write(piece)
            return upload

        return receive

    def create(self, call: Call) -> Reply:
        """POST /files."""
        upload: Upload = call.body
        if upload.filename is None:
            raise errors.refusal(400, "'file' is a required property")
        try:
            self.accept(upload)
        except Exception:
            upload.path.unlink()
            raise
        stored = self._add(
            upload.path, upload.filename, upload.fields["purpose"], self._settings.file_processing_seconds
        )
        if seconds := upload.fields.get("expires_after[seconds]"):
            stored.expires_at = self._clock.now + int(seconds)
            self._clock.after(int(seconds), lambda: self.remove(stored.id))
        return Reply.json(self.shown(stored))

    def accept(self, upload: Upload) -> None:
        """Refuse what the provider refuses immediately.

        Raises:
            ApiError: with the provider's reason.
        """
        purpose = upload.fields.get("purpose")
        if purpose is None:
            raise errors.refusal(400, "'purpose' is a required property")
        if purpose not in PURPOSES:
            raise errors.refusal(400, f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'")
        if not upload.path.stat().st_size:
            raise errors.refusal(400, "File is empty.")
        if upload.path.stat().st_size > LARGEST:
            raise errors.refusal(413, "File is too large. The maximum size is 512 MB.")
        if purpose == "fine-tune" and not str(upload.filename).endswith(".jsonl"):
            raise errors.refusal(400, "Invalid file format. Must be a .jsonl file for the purpose fine-tune.", "file")

    def _add(self, path: Path, filename: str, purpose: str, processing_seconds: float) -> StoredFile:
        now = self._clock.now
        stored = StoredFile(self._naming.file(), path, filename, purpose, now, now + processing_seconds)
        self._files[stored.id] = stored
        return stored

    def shown(self, stored: StoredFile) -> dict[str, Any]:
        """A file as the API shows it."""
        body = {"object": "file", "id": stored.id, "bytes": stored.size, "created_at": int(stored.created_at),
                "filename": stored.filename, "purpose": stored.purpose, "status_details": None,
                "expires_at": None if stored.expires_at is None else int(stored.expires_at),
                "status": self.state(stored)}  # fmt: skip
        return self.conform(body)

    def state(self, stored: StoredFile) -> str:
        """The deprecated status."""
        return "processed" if self._clock.now >= stored.ready_at else "uploaded"

    def conform(self, body: dict[str, Any]) -> dict[str, Any]:
        """Hold a file against the SDK's model."""
        return conform(FileObject, body)

    def retrieve(self, call: Call) -> Reply:
        """GET /files/{id}."""
        return Reply.json(self.shown(self._get(call)))

    def list(self, call: Call) -> Reply:
        """GET /files."""
        seen = self._clock.now - self._settings.list_lag_seconds
        files = [file for file in self.all() if file.created_at <= seen]
        if purpose := call.query.get("purpose"):
            files = [file for file in files if file.purpose == purpose]
        if call.query.get("order", "desc") == "desc":
            files.reverse()
        return page(call, files, Page(lambda file: file.id, self.shown, usual=10_000, most=10_000))

    def content(self, call: Call) -> Reply:
        """GET /files/{id}/content."""
        return Reply(body=self._get(call).path, content_type="application/octet-stream")

    def delete(self, call: Call) -> Reply:
        """DELETE /files/{id}."""
        stored = self._get(call)
        self.remove(stored.id)
        return Reply.json(conform(FileDeleted, {"id": stored.id, "object": "file", "deleted": True}))

    def remove(self, file_id: str) -> None:
        """Remove a file."""
        if stored := self._files.pop(file_id, None):
            stored.path.unlink()

    def _get(self, call: Call) -> StoredFile:
        if stored := self.find(call.path["file_id"]):
            return stored
        raise errors.no_file(call.path["file_id"])
