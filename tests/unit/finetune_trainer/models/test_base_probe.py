"""A base model that is another one by now: told from itself in other files and other precision."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_probe import differs, probe
from finetune_trainer.serving.artifact import open_artifact
from tests.assets.tiny_model import NAME


@pytest.fixture
def base(tiny_model, tmp_path):
    return shutil.copytree(tiny_model / NAME, tmp_path / "cache" / NAME)


def changed(folder, change):
    """The folder with its weights as `change` has made them."""
    path = folder / "model.safetensors"
    tensors = {name: change(value).contiguous() for name, value in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_same_weights_in_half_the_precision_are_the_same_model(base, dtype):
    before = probe(base)
    assert 8 < len(before) <= 16
    assert differs(before, probe(changed(base, lambda value: value.to(dtype)), before)) is None


def test_the_same_weights_in_two_files_are_the_same_model(base):
    before = probe(base)
    tensors = sorted(load_file(base / "model.safetensors").items())
    (base / "model.safetensors").unlink()
    for number in (0, 1):
        save_file(dict(tensors[number::2]), base / f"model-{number}.safetensors")
    assert probe(base) == before


def test_a_model_that_was_tuned_on_is_another_one(base):
    before = probe(base)
    torch.manual_seed(1)
    tuned = changed(base, lambda value: value + 0.02 * value.abs().mean() * torch.randn_like(value))
    assert differs(before, probe(tuned, before)) in before


def test_what_is_not_there_or_cannot_be_read_is_not_called_another_one(base):
    before = probe(base)
    assert differs(before, {}) is None
    assert differs({"gone": [1.0]}, before) is None
    (base / "model.safetensors").write_bytes(b"no weights")
    assert probe(base) == {}


def test_an_adapter_is_not_served_on_another_base_of_the_same_name(base, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": NAME}))
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    (adapter / "manifest.json").write_text(json.dumps({"files": {}, "baseProbe": probe(base)}))
    cache = tmp_path / "cache"
    assert open_artifact(adapter, cache).base == base
    changed(base, lambda value: value * 1.1)
    with pytest.raises(TrainerError, match="is another model than the one of this name") as caught:
        open_artifact(adapter, cache)
    assert caught.value.reason == "ModelUnusable"
    (adapter / "manifest.json").write_text(json.dumps({"files": {}}))
    assert open_artifact(adapter, cache).base == base, "an artifact of an earlier release says nothing of it"
