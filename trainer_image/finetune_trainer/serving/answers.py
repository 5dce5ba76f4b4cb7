"""What clients get: bodies of answers and chunks of streams, in OpenAI's shape. Plain dictionaries; no HTTP."""

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune_trainer.serving.asks import FinishReason
from finetune_trainer.serving.served import Served

Kind = Literal["chat", "completion"]
DONE = b"data: [DONE]\n\n"


@dataclass
class Usage:
    """Tokens of a request, as the model's tokenizer counts them; the token that ends an answer counts too."""

    prompt: int
    completion: int = 0

    @property
    def body(self) -> dict[str, int]:
        """The usage field."""
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


@dataclass(frozen=True)
class AnswerShape:
    """One answer's frame: what all its chunks have in common."""

    kind: Kind
    model: str
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, texts: list[tuple[str, FinishReason]], usage: Usage) -> dict[str, Any]:
        """The body of an answer that is not streamed; one choice per text."""
        choices = [self._choice(index, text, finish) for index, (text, finish) in enumerate(texts)]
        return {**self._head(streamed=False), "choices": choices, "usage": usage.body}

    def first_chunk(self, index: int) -> dict[str, Any] | None:
        """What opens a choice's stream: the role in a chat, nothing in a completion."""
        if self.kind == "completion":
            return None
        return self._chunk([{**_delta(index), "delta": {"role": "assistant", "content": ""}}])

    def chunk(self, index: int, text: str, finish: FinishReason | None) -> dict[str, Any]:
        """A piece of a choice's text, or its end."""
        if self.kind == "completion":
            return self._chunk([{**_delta(index), "text": text, "finish_reason": finish}])
        return self._chunk([{**_delta(index), "delta": {"content": text} if text else {}, "finish_reason": finish}])

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        """The last chunk of a stream that was asked to tell its usage."""
        return {**self._chunk([]), "usage": usage.body}

    def _choice(self, index: int, text: str, finish: FinishReason) -> dict[str, Any]:
        choice = {**_delta(index), "finish_reason": finish}
        if self.kind == "completion":
            return {**choice, "text": text}
        return {**choice, "message": {"role": "assistant", "content": text, "refusal": None}}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head(streamed=True), "choices": choices}

    def _head(self, *, streamed: bool) -> dict[str, Any]:
        if self.kind == "completion":
            prefix, kind = "cmpl", "text_completion"
        else:
            prefix, kind = "chatcmpl", "chat.completion.chunk" if streamed else "chat.completion"
        return {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}


def event(body: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def model_card(served: Served) -> dict[str, Any]:
    """An entry of /v1/models; max_model_len is what vLLM calls the context."""
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "finetune-operator",
        "max_model_len": served.context,
    }


def _delta(index: int) -> dict[str, Any]:
    return {"index": index, "logprobs": None, "finish_reason": None}
