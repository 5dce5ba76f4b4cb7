"""Chat completions of OpenAI and its kind: one call per question, none repeated. Messages quote nothing of it."""

import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from openai.types.chat import ChatCompletion

from finetune_api.asking import Message, Question, Reply
from finetune_api.reasons import Reason
from finetune_operator.providers.errors import (
    NotThere,
    Page,
    ProviderError,
    Refused,
    TryLater,
    Unknown,
    Unreadable,
    looks_like_page,
)
from finetune_operator.providers.failed_calls import moved, unanswered
from finetune_operator.providers.retry_after import asked_pause

ANSWER_SECONDS = 120.0
"""For one answer: long ones are written word by word."""

_CODE = re.compile(r"[a-z0-9_.]{1,64}")
_QUOTA = ("quota", "billing")
_FAULT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})


class Faulted(Refused):
    """Something of the question is wrong: the model has read it."""


class OpenAIModels:
    """An AnsweringApi over OpenAI's SDK."""

    def __init__(self, sdk: openai.AsyncOpenAI) -> None:
        self._sdk = sdk
        self._host = urlsplit(str(sdk.base_url)).netloc

    async def answer(self, model: str, question: Question) -> Reply:
        """POST /chat/completions; a second time for a model that takes neither temperature nor max_tokens."""
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
                raise error.__cause__ from None  # of our own client, which the SDK wraps
            raise unanswered(error, self._host) from None
        return _reply(said, self._host)

    async def answers(self, model: str) -> bool:
        """Whether a model, or a deployment, answers a question of one token.

        One that is asked too much for now is asked again; one that finds fault with the question has read it.
        """
        question = Question(model="tuned", messages=[Message(role="user", content="ok?")], max_tokens=1)
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

    async def _complete(self, model: str, question: Question, limits: dict[str, int]) -> ChatCompletion:
        messages: Any = [message.wire() for message in question.messages]
        asked: dict[str, Any] = {"model": model, "messages": messages, **limits}
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=5.0)
        answer: ChatCompletion = await self._sdk.chat.completions.create(**asked, timeout=timeout)
        return answer


def _reply(said: ChatCompletion, host: str) -> Reply:
    """An answer whose choices are empty, or have no content, such as a refusal, is an empty one.

    Raises:
        Unreadable: it has none: who asks whether a model answers would take anything for its answer.
    """
    if said.choices is None:
        raise Unreadable(f"{host} answers without choices")
    text = said.choices[0].message.content if said.choices else None
    usage = said.usage.to_dict(warnings=False) if said.usage else {}  # not all that have this API tell both
    return Reply(
        text=text or "",
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
    )


def retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds that the provider asks for, within reason."""
    return asked_pause(error.response.headers, datetime.now(UTC))


def is_quota(error: openai.APIStatusError) -> bool:
    """Whether a refusal is one for money, or for what an account may have at once: by its code, or by its type."""
    body = error.body if isinstance(error.body, dict) else {}
    told = f"{error.code or ''} {body.get('type') or ''}".casefold()
    return error.status_code < 500 and any(word in told for word in _QUOTA)


def of_something_else(error: openai.APIStatusError, host: str) -> ProviderError | None:
    """What is told where no such API has answered: a proxy by its page, or an address that leads to another one."""
    status, body = error.status_code, error.body
    if status < 400:
        return moved(host, status, str(error.response.headers.get("location", "")))
    if status < 500 and not isinstance(body, dict) and looks_like_page(error.response.content):
        return Page(f"{host} answers with a web page and status {status}")
    return None


def _translated(error: openai.APIStatusError, host: str) -> ProviderError:  # noqa: PLR0911 - a table
    """The provider's own words are left out: they may quote the question."""
    code = str(error.code or "")
    code = code if _CODE.fullmatch(code) else ""
    what, pause = f"status {error.status_code} {code}".rstrip(), retry_after(error)
    if (strange := of_something_else(error, host)) is not None:
        return strange
    # Azure calls too many questions at once quotaExceeded: that is none of money, and passes by itself.
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
