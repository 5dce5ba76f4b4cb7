"""A dataset URI → its bytes as stored, read once from start to end, counted and hashed on the way.

Volumes and ConfigMaps are mounted paths; everything else goes through fsspec with credentials from the environment.
Knows nothing about formats or compression.
"""

import difflib
import hashlib
import io
import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin

from finetune_api.reasons import Reason
from finetune_api.uris import LOCAL_SCHEME, SITE_HELP, Uri
from finetune_trainer.data.files.background import PIECE_BYTES, BackgroundHash
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.patience import PATIENCE_SECONDS, retried
from finetune_trainer.storage.s3_words import error_body, refusal_of
from finetune_trainer.storage.store_clients import GOOGLE_KEY, azure_files, google_files
from finetune_trainer.storage.store_errors import (
    TRUST_STEP,
    UNTRUSTED,
    NoTokenError,
    chain,
    lacks_keys,
    reason_of,
    status_of,
    trouble_of,
)

_BLOCK = 4 * 1024 * 1024  # read-ahead from a store
BUFFER = 1 << 17
"""Buffer size of a stream: rows are processed buffer by buffer, and the results should fit into the CPU cache."""
_MAX_KEYS = 5

_ONE_FILE = (
    "Name one file of rows in the uri. Several become one by `cat` (JSON Lines), or by "
    '`python3 -c \'from pyarrow import parquet; parquet.write_table(parquet.read_table("FOLDER"), "ROWS.parquet")\'`.'
)
_KEYS_STEP = (
    "No keys were found: name a Secret of the job's namespace that has them in spec.dataset.secretRef "
    "(docs/guides/tune.md lists them), or give the pods' service account the right to read. At a shell they are in "
    "its environment."
)
AS_UTF8 = (
    "Save the file as UTF-8: Excel calls it CSV UTF-8, and `iconv -f ENCODING -t UTF-8 FILE` does it where ENCODING is "
    "the file's own: WINDOWS-1252 for western text of Windows, UTF-16LE, GB18030, SHIFT_JIS or another one."
)
WITH_LINE_FEEDS = r"`tr '\r' '\n' < FILE > ROWS` ends lines with line feeds; blank lines are passed over."
_LOCAL_STEP = {
    Reason.DATASET_NOT_FOUND: "Check the uri: file:///FOLDER/FILE, with the path as it is on this machine.",
    Reason.ACCESS_DENIED: "Correct the rights of the file and its folders.",
    Reason.STORE_UNAVAILABLE: "Check the disk.",
}
_IN_A_STORE = "Check the uri: bucket or container, and path, in the same upper and lower case"
_NOT_FOUND_STEPS = {
    "s3": f"{_IN_A_STORE}; of a compatible store also AWS_ENDPOINT_URL, which names no bucket.",
    "gs": f"{_IN_A_STORE}.",
    "abfs": f"{_IN_A_STORE}; and the name of the storage account.",
    "hf": "Check the uri: hf://datasets/OWNER/NAME/PATH. Without a token private repositories are not visible.",
    "https": "Check the uri: open it in a browser that is signed in nowhere.",
}
_STORES = ("abfs", "gs", "s3")
"""Stores in which a folder is only a prefix of names: it can be opened, and is empty or has no size."""
_AZURE_KEYS = (
    "Put AZURE_STORAGE_CONNECTION_STRING as Azure shows it into the Secret, or AZURE_STORAGE_ACCOUNT_NAME with a key, "
    "a SAS token or a client (docs/guides/tune.md lists them)."
)
_AZURE_IDENTITY = "Or give the pods' service account an identity that may read it; at a shell sign in by `az login`."
_TO_PROXY = "Write them into its address: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT, or have it let the store pass."
_PAYER = "AWS_REQUEST_PAYER"
_READER_PAYS = (
    "Check the rights of the keys: they have to read it. If it is in a bucket whose readers pay (requester pays), put "
    f"{_PAYER}: requester beside the keys."
)
_S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


