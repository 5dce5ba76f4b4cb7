"""Bedrock's Converse API, for evaluations: one call per question. Errors never quote it.

Tuned models are called by their deployment's ARN. Base models are called on demand: by ID if Bedrock accepts that, or
else by the inference profile of the connection's geography.
"""

import re
from typing import Any

from finetune_api.asking import ChatReply, ChatRequest
from finetune_operator.providers.aws.client import Aws
from finetune_operator.providers.calls.errors import NotThere, Refused

RUNTIME = "bedrock-runtime"
ANSWER_SECONDS = 120.0
"""For one answer, as long ones take a while to generate."""

_CONTEXT = re.compile(r"(.+:\d+):[^:]+")
"""The ID of a tunable model ends with its context length; Converse does not accept this form."""

_WORLDS = {"ap": "apac"}
"""Prefixes of inference profiles that differ from the region's prefix."""


class BedrockModels:
    """An AnsweringApi over boto3.

    Args:
        aws: the connection's calls.
        region: the connection's.
    """

    def __init__(self, aws: Aws, region: str) -> None:
        self._aws = aws
        self._region = region
        self._profiles: dict[str, str] = {}
        """Inference profiles of base models that can only be called by profile, by model ID."""

    async def answer(self, model: str, question: ChatRequest) -> ChatReply:
        """Converse; repeated by inference profile for a base model that cannot be called by ID."""
        name = on_demand(model)
        asked = self._profiles.get(name, name)
        try:
            return reply(await self._converse(asked, question))
        except NotThere as error:
            raise NotThere(error.reason, f"{RUNTIME} has no such model to ask") from None
        except Refused as error:
            if asked != name or name.startswith("arn:") or "inference profile" not in error.message:
                raise Refused(error.reason, f"{RUNTIME} refuses a question") from None
        self._profiles[name] = profile(name, self._region)
        return await self.answer(model, question)

    async def _converse(self, name: str, question: ChatRequest) -> dict[str, Any]:
        asked = conversation(question)
        answer: dict[str, Any] = await self._aws.run(
            RUNTIME, lambda client: client.converse(modelId=name, **asked), rate_limited=False
        )
        return answer


def on_demand(model: str) -> str:
    """The ID to call a model by: a deployment's ARN unchanged, a base model's ID without its context length."""
    name = model.rpartition("/")[2] if ":foundation-model/" in model else model
    with_context = _CONTEXT.fullmatch(name)
    return with_context[1] if with_context and not name.startswith("arn:") else name


def profile(name: str, region: str) -> str:
    """The inference profile of a base model for a region's geography."""
    world = "us-gov" if region.startswith("us-gov-") else region.partition("-")[0]
    return f"{_WORLDS.get(world, world)}.{name}"


def conversation(question: ChatRequest) -> dict[str, Any]:
    """The question in Converse's format, with system messages apart from the turns."""
    system = [{"text": one.content} for one in question.messages if one.role == "system"]
    turns = [
        {"role": one.role, "content": [{"text": one.content}]} for one in question.messages if one.role != "system"
    ]
    limits = {"maxTokens": question.max_tokens, "temperature": float(question.temperature)}
    return {"messages": turns, "inferenceConfig": limits} | ({"system": system} if system else {})


def reply(answer: dict[str, Any]) -> ChatReply:
    """The reply from Converse's answer; empty if it has no text."""
    blocks, usage = answer["output"]["message"]["content"], answer.get("usage") or {}
    return ChatReply(
        text="".join(block.get("text", "") for block in blocks),
        prompt_tokens=usage.get("inputTokens", 0),
        completion_tokens=usage.get("outputTokens", 0),
    )
