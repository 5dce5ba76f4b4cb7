"""The SDK's client for OpenAI and compatible services: without retries, with short timeouts and limited redirects."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from http import HTTPStatus
from typing import Any

import httpx2
import openai

from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import Page, TryLater, is_html
from finetune_operator.providers.calls.failed_calls import ANSWER_MAX_BYTES, redirected, too_long
from finetune_operator.providers.calls.timeouts import Limit
from finetune_operator.providers.calls.values import sanitized

CALL_SECONDS = 20.0
CONTENT = "/content"
"""End of the path of a file's content: many services redirect it to an object store on another host."""

FORM = "Multipart/form-data"
"""A form's content type for the SDK: in lower case it would build its own form, which cannot be streamed."""


def client(
    base_url: str,
    api_key: str | Callable[[], Awaitable[str]],
    *,
    organization: str | None = None,
    project: str | None = None,
) -> openai.AsyncOpenAI:
    """The SDK's client, without its own retries and with short timeouts.

    Raises:
        TryLater: the address is invalid.
    """
    try:
        httpx2.URL(base_url)
    except httpx2.InvalidURL:
        raise _no_address(base_url) from None
    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key=api_key,
        organization=organization,
        project=project,
        max_retries=0,
        http_client=_Client(
            verify=_ssl_context(),
            timeout=httpx2.Timeout(CALL_SECONDS, connect=5.0),
            event_hooks={"request": [_lowercase_form_type], "response": [_check_redirect]},
        ),
    )


def _no_address(base_url: str) -> TryLater:
    message = f"{sanitized(base_url)} has no host that could be asked"
    step = "Ask an admin to correct baseURL, or endpoint, of the LLMConnection: a host's name, or its address."
    return TryLater(Reason.PROVIDER_UNAVAILABLE, message, 60.0, next_step=step)


class _Client(openai.DefaultAsyncHttpxClient):
    """Limits the size and total time of answers: a compressed one may expand a thousandfold."""

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """See httpx2.AsyncClient.

        Raises:
            Unreadable: the answer is too long, or not JSON.
            httpx2.ReadTimeout: the total time is used up.
        """
        try:
            async with Limit(request.extensions["timeout"]["read"]) as limit:
                if not isinstance(request.stream, httpx2.ByteStream):
                    request.stream = _TimedStream(request.stream, limit)
                response = await super().send(request, stream=True, **options)
                if stream and response.is_success:
                    return response  # callers that stream limit size and time themselves
                content = await _content(response, limit)
                _require_no_page(response, content)
        except TimeoutError:
            raise httpx2.ReadTimeout("the answer takes too long", request=request) from None
        headers = [(name, value) for name, value in response.headers.items() if name not in _BODY_HEADERS]
        return httpx2.Response(response.status_code, headers=headers, content=content, request=response.request)


class _TimedStream(httpx2.AsyncByteStream):
    """A streamed request body; only the provider's time counts towards the limit."""

    def __init__(self, body: Any, limit: Limit) -> None:
        self._body = body
        self._limit = limit

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._limit.passing(self._body)


async def _content(response: httpx2.Response, limit: Limit) -> bytes:
    content = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            content += chunk
            limit.transferred(len(chunk))
            if len(content) > ANSWER_MAX_BYTES:
                raise too_long(response.request.url.host)
    finally:
        await response.aclose()
    return bytes(content)


def _require_no_page(response: httpx2.Response, content: bytes) -> None:
    """Refuse a success without JSON: the SDK would return it as a string, and crash if it expects a list.

    The answer to a DELETE may be anything.

    Raises:
        Page: it is not JSON.
    """
    is_json = response.headers.get("content-type", "").partition(";")[0].strip().casefold().endswith("json")
    if response.is_success and content.strip() and not is_json and response.request.method != "DELETE":
        what = "a web page" if is_html(content) else "a page of text"
        raise Page(f"{response.request.url.netloc.decode()} answers with {what} and status {response.status_code}")


_BODY_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers about a body's transfer, which no longer apply once it is read."""


async def _lowercase_form_type(request: httpx2.Request) -> None:
    """Send a form's type in lower case: media types are case-insensitive (RFC 9110), but many servers expect that."""
    kind = request.headers.get("Content-Type", "")
    if kind.startswith(FORM):
        request.headers["Content-Type"] = FORM.lower() + kind.removeprefix(FORM)


async def _check_redirect(response: httpx2.Response) -> None:
    """Follow redirects to the same host only, except for a file's content, whose store needs no key.

    Another host would receive data, and its answer would be taken for the provider's. A redirected POST would become a
    GET, and a streamed body cannot be sent again.

    Raises:
        TryLater: it leads elsewhere; nothing was done.
    """
    asked = response.request
    if not response.has_redirect_location:
        return
    location = str(response.headers.get("location"))
    there, kept = asked.url.join(location), isinstance(asked.stream, httpx2.ByteStream)
    stays = there.origin == asked.url.origin or (there.scheme == "https" and there.host == asked.url.host)
    if asked.method == "GET" and (stays or asked.url.path.endswith(CONTENT)):
        return
    if stays and kept and response.status_code in {HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT}:
        return
    raise redirected(asked.url.host, response.status_code, location, f"asked for by {asked.method}")


@cache
def _ssl_context() -> ssl.SSLContext:
    """The system's certificate authorities, read once for all connections."""
    return ssl.create_default_context()