class Source:
    """An open dataset file. `stream` gives its bytes; `sha256` and `size` are known once it is read to the end.

    Errors of the store become TrainerError wherever they happen: when opening, and while reading.
    """

    def __init__(self, uri: Uri, *, air_gapped: bool, patient: bool = False) -> None:
        """`patient`: keep retrying a store that does not respond, because no user is present to do it."""
        self.uri = uri
        stored = _open(uri, air_gapped=air_gapped, patience=PATIENCE_SECONDS if patient else 0.0)
        self._opened = None if self.local_path is None else os.fstat(stored.fileno())
        self._raw = _StoredBytes(uri, stored, self._opened)
        self.stream: io.BufferedReader = io.BufferedReader(self._raw, buffer_size=BUFFER)

    @property
    def local_path(self) -> Path | None:
        """Where the file is mounted; None if it comes over the network."""
        mounted = self.uri.mounted_path()
        return None if mounted is None else Path(mounted)

    @property
    def size(self) -> int | None:
        """Bytes of the file as stored; None until it is read to the end."""
        return self._raw.count if self._raw.finished else None

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the file as stored, in hexadecimal; only while the file is open.

        Raises:
            TrainerError: DatasetInvalid, the file was modified, so that the hash may be of other bytes.
        """
        return self._raw.sha256() if self._raw.finished else None

    def drain(self) -> None:
        """Read the rest, only for size and hash."""
        guarded(self.uri, self._raw.skip_hashed)
        while self.stream.read(1 << 18):
            pass

    def require_same(self) -> None:
        """Raise if a mounted file is no longer the one that was opened; for readers that open it by its path.

        Raises:
            TrainerError: DatasetInvalid, it was replaced or modified.
        """
        if self._opened is None or self.local_path is None:
            return
        now = guarded(self.uri, self.local_path.stat)
        if any(getattr(now, what) != getattr(self._opened, what) for what in ("st_ino", "st_size", "st_mtime_ns")):
            raise _changed(self.uri)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


class FullReads(io.RawIOBase):
    """Raw bytes whose reads are all full except the last: what `peek` shows does not depend on packet sizes."""

    def read_some(self, view: memoryview) -> int:
        """Put some bytes into the view. Returns their number, 0 only at the end."""
        raise NotImplementedError

    def readable(self) -> bool:
        """Always True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, unless the stream ends before."""
        view, filled = memoryview(buffer).cast("B"), 0
        while filled < len(view) and (size := self.read_some(view[filled:])):
            filled += size
        return filled


class _StoredBytes(FullReads):
    """The stored bytes, counted and hashed; errors of the store are converted to TrainerError."""

    def __init__(self, uri: Uri, stored: io.RawIOBase, opened: os.stat_result | None) -> None:
        self._uri = uri
        self._stored = stored
        self._opened = opened
        self._initial_size = 0 if opened is None else opened.st_size
        """Size at opening: if fewer bytes arrive, the file was rewritten meanwhile."""
        self._digest = hashlib.sha256()
        self._background_hash = (
            BackgroundHash(stored.fileno(), self._initial_size) if self._initial_size > PIECE_BYTES else None
        )
        """For a large mounted file, instead of the digest: a second thread that reads and hashes it."""
        self.count = 0
        self.finished = False

    def read_some(self, view: memoryview) -> int:
        if self.finished and self._uri.mounted_path() is None:  # the HTTP client logs a warning with a stack trace
            return 0
        size: int = guarded(self._uri, lambda: self._stored.readinto(view))
        if self._background_hash is None:
            self._digest.update(view[:size])
        self.count += size
        self.finished = self.finished or not size
        if self.finished and (self.count < self._initial_size or guarded(self._uri, self._was_replaced)):
            raise _changed(self._uri)
        return size

    def skip_hashed(self) -> None:
        """Skip what the second thread hashes."""
        if self._background_hash is not None and self.count < self._initial_size:
            self.count = self._stored.seek(self._initial_size)

    def sha256(self) -> str:
        """The hash of what was read, in hexadecimal."""
        if self._background_hash is None or self._opened is None:
            return self._digest.hexdigest()
        found: str = guarded(self._uri, partial(self._background_hash.of, self.count))
        now, then = guarded(self._uri, partial(os.fstat, self._stored.fileno())), self._opened
        if now.st_size <= then.st_size and (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise _changed(self._uri)  # a file that only grew is fine: both threads read the added rows
        return found

    def _was_replaced(self) -> bool:
        """Whether its name refers to another object now. Not for S3, which refuses such a read (If-Match)."""
        if self._uri.scheme not in ("abfs", "gs"):
            return False
        stored: Any = self._stored
        before, now = stored.details, stored.fs.info(stored.path)
        return any(before.get(name) != now.get(name) for name in ("etag", "generation", "size"))

    def close(self) -> None:
        if not self.closed:
            if self._background_hash is not None:
                self._background_hash.close()
            self._stored.close()
        super().close()


def broken_file(file_name: str, what: str, next_step: str = "Write and upload the file again.") -> TrainerError:
    """The error for a file that cannot be read to its end."""
    return TrainerError(Reason.DATASET_INVALID, f"{file_name}: {what}", next_step)


def _changed(uri: Uri) -> TrainerError:
    step = "Leave the file as it is while it is read; write to another one, and rename it when it is whole."
    return broken_file(uri.file_name, "has changed while it was read", step)


def guarded(uri: Uri, action: Callable[[], Any]) -> Any:
    """Run an action on a store; whatever it raises becomes a TrainerError."""
    try:
        return action()
    except Exception as error:
        raise store_error(uri, error) from error


def _open(uri: Uri, *, air_gapped: bool, patience: float) -> io.RawIOBase:
    mounted = uri.mounted_path()
    if mounted is not None:
        stored: io.RawIOBase = guarded(uri, lambda: _open_mounted(Path(mounted)))
        return stored
    if air_gapped and uri.scheme == "hf":
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{uri.file_name}: hf:// is on a hub, and this site is air-gapped: no hub is asked",
            f"Copy the file to a volume or an object store inside the site and name it there: {SITE_HELP}.",
        )
    fetched: io.RawIOBase = retried(lambda: guarded(uri, lambda: _open_remote(uri)), patience)
    return fetched


def _open_mounted(path: Path) -> io.RawIOBase:
    """Opens regular files only: a pipe or a device might never end, or block forever."""
    if not path.is_dir() and path.exists() and not path.is_file():
        message = f"{path.name} is a pipe or a device, not a file"
        raise TrainerError(Reason.DATASET_NOT_FOUND, message, "Name one file of rows in the uri.")
    return path.open("rb", buffering=0)


def _open_remote(uri: Uri) -> io.RawIOBase:
    if uri.scheme == "gs":
        key = os.environ.get(GOOGLE_KEY)
        filesystem, path = google_files(key, "dataset.secretRef", default=None), f"{uri.root}/{uri.path}"
    elif uri.scheme == "abfs":
        filesystem, path = azure_files(uri.text)
    else:
        import fsspec

        options: dict[str, Any] = {"client_kwargs": client} if (client := _CLIENTS.get(uri.scheme, dict)()) else {}
        if uri.scheme == "s3" and os.environ.get(_PAYER) == "requester":
            options["requester_pays"] = True
        filesystem, path = fsspec.core.url_to_fs(uri.text, **options)
    with error_body(filesystem, path) if uri.scheme == "s3" else nullcontext():
        if uri.scheme in _STORES and filesystem.info(path)["type"] == "directory":
            raise IsADirectoryError(path)
        opened: io.RawIOBase = filesystem.open(path, "rb", block_size=_BLOCK, cache_type="readahead")
    return opened


def _https_client() -> dict[str, Any]:
    """Uses the site's proxy from the environment variables; the libraries of the other stores do so themselves."""
    return {"trust_env": True, "trace_configs": [_refuse_redirects_without_tls()]}


