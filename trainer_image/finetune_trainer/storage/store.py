"""A folder of an object store: reads and writes whole objects, independent of their meaning.

Every error becomes a TrainerError, after retries if it may be temporary.
"""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from finetune_api.reasons import Reason
from finetune_api.trainer import StoreRef
from finetune_api.uris import parse_artifact_uri
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.patience import PATIENCE_SECONDS, retried
from finetune_trainer.storage.s3_words import refusal_of
from finetune_trainer.storage.store_clients import Client, connect
from finetune_trainer.storage.store_errors import reason_of, status_of, trouble_of

T = TypeVar("T")

_STEPS = {
    Reason.ARTIFACT_FAILED: "Ask an admin to correct artifacts.uri of the connection, or to create the bucket.",
    Reason.ACCESS_DENIED: "Check the Secret of this namespace that the connection's artifacts.secretRef names, or the "
    "rights of the pods' service account: they must list, read, write and delete below artifacts.uri.",
    Reason.STORE_UNAVAILABLE: "Set spec.retryNonce when the store answers: the job resumes from its newest "
    "checkpoint there. If it lasts, check artifacts.endpointURL of the connection and the egress of this namespace.",
}
_TWIN_STEP = "Two pods ran one attempt. Set spec.retryNonce: the next attempt has a folder of its own."


class _NotThereError(TrainerError):
    """The object, or the bucket itself, does not exist."""


class Store:
    """The folder that `ref` names, with credentials from the environment.

    Every method raises TrainerError: AccessDenied, StoreUnavailable, or ArtifactFailed if there is no such bucket.
    `patience` is the time for retries in seconds; default: PATIENCE_SECONDS.
    """

    def __init__(self, ref: StoreRef, patience: float | None = None) -> None:
        self._uri, self._endpoint = parse_artifact_uri(ref.uri), ref.endpoint
        self._patience = PATIENCE_SECONDS if patience is None else patience

    def objects(self, folder: str = "") -> dict[str, int]:
        """All objects below the folder with their size in bytes, by name as the other methods take it."""
        found = self._try(lambda: self._files.find(self._path(folder), detail=True), folder)
        cut = len(self._path("")) + 1
        return {path[cut:]: int(entry["size"]) for path, entry in found.items()}

    def put(self, file: Path, name: str) -> None:
        """Upload a file, in parts if it is large. The store refuses a part that was corrupted on the way.

        Raises:
            OSError: the file cannot be read.
        """
        size = file.stat().st_size

        def upload() -> None:
            self._files.put_file(str(file), self._path(name), **self._client.file_options(size))
            arrived = self._files.info(self._path(name))["size"]
            if arrived != size:
                raise ConnectionError(f"{arrived} of {size} bytes arrived")

        self._try(upload, name)

    def put_bytes(self, content: bytes, name: str) -> None:
        """Write an object atomically."""
        self._try(lambda: self._files.pipe_file(self._path(name), content, **self._client.object_options), name)

    def put_last(self, content: bytes, name: str) -> None:
        """Write the object that completes others. Never replaces an existing one, if the store supports that.

        Raises:
            TrainerError: also ArtifactFailed, if the name exists with other content.
        """

        def write() -> None:
            options = {**self._client.object_options, **self._client.no_overwrite}
            try:
                self._files.pipe_file(self._path(name), content, **options)
            except FileExistsError as error:  # an earlier try of this write may have succeeded
                if bytes(self._files.cat_file(self._path(name))) != content:
                    raise TrainerError(
                        Reason.ARTIFACT_FAILED, f"artifacts: another pod has written {name} before", _TWIN_STEP
                    ) from error

        self._try(write, name)

    def get(self, name: str, file: Path) -> bool:
        """Download an object; False if it does not exist."""
        return self._if_there(lambda: self._files.get_file(self._path(name), str(file)) or True, name) is True

    def get_bytes(self, name: str) -> bytes | None:
        """A small object's content; None if it does not exist."""
        return self._if_there(lambda: bytes(self._files.cat_file(self._path(name))), name)

    def remove(self, names: Iterable[str]) -> None:
        """Delete objects; missing ones are fine."""
        for name in names:
            self._if_there(functools.partial(self._files.rm_file, self._path(name)), name)

    @functools.cached_property
    def _client(self) -> Client:
        """Created on first use: for some stores that requests a token."""
        return connect(self._uri, self._endpoint)

    @property
    def _files(self) -> Any:
        return self._client.files

    def _path(self, name: str) -> str:
        return "/".join(part for part in (self._client.bucket, self._uri.path, name) if part)

    def _if_there(self, action: Callable[[], T], name: str) -> T | None:
        try:
            return self._try(action, name)
        except _NotThereError:
            return None

    def _try(self, action: Callable[[], T], name: str) -> T:
        """Retry until it succeeds or the time for retries is over."""

        def once() -> T:
            try:
                return action()
            except TrainerError:
                raise
            except Exception as error:
                raise self._failed(name, error, reason_of(error)) from error

        return retried(once, self._patience)

    def _failed(self, name: str, error: Exception, reason: Reason) -> TrainerError:
        """The store's own text is not shown: it may contain signed URLs or keys."""
        place, status = f"{self._uri.scheme}://{self._uri.root}", status_of(error)
        if self._uri.scheme == "s3" and (refused := refusal_of(error)) is not None:
            reason = Reason.ACCESS_DENIED if refused.reason == Reason.ACCESS_DENIED else Reason.ARTIFACT_FAILED
            message = f"artifacts: {place} does not do what is asked for {name or self._uri.path}: {refused.why}"
            return TrainerError(reason, message, refused.step)
        said = f" ({type(error).__name__}{f', status {status}' if status else ''})"
        if reason == Reason.DATASET_NOT_FOUND:
            reason = Reason.ARTIFACT_FAILED
            return _NotThereError(reason, f"artifacts: there is no {place}{said}", _STEPS[reason])
        if reason == Reason.ACCESS_DENIED:
            message = f"artifacts: {place} refuses its keys for {name or self._uri.path}{said}"
        else:
            trouble = trouble_of(error)
            said = f": {trouble}" if trouble else said
            message = f"artifacts: {place} does not answer as it should for {name or self._uri.path}{said}"
        return TrainerError(reason, message, _STEPS[reason])
