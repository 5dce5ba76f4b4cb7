"""Which format a file has, how it is compressed, and its bytes without the compression.

Endings decide where the job does not: `.csv`, `.jsonl`, `.ndjson`, `.json`, `.parquet`, each with `.gz` or `.zst`.
"""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from finetune_api.job import DataFormat
from finetune_api.reasons import Reason
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


class FileFormat(NamedTuple):
    """How a file is read."""

    format: DataFormat
    compression: Compression | None

    def __str__(self) -> str:
        """As the verdict says it."""
        return f"{self.format}, {self.compression}" if self.compression else self.format


def file_format(file_name: str, asked: DataFormat, field: str) -> FileFormat:
    """The format that was asked for, else that of the ending.

    Raises:
        TrainerError: SpecInvalid, format is Auto and the ending is unknown.
    """
    name = file_name.lower()
    compression = next((kind for ending, kind in _COMPRESSIONS.items() if name.endswith(ending)), None)
    if compression:
        name = name.rpartition(".")[0]
    found = next((kind for ending, kind in _FORMATS.items() if name.endswith(ending)), None)
    if asked != "Auto":
        return FileFormat(asked, compression)
    if found is None:
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{field}: the ending of {file_name} does not tell its format",
            f"Set {field}.format to CSV, JSONLines, JSON or Parquet.",
        )
    return FileFormat(found, compression)


def broken_file(file_name: str, what: str) -> TrainerError:
    """A file that cannot be read to its end."""
    return TrainerError(Reason.DATASET_INVALID, f"{file_name}: {what}", "Write the file anew and upload it again.")


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
    return io.BufferedReader(_Unpacked(unpacked.read, compression, file_name), buffer_size=1 << 18)


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
        cut = isinstance(error, EOFError) or "Truncated" in str(error)
        what = "breaks off in the middle" if cut else "is broken, or not compressed this way at all"
        raise broken_file(file_name, f"the {compression} compression {what}") from error
