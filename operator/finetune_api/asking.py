"""What a pod asks a model at a provider, through the operator: OpenAI's chat completions, as far as measuring needs it.

The pod says which of its job's models is meant and never its name at the provider: no other model can be asked so.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, AttemptRef
from finetune_api.names import ANSWERS_PATH

Candidate = Literal["tuned", "base", "activeVersion"]
CANDIDATES: tuple[Candidate, ...] = get_args(Candidate)

QUESTION_MAX_BYTES = 1024 * 1024
"""Of one question with its examples: more than any model's context takes."""

COMPLETIONS = "chat/completions"
"""What OpenAI's clients put behind the root of an API."""

BYTES_PER_TOKEN = 4
"""Of text in UTF-8, about: English has four letters to a token, other scripts fewer letters of more bytes."""


def tokens_of(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


class Asker(AttemptRef):
    """Which attempt asks: the middle of the URL's path."""

    def root(self, service: str) -> str:
        """The root of the API that this attempt asks, of an operator whose Service has this DNS name."""
        return f"https://{service}{ANSWERS_PATH}/{self.namespace}/{self.name}/{self.uid}/{self.attempt}"


class Message(ApiModel):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"] = Field(description="Who speaks.")
    content: str = Field(description="What is said.")


class Question(ApiModel):
    """The body of a request. What else OpenAI's API knows is refused: it would be billed, or not be heeded."""

    model_config = ConfigDict(alias_generator=None)
    model: Candidate = Field(description="Which of the job's models is asked.")
    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)] = Field(description="The conversation.")
    max_tokens: Annotated[int, Field(ge=1, le=8192)] = Field(description="Tokens of the answer at most.")
    temperature: Literal[0] = Field(0, description="The likeliest answer, as models that are tuned here give it.")


class Reply(ApiModel):
    """What the model said, and what is billed for it."""

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
