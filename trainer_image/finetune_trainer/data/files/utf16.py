"""Converts UTF-16 to UTF-8, if its first bytes show it: as in Excel's Unicode text, or without a byte order mark."""

import codecs
import io
import re

from finetune_trainer.data.files.source import BUFFER, FullReads, broken_file

_BEGINNINGS = {
    "UTF-16": re.compile(rb"\xff\xfe(?!\0\0)|\xfe\xff"),
    "UTF-16LE": re.compile(rb"([\t\n\r -~]\0){2}"),
    "UTF-16BE": re.compile(rb"(\0[\t\n\r -~]){2}"),
}
"""By encoding: its byte order mark (that of UTF-32 excluded), or two ASCII characters."""


def utf16_of(start: bytes) -> str | None:
    """The UTF-16 encoding of a file; None if it has another one."""
    return next((name for name, begins in _BEGINNINGS.items() if begins.match(start)), None)


def as_utf8(stream: io.BufferedReader, encoding: str, file_name: str) -> io.BufferedReader:
    """The text as UTF-8. A lone surrogate becomes invalid UTF-8, so that its row is reported."""
    return io.BufferedReader(_Recoded(stream, encoding, file_name), buffer_size=BUFFER)


class _Recoded(FullReads):
    def __init__(self, stream: io.BufferedReader, encoding: str, file_name: str) -> None:
        self._stream = stream
        self._encoding = encoding
        self._file_name = file_name
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="surrogatepass")
        self._ready = b""

    def read_some(self, view: memoryview) -> int:
        block = b"more"
        while block and not self._ready:
            block = self._stream.read1(BUFFER)
            try:
                self._ready = self._decoder.decode(block, final=not block).encode(errors="surrogatepass")
            except UnicodeDecodeError as error:
                raise broken_file(
                    self._file_name, f"the {self._encoding} text breaks off within a character"
                ) from error
        size = min(len(view), len(self._ready))
        view[:size], self._ready = self._ready[:size], self._ready[size:]
        return size
