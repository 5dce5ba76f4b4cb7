"""A call as an operation sees it, and what it answers."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web


@dataclass(frozen=True)
class Call:
    """One request, its body received. `route` is the path's template, `url` the address that was called."""

    operation: str
    route: str
    method: str
    url: str
    raw_path: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none.
        """
        return orjson.loads(self.body) if self.body else {}


@dataclass
class Reply:
    """An answer. A path is sent as that file's content, an iterable piece by piece."""

    status: int = 200
    body: bytes | Path | Iterable[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    @classmethod
    def json(cls, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Reply":
        """An answer in JSON."""
        return cls(status, orjson.dumps(body), headers or {})


class Cut(Exception):
    """Raised in the way of a call: its connection is closed without an answer."""


class ApiError(Exception):
    """A refusal; the provider's simulator gives it the provider's shape."""

    def __init__(self, status: int, code: str | None, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers: dict[str, str] = {}


Handler = Callable[[Call], Reply]
"""Carries out an operation at once; the clock stands still meanwhile."""

Meddle = Callable[[str, Callable[[], Reply]], Awaitable[Reply]]
"""Stands between a call that has arrived and its operation, whose name it is told: carries it out, or raises Cut."""


async def pass_on(_: str, carry_out: Callable[[], Reply]) -> Reply:
    """The meddler that does nothing."""
    return carry_out()


async def whole_body(request: web.Request) -> bytes:
    """Receive a body into memory."""
    return await request.read()


@dataclass(frozen=True)
class Route:
    """Which operation a method and path stand for; where many share a path, `choose` finds the one that is meant."""

    method: str
    path: str
    operation: str
    handler: Handler
    receive: Callable[[web.Request], Awaitable[Any]] = whole_body
    choose: Callable[[web.Request], "Route"] | None = None
