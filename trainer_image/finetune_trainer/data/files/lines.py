"""Lines of a byte stream with their numbers, in bounded memory however long a line is."""

import io
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import NamedTuple

from finetune_trainer.data.rows import ROW_LIMIT

TOO_LONG = f"longer than {ROW_LIMIT // (1024 * 1024)} MiB"
BOM = BOM_UTF8
END_OF_DOS = b"\x1a"
"""Ctrl-Z, with which old programs end a text: nothing of it."""
CESU_8 = "CESU-8 text, which is UTF-8 but for emoji and other rare characters"
"""What is said of text that writes those as two halves."""
_HALVES = re.compile(rb"\xed[\xa0-\xaf].\xed[\xb0-\xbf]", re.DOTALL)
_ENDS = 3
"""Bytes of a line within which it may stand, with an end behind it."""


class Line(NamedTuple):
    """One line with its end; `text` is None where it is longer than a row may be."""

    number: int
    text: bytes | None
    quotes: int = 0
    """How many double quotes a line without text had."""


class Lines:
    """An iterator over all lines, numbered from 1, without a byte order mark at the beginning and a Ctrl-Z at the end.

    Whole lines that the stream's buffer holds can be looked at, and then be passed over, many at once.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        skip_bom(stream)
        self._stream = stream
        self.number = 0
        """Of the last line that was read."""
        self._ahead = b""
        self._begun = b""
        """Of the next line what was taken out of the buffer, for the rest and the lines behind it to be put there."""
        self._seen = b""
        """What a look whether there is anything left has shown of the buffer: every look is a copy of it."""

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        text = self._begun + self._stream.readline(ROW_LIMIT + 1 - len(self._begun))
        self._begun = self._seen = b""
        if END_OF_DOS in text[-_ENDS:]:
            text = self._without_end(text)
        if not text:
            raise StopIteration
        self.number += 1
        if len(text) > ROW_LIMIT and not text.endswith(b"\n"):
            return Line(self.number, None, text.count(b'"') + _skip_line(self._stream))
        return Line(self.number, text)

    def _without_end(self, line: bytes) -> bytes:
        """The last line of all without a Ctrl-Z with which it ends; others have what looks like one as a part."""
        text, _, behind = line.rpartition(END_OF_DOS)
        if behind.strip() or self._stream.peek(1):
            return line
        return text if text.strip() else b""

    def more(self) -> bool:
        """Whether there is anything left."""
        self._seen = self._stream.peek()
        return bool(self._begun or self._seen)

    def ahead(self) -> bytes:
        """The whole lines that are in the stream's buffer; they are still to be read.

        Where only the beginning of one is in it, that is taken out first: alone that line would cost as much as fifty.
        """
        buffered, self._seen = self._seen or self._stream.peek(), b""
        if b"\n" not in buffered and not self._begun:
            self._begun = self._stream.read(len(buffered))
            buffered = self._stream.peek()
        whole = buffered[: buffered.rfind(b"\n") + 1]
        self._ahead = self._begun + whole if whole else b""
        if END_OF_DOS in self._ahead[-_ENDS:]:  # of the last line of all that is no part: it is read alone
            self._ahead = self._ahead[: self._ahead.rfind(b"\n", 0, -1) + 1]
        return self._ahead

    def skip(self, count: int, *, are_all: bool) -> None:
        """Pass over the first of the lines that are ahead, or over all: counting takes as long as splitting does."""
        lines = self._ahead if are_all else b"\n".join(self._ahead.split(b"\n", count)[:count]) + b"\n"
        self._stream.read(len(lines) - len(self._begun))
        self._begun = b""
        self.number += count


def other_than_utf8(text: bytes | bytearray) -> str:
    """What bytes are that are no UTF-8, for messages."""
    return CESU_8 if _HALVES.search(text) else "not UTF-8 text: save the file as UTF-8"


def skip_bom(stream: io.BufferedReader) -> None:
    """Pass over a byte order mark, where the stream begins with one."""
    if stream.peek(len(BOM)).startswith(BOM):
        stream.read(len(BOM))


def _skip_line(stream: io.BufferedReader) -> int:
    """Read to the end of the line; how many double quotes there were."""
    quotes = 0
    while rest := stream.readline(1 << 16):
        quotes += rest.count(b'"')
        if rest.endswith(b"\n"):
            break
    return quotes
