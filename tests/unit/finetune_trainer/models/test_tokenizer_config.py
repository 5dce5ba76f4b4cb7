"""A tokenizer_config.json is refused by `check`, which has no transformers, exactly where transformers fails on it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer
from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_model import load_tokenizer
from tests.assets.tiny_model import NAME

TOKEN = {"content": "a", "__type": "AddedToken"}
RIGHT: dict[str, list[Any]] = {
    "padding_side": ["left", "right"],
    "truncation_side": ["left"],
    "tokenizer_class": [None, "", "FooTokenizer"],
    "auto_map": [{}, ["a.B", None]],
    "extra_special_tokens": [None, [], {}, ["a"], [TOKEN], {"image_token": "<i>"}],
    "additional_special_tokens": [None, [], {}, ["a"], [TOKEN]],
    "added_tokens_decoder": [{}],
    "model_max_length": [None, -1, "lots"],
}
WRONG: dict[str, list[Any]] = {
    "padding_side": ["up", "LEFT", 3, None, ["left"]],
    "truncation_side": ["up", None],
    "tokenizer_class": [3, False, ["LlamaTokenizer"]],
    "auto_map": [3, None, [], "x"],
    "extra_special_tokens": ["", "x", 0, [3], [None], [{"content": "a"}], {"image_token": 3}, {"image_token": None}],
    "additional_special_tokens": ["", 3, [3], [{"content": "a"}]],
    "added_tokens_decoder": [[], None, "", False],
}


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model / NAME, tmp_path / NAME)


def said(folder: Path) -> tuple[str, str]:
    """By files alone, and by transformers."""
    found = []
    for load in (ChatTokenizer.from_folder, load_tokenizer):
        try:
            load(folder)
            found.append("")
        except TrainerError as error:
            found.append(error.message)
    return found[0], found[1]


@pytest.mark.parametrize("field", sorted(RIGHT.keys() | WRONG.keys()))
def test_values_are_refused_by_the_file_exactly_where_transformers_fails_on_them(folder, field):
    path = folder / "tokenizer_config.json"
    usual = json.loads(path.read_text())
    for value in (*RIGHT[field], *WRONG.get(field, [])):
        path.write_text(json.dumps(usual | {field: value}))
        by_file, by_loading = said(folder)
        assert bool(by_file) == bool(by_loading) == (value in WRONG.get(field, [])), (field, value)
        assert not by_file or by_file.startswith(f"tokenizer_config.json of the base model: {field} is ")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
def test_a_file_that_is_no_object_is_refused(folder, name):
    for text in ("[]", "null", "3", '"x"'):
        (folder / name).write_text(text)
        by_file, by_loading = said(folder)
        assert by_file == f"{name} of the base model is not a JSON object"
        assert by_loading


def test_older_files_that_transformers_does_not_read_may_hold_anything(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"added_tokens_decoder": {}}))
    for name in ("special_tokens_map.json", "added_tokens.json"):
        (folder / name).write_text("[]")
    assert said(folder) == ("", "")
