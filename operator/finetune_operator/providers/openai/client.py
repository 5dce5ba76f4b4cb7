"""How OpenAI's API, and every service that has it, is reached: the SDK's client, without what it does by itself.

It repeats nothing, has short patience, and goes where it is told.
"""

import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from http import HTTPStatus

import httpx2
import openai

from finetune_api.reasons import Reason
from finetune_operator.providers.errors import TryLater
from finetune_operator.providers.values import plain

CALL_SECONDS = 20.0
MOVED_PAUSE_SECONDS = 60.0

FORM = "Multipart/form-data"
"""The type of a form to the SDK: with a small m it makes a form of its own, which cannot be streamed."""


def client(
    base_url: str,
    api_key: str | Callable[[], Awaitable[str]],
    *,
    organization: str | None = None,
    project: str | None = None,
) -> openai.AsyncOpenAI:
    """The SDK's client, without its own retries and with short patience."""
    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key=api_key,
        organization=organization,
        project=project,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(
            verify=_trust(),
            timeout=httpx2.Timeout(CALL_SECONDS, connect=5.0),
            event_hooks={"request": [_in_small_letters], "response": [_lead_nowhere_else]},
        ),
    )


async def _in_small_letters(request: httpx2.Request) -> None:
    """The form's type as it goes out: media types have no case (RFC 9110), yet many servers look for small letters."""
    kind = request.headers.get("Content-Type", "")
    if kind.startswith(FORM):
        request.headers["Content-Type"] = FORM.lower() + kind.removeprefix(FORM)


async def _lead_nowhere_else(response: httpx2.Response) -> None:
    """Of what is asked for elsewhere by a redirect a POST would be a GET there, and a file has passed by and is gone.

    Raises:
        TryLater: it would; nothing was done.
    """
    asked = response.request
    kept = response.status_code in {HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT}
    if not response.has_redirect_location or asked.method == "GET":
        return
    if kept and isinstance(asked.stream, httpx2.ByteStream):
        return
    where = plain(str(response.headers.get("location")).partition("?")[0])[:200]
    message = (
        f"{asked.url.host} sends what is asked for by {asked.method} to another address ({response.status_code}, "
        f"{where}): let the LLMConnection lead there itself"
    )
    raise TryLater(Reason.PROVIDER_UNAVAILABLE, message, MOVED_PAUSE_SECONDS)


@cache
def _trust() -> ssl.SSLContext:
    """The system's certificate authorities, read once for all connections."""
    return ssl.create_default_context()
