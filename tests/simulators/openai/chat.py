"""Chat completions: a tuned model gives its training data's answers; any other prompt is repeated."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import orjson
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsBase, CompletionCreateParamsStreaming

from tests.simulators.clock import Clock
from tests.simulators.http import Call, Reply
from tests.simulators.ids import Ids
from tests.simulators.ledger import Ledger
from tests.simulators.openai import errors
from tests.simulators.openai.models import Models
from tests.simulators.openai.training import BYTES_PER_TOKEN, prompt_of
from tests.simulators.shapes import conform

KNOWN = CompletionCreateParamsBase.__annotations__.keys() | CompletionCreateParamsStreaming.__annotations__.keys()


class Chat:
    """Answers, and bills each answer's tokens."""

    def __init__(self, clock: Clock, ids: Ids, ledger: Ledger, models: Models) -> None:
        self._clock, self._ids, self._ledger, self._models = clock, ids, ledger, models

    def complete(self, call: Call) -> Reply:
        """POST /chat/completions."""
        request = understood(call)
        return self.answer(request, *self._models.answers(request["model"]))

    def answer(self, request: dict[str, Any], base: str, answers: dict[str, str]) -> Reply:
        """The answer of a model with this base that knows these answers."""
        prompt = prompt_of(request["messages"])
        limit = request.get("max_completion_tokens") or request.get("max_tokens")
        text, reason = _cut(answers.get(prompt, prompt), limit)
        usage = self._bill(request, base, text)
        head = {"id": self._ids.new("chatcmpl-"), "created": int(self._clock.now), "model": request["model"],
                "system_fingerprint": None}  # fmt: skip
        if request.get("stream"):
            with_usage = bool((request.get("stream_options") or {}).get("include_usage"))
            return Reply(body=_streamed(head, text, reason, usage if with_usage else None),
                         content_type="text/event-stream; charset=utf-8")  # fmt: skip
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        body = {**head, "object": "chat.completion", "choices": [choice]} | (
            {"usage": usage} if self._models.tell_usage else {}
        )
        return Reply.json(conform(ChatCompletion, body))

    def _bill(self, request: dict[str, Any], base: str, text: str) -> dict[str, int]:
        asked = max(1, sum(len(str(message["content"])) for message in request["messages"]) // BYTES_PER_TOKEN)
        said = max(1, len(text) // BYTES_PER_TOKEN)
        price = self._models.price(base)
        self._ledger.charge(request["model"], "inference", (price.input * asked + price.output * said) / Decimal(10**6))
        return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def understood(call: Call) -> dict[str, Any]:
    """The request, if the provider accepts it.

    Raises:
        ApiError: with the field.
    """
    try:
        request: dict[str, Any] = call.json()
    except ValueError as error:
        raise errors.refusal(400, "We could not parse the JSON body of your request.") from error
    for required in ("model", "messages"):
        if not request.get(required):
            message = f"Missing required parameter: '{required}'."
            raise errors.refusal(400, message, required, "missing_required_parameter")
    if unknown := sorted(request.keys() - KNOWN):
        raise errors.refusal(400, f"Unknown parameter: '{unknown[0]}'.", unknown[0], "unknown_parameter")
    return request


def _cut(text: str, limit: int | None) -> tuple[str, str]:
    if limit is None or len(text) <= limit * BYTES_PER_TOKEN:
        return text, "stop"
    return text[: limit * BYTES_PER_TOKEN], "length"


def _streamed(head: dict[str, Any], text: str, reason: str, usage: dict[str, int] | None) -> Iterator[bytes]:
    pieces = [text[at : at + 8] for at in range(0, len(text), 8)]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces)]
    for delta in deltas:
        yield _chunk(head, [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])
    yield _chunk(head, [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason}])
    if usage is not None:
        yield _chunk(head, [], usage)
    yield b"data: [DONE]\n\n"


def _chunk(head: dict[str, Any], choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    body = {**head, "object": "chat.completion.chunk", "choices": choices, "usage": usage}
    return b"data: " + orjson.dumps(conform(ChatCompletionChunk, body)) + b"\n\n"
