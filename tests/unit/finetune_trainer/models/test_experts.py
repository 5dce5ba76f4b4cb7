"""Mixtures of experts: sound ones of every known kind are taken, and what is wrong with an expert is told by name."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_trainer.errors import TrainerError
from finetune_trainer.models.adapters import beside_experts
from finetune_trainer.models.base_model import load_model
from finetune_trainer.models.validation import config_file
from finetune_trainer.models.validation.config_values import is_whole
from finetune_trainer.models.validation.required_tensors import BESIDE_EXPERTS
from finetune_trainer.models.validation.tensor_names import placed
from finetune_trainer.models.validation.tensor_shapes import OF_EXPERTS
from tests.unit.finetune_trainer.models.test_required_tensors import TURNED, stored

COUNTS = ("moe_num_experts", "n_routed_experts", "num_experts", "num_local_experts")
SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 40,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8,
    "num_experts_per_tok": 2, "moe_k": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "shared_expert_intermediate_size": 40, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "intermediate_size_mlp": 48, "max_position_embeddings": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **dict.fromkeys(COUNTS, 4),
}  # fmt: skip
LISTS = {"layer_types": 2, "mlp_layer_types": 2, "no_rope_layers": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders of models of random weights as transformers saves them, each made once."""
    cache = tmp_path_factory.mktemp("mixtures")

    def make(kind: str) -> Path:
        folder = cache / kind
        if not folder.exists():
            usual = AutoConfig.for_model(kind).to_dict()
            fields = {name: value for name, value in SMALL.items() if name in usual}
            fields |= {name: usual[name][:count] for name, count in LISTS.items() if usual.get(name)}
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields)).save_pretrained(folder)
        return folder

    return make


def spoilt(base: Path, folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    shutil.copytree(base, folder)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(TrainerError) as caught:
        config_file.require(folder)
    assert caught.value.reason == "ModelUnusable"
    assert caught.value.next_step
    return caught.value.message.removeprefix(f"the model in {folder} cannot be used: ")


@pytest.mark.parametrize("kind", sorted(BESIDE_EXPERTS))
def test_a_sound_mixture_is_taken_and_each_of_its_layers_is_missed_where_it_is_not_there(kind, made, tmp_path):
    base = made(kind)
    config_file.require(base)
    load_model(base, dtype=torch.float32)
    weights = load_file(base / "model.safetensors")
    half = {name: value for name, value in weights.items() if ".layers.1." not in name}
    assert re.match(
        r"its weights are incomplete: model\.layers\.1\.\S+ cannot be found",
        refusal(spoilt(base, tmp_path / "x", half)),
    )


@pytest.mark.parametrize("kind", sorted(BESIDE_EXPERTS))
def test_what_stands_beside_experts_is_there_whatever_the_fields_say(kind):
    usual = AutoConfig.for_model(kind, num_hidden_layers=2).to_dict()
    turned = {name: not usual[name] for name in (*TURNED, "qkv_bias") if isinstance(usual.get(name), bool)}
    for fields in ({}, turned):
        assert {placed(name).part for name in stored(kind, **fields)} >= BESIDE_EXPERTS[kind]


@pytest.mark.parametrize("kind", sorted(OF_EXPERTS))
def test_a_norm_of_another_width_is_a_wrong_file(kind, made, tmp_path):
    base = made(kind)
    weights = load_file(base / "model.safetensors")
    name = next(name for name, value in sorted(weights.items()) if "layers.1." in name and value.dim() == 1)
    said = refusal(spoilt(base, tmp_path / "x", weights | {name: weights[name][:-1]}))
    assert said.startswith(f"its weights are another model's: {name} in model.safetensors is ")


@pytest.mark.parametrize("kind", ["deepseek_v3", "mixtral", "olmoe", "qwen3_moe"])
def test_an_expert_that_is_not_as_the_others_is_told_by_its_tensor(kind, made, tmp_path, monkeypatch):
    base = made(kind)
    weights = load_file(base / "model.safetensors")
    names = [name for name in sorted(weights) if re.search(r"layers\.1\..*\.experts\.1\.", name)]
    for number, name in enumerate(names):
        folder = spoilt(
            base, tmp_path / f"without{number}", {one: value for one, value in weights.items() if one != name}
        )
        assert refusal(folder) == f"its weights are incomplete: {name} cannot be found in its safetensors"
        misshaped = spoilt(base, tmp_path / f"shape{number}", weights | {name: weights[name][:-1]})
        rows, columns = weights[name].shape
        assert refusal(misshaped) == (
            f"its weights are another model's: {name} in model.safetensors is ({rows - 1}, {columns}), and other "
            f"experts' ({rows}, {columns})"
        )
    monkeypatch.setattr(config_file, "require", lambda _: None)
    for spoils in ("without0", "shape0"):
        with pytest.raises(TrainerError, match=r"its weights (cannot be put together|are another model's)") as caught:
            load_model(tmp_path / spoils, dtype=torch.float32)
        assert caught.value.reason == "ModelUnusable"


@pytest.mark.parametrize("kind", ["gpt_oss", "granitemoe", "mixtral", "qwen2_moe"])
def test_what_one_layer_lacks_that_the_others_have_is_told_by_its_name(kind, made, tmp_path):
    base = made(kind)
    weights = load_file(base / "model.safetensors")
    folder = spoilt(base, tmp_path / "x", weights)
    for lacked in (name for name in weights if ".layers.1." in name and ".experts.0." not in name):
        save_file({name: value for name, value in weights.items() if name != lacked}, folder / "model.safetensors")
        assert refusal(folder) == f"its weights are incomplete: {lacked} cannot be found in its safetensors"


@pytest.mark.parametrize("kind", ["deepseek_v3", "gpt_oss", "mixtral", "llama4_text"])
@pytest.mark.parametrize("count", [3, 5])
def test_a_number_of_experts_that_the_files_contradict_is_told_by_its_field(kind, count, made, tmp_path):
    folder = shutil.copytree(made(kind), tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    field = next(name for name in COUNTS if is_whole(config.get(name)))
    (folder / "config.json").write_text(json.dumps(config | {field: count}))
    said = refusal(folder)
    assert said.startswith(f"config.json: {field} is {count}, and ")
    assert "experts" in said


def test_quantised_experts_and_those_of_other_kinds_are_left_alone(made, tmp_path):
    base = made("mixtral")
    weights = load_file(base / "model.safetensors")
    name = next(name for name in sorted(weights) if ".experts.1." in name)
    folder = spoilt(base, tmp_path / "x", {one: value for one, value in weights.items() if one != name})
    config = json.loads((folder / "config.json").read_text())
    packed = config | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    for changed in (packed, config | {"model_type": "jetmoe"}):
        (folder / "config.json").write_text(json.dumps(changed))
        config_file.require(folder)


@pytest.mark.parametrize("kind", ["recurrent_gemma", "xlnet"])
def test_weights_of_three_dimensions_elsewhere_are_not_called_experts(kind):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, num_hidden_layers=3, n_layer=1))
    model.peft_config = {}
    assert {value.dim() for value in model.parameters()} >= {3}
    assert beside_experts(model) == []
