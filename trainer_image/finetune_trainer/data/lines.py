"""Lines of a byte stream with their numbers, in bounded memory however long a line is."""

import io
from collections.abc import Iterator
from typing import NamedTuple

from finetune_trainer.data.rows import ROW_LIMIT

TOO_LONG = f"longer than {ROW_LIMIT // (1024 * 1024)} MiB"
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line with its end; `text` is None where it is longer than a row may be."""

    number: int
    text: bytes | None
    quotes: int = 0
    """How many double quotes a line without text had."""


def lines(stream: io.BufferedReader) -> Iterator[Line]:
    """All lines, numbered from 1. A byte order mark at the beginning is left out."""
    skip_bom(stream)
    number = 0
    while text := stream.readline(ROW_LIMIT + 1):
        number += 1
        if len(text) > ROW_LIMIT and not text.endswith(b"\n"):
            yield Line(number, None, text.count(b'"') + _skip_line(stream))
        else:
            yield Line(number, text)


def skip_bom(stream: io.BufferedReader) -> None:
    """Pass over a byte order mark, where the stream begins with one."""
    if stream.peek(len(_BOM)).startswith(_BOM):
        stream.read(len(_BOM))


def _skip_line(stream: io.BufferedReader) -> int:
    """Read to the end of the line; how many double quotes there were."""
    quotes = 0
    while rest := stream.readline(1 << 16):
        quotes += rest.count(b'"')
        if rest.endswith(b"\n"):
            break
    return quotes
