"""How messages, which people read, put numbers into words."""


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
