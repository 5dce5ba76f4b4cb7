"""What a model at Bedrock is asked by, and what a question looks like there."""

import pytest

from finetune_api.asking import ChatRequest
from finetune_api.reasons import Reason
from finetune_operator.providers.bedrock.models import BedrockModels, conversation, on_demand, profile, reply
from finetune_operator.providers.calls.errors import NotThere, Refused

ARN = "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/abc"
QUESTION = ChatRequest.model_validate(
    {
        "model": "base",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a secret question"},
            {"role": "assistant", "content": "a"},
            {"role": "user", "content": "b"},
        ],
        "max_tokens": 7,
    }
)


@pytest.mark.parametrize(
    ("model", "asked_by"),
    [
        ("amazon.nova-micro-v1:0:128k", "amazon.nova-micro-v1:0"),
        ("amazon.nova-micro-v1:0", "amazon.nova-micro-v1:0"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0:128k", "amazon.nova-micro-v1:0"),
        ("anthropic.claude-3-haiku-20240307-v1:0:200k", "anthropic.claude-3-haiku-20240307-v1:0"),
        (ARN, ARN),
    ],
)
def test_what_a_model_is_asked_by(model: str, asked_by: str) -> None:
    assert on_demand(model) == asked_by


@pytest.mark.parametrize(
    ("region", "world"),
    [("us-west-2", "us"), ("eu-central-1", "eu"), ("ap-south-1", "apac"), ("us-gov-west-1", "us-gov")],
)
def test_a_profile_is_of_the_regions_part_of_the_world(region: str, world: str) -> None:
    assert profile("amazon.nova-micro-v1:0", region) == f"{world}.amazon.nova-micro-v1:0"


def test_what_the_system_says_stands_beside_the_turns() -> None:
    asked = conversation(QUESTION)
    assert asked["system"] == [{"text": "be brief"}]
    assert [turn["role"] for turn in asked["messages"]] == ["user", "assistant", "user"]
    assert asked["inferenceConfig"] == {"maxTokens": 7, "temperature": 0.0}


def test_what_is_no_text_is_no_answer() -> None:
    message = {"content": [{"reasoningContent": {}}, {"text": "yes"}]}
    found = reply({"output": {"message": message}, "usage": {"inputTokens": 3}})
    assert (found.text, found.prompt_tokens, found.completion_tokens) == ("yes", 3, 0)


@pytest.mark.parametrize("kind", [Refused, NotThere])
async def test_no_refusal_quotes_the_question(kind: type[Refused]) -> None:
    class Refusing:
        async def run(self, *_: object, **__: object) -> None:
            raise kind(Reason.PROVIDER_REFUSED, "malformed: a secret question")

    models = BedrockModels(Refusing(), "us-east-1")  # type: ignore[arg-type]
    with pytest.raises(kind) as refusal:
        await models.answer("amazon.nova-micro-v1:0", QUESTION)
    assert "secret" not in refusal.value.message
