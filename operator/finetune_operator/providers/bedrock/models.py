"""Converse of Bedrock's runtime, for evaluations: one call per question. Messages quote nothing of it.

A tuned model is asked by its deployment's ARN. A base model is asked on demand: by its own ID where Bedrock takes that,
else by the inference profile that has it in the connection's part of the world.
"""

import re
from typing import Any

from finetune_api.asking import Question, Reply
from finetune_operator.providers.aws.client import Aws
from finetune_operator.providers.errors import NotThere, Refused

RUNTIME = "bedrock-runtime"
ANSWER_SECONDS = 120.0
"""For one answer: long ones are written word by word."""

_CONTEXT = re.compile(r"(.+:\d+):[^:]+")
"""A model that can be tuned has its context's length at the end of its ID; nobody can ask it so."""

_WORLDS = {"ap": "apac"}
"""Regions' first letters, where their inference profiles begin otherwise."""


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
        """Of base models that are asked by a profile alone, by their ID."""

    async def answer(self, model: str, question: Question) -> Reply:
        """Converse; a second time, by its profile, for a base model that is not asked by its ID."""
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

    async def _converse(self, name: str, question: Question) -> dict[str, Any]:
        asked = conversation(question)
        answer: dict[str, Any] = await self._aws.run(
            RUNTIME, lambda client: client.converse(modelId=name, **asked), paced=False
        )
        return answer


def on_demand(model: str) -> str:
    """What a model is asked by: a deployment's ARN as it is, a base model's ID without its context's length."""
    name = model.rpartition("/")[2] if ":foundation-model/" in model else model
    with_context = _CONTEXT.fullmatch(name)
    return with_context[1] if with_context and not name.startswith("arn:") else name


def profile(name: str, region: str) -> str:
    """The inference profile of a base model for a region's part of the world."""
    world = "us-gov" if region.startswith("us-gov-") else region.partition("-")[0]
    return f"{_WORLDS.get(world, world)}.{name}"


def conversation(question: Question) -> dict[str, Any]:
    """The question as Converse takes it: what the system says stands beside the turns."""
    system = [{"text": one.content} for one in question.messages if one.role == "system"]
    turns = [
        {"role": one.role, "content": [{"text": one.content}]} for one in question.messages if one.role != "system"
    ]
    limits = {"maxTokens": question.max_tokens, "temperature": float(question.temperature)}
    return {"messages": turns, "inferenceConfig": limits} | ({"system": system} if system else {})


def reply(answer: dict[str, Any]) -> Reply:
    """Converse's answer; one without text is empty."""
    blocks, usage = answer["output"]["message"]["content"], answer.get("usage") or {}
    return Reply(
        text="".join(block.get("text", "") for block in blocks),
        prompt_tokens=usage.get("inputTokens", 0),
        completion_tokens=usage.get("outputTokens", 0),
    )
