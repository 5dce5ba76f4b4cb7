"""`finetune-trainer check` of a base model in the cache: what training would refuse of it is refused here."""

import json
import shutil

import pytest

from finetune_api.exit_codes import ExitCode
from tests.assets.tiny_model import NAME as TINY
from tests.unit.finetune_trainer.checked import GOOD


def test_a_broken_tokenizer_is_refused_where_the_job_would_need_it(check, tmp_path):
    (tmp_path / TINY).mkdir(parents=True)
    (tmp_path / TINY / "config.json").write_text('{"model_type": "llama"}')
    result = check("--model-cache", tmp_path, train=("train.jsonl", GOOD))
    assert (result.code, result.verdict.message) == (ExitCode.MODEL_UNUSABLE, "the base model has no tokenizer.json")
    rows = "".join(f'{{"prompt": "p{n}", "completion": "c{n}"}}\n' for n in range(20))
    elsewhere = check("--model-cache", tmp_path, "--provider", "openAICompatible", train=("train.jsonl", rows))
    assert elsewhere.code == ExitCode.OK, "a provider's own model has another one"


@pytest.mark.parametrize(("text", "fits"), [("blue", True), ("<|later|>", False)])
@pytest.mark.parametrize("preference", [None, {"beta": 0.1}])
def test_rows_with_tokens_that_the_base_model_does_not_know_are_refused_as_training_does(
    check, tiny_model, tmp_path, text, fits, preference
):
    shutil.copytree(tiny_model, tmp_path / "cache")
    path = tmp_path / "cache" / TINY / "tokenizer.json"
    said = json.loads(path.read_text())
    known = len(said["model"]["vocab"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    said["added_tokens"].append({"id": known, "content": "<|later|>", "special": True, **flags})
    path.write_text(json.dumps(said))
    answers = {"completion": text} if preference is None else {"chosen": "blue", "rejected": f"{text}!"}
    rows = "".join(json.dumps({"prompt": f"What is {n}?", **answers}) + "\n" for n in range(3))
    result = check(
        "--model-cache",
        tmp_path / "cache",
        train=("t.jsonl", rows),
        spec={"preference": preference} if preference else {},
    )
    assert (result.code, result.verdict.valid) == ((ExitCode.OK, True) if fits else (ExitCode.MODEL_UNUSABLE, False))
    if not fits:
        assert f"its tokenizer gives token {known}, but it knows only {known} tokens" in result.verdict.message


def test_a_broken_chat_template_is_refused_as_the_job_would_with_file_and_line(check, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "cache")
    (tmp_path / "cache" / TINY / "chat_template.jinja").write_text("{% for one in messages %}\n{{ one. }}\n")
    result = check("--model-cache", tmp_path / "cache", train=("train.jsonl", GOOD))
    assert result.code == ExitCode.MODEL_UNUSABLE
    assert result.verdict.message.startswith("the chat template of the model is broken (chat_template.jinja, line 2): ")
    assert result.verdict.next_step.startswith("Correct the template there, or have the model put into the cache again")
