"""How messages, which people read, put numbers into words."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """The number with its noun: `1 row`, `1,200 rows`, `2 retries` where the plural is `retries`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
