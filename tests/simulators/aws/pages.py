"""Pages of AWS's lists, with at most the requested number of items; a page with a token may be empty."""

from collections.abc import Sequence
from typing import TypeVar

from tests.simulators.aws.settings import AwsSettings

T = TypeVar("T")

_NOTHING_YET = "x"
"""Suffix of the token of an empty page."""


def page(things: Sequence[T], token: str, size: int, settings: AwsSettings) -> tuple[Sequence[T], str | None]:
    """The page of a token, "" for the first page, and the next page's token."""
    if settings.empty_pages and not token.endswith(_NOTHING_YET):
        return [], f"{token or 0}{_NOTHING_YET}"
    start = int(token.removesuffix(_NOTHING_YET) or 0)
    end = start + min(size, settings.page_size or size)
    return things[start:end], str(end) if end < len(things) else None
