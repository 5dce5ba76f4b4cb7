"""Lists with a cursor: `after` an identifier, at most `limit`, and whether there is more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from openai.pagination import SyncCursorPage

from tests.simulators.http import Call, Reply
from tests.simulators.openai import errors
from tests.simulators.shapes import conform

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """How a list names and shows its items, and how long it may be."""

    identify: Callable[[T], str]
    show: Callable[[T], dict[str, Any]]
    usual: int = 20
    most: int = 100


def page(call: Call, items: Sequence[T], kind: Page[T]) -> Reply:
    """The requested part of `items`.

    Raises:
        ApiError: the query is invalid.
    """
    limit = _limit(call, kind)
    start = 0
    if after := call.query.get("after"):
        places = [place for place, item in enumerate(items) if kind.identify(item) == after]
        if not places:
            raise errors.refusal(400, f"Invalid 'after': no object with the ID '{after}'.", "after")
        start = places[0] + 1
    shown = [kind.show(item) for item in items[start : start + limit]]
    more = {"data": shown, "has_more": start + limit < len(items)}
    conform(SyncCursorPage[dict[str, Any]], more)
    return Reply.json({"object": "list"} | more)


def _limit(call: Call, kind: Page[T]) -> int:
    asked = call.query.get("limit", str(kind.usual))
    if not asked.isdecimal() or not 1 <= int(asked) <= kind.most:
        raise errors.refusal(400, f"Invalid 'limit': expected a whole number from 1 to {kind.most}.", "limit")
    return int(asked)
