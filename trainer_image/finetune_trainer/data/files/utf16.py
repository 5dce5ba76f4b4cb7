"""Text in UTF-16 as UTF-8, where its first bytes say so: what Excel calls Unicode text."""

import codecs
import io

from finetune_trainer.data.files.source import BUFFER, Filled, broken_file

NAME = "UTF-16"
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_utf16(start: bytes) -> bool:
    """Whether a file begins with the byte order mark of UTF-16, and not with that of UTF-32."""
    return start.startswith(_MARKS) and not start.startswith(codecs.BOM_UTF32_LE)


def as_utf8(stream: io.BufferedReader, file_name: str) -> io.BufferedReader:
    """The same text. What is no whole character becomes no UTF-8 either, so that its row is found."""
    return io.BufferedReader(_Recoded(stream, file_name), buffer_size=BUFFER)


class _Recoded(Filled):
    def __init__(self, stream: io.BufferedReader, file_name: str) -> None:
        self._stream = stream
        self._file_name = file_name
        self._decoder = codecs.getincrementaldecoder("utf-16")(errors="surrogatepass")
        self._ready = b""

    def some(self, view: memoryview) -> int:
        block = b"more"
        while block and not self._ready:
            block = self._stream.read1(BUFFER)
            try:
                self._ready = self._decoder.decode(block, final=not block).encode(errors="surrogatepass")
            except UnicodeDecodeError as error:
                raise broken_file(self._file_name, f"the {NAME} text breaks off within a character") from error
        size = min(len(view), len(self._ready))
        view[:size], self._ready = self._ready[:size], self._ready[size:]
        return size
