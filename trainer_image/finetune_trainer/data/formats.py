"""Which format a file has, how it is compressed, and its bytes without the compression.

Endings decide on the format where the job does not: `.csv`, `.jsonl`, `.ndjson`, `.json`, `.parquet`, each with `.gz`
or `.zst`. Compression is known by its first bytes, whatever the file is called.
"""

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from finetune_api.job import DataFormat
from finetune_api.reasons import Reason
from finetune_trainer.data.source import BUFFER
from finetune_trainer.errors import TrainerError

Compression = Literal["gzip", "zstd"]
_FORMATS: dict[str, DataFormat] = {
    ".csv": "CSV",
    ".jsonl": "JSONLines",
    ".ndjson": "JSONLines",
    ".json": "JSON",
    ".parquet": "Parquet",
    ".pq": "Parquet",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_FOREIGN_ENDINGS = {
    ".tsv": "Write the file with commas as .csv, or as JSON Lines.",
    ".xlsx": "Save the sheet as CSV in UTF-8.",
    ".xls": "Save the sheet as CSV in UTF-8.",
    ".bz2": "Compress the file with gzip or zstd instead of bzip2.",
    ".xz": "Compress the file with gzip or zstd instead of xz.",
    ".zip": "Take the file out of the archive; gzip or zstd may compress it.",
    ".tar": "Take the file out of the archive; gzip or zstd may compress it.",
    ".arrow": "Write the table as Parquet.",
    ".feather": "Write the table as Parquet.",
    ".orc": "Write the table as Parquet.",
    ".avro": "Write the table as Parquet.",
    ".lz4": "Compress the file with gzip or zstd instead of lz4.",
}
_MAGIC: tuple[tuple[re.Pattern[bytes], Compression], ...] = (
    (re.compile(rb"\x1f\x8b"), "gzip"),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zstd"),  # a frame, or one to be skipped
)
_FOREIGN: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"PAR1"), "is a Parquet file", "Set the format to Parquet, or let the name end in .parquet."),
    (re.compile(rb"PARE"), "is an encrypted Parquet file", "Write it without encryption."),
    (re.compile(rb"PK\x03\x04"), "is a zip archive or a spreadsheet", "Save the rows as CSV, JSON Lines or Parquet."),
    (re.compile(rb"BZh|\xfd7zXZ"), "is compressed with bzip2 or xz", "Compress it with gzip or zstd instead."),
    (re.compile(rb"ARROW1|FEA1|\xff{4}"), "is an Arrow or Feather file", "Write the table as Parquet."),
    (re.compile(rb"%PDF-"), "is a PDF", "Save the rows as CSV, JSON Lines or Parquet."),
    (
        re.compile(rb"SQLite format 3\0|Obj\x01|ORC|\x80[\x02-\x05]"),
        "is a database, Avro, ORC or pickle file",
        "Save the rows as CSV, JSON Lines or Parquet.",
    ),
    (
        re.compile(rb".{257}ustar", re.DOTALL),
        "is a tar archive",
        "Take the file out of it; gzip or zstd may compress it.",
    ),
    (re.compile(rb"\x1f\x8b|\x28\xb5\x2f\xfd"), "is compressed twice", "Compress it once."),
    (
        re.compile(rb"version https://git-lfs"),
        "is a pointer of Git LFS, not the data itself",
        "Fetch the data with git lfs pull, and upload that.",
    ),
    (
        re.compile(rb"\s*<(!doctype html|html|\?xml)", re.IGNORECASE),
        "is a web page, not data",
        "Name the address of the file itself; the place may want a login, or show the file in a viewer.",
    ),
)
_NO_TEXT: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"\xff\xfe|\xfe\xff|\0\0\xfe\xff"), "is UTF-16 or UTF-32 text", "Save it as UTF-8."),
    (re.compile(rb".{0,3}\0", re.DOTALL), "is no text in UTF-8: it begins with NUL bytes", "Save it as UTF-8."),
)


