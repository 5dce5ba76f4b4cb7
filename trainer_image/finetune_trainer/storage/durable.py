"""Folders and files that are written atomically: temporary name, checksums, fsync, rename.

For checkpoints, artifacts and cached models, independent of their content.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from finetune_api.names import MANIFEST
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError

UNFINISHED = ".unfinished-"
"""Prefix of temporary names; such files left by a killed writer can be deleted."""

QUICK_BYTES = 1 << 30
"""Folders up to this size have their checksums verified whenever they are opened: about a second."""

MORE_SCRATCH = "Make room there (TMPDIR names another folder), or ask for more with spec.resources.ephemeralStorage."
"""Next step if there is no room for temporary files."""

_AWAY = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN)
"""Errors of a volume that does not respond; it may work again once mounted by the next pod."""

_OTHER_KIND = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO)
"""Errors if there is a file in place of a folder, or a folder, pipe or device in place of a file."""

_STEPS = {
    errno.EROFS: "It is mounted read-only: have it mounted for writing, and try again (in a cluster by "
    "spec.retryNonce).",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        "Let the trainer's user (in a pod 65532) write there, and try again (in a cluster by spec.retryNonce).",
    ),
    **dict.fromkeys(
        _AWAY,
        "Have the volume looked at, which does not answer as it should, and try again (in a cluster by "
        "spec.retryNonce): it resumes from the last checkpoint.",
    ),
    **dict.fromkeys(
        _OTHER_KIND,
        "There is a file where a folder must be, or a folder in place of a file (a pipe or a device is neither): "
        "remove it, or name another place; then try again (in a cluster by spec.retryNonce).",
    ),
    errno.ENAMETOOLONG: "Name a place with a shorter path, and try again (in a cluster by spec.retryNonce).",
    errno.ENOENT: "Somebody has deleted the folder, or put another volume in its place, while it was in use. Bring it "
    "back where there is a copy, and try again (in a cluster by spec.retryNonce): it resumes from what is there.",
}
"""Next steps if more room would not help."""

_READABLE = 0o644  # safetensors creates files with 0600, but a serving pod may run as another user


@contextmanager
def whole_folder(final: Path, *, before_rename: Callable[[], None] = lambda: None, **fields: Any) -> Iterator[Path]:
    """Yield a temporary folder that becomes `final` at the end of the block, with a manifest of checksums and `fields`.

    Replaces an older `final`. After an error, also one raised by `before_rename`, `final` is what it was before.

    Raises:
        TrainerError: ArtifactFailed, the folder cannot be written (disk full, no permission).
    """
    with write_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        staging = unfinished(final)
        staging.mkdir()
        try:
            yield staging
            manifest = {**fields, "files": checksums(staging)}
            (staging / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            _sync_tree(staging)
            before_rename()
            move_away(final)
            staging.rename(final)
            sync(final.parent)
        except Exception as error:
            if _is_full(error):
                error.add_note(f"{bytes_of(staging):,} bytes of it were written, {_room(staging)}")
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def whole_file(final: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        TrainerError: ArtifactFailed, it cannot be written.
    """
    with write_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        draft = unfinished(final)
        try:
            draft.write_bytes(content)
            sync(draft)
            draft.rename(final)
            sync(final.parent)
        finally:
            draft.unlink(missing_ok=True)


def text_in(path: Path, *, errors: str = "strict") -> str:
    """A file's text. Raises for a pipe or a device, reading which may block for ever.

    Raises:
        OSError: it is missing, not a file, or cannot be read.
        ValueError: it is not UTF-8, unless `errors` tolerates that.
    """
    require_file(path)
    return path.read_text(encoding="utf-8", errors=errors)


def require_file(path: Path) -> None:
    """Require a regular file, or a folder, which opening will refuse.

    Raises:
        OSError: nothing is there, or something else.
    """
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.ENXIO, "it is a pipe or a device", str(path))


def special_file_in(folder: Path) -> Path | None:
    """The first entry of the folder that is neither a file nor a folder: opening it may block for ever."""
    there = (path for path in sorted(folder.iterdir()) if path.exists())
    return next((path for path in there if not (path.is_file() or path.is_dir())), None)


def json_in(path: Path) -> Any:
    """A file's JSON; None if it is missing or invalid, such as a partial one of a killed writer.

    Raises:
        TrainerError: ArtifactFailed or StoreUnavailable, it cannot be read.
    """
    try:
        return json.loads(text_in(path))
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise volume_error(f"{path} could not be read", error) from error


def require_writable(folder: Path) -> None:
    """Require a folder that exists or can be created, and is writable.

    Raises:
        TrainerError: ArtifactFailed, or StoreUnavailable.
    """
    tried = folder / "tried"
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        draft = unfinished(tried)
        try:
            draft.write_bytes(b"")
        finally:
            draft.unlink(missing_ok=True)


def unfinished(final: Path) -> Path:
    """A temporary name beside `final`."""
    return final.parent / f"{UNFINISHED}{final.name}-{secrets.token_hex(4)}"


