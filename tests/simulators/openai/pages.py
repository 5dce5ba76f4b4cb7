"""Lists with a cursor: `after` an identifier, at most `limit`, and whether there is more."""

from dataclasses import dataclass
from typing import Any

from openai.pagination import SyncCursorPage
from pydantic import BaseModel

from tests.simulators.http import Call, Reply
from tests.simulators.openai import errors
from tests.simulators.shapes import conform


@dataclass(frozen=True)
class Page:
    """What a list holds and how long it may be."""

    item: type[BaseModel]
    usual: int
    most: int


def page(call: Call, items: list[dict[str, Any]], kind: Page) -> Reply:
    """The part of `items` that the query asks for.

    Raises:
        ApiError: the query asks for what no list has.
    """
    limit = _limit(call, kind)
    start = 0
    if after := call.query.get("after"):
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise errors.refusal(400, f"Invalid 'after': no object with the ID '{after}'.", "after")
        start = places[0] + 1
    shown = items[start : start + limit]
    body = {"object": "list", "data": shown, "has_more": start + limit < len(items)}
    conform(SyncCursorPage[dict[str, Any]], {key: body[key] for key in ("data", "has_more")})
    return Reply.json(body)


def _limit(call: Call, kind: Page) -> int:
    asked = call.query.get("limit", str(kind.usual))
    if not asked.isdecimal() or not 1 <= int(asked) <= kind.most:
        raise errors.refusal(400, f"Invalid 'limit': expected a whole number from 1 to {kind.most}.", "limit")
    return int(asked)
