"""Unpacks archives for an air-gapped site, without trusting them: tar, tar.gz, tar.zst and zip.

Writes nothing outside the target, creates no links or devices, and limits the size and number of files.
"""

import errno
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError

MOST_BYTES = 2 * 1024**4
"""Limit of unpacked bytes: more than any model has today."""

MOST_FILES = 10_000

_BLOCK = 1 << 20

_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    RuntimeError,
)

_NEXT_STEP = "Pack the model's folder again, for example with tar -czf model.tar.gz -C FOLDER ."


def unpack(archive: Path, target: Path) -> None:
    """Unpack the regular files of `archive` into `target`.

    Raises:
        TrainerError: ModelUnusable, the archive is damaged, of an unknown format, or has forbidden content.
    """
    try:
        _unpack(archive, target)
    except tarfile.ReadError as error:
        raise _refused(archive, "it is neither a complete tar (plain, gz, bz2, xz or zst) nor a zip") from error
    except _BROKEN as error:
        raise _refused(archive, f"it cannot be unpacked: {error}") from error
    except Exception as error:
        if type(error).__name__ != "ZstdError" and not _is_of_bz2(error):
            raise
        raise _refused(archive, f"it cannot be unpacked: {error}") from error


def _is_of_bz2(error: Exception) -> bool:
    """For damaged data bz2 raises an OSError without errno."""
    return isinstance(error, OSError) and error.errno is None


def _unpack(archive: Path, target: Path) -> None:
    members = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
    left = MOST_BYTES
    for count, (name, file) in enumerate(members):
        if count >= MOST_FILES:
            raise _refused(archive, f"it has more than {MOST_FILES} files")
        left -= _write(file, target / _safe(archive, name), left, archive)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with _tar(archive) as tar:
        for member in tar:
            if member.isdir():
                continue
            file = tar.extractfile(member) if member.isfile() else None
            if file is None:
                raise _refused(archive, "it holds a link or a device")
            yield member.name, file
        while tar.fileobj is not None and tar.fileobj.read(_BLOCK):
            pass  # read on: the checksum of a compressed archive comes after its last file


@contextmanager
def _tar(archive: Path) -> Iterator[tarfile.TarFile]:
    with archive.open("rb") as raw:
        if raw.read(4) != b"\x28\xb5\x2f\xfd":
            with tarfile.open(archive, "r:*") as tar:
                yield tar
            return
        import zstandard

        raw.seek(0)
        with (
            zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as plain,
            tarfile.open(fileobj=plain, mode="r|") as tar,
        ):
            yield tar


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            if member.is_dir():
                continue
            if (member.external_attr >> 16) & 0o170000 not in (0, 0o100000):
                raise _refused(archive, "it holds a link or a device")
            with packed.open(member) as file:
                yield member.filename, file


def _safe(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise _refused(archive, "a path in it leads out of it")
    return path


def _write(file: IO[bytes], path: Path, limit: int, archive: Path) -> int:
    """Copy the file; returns its size. The sizes in the archive's headers are not trusted."""
    written = 0
    with _create(path, archive) as target:
        while block := file.read(_BLOCK):
            written += len(block)
            if written > limit:
                raise _refused(archive, "it unpacks to more than any model has")
            target.write(block)
    return written


def _create(path: Path, archive: Path) -> IO[bytes]:
    """Create the file. Errors due to names in the archive are blamed on the archive, not on the disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _refused(archive, "a path in it occurs twice") from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise _refused(archive, "a path in it is too long") from error


def _refused(archive: Path, why: str) -> TrainerError:
    return TrainerError(Reason.MODEL_UNUSABLE, f"{archive.name}: {why}", _NEXT_STEP)