def _s3_client() -> dict[str, Any]:
    """Uses the region from AWS_REGION, as AWS's other tools do; botocore reads only AWS_DEFAULT_REGION and profiles."""
    return {"region_name": region} if (region := os.environ.get("AWS_REGION")) else {}


_CLIENTS: dict[str, Callable[[], dict[str, Any]]] = {"https": _https_client, "s3": _s3_client}


@cache
def _refuse_redirects_without_tls() -> Any:
    """Refuses redirects to an address without TLS: anyone on the network could modify the rows."""
    import aiohttp

    async def check(_session: Any, _context: Any, params: Any) -> None:
        place = urljoin(str(params.url), params.response.headers.get("Location", ""))
        if not place.startswith("https://"):
            message = f"{params.url.host} sends on to an address without TLS, from which no data are read"
            raise TrainerError(Reason.ACCESS_DENIED, message, "Name the https address of the file itself.")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(check)
    return trace


def store_error(uri: Uri, error: Exception) -> TrainerError:
    """The meaning of a store's exception. Its own text is not shown: it may contain signed addresses or keys."""
    known = next((one for one in chain(error) if isinstance(one, TrainerError)), None)
    if known is not None:
        return known
    name, place = uri.file_name, f"{uri.scheme}://{uri.root}"
    if uri.scheme == LOCAL_SCHEME:
        place = str(Path(f"/{uri.path}").parent)
    if uri.scheme == "hf":
        place = "/".join((place, *uri.path.split("/")[:2]))  # of datasets/OWNER/NAME
    if (known_error := _file_error(uri, place, error) or _credentials_error(uri, place, error)) is not None:
        return known_error
    status = status_of(error)
    detail = f" ({type(error).__name__}{f', status {status}' if status else ''})"
    if uri.mounted_path() is not None:
        detail = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    refused = refusal_of(error) if uri.scheme == "s3" else None
    reason = reason_of(error) if refused is None else refused.reason
    trouble = trouble_of(error)
    step = _step(uri, reason, error) if refused is None else refused.step
    if refused is not None:
        detail = f": {refused.why}"
    if trouble == UNTRUSTED:
        reason, step = Reason.STORE_UNAVAILABLE, TRUST_STEP
    message = {
        Reason.DATASET_NOT_FOUND: f"{name} is not in {place}{detail}{_near_miss(uri)}",
        Reason.ACCESS_DENIED: f"{name}: {place} does not let it be read{detail}",
    }.get(reason, f"{name}: {place} does not answer as it should{f': {trouble}' if trouble else detail}")
    return TrainerError(reason, message, step)


