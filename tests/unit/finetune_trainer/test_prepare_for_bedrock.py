"""Data for Bedrock: each family's form, and what it would refuse, before anything leaves the pod."""

import json
import re
from typing import Any

import pytest

from finetune_api.bedrock import FAMILIES, family_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.reasons import Reason
from finetune_api.verdict import DatasetVerdict
from finetune_trainer.data.provider.file import convert
from finetune_trainer.data.provider.rules import require_rows, rules_for
from finetune_trainer.data.rows import Position, Row, Turn
from finetune_trainer.errors import TrainerError
from tests.simulators.bedrock import data

NOVA, LLAMA, CLAUDE = (
    "amazon.nova-micro-v1:0:128k",
    "meta.llama3-1-8b-instruct-v1:0:128k",
    "anthropic.claude-3-haiku-20240307-v1:0:200k",
)
SYSTEM, ASK, ANSWER = Turn("system", "Be brief."), Turn("user", "question"), Turn("assistant", "answer")


def row(*turns: Turn, line: int = 1) -> Row:
    return Row(Position(line=line), turns)


def spec(base: str, **fields: Any) -> FineTuneJobSpec:
    dataset = {"train": {"uri": "pvc://data/train.csv"}}
    names = {"connectionRef": {"name": "bedrock"}, "modelRef": {"name": "m"}}
    return FineTuneJobSpec.model_validate(names | {"baseModel": base, "dataset": dataset} | fields)


def content(rows: list[Row], base: str, folder: Any) -> bytes:
    return convert(rows, "train", "train.csv", rules_for("bedrock", spec(base)), folder).path.read_bytes()


