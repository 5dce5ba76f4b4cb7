"""A JSON array of objects → records, element by element: memory does not grow with the file.

ijson (on yajl) parses the stream; where the text is no JSON, the rest of the file cannot be read.
"""

import io
from collections.abc import Iterator
from typing import Any

import ijson

from finetune_trainer.data.formats import broken_file
from finetune_trainer.data.lines import TOO_LONG
from finetune_trainer.data.rows import ROW_LIMIT, Position, Record

_BLOCK = 1 << 16


def read_json_array(stream: io.BufferedReader, file_name: str) -> Iterator[Record]:
    """Every element, as a record. An element that breaks the array is the last record.

    Raises:
        TrainerError: DatasetInvalid, the file does not begin with an array.
    """
    _begins_with_array(stream, file_name)
    counted = _Counted(stream)
    elements = ijson.items(counted, "item", buf_size=_BLOCK)
    index = 0
    while True:
        problem = None
        try:
            fields: Any = next(elements)
        except StopIteration:
            return
        except _TooLongError:
            problem = f"the element is {TOO_LONG}; what follows was not read"
        except ijson.JSONError:
            problem = "the array is not valid JSON from here on; what follows was not read"
        except RecursionError:
            problem = "the element is nested too deeply; what follows was not read"
        if problem:
            yield Record(Position(row=index), None, problem)
            return
        counted.since_element = 0
        is_object = isinstance(fields, dict)
        yield Record(Position(row=index), fields if is_object else None, None if is_object else "no JSON object")
        index += 1


def _begins_with_array(stream: io.BufferedReader, file_name: str) -> None:
    start = stream.peek(_BLOCK)
    if start.startswith(b"\xef\xbb\xbf"):
        stream.read(3)
        start = start[3:]
    first = start.lstrip()[:1]
    if first == b"{":
        raise broken_file(file_name, "begins with an object, not an array; for one object a line set format: JSONLines")
    if first not in (b"[", b""):
        raise broken_file(file_name, "is no JSON array")


class _TooLongError(Exception):
    pass


class _Counted:
    """The stream, with a limit on what is read for one element."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self.since_element = 0

    def read(self, size: int) -> bytes:
        if self.since_element > ROW_LIMIT + _BLOCK:
            raise _TooLongError
        block = self._stream.read(size)
        self.since_element += len(block)
        return block
