"""Rows with two answers for a provider outside of the cluster: its form, its rules, tokens of both answers."""

import json
from codecs import BOM_UTF8
from pathlib import Path

import pytest

from finetune_api.job import FineTuneJobManifest, FineTuneJobSpec
from finetune_api.reasons import Reason
from finetune_api.trainer import MeasureJob
from finetune_api.verdict import DatasetVerdict
from finetune_trainer.check import Destination, check_job
from finetune_trainer.data.provider.file import ConvertedFile
from finetune_trainer.data.provider.rules import MAX_EXAMPLE_TOKENS, rules_for
from finetune_trainer.data.read import load_rows
from finetune_trainer.data.verdict import check_dataset
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.material import prepare_by_length
from finetune_trainer.prepare import convert_all, evaluation_size
from tests.simulators.openai import training

ASK, GOOD, BAD = ({"role": role, "content": text} for role, text in
                  (("user", "why?"), ("assistant", "so"), ("assistant", "no")))  # fmt: skip
BRIEF = {"role": "system", "content": "Be brief."}
EARLIER = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
PLAIN = {"prompt": "why?", "chosen": "so", "rejected": "no"}
COUNT = 10
SPLIT = {"file": "test.jsonl", "format": "JSON lines", "rows": 1}


def spec(folder: Path, row: dict, count: int = COUNT, **fields) -> FineTuneJobSpec:
    """A job whose training set is `count` times that row."""
    path = folder / "train.jsonl"
    path.write_text((json.dumps(row) + "\n") * count)
    job = {
        "connectionRef": {"name": "openai"},
        "baseModel": "gpt-4.1-mini-2025-04-14",
        "modelRef": {"name": "m"},
        "dataset": {"train": {"uri": path.as_uri()}},
        "preference": {},
    }
    return FineTuneJobSpec.model_validate(job | fields)


def file_of(asked: FineTuneJobSpec, folder: Path, rules: str = "openAI") -> ConvertedFile:
    verdict = check_dataset(asked, tokenizer=None, allow_local=True)
    assert verdict.valid, verdict.message
    [made] = convert_all(asked, verdict, rules_for(rules, asked), folder.parent, allow_local=True)
    return made


def converted(asked: FineTuneJobSpec, folder: Path, rules: str = "openAI") -> Path:
    return file_of(asked, folder, rules).path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().decode("utf-8-sig").splitlines()]