TALK = [{"role": "user", "content": [{"text": "question"}]}, {"role": "assistant", "content": [{"text": "answer"}]}]
PLAIN = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
FORMS = {
    "Nova": (NOVA, (ASK, ANSWER), {"schemaVersion": "bedrock-conversation-2024", "messages": TALK}),
    "Nova with a system message": (
        NOVA,
        (SYSTEM, ASK, ANSWER),
        {"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "Be brief."}], "messages": TALK},
    ),
    "Claude": (CLAUDE, (SYSTEM, ASK, ANSWER), {"system": "Be brief.", "messages": PLAIN}),
    "Llama": (LLAMA, (ASK, ANSWER), {"prompt": "question", "completion": "answer"}),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_family_gets_its_form(tmp_path, name):
    base, turns, form = FORMS[name]
    assert json.loads(content([row(*turns)], base, tmp_path)) == form


@pytest.mark.parametrize(("base", "conversations"), [(NOVA, True), (LLAMA, False)])
def test_the_simulated_bedrock_takes_what_is_made(tmp_path, base, conversations):
    found = data.read(content([row(ASK, ANSWER), row(ASK, ANSWER)], base, tmp_path), conversations=conversations)
    assert (found.rows, found.fault) == (2, data.Data().fault)


BAD = {
    "a reserved word": (NOVA, (ASK, Turn("assistant", "User: hello")), "message 2 has a reserved word"),
    "a mark of the chat format": (NOVA, (Turn("user", "see [EOS]"), ANSWER), "message 1 has a reserved word"),
    "two of the user": (NOVA, (ASK, ASK, ANSWER), "do not take turns"),
    "the assistant first": (CLAUDE, (ANSWER, ASK, ANSWER), "do not take turns"),
    "a late system message": (NOVA, (ASK, ANSWER, SYSTEM, ASK, ANSWER), "after the first message"),
    "a system message where there is none": (LLAMA, (SYSTEM, ASK, ANSWER), "without system messages"),
    "a conversation where pairs belong": (LLAMA, (ASK, ANSWER, ASK, ANSWER), "one prompt and one completion"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_row_that_would_fail_the_job_is_named_by_its_line_and_not_quoted(tmp_path, name):
    base, turns, words = BAD[name]
    with pytest.raises(TrainerError) as refused:
        content([row(ASK, ANSWER), row(*turns, line=17)], base, tmp_path)
    said = refused.value.message
    assert (refused.value.reason, "train.csv" in said, "1 of the rows" in said) == (Reason.DATASET_INVALID, True, True)
    assert ("line 17: " in said, words in said) == (True, True)
    assert "hello" not in said


@pytest.mark.parametrize("base", [NOVA, CLAUDE])
def test_an_answer_that_is_not_to_be_learnt_is_refused_as_it_would_be_learnt(tmp_path, base):
    asked = Row(Position(line=17), (ASK, ANSWER, ASK, ANSWER), unlearnt=(1,))
    with pytest.raises(TrainerError, match="line 17: an answer before the last is not to be learnt"):
        content([row(ASK, ANSWER), asked], base, tmp_path)


def test_many_bad_rows_are_counted_and_the_first_are_named(tmp_path):
    bad = [row(ASK, ASK, ANSWER, line=line) for line in range(1, 101)]
    with pytest.raises(TrainerError) as refused:
        content(bad, NOVA, tmp_path)
    assert "100 of the rows" in refused.value.message
    assert "line 5:" in refused.value.message
    assert "line 6:" not in refused.value.message


@pytest.mark.parametrize("text", ["Thoughtful: no", "the user: me", "Robot: none", "eos"])
def test_words_that_only_look_like_reserved_ones_pass(tmp_path, text):
    assert content([row(ASK, Turn("assistant", text))], NOVA, tmp_path)


COUNTS = {
    "too few": (CLAUDE, 31, 0, "31 rows; Bedrock (Claude 3) tunes on at least 32"),
    "too many": (LLAMA, 9_000, 1_001, "10,001 rows with those of validation; Bedrock (Llama 3.1) takes at most 10,000"),
    "too few together": (LLAMA, 90, 9, "99 rows with those of validation; Bedrock (Llama 3.1) takes at least 100"),
    "too few alone": (LLAMA, 99, 0, "t.csv: 99 rows; Bedrock (Llama 3.1) takes at least 100"),
    "too many of validation": (CLAUDE, 40, 1_001, "v.csv: 1,001 rows of validation; Bedrock (Claude 3) takes at most"),
    "no validation set": ("amazon.nova-2-lite-v1:0:256k", 100, 10, "Bedrock (Nova 2) takes no validation set"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_held_against_the_family(name):
    base, train, validation, says = COUNTS[name]
    splits = {"train": {"file": "t.csv", "format": "CSV", "rows": train}}
    if validation:
        splits["validation"] = {"file": "v.csv", "format": "CSV", "rows": validation}
    verdict = DatasetVerdict.model_validate({"valid": True, "reason": "Valid", "message": "ok", **splits})
    with pytest.raises(TrainerError, match=re.escape(says)) as refused:
        require_rows(rules_for("bedrock", spec(base)), verdict)
    assert refused.value.next_step


def test_a_row_that_seems_too_long_for_the_family_is_warned_of(tmp_path):
    """Tokens are estimated here, which is no ground to refuse."""
    long = row(ASK, Turn("assistant", "word " * 13_000), line=17)
    (said,) = convert([row(ASK, ANSWER), long], "train", "t.csv", rules_for("bedrock", spec(LLAMA)), tmp_path).warnings
    assert said.startswith("t.csv: 1 row (the first: line 17) longer than about 16,000 tokens, and Bedrock (Llama 3.1)")
    assert not convert([long], "train", "t.csv", rules_for("bedrock", spec(CLAUDE)), tmp_path).warnings


@pytest.mark.parametrize(
    ("base", "tokens"),
    [("meta.llama3-2-90b-instruct-v1:0:128k", 10_000), ("meta.llama3-2-1b-instruct-v1:0:128k", 16_000), (NOVA, None)],
)
def test_each_family_has_its_longest_row(base, tokens):
    assert rules_for("bedrock", spec(base)).max_tokens == tokens


def test_as_many_rows_as_the_family_wants_pass():
    split = {"file": "t.csv", "format": "CSV", "rows": 32}
    require_rows(
        rules_for("bedrock", spec(CLAUDE)),
        DatasetVerdict.model_validate({"valid": True, "reason": "Valid", "message": "ok", "train": split}),
    )


def test_a_model_of_no_family_is_refused_with_those_that_are_known():
    with pytest.raises(TrainerError) as refused:
        rules_for("bedrock", spec("gpt-4o"))
    assert refused.value.reason == Reason.SPEC_INVALID
    assert "Nova, Claude 3" in refused.value.message


def test_it_learns_from_one_answer_for_each_prompt():
    with pytest.raises(TrainerError) as refused:
        rules_for("bedrock", spec(NOVA, preference={}))
    assert refused.value.reason == Reason.SPEC_INVALID
    assert refused.value.message == "spec.preference: Bedrock (Nova) learns from one answer for each prompt"
    assert refused.value.next_step


def test_a_family_is_found_by_id_and_by_arn():
    arn = f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}"
    assert family_of(arn) == family_of(NOVA)
    assert {family_of(glob.replace("*", "x")) for family in FAMILIES for glob in family.globs} == set(FAMILIES)
