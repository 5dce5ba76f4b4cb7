"""What answers of OpenAI's kind become, and what nobody gets to read of them."""

from types import SimpleNamespace
from typing import Any

import pytest

from finetune_api.asking import ChatRequest
from finetune_operator.providers.calls.errors import Unreadable, parsing_answer
from finetune_operator.providers.openai.models import OpenAIModels

QUESTION = ChatRequest.model_validate(
    {"model": "tuned", "messages": [{"role": "user", "content": "who?"}], "max_tokens": 7}
)
TEXT = "Ann Example, born 1970"


def models(content: Any) -> OpenAIModels:
    """A service that answers so."""

    async def create(**_: Any) -> Any:
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=content))], usage=None)

    sdk: Any = SimpleNamespace(
        base_url="https://example.com/v1", chat=SimpleNamespace(completions=SimpleNamespace(create=create))
    )
    return OpenAIModels(sdk)


async def test_an_answer_is_its_text_and_a_refusal_an_empty_one() -> None:
    assert (await models(TEXT).answer("m", QUESTION)).text == TEXT
    assert (await models(None).answer("m", QUESTION)).text == ""


async def test_an_answer_of_another_shape_is_quoted_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unreadable) as unread, parsing_answer():
        await models([TEXT]).answer("m", QUESTION)
    assert "Ann" not in caplog.text + str(unread.value)
    assert "ValidationError" in caplog.text
