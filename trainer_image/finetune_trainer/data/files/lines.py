"""Lines of a byte stream with their numbers, in bounded memory however long a line is."""

import io
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import NamedTuple

from finetune_trainer.data.rows import ROW_LIMIT

TOO_LONG = f"longer than {ROW_LIMIT // (1024 * 1024)} MiB"
BOM = BOM_UTF8
CTRL_Z = b"\x1a"
"""Ctrl-Z, with which DOS programs end a text; not part of it."""
CESU_8 = "CESU-8 text, which is UTF-8 but for emoji and other rare characters"
"""Problem of text that encodes those characters as two surrogates."""
_SURROGATES = re.compile(rb"\xed[\xa0-\xaf].\xed[\xb0-\xbf]", re.DOTALL)
_END_BYTES = 3
"""Number of bytes at the end of a line in which Ctrl-Z may be, with a line end after it."""


class Line(NamedTuple):
    """One line with its line end; `text` is None if it is longer than a row may be."""

    number: int
    text: bytes | None
    quotes: int = 0
    """Number of double quotes in a line without text."""


class Lines:
    """Iterates over all lines, numbered from 1, without a byte order mark at the start and a Ctrl-Z at the end.

    The complete lines in the stream's buffer can be inspected and then skipped, many at once.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        skip_bom(stream)
        self._stream = stream
        self.number = 0
        """Number of the last line read."""
        self._ahead = b""
        self._line_start = b""
        """The start of the next line, taken out of the buffer to make room for the rest and further lines."""
        self._peeked = b""
        """The buffer as seen by the last `has_more`: each peek copies it."""

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        text = self._line_start + self._stream.readline(ROW_LIMIT + 1 - len(self._line_start))
        self._line_start = self._peeked = b""
        if CTRL_Z in text[-_END_BYTES:]:
            text = self._without_end(text)
        if not text:
            raise StopIteration
        self.number += 1
        if len(text) > ROW_LIMIT and not text.endswith(b"\n"):
            return Line(self.number, None, text.count(b'"') + _skip_line(self._stream))
        return Line(self.number, text)

    def _without_end(self, line: bytes) -> bytes:
        """The line without a final Ctrl-Z, if it is the last line; in other lines that byte is data."""
        text, _, after = line.rpartition(CTRL_Z)
        if after.strip() or self._stream.peek(1):
            return line
        return text if text.strip() else b""

    def has_more(self) -> bool:
        """Whether anything is left."""
        self._peeked = self._stream.peek()
        return bool(self._line_start or self._peeked)

    def ahead(self) -> bytes:
        """The complete lines in the stream's buffer, without consuming them.

        If the buffer has only the start of a line, that is taken out first: reading the line on its own would cost as
        much as fifty lines.
        """
        buffered, self._peeked = self._peeked or self._stream.peek(), b""
        if b"\n" not in buffered and not self._line_start:
            self._line_start = self._stream.read(len(buffered))
            buffered = self._stream.peek()
        complete = buffered[: buffered.rfind(b"\n") + 1]
        self._ahead = self._line_start + complete if complete else b""
        if CTRL_Z in self._ahead[-_END_BYTES:]:  # not part of the last line, so that line is read on its own
            self._ahead = self._ahead[: self._ahead.rfind(b"\n", 0, -1) + 1]
        return self._ahead

    def skip(self, count: int, *, are_all: bool) -> None:
        """Skip the first `count` lines ahead, or all of them: finding their end takes as long as splitting."""
        lines = self._ahead if are_all else b"\n".join(self._ahead.split(b"\n", count)[:count]) + b"\n"
        self._stream.read(len(lines) - len(self._line_start))
        self._line_start = b""
        self.number += count


def other_than_utf8(text: bytes | bytearray) -> str:
    """Describes bytes that are not UTF-8, for messages."""
    return CESU_8 if _SURROGATES.search(text) else "not UTF-8 text: save the file as UTF-8"


def skip_bom(stream: io.BufferedReader) -> None:
    """Skip a byte order mark at the start of the stream."""
    if stream.peek(len(BOM)).startswith(BOM):
        stream.read(len(BOM))


def _skip_line(stream: io.BufferedReader) -> int:
    """Read to the end of the line. Returns the number of double quotes in it."""
    quotes = 0
    while rest := stream.readline(1 << 16):
        quotes += rest.count(b'"')
        if rest.endswith(b"\n"):
            break
    return quotes
