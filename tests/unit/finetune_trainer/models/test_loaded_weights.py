"""Base models that load and are not what they should be: named before they are trained, with tensor and file."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_model, loaded_weights
from finetune_trainer.models.validation import config_file
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do

QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def base(tiny_model, tmp_path):
    """A copy of the tiny model, in the place of a cache, that a test may change."""
    shutil.copytree(tiny_model / NAME, tmp_path / "cache" / NAME)
    return tmp_path / "cache" / NAME


def edit(base: Path, change) -> None:
    weights = load_file(base / "model.safetensors")
    change(weights)
    save_file(weights, base / "model.safetensors", {"format": "pt"})


def configured(base: Path, **fields: object) -> None:
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(base: Path, **how: object) -> TrainerError:
    with pytest.raises(TrainerError) as caught:
        base_model.load_model(base, **({"dtype": torch.float32} | how))
    assert caught.value.reason == Reason.MODEL_UNUSABLE
    assert "cluster by spec.retryNonce" in caught.value.next_step
    return caught.value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [QUERY, "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight"])
def test_a_weight_that_is_no_number_is_named_with_its_file(base, name, number, dtype):
    edit(base, lambda weights: weights[name].view(-1)[-1:].fill_(number))
    said = refused(base, dtype=dtype).message
    assert f"{name} in model.safetensors has numbers that are not finite" in said


def test_infinite_numbers_that_cancel_each_other_out_are_found_and_large_ones_are_numbers():
    ends = torch.tensor([float("inf"), float("-inf")])
    assert loaded_weights.first_not_finite([("large", torch.full((4,), 3e38)), ("ends", ends)]) == "ends"
    assert loaded_weights.first_not_finite([("whole", torch.tensor([2**31 - 1]))]) is None


LAYER = re.compile(r"model\.layers\.1\..*_proj\.weight")
ADDED = re.compile(r".*(o_proj|down_proj|q_proj)\.weight|.*norm\.weight")
"""Layers that begin as if they were not there are added to a model so."""


@pytest.mark.parametrize(
    ("which", "told"),
    [
        (re.compile(r"model\.embed_tokens\.weight"), "model.embed_tokens.weight"),
        (LAYER, "model.layers.1.mlp.down_proj.weight"),
        (ADDED, None),
        (re.compile(r"model\.layers\.0\..*"), "model.layers.0.mlp.down_proj.weight"),
    ],
    ids=["words", "layer", "added", "all of a layer"],
)
def test_zeros_where_a_sound_model_has_none_are_told(base, which, told):
    edit(base, lambda weights: [value.zero_() for name, value in weights.items() if which.fullmatch(name)])
    if told is None:
        assert base_model.load_model(base, dtype=torch.float32)
        return
    error = refused(base)
    assert error.message.endswith(" in model.safetensors has nothing but zeros")
    assert which.search(error.message)
    assert "broken off" in error.next_step
    with pytest.raises(TrainerError, match=told):
        loaded_weights.require_sound(base, None, [], quantised=True)


def test_what_becomes_4_bits_is_looked_at_before(base):
    """What NF4 makes of it is a number."""
    edit(base, lambda weights: weights[QUERY][0, :2].fill_(float("nan")))
    with pytest.raises(TrainerError, match=QUERY):
        loaded_weights.require_sound(base, None, [], quantised=True)
    loaded_weights.require_sound(base, None, [QUERY], quantised=True)


@pytest.mark.parametrize("method", ["LoRA", "Full"])
def test_a_job_on_such_a_base_ends_before_its_training(base, tmp_path, method):
    """Attention on a CPU takes no scores from it: its loss on trial is a number."""
    edit(base, lambda weights: weights[QUERY].view(-1)[:1].fill_(float("nan")))
    code, report, _ = do(make_job(tmp_path, base.parents[1], splits=("train",), method=method))
    assert (code, report.failure.reason) == (ExitCode.MODEL_UNUSABLE, "ModelUnusable")
    assert QUERY in report.failure.message
    assert report.progress is None


def test_layers_that_the_configuration_leaves_out_are_told(base, monkeypatch):
    """Of kinds that the headers do not tell of, as `test_required_tensors.py` has it of the others."""
    monkeypatch.setattr(config_file, "require", lambda _: None)
    configured(base, num_hidden_layers=1)
    said = refused(base)
    assert "by config.json it has 1 layers, but its files have more: model.layers.1 in model.saf" in said.message
    assert said.next_step.startswith("Correct config.json")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",
        "model.norm.bias",
        "model.layers.1.self_attn.q_norm.weight",
        "model.layers.1.pre_feedforward_layernorm.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
    ],
)
def test_weights_of_a_layer_for_which_the_configuration_leaves_no_room_are_told(base, monkeypatch, name):
    monkeypatch.setattr(config_file, "require", lambda _: None)
    edit(base, lambda weights: weights.update({name: torch.ones(32)}))
    assert f"config.json leaves no room for {name} in model.safetensors" in refused(base).message


@pytest.mark.parametrize(
    "name",
    [
        "vision_tower.layers.0.weight",
        "model.layers.2.eh_proj.weight",
        "mtp.0.weight",
        "score.weight",
        "model.layers.0.self_attn.k_scale",
    ],
)
def test_weights_of_other_things_in_the_same_files_are_left_out_and_told_in_the_log(base, name, caplog):
    """Of what sees or hears, of layers that guess further tokens, of a head that classifies, of a cache in 8 bits."""
    edit(base, lambda weights: weights.update({name: torch.full((4,), float("nan"))}))
    base_model.load_model(base, dtype=torch.float32)
    assert f"no place for 1 weights of its files: {name}" in caplog.text