def _file_error(uri: Uri, place: str, error: Exception) -> TrainerError | None:
    """Errors that are plainly due to the file, or to this machine."""
    name = uri.file_name
    if any(type(one).__name__ == "FileExpired" for one in chain(error)):  # from s3fs
        return _changed(uri)
    if isinstance(error, IsADirectoryError):
        return TrainerError(Reason.DATASET_NOT_FOUND, f"{name}: {place}/… is a folder, not a file", _ONE_FILE)
    if isinstance(error, ImportError):
        message = f"{name}: {uri.scheme}:// cannot be read here: what reads it is not installed"
        extra = "Install the extra `stores` (`pip install './trainer_image[stores]'`, or an image that has it)."
        return TrainerError(Reason.SPEC_INVALID, message, extra)
    if not _is_mounted(uri):
        message = f"{name}: {place} is of the job's namespace on a cluster, and not mounted here"
        here = "On this machine name the file as file:///FOLDER/FILE in a copy of the manifest."
        return TrainerError(Reason.DATASET_NOT_FOUND, message, here)
    return None


def _credentials_error(uri: Uri, place: str, error: Exception) -> TrainerError | None:
    """Errors that are plainly due to credentials, before the store is even asked."""
    status = status_of(error)
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        message = f"{uri.file_name}: the proxy before {place} requires a user and a password"
        return TrainerError(Reason.ACCESS_DENIED, message, _TO_PROXY)
    if uri.scheme == "abfs" and status is None and isinstance(error, ValueError):  # from its library: no keys
        message = f"{uri.file_name}: {place} has no keys, or an invalid connection string"
        return TrainerError(Reason.ACCESS_DENIED, message, _AZURE_KEYS)
    if any(isinstance(one, NoTokenError) for one in chain(error)):
        detail = "Azure gives no token for it (ClientAuthenticationError)"
        message = f"{uri.file_name}: {place} does not let it be read: {detail}"
        return TrainerError(Reason.ACCESS_DENIED, message, f"{_AZURE_KEYS} {_AZURE_IDENTITY}")
    return None


