"""A JSON array of objects → records, element by element: memory does not grow with the file.

This module only finds where elements begin and end, by brackets, quotes and commas. Each is then decoded on its own,
like a line of JSON Lines, so that an invalid element does not end the file.
"""

import io
import re
from collections.abc import Iterator

from finetune_trainer.data.blocks import Block, Objects
from finetune_trainer.data.files.array_blocks import complete_elements, elements
from finetune_trainer.data.files.json_lines import json_record
from finetune_trainer.data.files.lines import CTRL_Z, TOO_LONG, skip_bom
from finetune_trainer.data.files.source import broken_file
from finetune_trainer.data.rows import ROW_LIMIT, Position, Record, element_places

_BLOCK = 1 << 16
_STRING = rb'(?:"[^"]*+(?<!\\)"|"(?:[^"\\]++|\\.)*+")'  # the first form, without escaped quotes, is faster
_OUTSIDE = re.compile(rb'[][{},"]')
_FLAT = rb'[{[](?:[^][{}"]++|%b)*+[]}]' % _STRING
_TWO_DEEP = rb'[{[](?:[^][{}"]++|%b|%b)*+[]}]' % (_STRING, _FLAT)
_THREE_DEEP = rb'[{[](?:[^][{}"]++|%b|%b)*+[]}]' % (_STRING, _TWO_DEEP)
_WHOLE = re.compile(rb"\s*+%b\s*+[],]" % _THREE_DEEP, re.DOTALL)
"""Matches most elements in one step: prompts and completions have no brackets inside, conversations have two levels."""

_IN_STRING = re.compile(rb'["\\]')
AFTER_ARRAY = "something follows the array"
"""Start of the problem of text after the array."""
_AFTER = f"{AFTER_ARRAY}: it is not read; write one array of all rows, or one object a line"
_AS_ARRAY = (
    "Write an array of objects, or set the format that it has. `sed '1s/^[^[{]*//; $s/[^]}]*$//' FILE > ROWS.json` "
    "removes what surrounds an array in a script, such as const data = and a semicolon."
)
CUT = "the array breaks off: a bracket or a quote is not closed"
"""Problem of a truncated array."""


def read_json_array(stream: io.BufferedReader, file_name: str) -> Iterator[Record | Block]:
    """Every element, as a Record or in a Block. A truncated array yields its rest as the last record.

    Raises:
        TrainerError: DatasetInvalid, the file is not empty and does not begin with an array.
    """
    skip_bom(stream)
    elements = _Elements(stream)
    first = elements.open()
    if first not in (b"[", b""):
        raise broken_file(file_name, "is not a JSON array", _AS_ARRAY)
    return elements.records() if first else iter(())


class _Elements:
    """Splits a stream into the elements of its array."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._block = b""
        self._at = 0
        """Next position in the block; one byte beyond its end if an escape is cut in two."""
        self._single_until = 0
        """Up to here elements are read one by one, because reading them together has failed."""
        self._line = 1
        self._text = bytearray()
        self._size = 0
        """Bytes of the current element, including those beyond the limit, which are not kept."""
        self._begins = 1
        """Line on which the current element begins."""

    def open(self) -> bytes:
        """The next byte that is not white space, consumed; b"" if there is none."""
        while self._fill():
            rest = self._block[self._at :].lstrip()
            end = len(self._block) - len(rest)
            self._line += self._block.count(b"\n", self._at, end)
            self._at = end + 1 if rest else end
            if rest:
                return rest[:1]
        return b""

    def records(self) -> Iterator[Record | Block]:
        """The records of the array, after its opening bracket."""
        row = 0
        while True:
            while block := self._together(row):
                yield block
                row += len(block)
            end = self._element()
            if not end:
                break
            if self._size or row or end == b",":
                yield self._record(row)
            if end == b"]":
                after = self.open()
                if self.open() if after == CTRL_Z else after:
                    yield Record(Position(self._line, row=row + 1), None, _AFTER)
                return
            row += 1
        yield Record(Position(self._begins if self._size else self._line, row=row), None, CUT)

    def _together(self, row: int) -> Block | None:
        """The complete elements in the block if none is unusual; otherwise None, and the next one is read alone."""
        if self._at < self._single_until:
            return None
        self._refill()
        found = complete_elements(self._block, self._at)
        start, end = found or (0, len(self._block))
        read = elements(self._block[start:end]) if found else None
        if read is None:
            self._single_until = end
            return None
        line = self._line + self._block.count(b"\n", self._at, start)
        self._line = line + self._block.count(b"\n", start, end)
        self._at = end
        return Objects(element_places(row, line, read.breaks), read.rows)

    def _refill(self) -> None:
        """Refill the block if less than half of its size is left."""
        if self._at >= len(self._block) - _BLOCK // 2:
            self._block = self._block[self._at :]
            self._block += self._stream.read(_BLOCK - len(self._block))
            self._at = self._single_until = 0

    def _record(self, row: int) -> Record:
        position = Position(self._begins if self._size else self._line, row=row)
        if self._size > ROW_LIMIT:
            return Record(position, None, f"the element is {TOO_LONG}")
        if not self._size:
            return Record(position, None, "there is nothing between two commas, or after the last one")
        return json_record(position, self._text, "element")

    def _element(self) -> bytes:
        """Read one element. Returns the comma or bracket after it, b"" if the stream ends before."""
        self._text.clear()
        self._size = depth = 0
        if element := _WHOLE.match(self._block, self._at):
            self._keep(self._at, element.end() - 1)
            self._at = element.end()
            return self._block[self._at - 1 : self._at]
        in_string = begun = False
        while self._fill():
            start, begun = 0 if begun else self._at, True
            while mark := self._mark(_IN_STRING if in_string else _OUTSIDE):
                if mark == b"\\":
                    self._at += 1
                elif mark == b'"':
                    in_string = not in_string
                elif mark in b"[{":
                    depth += 1
                elif depth and mark != b",":
                    depth -= 1
                elif not depth and mark != b"}":
                    self._keep(start, self._at - 1)
                    return mark
            self._keep(start, len(self._block))
        return b""

    def _mark(self, marks: re.Pattern[bytes]) -> bytes:
        """The next byte in the block that matters for the element's end; b"" if there is none."""
        found = marks.search(self._block, self._at)
        self._at = found.end() if found else max(self._at, len(self._block))
        return found[0] if found else b""

    def _keep(self, start: int, end: int) -> None:
        piece = self._block[start:end]
        if not self._size:
            inner = piece.lstrip()
            self._begins = self._line + piece.count(b"\n", 0, len(piece) - len(inner))
            piece = inner
        self._size += len(piece)
        if self._size <= ROW_LIMIT:
            self._text += piece
        self._line += self._block.count(b"\n", start, end)

    def _fill(self) -> bool:
        """Ensure that the block has unread bytes, by reading a new one if needed; False at the end of the stream."""
        if self._at >= len(self._block):
            self._at -= len(self._block)
            self._block, self._single_until = self._stream.read(_BLOCK), 0
        return bool(self._block)