LAYOUTS = {
    "texts": (PLAIN, [ASK]),
    "texts with a system message": (PLAIN | {"system": "Be brief."}, [BRIEF, ASK]),
    "messages": ({"messages": [BRIEF, ASK], "chosen": [GOOD], "rejected": [BAD]}, [BRIEF, ASK]),
    "whole conversations": ({"chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, [ASK]),
}


@pytest.fixture
def folder(tmp_path):
    """A place for the dataset, with one for what is made of it beside."""
    place = tmp_path / "data"
    place.mkdir()
    return place


@pytest.mark.parametrize("rules", ["openAI", "azureOpenAI", "openAICompatible"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_providers_form_and_the_simulated_one_takes_it(folder, layout, rules):
    row, messages = LAYOUTS[layout]
    path = converted(spec(folder, row), folder, rules)
    form = {"input": {"messages": messages}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}
    assert lines(path) == [form] * COUNT
    assert path.read_bytes().startswith(BOM_UTF8) == (rules == "azureOpenAI")
    found = training.read(path, pairs=True)
    assert (found.rows, found.fault, found.answers) == (COUNT, None, {"why?": "so"})


def test_columns_may_have_other_names(folder):
    columns = {"prompt": "ask", "chosen": "good", "rejected": "bad"}
    row = {columns[name]: text for name, text in PLAIN.items()}
    asked = spec(folder, row)
    asked = asked.model_copy(update={"dataset": asked.dataset.model_validate(
        asked.dataset.wire() | {"columns": columns})})  # fmt: skip
    assert lines(converted(asked, folder))[0]["non_preferred_output"] == [BAD]


SEVERAL_TURNS = {"messages": [*EARLIER, ASK], "chosen": "so", "rejected": "no"}
LONG = "word " * MAX_EXAMPLE_TOKENS
REFUSED = {
    "a conversation": (SEVERAL_TURNS, "line 1: the prompt has several turns"),
    "a long better answer": (PLAIN | {"chosen": LONG}, "line 1: about 81,929 tokens: an answer is cut beyond 65,536"),
    "a long worse answer": (PLAIN | {"rejected": LONG}, "line 1: about 81,929 tokens: an answer is cut beyond 65,536"),
}


@pytest.mark.parametrize("rules", ["openAI", "azureOpenAI"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_openai_would_not_learn_from_is_refused_with_its_line(folder, name, rules):
    row, says = REFUSED[name]
    with pytest.raises(TrainerError) as refused:
        converted(spec(folder, row), folder, rules)
    assert refused.value.reason is Reason.DATASET_INVALID
    assert f"rejects {COUNT} of the rows: {says}" in refused.value.message
    assert refused.value.next_step


def test_a_service_with_rules_of_its_own_gets_conversations(folder):
    assert lines(converted(spec(folder, SEVERAL_TURNS), folder, "openAICompatible"))[0]["input"] == {
        "messages": [*EARLIER, ASK]
    }


def test_both_answers_count_as_tokens_and_the_prompt_once(folder):
    asked = spec(folder, PLAIN | {"prompt": "p" * 40, "chosen": "c" * 400, "rejected": "r" * 4000})
    assert file_of(asked, folder).tokens == COUNT * (10 + 100 + 1000 + 3 * 4)


@pytest.mark.parametrize(("provider", "count", "says"), [
    ("openAI", COUNT, "OpenAI gets 1,"),
    ("openAI", COUNT - 1, "9 rows; OpenAI tunes on at least 10"),
    ("bedrock", COUNT, "spec.preference: Bedrock's jobs learn from one answer for each prompt"),
])  # fmt: skip
def test_a_check_without_a_cluster_goes_by_the_same_rules(folder, provider, count, says):
    base = {"baseModel": "amazon.nova-micro-v1:0:128k"} if provider == "bedrock" else {}
    job = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "job"}}
    manifest = FineTuneJobManifest.model_validate(job | {"spec": spec(folder, PLAIN, count, **base).wire()})
    assert says in check_job(manifest, None, Destination(provider)).message


TRAINED = {
    **{name: row for name, (row, _) in LAYOUTS.items()},
    "a conversation": SEVERAL_TURNS,
    "a prompt that ends with the assistant": {"chosen": [ASK, GOOD, GOOD], "rejected": [ASK, GOOD, BAD]},
    "as many messages as a prompt may have": {"prompt": [ASK] * 256, "chosen": "so", "rejected": "no"},
}


@pytest.mark.parametrize("name", TRAINED)
def test_our_own_trainer_reads_at_sagemaker_the_rows_that_were_checked(folder, name):
    asked = spec(folder, TRAINED[name], 1)
    path = converted(asked, folder, "sageMaker")
    there = asked.model_copy(update={"dataset": asked.dataset.model_validate({"train": {"uri": path.as_uri()}})})
    before, after = (list(load_rows(one.data, "train", allow_local=True)) for one in (asked, there))
    assert [(row.turns, row.rejected) for row in after] == [(row.turns, row.rejected) for row in before]


def test_a_test_set_of_pairs_is_measured_against_the_better_answers(folder, monkeypatch):
    monkeypatch.setattr("finetune_api.uris.CLAIMS_PATH", str(folder.parent))
    dataset = {split: {"uri": f"pvc://data/{split}.jsonl"} for split in ("train", "test")}
    dataset |= {"columns": {"chosen": "good", "rejected": "bad"}}
    asked = spec(folder, PLAIN, dataset=dataset, evaluation={"baselines": [{"fewShot": {"examples": 1}}]})
    for split, prompt, good in (("train", "how?", "thus"), ("test", "why?", "so")):
        row = {"prompt": prompt, "good": good, "bad": "no"}
        (folder / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    job = {"namespace": "team", "name": "job", "uid": "u1", "attempt": 1, "answersURL": "https://operator"}
    verdict = {"valid": True, "reason": "Valid", "message": "ok"}
    found = prepare_by_length(MeasureJob.model_validate(job | {"spec": asked.wire(), "dataset": verdict}))
    assert [(one.turns[-1].content, one.completion) for one in found.questions] == [("why?", "so")]
    assert [row.completion for row in found.examples] == ["thus"]
    size = evaluation_size(asked, DatasetVerdict.model_validate(verdict | {"test": SPLIT}))
    assert (size.rows, size.prompt_tokens, size.completion_tokens) == (1, 5, 5)
