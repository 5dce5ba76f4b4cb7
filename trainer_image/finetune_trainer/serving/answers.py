"""Response bodies and stream chunks in OpenAI's format. Plain dictionaries; no HTTP."""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune_trainer.serving.asks import FinishReason, Likelihood, Piece
from finetune_trainer.serving.served import Served
from finetune_trainer.serving.text import BROKEN

Kind = Literal["chat", "completion"]
DONE = b"data: [DONE]\n\n"


@dataclass
class Usage:
    """Tokens of a request, as counted by the model's tokenizer, including the one that ends an answer."""

    prompt: int
    completion: int = 0

    @property
    def body(self) -> dict[str, int]:
        """The usage field."""
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


@dataclass(frozen=True)
class AnswerShape:
    """What all chunks of one response have in common."""

    kind: Kind
    model: str
    token_text: Callable[[int], str] | None = None
    """Returns the text of a token, if log probabilities were requested."""
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    _lengths: dict[int, int] = field(default_factory=dict)
    """Characters so far, by choice."""

    def whole(self, answers: Sequence[Piece], usage: Usage) -> dict[str, Any]:
        """The body of a response that is not streamed; one choice per generation."""
        choices = [self._choice(index, piece) for index, piece in enumerate(answers)]
        return {**self._head(streamed=False), "choices": choices, "usage": usage.body}

    def first_chunk(self, index: int) -> dict[str, Any] | None:
        """The first chunk of a choice: the role in a chat, nothing in a completion."""
        if self.kind == "completion":
            return None
        return self._chunk([{**_delta(index), "delta": {"role": "assistant", "content": ""}}])

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        """A chunk with a piece of a choice's text."""
        likelihoods = self._likelihoods(index, piece.likelihoods) if piece.likelihoods else None
        return self._of_text(index, piece.text, None, likelihoods)

    def last_chunk(self, index: int, finish: FinishReason) -> dict[str, Any]:
        """The last chunk of a choice."""
        return self._of_text(index, "", finish, None)

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        """The last chunk of a stream, if usage was requested."""
        return {**self._chunk([]), "usage": usage.body}

    def _of_text(self, index: int, text: str, finish: FinishReason | None, likelihoods: Any) -> dict[str, Any]:
        choice = {**_delta(index), "finish_reason": finish, "logprobs": likelihoods}
        if self.kind == "completion":
            return self._chunk([{**choice, "text": text}])
        return self._chunk([{**choice, "delta": {"content": text} if text else {}}])

    def _choice(self, index: int, piece: Piece) -> dict[str, Any]:
        likelihoods = self._likelihoods(index, piece.likelihoods)
        choice = {**_delta(index), "finish_reason": piece.finish, "logprobs": likelihoods}
        if self.kind == "completion":
            return {**choice, "text": piece.text}
        return {**choice, "message": {"role": "assistant", "content": piece.text, "refusal": None}}

    def _likelihoods(self, index: int, found: Sequence[Likelihood]) -> dict[str, Any] | None:
        if self.token_text is None:
            return None
        if self.kind == "chat":
            return {"content": [self._in_chat(one) for one in found], "refusal": None}
        texts = [self.token_text(one.token) for one in found]
        offsets = []
        for text in texts:
            offsets.append(self._lengths.get(index, 0))
            self._lengths[index] = offsets[-1] + len(text)
        return {
            "tokens": texts,
            "token_logprobs": [one.logprob for one in found],
            "top_logprobs": [{self.token_text(token): value for token, value in one.likeliest} for one in found],
            "text_offset": offsets,
        }

    def _in_chat(self, one: Likelihood) -> dict[str, Any]:
        likeliest = [self._token(token, logprob) for token, logprob in one.likeliest]
        return {**self._token(one.token, one.logprob), "top_logprobs": likeliest}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        """`bytes` is null for a token with part of a character, which has no text."""
        assert self.token_text is not None  # noqa: S101 - checked by the caller
        text = self.token_text(token)
        return {"token": text, "logprob": logprob, "bytes": None if BROKEN in text else list(text.encode())}

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
