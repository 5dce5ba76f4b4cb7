"""A JSON array of objects → records, element by element: memory does not grow with the file.

Only where elements begin and end is found here, by brackets, quotes and commas. Each is then decoded by itself, as a
line of JSON Lines is, so a bad element does not end the file.
"""

import io
import re
from collections.abc import Iterator

from finetune_trainer.data.blocks import Block, Objects
from finetune_trainer.data.files.array_blocks import elements, whole_elements
from finetune_trainer.data.files.json_lines import json_record
from finetune_trainer.data.files.lines import END_OF_DOS, TOO_LONG, skip_bom
from finetune_trainer.data.files.source import broken_file
from finetune_trainer.data.rows import ROW_LIMIT, Position, Record, element_places

_BLOCK = 1 << 16
_STRING = rb'(?:"[^"]*+(?<!\\)"|"(?:[^"\\]++|\\.)*+")'  # without escaped quotes, which is quicker; with them
_OUTSIDE = re.compile(rb'[][{},"]')
_FLAT = rb'[{[](?:[^][{}"]++|%b)*+[]}]' % _STRING
_TWO_DEEP = rb'[{[](?:[^][{}"]++|%b|%b)*+[]}]' % (_STRING, _FLAT)
_THREE_DEEP = rb'[{[](?:[^][{}"]++|%b|%b)*+[]}]' % (_STRING, _TWO_DEEP)
_WHOLE = re.compile(rb"\s*+%b\s*+[],]" % _THREE_DEEP, re.DOTALL)
"""Most elements, in one step: prompt and completion have no bracket within theirs, conversations have two."""

_IN_STRING = re.compile(rb'["\\]')
AFTER_ARRAY = "something follows the array"
"""Beginning of what is said of it."""
_AFTER = f"{AFTER_ARRAY}: it is not read; write one array of all rows, or one object a line"
_AS_ARRAY = (
    "Write an array of objects, or set the format that it has. `sed '1s/^[^[{]*//; $s/[^]}]*$//' FILE > ROWS.json` "
    "removes what surrounds an array in a script, such as const data = and a semicolon."
)
CUT = "the array breaks off: a bracket or a quote is not closed"
"""What is said of its end."""


def read_json_array(stream: io.BufferedReader, file_name: str) -> Iterator[Record | Block]:
    """Every element, by itself or in a block. What is left of a broken array is the last one.

    Raises:
        TrainerError: DatasetInvalid, the file is not empty and begins with no array.
    """
    skip_bom(stream)
    elements = _Elements(stream)
    first = elements.open()
    if first not in (b"[", b""):
        raise broken_file(file_name, "is not a JSON array", _AS_ARRAY)
    return elements.records() if first else iter(())


class _Elements:
    """A stream cut into the elements of the array that it holds."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._block = b""
        self._at = 0
        """Where the block is read next; a byte beyond its end where an escape is cut in two."""
        self._careful = 0
        """Up to where elements of the block are read one by one: they were looked at together in vain."""
        self._line = 1
        self._text = bytearray()
        self._size = 0
        """Bytes of the present element, those beyond the limit too, which are not kept."""
        self._begins = 1
        """Line on which it begins."""

    def open(self) -> bytes:
        """The first byte that is no white space, which is passed over; none where there is no such byte."""
        while self._fill():
            rest = self._block[self._at :].lstrip()
            end = len(self._block) - len(rest)
            self._line += self._block.count(b"\n", self._at, end)
            self._at = end + 1 if rest else end
            if rest:
                return rest[:1]
        return b""

    def records(self) -> Iterator[Record | Block]:
        """What stands in the array, whose bracket is passed."""
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
                behind = self.open()
                if self.open() if behind == END_OF_DOS else behind:
                    yield Record(Position(self._line, row=row + 1), None, _AFTER)
                return
            row += 1
        yield Record(Position(self._begins if self._size else self._line, row=row), None, CUT)

    def _together(self, row: int) -> Block | None:
        """Elements that the block has whole, where nothing is unusual with them; else the next is read by itself."""
        if self._at < self._careful:
            return None
        self._top_up()
        found = whole_elements(self._block, self._at)
        start, end = found or (0, len(self._block))
        read = elements(self._block[start:end]) if found else None
        if read is None:
            self._careful = end
            return None
        line = self._line + self._block.count(b"\n", self._at, start)
        self._line = line + self._block.count(b"\n", start, end)
        self._at = end
        return Objects(element_places(row, line, read.breaks), read.rows)

    def _top_up(self) -> None:
        """See to it that not only an end of the block is left."""
        if self._at >= len(self._block) - _BLOCK // 2:
            self._block = self._block[self._at :]
            self._block += self._stream.read(_BLOCK - len(self._block))
            self._at = self._careful = 0

    def _record(self, row: int) -> Record:
        position = Position(self._begins if self._size else self._line, row=row)
        if self._size > ROW_LIMIT:
            return Record(position, None, f"the element is {TOO_LONG}")
        if not self._size:
            return Record(position, None, "there is nothing between two commas, or after the last one")
        return json_record(position, self._text, "element")

    def _element(self) -> bytes:
        """Read one element; the comma or bracket after it, none where the stream ends before."""
        self._text.clear()
        self._size = depth = 0
        if whole := _WHOLE.match(self._block, self._at):
            self._keep(self._at, whole.end() - 1)
            self._at = whole.end()
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
        """The next byte of this block that says something about where the element ends; none where there is none."""
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
        """See to it that there is a block with something left, or a new one; False at the end of the stream."""
        if self._at >= len(self._block):
            self._at -= len(self._block)
            self._block, self._careful = self._stream.read(_BLOCK), 0
        return bool(self._block)
