"""Detects how a file is compressed, and decompresses it in bounded memory.

The first bytes decide, whatever the file's name.
"""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from finetune_trainer.data.files.source import BUFFER, FullReads, broken_file

Compression = Literal["gzip", "zstd", "bzip2", "xz"]
_BY_EXTENSION: dict[str, Compression] = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bzip2",
    ".xz": "xz",
}
_BY_START: tuple[tuple[re.Pattern[bytes], Compression], ...] = (
    (re.compile(rb"\x1f\x8b"), "gzip"),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zstd"),  # a frame, or a skippable frame
    (re.compile(rb"BZh[1-9]"), "bzip2"),
    (re.compile(rb"\xfd7zXZ\0"), "xz"),
)
_PLAIN = re.compile(rb"PAR1|[^\0-\x08\x0e-\x1f]*\Z")
"""Start of an uncompressed file: Parquet's magic bytes, or text."""

_WINDOW = 128 * 1024 * 1024
"""Memory limit for the window of a stream, the same as in zstd's reader. `xz -9` takes half of it."""


def compression_of(file_name: str, start: bytes) -> Compression | None:
    """How a file is compressed, by its first bytes. Unknown bytes that are not text are judged by the extension."""
    found = next((kind for magic, kind in _BY_START if magic.match(start)), None)
    return found or (None if _PLAIN.match(start) else _by_extension(file_name))


def without_extension(file_name: str) -> str:
    """The name in lower case, without the extension of the compression."""
    return file_name.lower().rpartition(".")[0] if _by_extension(file_name) else file_name.lower()


def _by_extension(file_name: str) -> Compression | None:
    return next((kind for ending, kind in _BY_EXTENSION.items() if file_name.lower().endswith(ending)), None)


def decompressed(stream: io.BufferedReader, compression: Compression | None, file_name: str) -> io.BufferedReader:
    """The decompressed bytes. Reading a corrupt stream raises TrainerError."""
    if compression is None:
        return stream
    if compression == "gzip":
        unpacked: Any = gzip.GzipFile(fileobj=stream, mode="rb")
    elif compression == "bzip2":
        unpacked = _Members(stream, bz2.BZ2Decompressor)
    elif compression == "xz":
        unpacked = _Members(stream, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW))
    else:
        # pyarrow's reader detects truncation and bounds its output; zstandard's does only one of the two
        import pyarrow as pa

        unpacked = pa.CompressedInputStream(pa.PythonFile(_Unclosable(stream), mode="r"), "zstd")
    return io.BufferedReader(_Unpacked(unpacked.read, compression, file_name), buffer_size=BUFFER)


class _Members:
    """Concatenated compressed streams.

    Python's lzma.open does not bound its memory, and bz2.open ignores trailing garbage.
    """

    def __init__(self, stream: io.BufferedReader, new: Callable[[], Any]) -> None:
        self._stream = stream
        self._new = new
        self._decoder = new()

    def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end."""
        while True:
            packed = b""
            if self._decoder.eof:
                packed = self._next_member()
                if not packed:
                    return b""
                self._decoder = self._new()
            elif self._decoder.needs_input:
                packed = self._stream.read1(BUFFER)
                if not packed:
                    raise EOFError
            if unpacked := self._decoder.decompress(packed, size):
                return bytes(unpacked)

    def _next_member(self) -> bytes:
        """What follows a stream, without the zeros that may pad it."""
        packed: bytes = self._decoder.unused_data.lstrip(b"\0")
        while not packed and (more := self._stream.read1(BUFFER)):
            packed = more.lstrip(b"\0")
        return packed


class _Unclosable:
    """A stream for pyarrow, which would close it: bytes after the compressed part must still be hashed."""

    closed = False

    def __init__(self, stream: io.BufferedReader) -> None:
        self.read = stream.read

    def close(self) -> None:
        """Does nothing: the stream belongs to the source."""


class _Unpacked(FullReads):
    def __init__(self, read: Callable[[int], bytes], compression: Compression, file_name: str) -> None:
        self._read = read
        self._compression = compression
        self._file_name = file_name

    def read_some(self, view: memoryview) -> int:
        with _compression_errors(self._compression, self._file_name):
            block = self._read(len(view))
        view[: len(block)] = block
        return len(block)


@contextmanager
def _compression_errors(compression: Compression, file_name: str) -> Iterator[None]:
    """Store errors are already TrainerErrors, so an OSError here comes from the decompressor."""
    try:
        yield
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        message = str(error)
        if isinstance(error, EOFError) or "Truncated" in message:
            what = "breaks off in the middle"
        elif "too much memory" in message or "usage limit" in message:
            what = (
                f"needs a window of more than {_WINDOW >> 20} MiB: compress the file without {_TOO_WIDE[compression]}"
            )
        else:
            what = "is broken, or not compressed this way at all"
        raise broken_file(file_name, f"the {compression} compression {what}") from error


_TOO_WIDE = {"zstd": "--long or --ultra", "xz": "so large a dictionary"}
