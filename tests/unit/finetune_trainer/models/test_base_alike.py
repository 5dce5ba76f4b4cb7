"""Ranks whose nodes have caches of their own: all of them train on one base model, or none."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_trainer.computing.ranks import ALONE, World
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_alike
from tests.assets.tiny_model import NAME


def another_revision(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({name: value + 0.1 for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def another_template(folder):
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def other_tokens(folder):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": None, "padding": None}, indent=1))


def in_16_bits(folder):
    weights = load_file(folder / "model.safetensors")
    halved = {name: value.to(torch.bfloat16) for name, value in weights.items()}
    save_file(halved, folder / "model.safetensors", {"format": "pt"})


def on_two_nodes(tiny_model, tmp_path, change):
    theirs = shutil.copytree(tiny_model / NAME, tmp_path / "theirs")
    change(theirs)
    store = torch.distributed.HashStore()
    base_alike.require(World(0, 2, store), tiny_model / NAME)
    base_alike.require(World(1, 2, store), theirs)


@pytest.mark.parametrize(
    ("change", "what"),
    [(another_revision, "weight"), (another_template, "chat_template.jinja"), (other_tokens, "tokenizer.json")],
)
def test_a_node_whose_cache_holds_another_revision_trains_nothing(tiny_model, tmp_path, change, what):
    with pytest.raises(TrainerError, match=rf"theirs is another model than the one .*{what} differs") as caught:
        on_two_nodes(tiny_model, tmp_path, change)
    assert caught.value.reason == "ModelUnusable"
    assert "cache of each node" in caught.value.next_step


@pytest.mark.parametrize("change", [lambda _: None, in_16_bits])
def test_a_copy_and_one_in_other_numbers_are_the_same_model(tiny_model, tmp_path, change):
    on_two_nodes(tiny_model, tmp_path, change)


def test_one_rank_reads_nothing_for_it(tmp_path):
    base_alike.require(ALONE, tmp_path / "none")
