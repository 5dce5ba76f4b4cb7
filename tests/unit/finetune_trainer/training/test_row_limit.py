"""A model with fewer positions than maxSequenceLength's default: its rows are as long as it can hold, and that is told.

By hand, any other number: it is refused where the model has not so many positions.
"""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from finetune_api.exit_codes import ExitCode
from finetune_api.job import Hyperparameters
from finetune_trainer.data.row_limit import TABLES, positions_of
from finetune_trainer.models import base_refusals
from tests.assets.tiny_model import NAME
from tests.assets.tiny_seq2seq import BART, make_tiny_bart
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do

LONG = " very" * 1200
SIZES = {
    "d_model": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_layers": 2, "num_attention_heads": 4,
    "num_heads": 4, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "encoder_layers": 1,
    "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "intermediate_size": 32, "ffn_dim": 32,
    "word_embed_proj_dim": 32, "vocab_size": 64,
}  # fmt: skip


def small(kind: str, **fields: object):
    """A model of this kind with 48 positions."""
    known = AutoConfig.for_model(kind).to_dict()
    sizes = {name: value for name, value in SIZES.items() if name in known}
    if kind == "gpt_neo":
        sizes["attention_types"] = [[["global", "local"], 1]]
    config = AutoConfig.for_model(kind, **sizes | {TABLES[kind]: 48} | fields)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return auto.from_config(config)


@pytest.mark.parametrize("kind", sorted(TABLES))
def test_a_file_says_as_many_positions_as_the_model_has_in_its_table(kind, tmp_path):
    model = small(kind)
    model.config.save_pretrained(tmp_path)
    said = positions_of(json.loads((tmp_path / "config.json").read_text()))
    assert (said, base_refusals.position_table_size(model)) == (48, 48)


@pytest.mark.parametrize(
    "config", [{}, {"model_type": "llama", "max_position_embeddings": 48}, {"model_type": "gpt2", "n_positions": -1}]
)
def test_without_a_table_there_is_no_limit(config):
    assert positions_of(config) is None


@pytest.fixture
def cache(tiny_model, tmp_path):
    """A BART with 128 positions, and a GPT-2 with 160, whose config names a first token that it does not know."""
    make_tiny_bart(tmp_path / "cache")
    folder = tmp_path / "cache" / NAME
    shutil.copytree(tiny_model / NAME, folder)
    (folder / "model.safetensors").unlink()
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    small("gpt2", n_positions=160, vocab_size=vocabulary).save_pretrained(folder)
    return tmp_path / "cache"


def job_of(folder: Path, cache: Path, name: str, text: str = "", **hyper: object):
    """A job with a long row or none, at the defaults."""
    hyper = {"epochs": 0.4, **hyper}
    job = make_job(folder, cache, baseModel=name, splits=("train", "test"), hyperparameters=hyper)
    if text:
        row = {"prompt": "What colour is it?", "completion": "red" + text, "system": "Answer with one word."}
        with (folder / "train.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    return job


@pytest.mark.parametrize("name", [BART, NAME])
def test_short_rows_are_learnt_from_at_the_default(cache, tmp_path, name):
    code, report, _ = do(job_of(tmp_path, cache, name))
    assert code == ExitCode.OK, report.failure
    assert not [said for said in report.dataset.warnings if "positions" in said]


@pytest.mark.parametrize(("name", "positions"), [(BART, 128), (NAME, 160)])
def test_longer_ones_are_cut_to_what_the_model_holds_and_that_is_told(cache, tmp_path, name, positions):
    code, report, _ = do(job_of(tmp_path, cache, name, LONG))
    assert code == ExitCode.OK, report.failure
    held = f"the {positions} tokens that the base model has positions for"
    assert f"train.jsonl: 1 row longer than {held}; the end is cut" in report.dataset.warnings
    assert report.dataset.train.truncated_rows == 1


@pytest.mark.parametrize(("name", "positions"), [(BART, 128), (NAME, 160)])
def test_any_other_number_is_what_somebody_wants_and_is_refused(cache, tmp_path, name, positions):
    code, report, _ = do(job_of(tmp_path, cache, name, LONG, maxSequenceLength=2048))
    assert code == ExitCode.SPEC_INVALID
    assert f"is more than the {positions} tokens that the model" in report.failure.message
    assert Hyperparameters().is_set("max_sequence_length") is False


def test_check_says_the_same(check, cache):
    answers = ("red", "red" + LONG, "green")
    rows = "".join(json.dumps({"prompt": "What is it?", "completion": answer}) + "\n" for answer in answers)
    usual = check("--model-cache", cache, "--gpu-memory", "80Gi", train=("t.jsonl", rows), spec={"baseModel": BART})
    assert usual.code == ExitCode.OK
    said = "t.jsonl: 1 row longer than the 128 tokens that the base model has positions for; the end is cut"
    assert said in usual.verdict.warnings
    hyper = {"maxSequenceLength": 128}
    written = {"baseModel": BART, "hyperparameters": hyper}
    same = check("--model-cache", cache, "--gpu-memory", "80Gi", train=("t.jsonl", rows), spec=written)
    assert same.memory == usual.memory
    hyper["maxSequenceLength"] = 200
    wrong = check("--model-cache", cache, train=("t.jsonl", rows), spec=written)
    assert wrong.code == ExitCode.SPEC_INVALID
    assert "hyperparameters.maxSequenceLength: 200 is more than the 128 tokens" in wrong.verdict.message


def test_a_prompt_that_leaves_no_room_is_told_with_what_helps(check, cache):
    rows = json.dumps({"prompt": "What" + LONG, "completion": "red"}) + "\n"
    result = check("--model-cache", cache, train=("t.jsonl", rows))
    assert result.code == ExitCode.DATASET_INVALID
    assert "within the 160 tokens that the base model has positions for" in result.verdict.message
    assert "a base model with more positions" in result.verdict.next_step
