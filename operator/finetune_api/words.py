"""Text helpers for messages: numbers with nouns, and texts of other programs."""

import re

_COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""Terminal escape sequences: colours and cursor movements."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNSEEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
"""White space, control characters, and invisible characters."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """The number with its noun: `1 row`, `1,200 rows`, `2 retries` where the plural is `retries`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def cut(text: str, limit: int, *, as_bytes: bool = False) -> str:
    """The text, truncated if necessary with an ellipsis.

    A command between two backticks is kept whole or removed, as somebody might run a part of it.
    `as_bytes`: the limit is in bytes of UTF-8.
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
    """A program's output without control sequences such as colours. A line that it rewrote becomes several lines."""
    return _CONTROLS.sub("", _COLOURS.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """Another program's text on one line: kubectl's lists show only the first line."""
    return _UNSEEN.sub(" ", _COLOURS.sub("", text)).strip()
