"""Pages of AWS's lists: as many things as are asked for, or fewer, down to none before the next token."""

from collections.abc import Sequence
from typing import TypeVar

from tests.simulators.aws.settings import AwsSettings

T = TypeVar("T")

_NOTHING_YET = "x"
"""What ends the token of an empty page."""


def page(things: Sequence[T], token: str, size: int, settings: AwsSettings) -> tuple[Sequence[T], str | None]:
    """The page that a token asks for, the first one by "", and the token of the next one."""
    if settings.empty_pages and not token.endswith(_NOTHING_YET):
        return [], f"{token or 0}{_NOTHING_YET}"
    start = int(token.removesuffix(_NOTHING_YET) or 0)
    end = start + min(size, settings.page_size or size)
    return things[start:end], str(end) if end < len(things) else None
