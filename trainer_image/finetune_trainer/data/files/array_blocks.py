"""Fast path for many elements of a JSON array: the objects, and the line on which each begins."""

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from finetune_trainer.data.files.duplicate_keys import has_unique_names
from finetune_trainer.data.files.json_lines import objects

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_BEGIN = re.compile(rb'\s*+(\{\s*+"[^"]*+")')
_COMMA = re.compile(rb"\s*+,\s*+")


class Elements(NamedTuple):
    """Consecutive elements that are all objects."""

    rows: list[dict[str, Any]]
    breaks: Sequence[int]
    """Number of line breaks from the first byte to each element."""


def complete_elements(block: bytes, at: int) -> tuple[int, int] | None:
    """Where the next element begins, and where the last one in the block begins that starts like it.

    Rows of one file name the same column first, so the last one found is the element that the block's end cuts, or one
    near it. None if no other element starts like the first.
    """
    first = _BEGIN.match(block, at)
    last = block.rfind(first[1], first.end()) if first else -1
    return (first.start(1), last) if first and last >= 0 else None


def elements(text: bytes) -> Elements | None:
    """The elements of a text that ends with the comma after the last one; None unless all are plainly objects.

    If the text without that comma, in brackets, is a complete array, then it was cut between elements: what follows
    cannot change how JSON is parsed.
    """
    text = text.rstrip()
    if not text.endswith(b","):
        return None
    text = text[:-1]
    try:
        found = _split(b"[%b]" % text)
    except (msgspec.DecodeError, RecursionError):
        return None
    rows = objects(found)
    breaks = _breaks(text, found) if rows and has_unique_names(text, rows) else None
    return Elements(rows, breaks) if rows and breaks is not None else None


def _breaks(text: bytes, found: list[msgspec.Raw]) -> Sequence[int] | None:
    """Line breaks before each element; None if the text between the elements varies."""
    if b"\n" not in text:
        return [0] * len(found)
    comma = _COMMA.match(text, len(found[0]))
    between = comma[0] if comma else b""
    if between.join(found) != text:
        return None
    more = between.count(b"\n")
    if text.count(b"\n") == more * (len(found) - 1):
        return range(0, more * len(found), more)
    return list(accumulate((bytes(one).count(b"\n") + more for one in found[:-1]), initial=0))
