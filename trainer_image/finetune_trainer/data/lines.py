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


def lines(stream: io.BufferedReader) -> Iterator[Line]:
    """All lines, numbered from 1. A byte order mark at the beginning is left out."""
    number = 0
    while text := stream.readline(ROW_LIMIT + 1):
        number += 1
        if number == 1 and text.startswith(_BOM):
            text = text[len(_BOM) :]
        if len(text) > ROW_LIMIT and not text.endswith(b"\n"):
            _skip_line(stream)
            yield Line(number, None)
        else:
            yield Line(number, text)


def _skip_line(stream: io.BufferedReader) -> None:
    while (rest := stream.readline(1 << 16)) and not rest.endswith(b"\n"):
        pass