class FileFormat(NamedTuple):
    """How a file is read."""

    format: DataFormat
    compression: Compression | None

    def __str__(self) -> str:
        """As the verdict says it."""
        return f"{self.format}, {self.compression}" if self.compression else self.format


def data_format(file_name: str, asked: DataFormat, field: str) -> DataFormat:
    """The format that was asked for, else that of the ending.

    Raises:
        TrainerError: SpecInvalid, format is Auto and the ending is unknown.
    """
    if asked != "Auto":
        return asked
    name = file_name.lower()
    if _compression_by_ending(name):
        name = name.rpartition(".")[0]
    found = next((kind for ending, kind in _FORMATS.items() if name.endswith(ending)), None)
    if found is None:
        step = next((step for ending, step in _FOREIGN_ENDINGS.items() if name.endswith(ending)), None)
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{field}: the ending of {file_name} does not tell its format",
            step or f"Set {field}.format to CSV, JSONLines, JSON or Parquet.",
        )
    return found


def compression_of(file_name: str, start: bytes) -> Compression | None:
    """How a file is compressed: by its first bytes, else by the promise of its ending, which may be broken."""
    return next((kind for magic, kind in _MAGIC if magic.match(start)), _compression_by_ending(file_name.lower()))


def _compression_by_ending(name: str) -> Compression | None:
    return next((kind for ending, kind in _COMPRESSIONS.items() if name.endswith(ending)), None)


def require_own_kind(start: bytes, file_format: FileFormat, file_name: str) -> None:
    """Refuse what is plainly something else, by the first bytes of a file without its compression.

    Raises:
        TrainerError: DatasetInvalid, with what it is and what to do.
    """
    in_parquet = file_format.format == "Parquet"
    for pattern, what, step in _FOREIGN[1:] if in_parquet else _FOREIGN + _NO_TEXT:
        if pattern.match(start):
            raise broken_file(file_name, what, step)


def broken_file(file_name: str, what: str, next_step: str = "Write the file anew and upload it again.") -> TrainerError:
    """A file that cannot be read to its end."""
    return TrainerError(Reason.DATASET_INVALID, f"{file_name}: {what}", next_step)


def decompressed(stream: io.BufferedReader, compression: Compression | None, file_name: str) -> io.BufferedReader:
    """The bytes without compression. Broken compression raises TrainerError while they are read."""
    if compression is None:
        return stream
    if compression == "gzip":
        unpacked: Any = gzip.GzipFile(fileobj=stream, mode="rb")
    else:
        # pyarrow's reader notices a cut stream and bounds its output; zstandard's does only one of the two
        import pyarrow as pa

        unpacked = pa.CompressedInputStream(pa.PythonFile(_Borrowed(stream), mode="r"), "zstd")
    return io.BufferedReader(_Unpacked(unpacked.read, compression, file_name), buffer_size=BUFFER)


class _Borrowed:
    """A stream for pyarrow, which would close it: what was stored after the compressed part is still to be hashed."""

    closed = False

    def __init__(self, stream: io.BufferedReader) -> None:
        self.read = stream.read

    def close(self) -> None:
        """Nothing: the stream belongs to the source."""


class _Unpacked(io.RawIOBase):
    def __init__(self, read: Callable[[int], bytes], compression: Compression, file_name: str) -> None:
        self._read = read
        self._compression = compression
        self._file_name = file_name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        with _compression_errors(self._compression, self._file_name):
            block = self._read(len(view))
        view[: len(block)] = block
        return len(block)


@contextmanager
def _compression_errors(compression: Compression, file_name: str) -> Iterator[None]:
    """Store errors are TrainerErrors by now, so an OSError here is the compression's own."""
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        said = str(error)
        if isinstance(error, EOFError) or "Truncated" in said:
            what = "breaks off in the middle"
        elif "too much memory" in said:
            what = "needs a window of more than 128 MiB: compress the file without --long or --ultra"
        else:
            what = "is broken, or not compressed this way at all"
        raise broken_file(file_name, f"the {compression} compression {what}") from error
