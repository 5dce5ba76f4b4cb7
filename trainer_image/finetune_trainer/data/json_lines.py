"""JSON Lines → records: one object a line. Blank lines are passed over; a bad line does not end the file."""

import io
import re
from collections.abc import Iterator

import msgspec

from finetune_trainer.data.lines import TOO_LONG, lines
from finetune_trainer.data.rows import Position, Record

_BYTE = re.compile(r"\(byte (\d+)\)")


def read_json_lines(stream: io.BufferedReader) -> Iterator[Record]:
    """Every line that is not blank, as a record."""
    decode = msgspec.json.Decoder().decode
    for number, text in lines(stream):
        position = Position(line=number)
        if text is None:
            yield Record(position, None, f"the line is {TOO_LONG}")
            continue
        if text.isspace() or not text:
            continue
        try:
            fields = decode(text)
        except UnicodeDecodeError:
            yield Record(position, None, "the line is not UTF-8 text")
        except msgspec.DecodeError as error:
            yield Record(position, None, _not_json(error))
        except RecursionError:
            yield Record(position, None, "the line is nested too deeply")
        else:
            is_object = isinstance(fields, dict)
            yield Record(position, fields if is_object else None, None if is_object else "the line is no JSON object")


def _not_json(error: msgspec.DecodeError) -> str:
    """The decoder's finding without its words: only where it is."""
    if "truncated" in str(error):
        return "the line is not valid JSON: it breaks off"
    found = _BYTE.search(str(error))
    return "the line is not valid JSON" + (f" at byte {int(found[1]) + 1}" if found else "")
