"""Chat completions of OpenAI and compatible services: one call per question, no retries. Errors never quote it."""

import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from openai.types.chat import ChatCompletion

from finetune_api.asking import ChatReply, ChatRequest, Message
from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import (
    NotThere,
    Page,
    ProviderError,
    Refused,
    TryLater,
    Unknown,
    Unreadable,
    is_html,
)
from finetune_operator.providers.calls.failed_calls import redirected, unanswered
from finetune_operator.providers.calls.retry_after import asked_pause

ANSWER_SECONDS = 120.0
"""For one answer, as long ones take a while to generate."""

_CODE = re.compile(r"[a-z0-9_.]{1,64}")
_QUOTA = ("quota", "billing")
_FAULT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})


class Faulted(Refused):
    """The model received the question and rejects it as invalid."""


class OpenAIModels:
    """An AnsweringApi over OpenAI's SDK."""

    def __init__(self, sdk: openai.AsyncOpenAI) -> None:
        self._sdk = sdk
        self._host = urlsplit(str(sdk.base_url)).netloc

    async def answer(self, model: str, question: ChatRequest) -> ChatReply:
        """POST /chat/completions; repeated with other limits for models without temperature or max_tokens."""
        limits = {"max_tokens": question.max_tokens, "temperature": question.temperature}
        try:
            try:
                said = await self._complete(model, question, limits)
            except openai.BadRequestError as error:
                if error.param not in limits:
                    raise
                said = await self._complete(model, question, {"max_completion_tokens": question.max_tokens})
        except openai.APIStatusError as error:
            raise _translated(error, self._host) from None
        except (openai.APIError, httpx2.HTTPError) as error:
            if isinstance(error.__cause__, ProviderError):
                raise error.__cause__ from None  # raised by our own HTTP client and wrapped by the SDK
            raise unanswered(error, self._host) from None
        return _reply(said, self._host)

    async def answers(self, model: str) -> bool:
        """Whether a model or a deployment answers a request for one token.

        False while it is rate-limited, so that it is asked again. A rejected question counts as an answer.
        """
        question = ChatRequest(model="tuned", messages=[Message(role="user", content="ok?")], max_tokens=1)
        try:
            await self.answer(model, question)
        except NotThere:
            return False
        except Faulted:
            return True
        except TryLater as error:
            if error.reason != Reason.RATE_LIMITED:
                raise
            return False
        return True

    async def _complete(self, model: str, question: ChatRequest, limits: dict[str, int]) -> ChatCompletion:
        messages: Any = [message.wire() for message in question.messages]
        asked: dict[str, Any] = {"model": model, "messages": messages, **limits}
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=5.0)
        answer: ChatCompletion = await self._sdk.chat.completions.create(**asked, timeout=timeout)
        return answer


def _reply(said: ChatCompletion, host: str) -> ChatReply:
    """The reply; empty if there are no choices or no content, as in a refusal.

    Raises:
        Unreadable: no `choices` field: otherwise any answer would prove that a model answers.
    """
    if said.choices is None:
        raise Unreadable(f"{host} answers without choices")
    text = said.choices[0].message.content if said.choices else None
    usage = said.usage.to_dict(warnings=False) if said.usage else {}  # some services omit one of the two counts
    return ChatReply(
        text=text or "",
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
    )


def retry_after(error: openai.APIStatusError) -> float | None:
    """The pause in seconds that the provider asks for, clamped."""
    return asked_pause(error.response.headers, datetime.now(UTC))


def is_quota(error: openai.APIStatusError) -> bool:
    """Whether a refusal is about billing or an account's quota, by its code or type."""
    body = error.body if isinstance(error.body, dict) else {}
    told = f"{error.code or ''} {body.get('type') or ''}".casefold()
    return error.status_code < 500 and any(word in told for word in _QUOTA)


def foreign_answer(error: openai.APIStatusError, host: str) -> ProviderError | None:
    """The error if something else than this API answered: a proxy's page or a redirect; else None."""
    status, body = error.status_code, error.body
    if status < 400:
        return redirected(host, status, str(error.response.headers.get("location", "")))
    if status < 500 and not isinstance(body, dict) and is_html(error.response.content):
        return Page(f"{host} answers with a web page and status {status}")
    return None


def _translated(error: openai.APIStatusError, host: str) -> ProviderError:  # noqa: PLR0911 - a table
    """Convert the error without the provider's message, which may quote the question."""
    code = str(error.code or "")
    code = code if _CODE.fullmatch(code) else ""
    what, pause = f"status {error.status_code} {code}".rstrip(), retry_after(error)
    if (strange := foreign_answer(error, host)) is not None:
        return strange
    # Azure reports too many concurrent requests as quotaExceeded: not a billing quota, and transient.
    if error.status_code == HTTPStatus.PAYMENT_REQUIRED or (code and is_quota(error)):
        return TryLater(Reason.QUOTA_EXCEEDED, f"{host} answers no more ({what})", pause or 300.0)
    match error.status_code:
        case 401 | 403:
            return TryLater(Reason.CREDENTIALS_INVALID, f"{host} does not let this key ask ({what})", pause or 60.0)
        case 404:
            return NotThere(Reason.PROVIDER_REFUSED, f"{host} has no such model to ask ({what})")
        case 429:
            return TryLater(Reason.RATE_LIMITED, f"{host} asks for patience ({what})", pause or 10.0)
        case status if status >= 500 or status in {407, 408, 409}:
            return Unknown(Reason.PROVIDER_UNAVAILABLE, f"{host} gives no answer ({what})", pause)
    kind = Faulted if error.status_code in _FAULT else Refused
    return kind(Reason.PROVIDER_REFUSED, f"{host} refuses a question ({what})")
