"""The template of a model's files: one that cannot write conversations is told as the model's fault, in its words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.reasons import Reason
from finetune_trainer.data.rows import Turn
from finetune_trainer.data.tokenizer import chat_template, template_file
from finetune_trainer.data.tokenizer.chat_template import TemplateRefusedError
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer
from finetune_trainer.errors import TrainerError
from tests.unit.finetune_trainer.data.chat_templates import CHATML, LLAMA, MARKED, NO_SYSTEM, THINKING, byte_level

TWO = (Turn("user", "one"), Turn("assistant", "two"))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Any], Path]:
    """A folder whose tokenizer_config.json has the given chat_template."""

    def make(template: Any) -> Path:
        byte_level(None).save_pretrained(tmp_path)
        path = tmp_path / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ frob(messages) }}", "fails (tokenizer_config.json): 'frob' is undefined"),
        ("{% if 1 is frob %}{% endif %}", "fails (tokenizer_config.json): No test named 'frob'"),
        ("{% include 'other' %}", "fails (tokenizer_config.json): no loader"),
        ("{{ tools | length }}" + CHATML, "fails (tokenizer_config.json): object of type 'NoneType' has no len()"),
        ("{% for i in range(1000000) %}{% endfor %}", "fails (tokenizer_config.json): Range too big"),
        ("{% set x = 'a' * 30000000000 %}", "fails (tokenizer_config.json): it makes a text or number that is longer"),
        ("{{ 9 ** 10000000 ** 9 }}", "fails (tokenizer_config.json): it makes a text or number that is longer"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails (tokenizer_config.json): maximum recursion depth"),
        ("{% if 1 %}" * 300 + "{% endif %}" * 300, "is broken (tokenizer_config.json): it nests too deep"),
        ("{% for a in [] %}" * 25 + "{% endfor %}" * 25, "is broken (tokenizer_config.json): it nests too deep"),
        ("{{ " + "9" * 5000 + " }}", "is broken (tokenizer_config.json): it nests too deep or has numbers too long"),
        ("{{ bos_token }}", "writes nothing of an answer (tokenizer_config.json)"),
        ("{{ messages[0].content }}", "writes nothing of an answer (tokenizer_config.json)"),
        ([{"name": "tool_use", "template": CHATML}], "chat templates with names (tool_use), and none that is called"),
        ({"rag": CHATML, "tool_use": CHATML}, "chat templates with names (rag, tool_use), and none that is called"),
        ([CHATML], "chat_template is neither text nor a list of objects with name and template"),
        ([{"template": CHATML}], "chat_template is neither text nor a list of objects with name and template"),
        ({"default": 5}, "chat_template is neither text nor a list of objects with name and template"),
        (5, "chat_template is neither text nor a list of objects with name and template"),
    ],
)
def test_a_template_that_can_write_no_conversation_is_the_models_fault(folder, template, why):
    with pytest.raises(TrainerError) as refused:
        ChatTokenizer.from_folder(folder(template))
    assert refused.value.reason == Reason.MODEL_UNUSABLE
    assert why in refused.value.message
    assert "chat_template.jinja" in refused.value.next_step or "Correct the template there" in refused.value.next_step


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        LLAMA,
        MARKED,
        THINKING,
        NO_SYSTEM,
        "{% if messages[0].role != 'system' %}{{ raise_exception('It wants a system message.') }}{% endif %}" + CHATML,
        "{% if messages | length < 4 %}{{ messages[9].content.x }}{% endif %}" + CHATML,
        "{{ raise_exception('It takes nothing.') }}",  # rows are refused in its own words
        [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "{{ frob() }}"}],
        {"default": CHATML},
        [],
        {},
        "",
        None,
    ],
)
def test_a_template_that_takes_some_conversations_is_taken(folder, template):
    assert ChatTokenizer.from_folder(folder(template)).template


def test_templates_beside_the_tokenizer_need_a_default(folder):
    place = folder(CHATML)
    (place / "additional_chat_templates").mkdir()
    (place / "additional_chat_templates" / "tool_use.jinja").write_text(CHATML)
    with pytest.raises(TrainerError, match=r"additional_chat_templates of the base model .* \(tool_use\), and none"):
        ChatTokenizer.from_folder(place)
    (place / "chat_template.jinja").write_text(CHATML)
    assert ChatTokenizer.from_folder(place).template == CHATML


@pytest.mark.parametrize(
    "endless",
    [
        "{% for i in range(60000) %}{% for j in range(60000) %}{% endfor %}{% endfor %}",
        "{%- for a in 'x' * 2000 recursive -%}{%- for b in 'x' * 2000 -%}{%- endfor -%}{%- endfor -%}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    ],
)
def test_loops_without_end_are_ended(folder, monkeypatch, endless):
    monkeypatch.setattr(chat_template, "MAX_ITERATIONS", 10_000)
    with pytest.raises(TrainerError, match="its loops take more than 10,000 passes for one conversation"):
        ChatTokenizer.from_folder(folder(endless + CHATML))


def test_passes_are_counted_by_conversation(monkeypatch):
    monkeypatch.setattr(chat_template, "MAX_ITERATIONS", 3)
    for _ in range(5):
        assert chat_template.render(CHATML, TWO, {}, add_generation_prompt=False)
    with pytest.raises(TemplateRefusedError, match="more than 3 passes"):
        chat_template.render(CHATML, TWO * 2, {}, add_generation_prompt=False)


def test_what_no_memory_holds_is_the_templates_fault_where_the_conversation_is_short(folder, monkeypatch):
    def short(*_: Any, **__: Any) -> str:
        raise MemoryError

    monkeypatch.setattr(template_file, "render", short)
    with pytest.raises(TrainerError, match=r"fails .* it takes more memory than there is"):
        ChatTokenizer.from_folder(folder(CHATML))
