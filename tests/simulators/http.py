"""An operation's call and reply."""

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
            ValueError: it is not JSON.
        """
        return orjson.loads(self.body) if self.body else {}


@dataclass
class Reply:
    """An answer. A path is sent as that file's content, an iterable as a stream."""

    status: int = 200
    body: bytes | Path | Iterable[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    @classmethod
    def json(cls, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Reply":
        """An answer in JSON."""
        return cls(status, orjson.dumps(body), headers or {})


class Cut(Exception):
    """Raised to close a call's connection without an answer."""


class ApiError(Exception):
    """An error; the provider's simulator renders it in the provider's format."""

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
"""Sits between a received call and its operation, whose name it gets: carries it out, or raises Cut."""


async def pass_on(_: str, carry_out: Callable[[], Reply]) -> Reply:
    """The meddler that does nothing."""
    return carry_out()


async def whole_body(request: web.Request) -> bytes:
    """Receive a body into memory."""
    return await request.read()


@dataclass(frozen=True)
class Route:
    """The operation of a method and path; if several share a path, `choose` selects one."""

    method: str
    path: str
    operation: str
    handler: Handler
    receive: Callable[[web.Request], Awaitable[Any]] = whole_body
    choose: Callable[[web.Request], "Route"] | None = None
