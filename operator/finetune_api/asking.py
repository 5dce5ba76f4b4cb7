"""What a pod sends to a model at a provider, through the operator: the part of OpenAI's chat completions that it needs.

The pod names a candidate of its job, never a model at the provider, so no other model can be called.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, AttemptRef
from finetune_api.names import ANSWERS_PATH

Candidate = Literal["tuned", "base", "activeVersion"]
CANDIDATES: tuple[Candidate, ...] = get_args(Candidate)

CHAT_REQUEST_MAX_BYTES = 1024 * 1024
"""Limit for a request with its examples: more than any model's context."""

COMPLETIONS = "chat/completions"
"""The path that OpenAI's clients append to the base URL."""

BYTES_PER_TOKEN = 4
"""Approximate bytes of UTF-8 per token: four letters in English, fewer letters with more bytes in other scripts."""


def tokens_of(text: str) -> int:
    """Approximate number of tokens of a text."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


class RequestingAttempt(AttemptRef):
    """The attempt that sends the request: the middle of the URL's path."""

    def root(self, service: str) -> str:
        """The base URL for this attempt, of an operator whose Service has this DNS name."""
        return f"https://{service}{ANSWERS_PATH}/{self.namespace}/{self.name}/{self.uid}/{self.attempt}"


class Message(ApiModel):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"] = Field(description="Who speaks.")
    content: str = Field(description="What is said.")


class ChatRequest(ApiModel):
    """The body of a request. Other fields of OpenAI's API are refused: they would be billed, or ignored."""

    model_config = ConfigDict(alias_generator=None)
    model: Candidate = Field(description="Which of the job's models is asked.")
    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)] = Field(description="The conversation.")
    max_tokens: Annotated[int, Field(ge=1, le=8192)] = Field(description="Tokens of the answer at most.")
    temperature: Literal[0] = Field(0, description="The likeliest answer, as models that are tuned here give it.")


class ChatReply(ApiModel):
    """The model's answer, and the tokens that are billed for it."""

    text: str = Field(description="The answer; empty where the provider gave none.")
    prompt_tokens: Annotated[int, Field(ge=0)] = Field(0, description="Tokens of the conversation.")
    completion_tokens: Annotated[int, Field(ge=0)] = Field(0, description="Tokens of the answer.")

    def as_completion(self) -> dict[str, Any]:
        """The reply in the shape of OpenAI's API."""
        return {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": self.text}}],
            "usage": {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "total_tokens": self.prompt_tokens + self.completion_tokens,
            },
        }