def _step(uri: Uri, reason: Reason, error: Exception) -> str | None:
    """The next step, if more specific than the reason's default."""
    if reason == Reason.DATASET_NOT_FOUND and any(mark in uri.file_name for mark in "*?{["):
        return f"Patterns are not read as such. {_ONE_FILE}"
    if reason == Reason.ACCESS_DENIED and lacks_keys(error):
        return _KEYS_STEP
    endpoint = next((name for name in _S3_ENDPOINTS if os.environ.get(name)), None) if uri.scheme == "s3" else None
    if endpoint is not None and not os.environ[endpoint].startswith(("http://", "https://")):
        return f"{endpoint} is not a URL: it begins with https:// or http://."
    if reason == Reason.ACCESS_DENIED and uri.scheme == "s3" and _PAYER not in os.environ:
        return _READER_PAYS
    if reason == Reason.DATASET_NOT_FOUND and uri.scheme in _NOT_FOUND_STEPS:
        return _NOT_FOUND_STEPS[uri.scheme]
    return _LOCAL_STEP.get(reason) if uri.scheme == LOCAL_SCHEME else None


def _is_mounted(uri: Uri) -> bool:
    """Whether the volume or ConfigMap is mounted at all: always in a pod, never on a laptop."""
    mounted = uri.mounted_path()
    if mounted is None or uri.scheme == LOCAL_SCHEME:
        return True
    return Path(mounted.removesuffix(uri.path)).is_dir()


def _near_miss(uri: Uri) -> str:
    """What is wrong with the path of a mounted file: the missing folder, or the most similar file name."""
    mounted = uri.mounted_path()
    if mounted is None:
        return ""
    if (folder := _first_missing(uri, mounted)) is not None:
        shorter = None if uri.scheme == LOCAL_SCHEME else _existing_suffix(uri, mounted)
        return f"; there is no folder {folder}" + (f"; there is {shorter}" if shorter else "")
    try:
        names = [path.name for path in Path(mounted).parent.iterdir() if path.name != uri.file_name]
    except (OSError, ValueError):
        return ""
    wanted = uri.file_name.lower()
    near = difflib.get_close_matches(_stem(wanted), {_stem(name) for name in names}, n=1, cutoff=0.7)
    found = {name.lower(): name for name in names if _stem(name) in near}
    best = difflib.get_close_matches(wanted, found, n=1, cutoff=0)
    if best:
        return f"; there is {found[best[0]]}"
    keys = sorted(name for name in names if not name.startswith("..")) if uri.scheme == "configmap" else []
    return f"; there {'is' if len(keys) == 1 else 'are'} {', '.join(keys[:_MAX_KEYS])}" if keys else ""


def _existing_suffix(uri: Uri, mounted: str) -> str | None:
    """A suffix of the path that exists: its beginning repeats the claim's name, or the mount path in a pod."""
    root, parts = Path(mounted.removesuffix(uri.path)), Path(uri.path).parts
    ends = (Path(*parts[skipped:]) for skipped in range(1, len(parts)))
    try:
        return next((str(end) for end in ends if (root / end).is_file()), None)
    except (OSError, ValueError):
        return None


def _first_missing(uri: Uri, mounted: str) -> str | None:
    """The first missing folder of the path, as spelled in the URI; None if none is missing."""
    root = Path(mounted.removesuffix(uri.path))
    try:
        return next(
            (str(path.relative_to(root)) for path in reversed(Path(mounted).parents) if not path.is_dir()), None
        )
    except (OSError, ValueError):
        return None


def _stem(name: str) -> str:
    """The name without extensions, which many files of one folder share."""
    return name.lower().partition(".")[0]
