"""Reads request bodies, up to a size limit and a deadline. Knows no routes."""

import asyncio

from aiohttp import hdrs, web

from finetune_operator.runtime.report_server.refusals import Refusal

BODY_SECONDS = 10.0


def check_head(request: web.Request, limit: int, what: str) -> None:
    """Check what can be refused before the body is read.

    Raises:
        Refusal: the body is too long, or compressed: a small one could become a large one.
    """
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit, what)
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise Refusal(415, f"send the {what} uncompressed", close=True)


async def read_body(request: web.Request, limit: int, what: str) -> bytes:
    """The body.

    Raises:
        Refusal: it is longer than `limit` bytes, is incomplete, or does not arrive within BODY_SECONDS.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit, what)
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {BODY_SECONDS:g} s", close=True) from None
    except ConnectionError:
        raise broken_off() from None
    return bytes(body)


def broken_off() -> Refusal:
    """Not our fault: the sender is gone, for example a pod that was terminated. Nobody reads this answer."""
    return Refusal(400, "the body broke off", close=True)


def _too_large(limit: int, what: str) -> Refusal:
    return Refusal(413, f"a {what} has at most {limit} bytes", close=True)
