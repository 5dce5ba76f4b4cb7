"""Text in UTF-16 as UTF-8, where its first bytes say so: as Excel's Unicode text, or without a mark."""

import codecs
import io
import re

from finetune_trainer.data.files.source import BUFFER, Filled, broken_file

_BEGINNINGS = {
    "UTF-16": re.compile(rb"\xff\xfe(?!\0\0)|\xfe\xff"),
    "UTF-16LE": re.compile(rb"([\t\n\r -~]\0){2}"),
    "UTF-16BE": re.compile(rb"(\0[\t\n\r -~]){2}"),
}
"""By the name of the encoding: its byte order mark, and not that of UTF-32, or two characters of ASCII."""


def utf16_of(start: bytes) -> str | None:
    """Which UTF-16 a file is in; None where it is in none."""
    return next((name for name, begins in _BEGINNINGS.items() if begins.match(start)), None)


def as_utf8(stream: io.BufferedReader, encoding: str, file_name: str) -> io.BufferedReader:
    """The same text. What is no whole character becomes no UTF-8 either, so that its row is found."""
    return io.BufferedReader(_Recoded(stream, encoding, file_name), buffer_size=BUFFER)


class _Recoded(Filled):
    def __init__(self, stream: io.BufferedReader, encoding: str, file_name: str) -> None:
        self._stream = stream
        self._encoding = encoding
        self._file_name = file_name
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="surrogatepass")
        self._ready = b""

    def some(self, view: memoryview) -> int:
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