def read_manifest(folder: Path, *, verify: bool = True) -> dict[str, Any] | None:
    """The manifest of a folder; None if it is missing, or if a file is missing or differs.

    Without `verify` the files are not read.
    """
    try:
        return read_manifest_or_raise(folder, verify=verify)
    except OSError:
        return None


def read_manifest_or_raise(folder: Path, *, verify: bool = True) -> dict[str, Any] | None:
    """The same, for callers that distinguish between a damaged folder and one that cannot be read now.

    Raises:
        OSError: a file exists but cannot be read.
    """
    try:
        manifest = json.loads(text_in(folder / MANIFEST))
        files = manifest["files"]
        intact = not verify or all(_is_intact(folder / name, entry) for name, entry in files.items())
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if intact else None


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file in the folder except the manifest, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in files
    }


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    require_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_of(folder: Path) -> int:
    """Size of all files in the folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def remove_unfinished(parent: Path, of: str | None = None) -> None:
    """Delete the temporary files of killed writers; with `of` only those for that name."""
    wanted = re.compile(re.escape(UNFINISHED) + (".*" if of is None else re.escape(of) + "-[a-z0-9_]{8}"))
    if parent.is_dir():
        for path in parent.iterdir():
            if wanted.fullmatch(path.name):
                _remove(path)


def _remove(path: Path) -> None:
    """Best effort: a remainder is recognised by its name later."""
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def write_errors(target: Path, next_step: str | None = None) -> Iterator[None]:
    """Turn errors of writing into ArtifactFailed, or StoreUnavailable, with the path and the system's message.

    `next_step` is for paths other than the job's output.

    safetensors wraps a full disk into its own error, which is matched by name so that this file need not import it.

    Raises:
        TrainerError: ArtifactFailed, or StoreUnavailable if a volume does not respond.
    """
    try:
        yield
    except OSError as error:
        raise volume_error(f"{target} could not be written", error, next_step, _how_full(target, error)) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        message = f"{target} could not be written: {error}{_how_full(target, error)}"
        raise TrainerError(Reason.ARTIFACT_FAILED, message, next_step) from error


def _is_full(error: Exception) -> bool:
    """Whether the disk was full, according to errno or to the system's message inside a library's error."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in full or any(os.strerror(one) in str(error) for one in full)


def _how_full(target: Path, error: Exception) -> str:
    """Numbers about a full disk, to append to the error; "" for other errors.

    Code that deletes what was written adds a note with the numbers before.
    """
    if not _is_full(error):
        return ""
    return f" ({next(iter(getattr(error, '__notes__', [])), None) or _room(target)})"


def _room(path: Path) -> str:
    """How much is free on the disk of a path, which need not exist yet."""
    there = next((one for one in (path, *path.parents) if one.exists()), Path.cwd())
    disk = shutil.disk_usage(there)
    return f"{disk.free:,} of {disk.total:,} bytes are free there"


def volume_error(what: str, error: OSError, next_step: str | None = None, more: str = "") -> TrainerError:
    """The TrainerError for a system error on a volume; `next_step` is used unless the error suggests a better one.

    `more` is appended to the message.
    """
    reason = Reason.STORE_UNAVAILABLE if error.errno in _AWAY else Reason.ARTIFACT_FAILED
    known = _STEPS.get(error.errno or 0, next_step)
    step = next_step or known if error.errno in _OTHER_KIND else known  # the caller may know what to remove
    return TrainerError(reason, f"{what}: {error.strerror or type(error).__name__}{more}", step)


def damage(folder: Path, *, all_checksums: bool = False) -> str | None:
    """What differs between a folder and its manifest; None if nothing, or if it has no manifest of ours.

    Compares sizes, and checksums if that is fast or requested.
    """
    try:
        text = text_in(folder / MANIFEST)
    except FileNotFoundError:
        return None
    try:
        files = {name: (int(one["bytes"]), str(one["sha256"])) for name, one in _files_of(text)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{folder / MANIFEST} cannot be read ({type(error).__name__})"
    with_checksums = all_checksums or sum(size for size, _ in files.values()) <= QUICK_BYTES
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes, its manifest says {size}"
        if with_checksums and sha256_of(path) != digest:
            return f"{path} differs from its checksum"
    return None


def _files_of(manifest: str) -> Iterable[tuple[str, dict[str, Any]]]:
    files: dict[str, dict[str, Any]] = json.loads(manifest).get("files", {})
    return files.items()


def _is_intact(path: Path, entry: dict[str, Any]) -> bool:
    same_size: bool = path.stat().st_size == entry["bytes"]
    return same_size and sha256_of(path) == entry["sha256"]


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(_READABLE)
        sync(path)
    sync(folder)


def move_away(final: Path) -> None:
    """Delete a folder, or whatever else has its name; it is never seen half deleted under that name.

    A folder cannot be replaced by rename.
    """
    if os.path.lexists(final):
        rubbish = unfinished(final)
        final.rename(rubbish)
        _remove(rubbish)


def is_within(name: str) -> bool:
    """Whether a relative path stays within its folder: names in stores and manifests are untrusted."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
