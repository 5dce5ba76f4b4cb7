"""Interprets a response of OpenAI's chat completions: an answer, a reason to retry, or the reason for a failure.

Pure: sends no requests. The text of an error response is never repeated: it may quote the question.
"""

import contextlib
import json
import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx
import orjson

from finetune_api.reasons import Reason
from finetune_trainer.evaluation.kept import Answer

_TOOLS = ("tool_calls", "function_call")
_ITS_KEY = "it does not accept the key; look at its apiKeySecretRef"
_FATAL = {
    HTTPStatus.UNAUTHORIZED: _ITS_KEY,
    HTTPStatus.FORBIDDEN: _ITS_KEY,
    HTTPStatus.NOT_FOUND: "there is no such path or model; look at its url, which often ends with /v1, and at model",
}
_REJECTED = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
_OF_LENGTH = (b"maximum context", b"context length", b"context_length", b"context size", b"context window",
              b"too long", b"too large")  # fmt: skip
_ROOM = ("max_tokens", "max_completion_tokens")
LITTLE_ROOM = 1024
"""Tokens requested for an answer if the question leaves no room for more."""
_REFUSED = {
    **dict.fromkeys(_REJECTED, "it takes no such question, or has no such model; look at model"),
    HTTPStatus.METHOD_NOT_ALLOWED: "its url, which often ends with /v1, does not serve chat completions",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "a question is too long for it, with the room for an answer "
    "(evaluation.maxNewTokens)",
}
"""Errors that may be due to one question only."""


class FailedError(Exception):
    """A question failed; with `for_good` the remaining ones need not be tried."""

    def __init__(self, why: str, *, for_good: bool = False, reason: Reason | None = None) -> None:
        super().__init__(why)
        self.for_good = for_good
        self.reason = reason


class AgainError(Exception):
    """A retry may succeed, after `seconds` if the service said so; `busy` if it is serving others."""

    def __init__(
        self, why: str, seconds: float | None = None, reason: Reason | None = None, *, busy: bool = False
    ) -> None:
        super().__init__(why)
        self.seconds = seconds
        self.reason = reason
        self.busy = busy


def other_limits(limits: Mapping[str, Any], status: int, content: bytes) -> dict[str, Any] | None:
    """The limits without what the service seems to reject; None if it rejects nothing that can be left out."""
    if status not in _REJECTED:
        return None
    other = dict(limits)
    if _is_of_length(content):
        other |= {name: LITTLE_ROOM for name in _ROOM if limits.get(name, 0) > LITTLE_ROOM}
    elif b"max_tokens" in content and "max_tokens" in other:
        other["max_completion_tokens"] = other.pop("max_tokens")
    elif b"temperature" in content:
        other.pop("temperature", None)
    return other if other != limits else None


def _is_of_length(content: bytes) -> bool:
    return any(words in content.lower() for words in _OF_LENGTH)


def require_ok(response: httpx.Response, content: bytes) -> None:
    """Return if the status is that of an answer.

    Raises:
        AgainError: a retry may succeed.
        FailedError: it will not.
    """
    status = response.status_code
    if response.is_success:
        return
    message = f"HTTP {status}"
    if status == HTTPStatus.PAYMENT_REQUIRED or (
        status == HTTPStatus.TOO_MANY_REQUESTS and b"insufficient_quota" in content
    ):
        raise FailedError(f"{message}: the account of its key has no credit left", for_good=True)
    if (
        status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT)
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    ):
        raise AgainError(message, asked_pause(response.headers), busy=status == HTTPStatus.TOO_MANY_REQUESTS)
    if status in _FATAL:
        raise FailedError(f"{message}: {_FATAL[HTTPStatus(status)]}", for_good=True)
    if response.is_redirect:
        raise FailedError(f"{message}: it sends elsewhere; name that address as url")
    if status in _REJECTED and _is_of_length(content):
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    raise FailedError(f"{message}: {_REFUSED[HTTPStatus(status)]}" if status in _REFUSED else message)


def asked_pause(headers: Mapping[str, str]) -> float | None:
    """Seconds from `retry-after-ms` or `Retry-After`: a number, or a date relative to the response's (RFC 9110)."""
    for name, of_a_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        with contextlib.suppress(ValueError):
            number = float(headers.get(name, ""))
            if 0 <= number < math.inf:
                return number / of_a_second
    header = headers.get("retry-after", "").strip()
    with contextlib.suppress(ValueError, TypeError):
        until, now = parsedate_to_datetime(header), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (until - now).total_seconds())
    return None


def answer_in(row: int, content: bytes) -> Answer:
    """The answer to this row's question.

    Raises:
        FailedError: there is none, or it was cut off.
    """
    text: Any = None
    tokens: Any = None
    finish: Any = None
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
        body = _read(content)
        finish = body["choices"][0].get("finish_reason")
        text = _text(body["choices"][0]["message"]["content"])
        tokens = (body.get("usage") or {}).get("prompt_tokens")
    if not text and finish == "length":  # a missing answer, not a wrong one
        raise FailedError("its tokens were used up before it said anything (a model that reasons needs more of them)")
    if isinstance(finish, str) and finish in _BROKEN_OFF:
        raise FailedError(_BROKEN_OFF[finish])
    if not isinstance(text, str) or (not text and _is_something_else(content)):
        raise FailedError(f"an answer has no choices[0].message.content{_what_it_is(content)}")
    return Answer(row, text.strip(), tokens if type(tokens) is int and tokens >= 0 else None)


def _read(content: bytes) -> Any:
    """Parsed JSON. orjson refuses lone surrogates, which JavaScript writes if a text ends within an emoji."""
    with contextlib.suppress(ValueError):
        return orjson.loads(content)
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


_CALLS_A_TOOL = "an answer is missing: the model calls a tool, and there is none here"
_BROKEN_OFF = {
    "content_filter": "its content filter kept the answer back, or the rest of it",
    "error": "it broke an answer off with an error, in spite of HTTP 200",
    "function_call": _CALLS_A_TOOL,
    "tool_calls": _CALLS_A_TOOL,
}
"""What text with such a finish_reason means: a partial answer, or words before a tool call."""


def _is_something_else(content: bytes) -> bool:
    """Whether an empty text comes with a refusal or a tool call: some services write "" where others write null."""
    message = _read(content)["choices"][0]["message"]
    return any(message.get(name) for name in ("refusal", *_TOOLS))


def _text(content: Any) -> Any:
    """The text of an answer in parts; a model's thoughts may be in other parts."""
    if not isinstance(content, list) or not content:
        return content
    return "".join(part["text"] for part in content if part.get("type") in ("text", "output_text"))


def _what_it_is(content: bytes) -> str:
    """What services may send instead of an answer, never quoted."""
    start = content.lstrip()[:1]
    if not start:
        return ": it is empty"
    if start == b"<":
        return ": it is a web page. url has to be that of an API, and often ends with /v1"
    if content.lstrip().startswith((b"data:", b"event:", b": ")):
        return ": it is a stream, which was not asked for"
    try:
        body = _read(content)
    except ValueError:
        return ": it is not JSON"
    return _what_it_says(body) if isinstance(body, dict) else ": it is not an object"


def _what_it_says(body: dict[str, Any]) -> str:
    message: Any = {}
    with contextlib.suppress(LookupError, TypeError):
        message = body["choices"][0]["message"]
    if body.get("error"):
        return ": it is an error, in spite of HTTP 200"
    if isinstance(message, dict) and message.get("refusal"):
        return ": the model refuses it"
    calls = isinstance(message, dict) and any(message.get(name) for name in _TOOLS)
    return ": the model calls a tool" if calls else ""
