"""How messages, which people read, put numbers into words, and have others' words in them."""

import re

_COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""What gives a terminal colours, or moves its cursor."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNSEEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
"""White space, what steers terminals, and what cannot be seen."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """The number with its noun: `1 row`, `1,200 rows`, `2 retries` where the plural is `retries`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def cut(text: str, limit: int, *, as_bytes: bool = False) -> str:
    """The text, or as much of its beginning as leaves room to say that there is more.

    A command, which stands between two backticks, is shown whole or not at all: somebody may run what is left of one.
    `as_bytes`: the limit is one of UTF-8's bytes.
    """
    whole = text.encode() if as_bytes else text
    if len(whole) <= limit:
        return text
    begun = whole[: limit - 3]
    said = begun.decode(errors="ignore") if isinstance(begun, bytes) else begun
    if said.count("`") % 2:
        said = said[: said.rindex("`")].rstrip()
    return f"{said}..."


def unstyled(text: str) -> str:
    """A program's words without what steers terminals, as its colours do; what it wrote over one line are several."""
    return _CONTROLS.sub("", _COLOURS.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """Others' words on one line: lists of kubectl end at a line's end."""
    return _UNSEEN.sub(" ", _COLOURS.sub("", text)).strip()
