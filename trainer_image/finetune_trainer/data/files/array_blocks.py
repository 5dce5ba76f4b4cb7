"""Many elements of a JSON array at once: the objects, and the line that each begins on."""

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from finetune_trainer.data.files.duplicate_keys import are_told_apart
from finetune_trainer.data.files.json_lines import objects

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_BEGIN = re.compile(rb'\s*+(\{\s*+"[^"]*+")')
_COMMA = re.compile(rb"\s*+,\s*+")


class Elements(NamedTuple):
    """Elements that stand one after the other, each of them an object."""

    rows: list[dict[str, Any]]
    breaks: Sequence[int]
    """How many line breaks stand between the first byte and that of each element."""


def whole_elements(block: bytes, at: int) -> tuple[int, int] | None:
    """Where the first element that is not yet passed begins, and where the last one does that begins like it.

    Rows of one file name the same column first, so the last is the one that the block's end cuts, or near to it. None
    where no other begins like the first.
    """
    first = _BEGIN.match(block, at)
    last = block.rfind(first[1], first.end()) if first else -1
    return (first.start(1), last) if first and last >= 0 else None


def elements(text: bytes) -> Elements | None:
    """The elements of text that ends with the comma behind the last of them; None where not all are plainly objects.

    Where the text, up to that comma and between brackets, is a whole array, it is cut where its elements end: what
    follows cannot change how JSON is read.
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
    breaks = _breaks(text, found) if rows and are_told_apart(text, rows) else None
    return Elements(rows, breaks) if rows and breaks is not None else None


def _breaks(text: bytes, found: list[msgspec.Raw]) -> Sequence[int] | None:
    """Line breaks before each element; None where the same does not stand between all of them."""
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
