"""Base models whose weights come in many files: what is wrong with one of them is said by the file's name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_trainer.errors import TrainerError
from finetune_trainer.models import model_shape
from finetune_trainer.models.base_model import load_model
from finetune_trainer.models.base_refusals import PUT_THERE_AGAIN
from finetune_trainer.models.weight_files import shapes_as_loaded
from tests.assets.tiny_model import NAME, make_tiny_model

INDEX, SECOND = "model.safetensors.index.json", "model-00002-of-00006.safetensors"
PLAIN = "Name the model with weights of 16 or 32 bits, and apply the job under a new name."


@pytest.fixture
def folder(tmp_path):
    """The tiny model in six files."""
    make_tiny_model(tmp_path)
    folder = tmp_path / NAME
    model = load_model(folder, dtype=torch.float32)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) == 6
    return folder


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Something else in the second file."""

    def spoil(folder: Path) -> None:
        weights = load_file(folder / SECOND)
        save_file({name: made for name, value in weights.items() for name, made in change({name: value}).items()},
                  folder / SECOND, {"format": "pt"})  # fmt: skip

    return spoil


def as_dtype(dtype: torch.dtype) -> Callable[[Path], object]:
    return edit(lambda one: {name: value.to(dtype) for name, value in one.items()})


def point_elsewhere(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    first = "model-00001-of-00006.safetensors"
    (folder / INDEX).write_text(json.dumps(index | {"weight_map": dict.fromkeys(index["weight_map"], first)}))


def index_is(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / INDEX).write_text(text)


def halve(folder: Path) -> None:
    content = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(content[: len(content) // 2])


SPOILT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (lambda folder: (folder / SECOND).unlink(), f"{SECOND} is missing", PUT_THERE_AGAIN),
    "truncated": (halve, f"{SECOND} has 8420 bytes, its header speaks of 16840", PUT_THERE_AGAIN),
    "empty": (lambda folder: (folder / SECOND).write_bytes(b""), f"{SECOND} has no header", PUT_THERE_AGAIN),
    "a page of a proxy": (
        lambda folder: (folder / SECOND).write_bytes(b"<html>404</html>" * 9),
        f"{SECOND} has no header of safetensors",
        PUT_THERE_AGAIN,
    ),
    "of another model": (
        edit(lambda one: {f"transformer.{name}": value for name, value in one.items()}),
        f"cannot be found in {SECOND}",
        PUT_THERE_AGAIN,
    ),
    "of another size": (
        edit(lambda one: {name: torch.zeros(len(value) + 1, *value.shape[1:]) for name, value in one.items()}),
        f"model.layers.0.input_layernorm.weight in {SECOND} is (33,), and by config.json (32,)",
        PUT_THERE_AGAIN,
    ),
    "whole numbers": (as_dtype(torch.int32), f"in {SECOND} is stored as numbers that are not weights", PLAIN),
    "truth values": (as_dtype(torch.bool), f"in {SECOND} is stored as numbers that are not weights", PLAIN),
    "an index to another file": (point_elsewhere, "in model-00001-of-00006.safetensors", PUT_THERE_AGAIN),
    "no JSON": (index_is("{not"), f"{INDEX} is not an index of files of weights", PUT_THERE_AGAIN),
    "no map": (index_is('{"metadata": {}}'), f"{INDEX} is not an index", PUT_THERE_AGAIN),
    "a list": (index_is("[]"), f"{INDEX} is not an index", PUT_THERE_AGAIN),
    "no metadata": (index_is('{"weight_map": {}}'), f"{INDEX} is not an index", PUT_THERE_AGAIN),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_wrong_with_one_file_of_many_is_said_by_its_name(folder, what):
    spoil, said, step = SPOILT[what]
    spoil(folder)
    with pytest.raises(TrainerError) as refusal:
        load_model(folder, dtype=torch.float32)
    assert refusal.value.reason == "ModelUnusable"
    assert said in refusal.value.message
    assert refusal.value.next_step == step


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_one_file_of_another_precision_is_as_good(folder, dtype):
    before = load_model(folder, dtype=torch.float32)
    as_dtype(dtype)(folder)
    after = load_model(folder, dtype=torch.float32)
    for one, other in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


def test_a_model_that_is_stored_quantised_has_the_shape_that_it_is_loaded_in(tmp_path):
    folder = make_tiny_model(tmp_path, width=64)
    plain = model_shape.of_folder(folder)
    load_model(folder, dtype=torch.float32, four_bits=True).save_pretrained(tmp_path / "bitsandbytes")
    weights = load_file(folder / "model.safetensors")
    scaled = {f"{name}_scale_inv": torch.ones(2, 2) for name in weights if name.endswith("_proj.weight")}
    shutil.copytree(folder, tmp_path / "fp8")
    save_file(weights | scaled, tmp_path / "fp8" / "model.safetensors")
    for stored in ("bitsandbytes", "fp8"):
        told = model_shape.of_folder(tmp_path / stored)
        same = ("parameters", "linear_parameters", "vocabulary")
        assert [getattr(told, field) for field in same] == [getattr(plain, field) for field in same]
        assert (set(told.matrices), set(told.norms)) == (set(plain.matrices), set(plain.norms))


def test_experts_in_mxfp4_are_as_many_numbers_as_they_stand_for(tmp_path):
    blocks, scales = (torch.zeros(4, 96, 2, *one, dtype=torch.uint8) for one in ((16,), ()))
    experts = "model.layers.0.mlp.experts.gate_up_proj"
    save_file({f"{experts}_blocks": blocks, f"{experts}_scales": scales}, tmp_path / "model.safetensors")
    assert shapes_as_loaded(tmp_path / "model.safetensors") == {experts: (4, 64, 96)}
