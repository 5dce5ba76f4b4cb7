"""Files of weights that lack what every model of their kind has are told by their headers, and no other ones."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_model import load_model
from finetune_trainer.models.kinds import KNOWN
from finetune_trainer.models.validation import config_file
from finetune_trainer.models.validation.required_tensors import ALWAYS, first_missing, unwrapped, wrapped
from finetune_trainer.models.validation.tensor_names import placed
from tests.assets.tiny_model import NAME
from tests.assets.tiny_seq2seq import BART, PEGASUS, T5, make_tiny_bart, make_tiny_pegasus, make_tiny_t5
from tests.unit.finetune_trainer.models.test_config_shapes import change, sharded

MORE = {"gpt_neo": {"attention_types": [[["global"], 2]]}}
TURNED = (
    "attention_bias", "bias", "do_layer_norm_before", "enable_bias", "is_gated_act", "layer_norm_elementwise_affine",
    "mlp_bias", "new_decoder_architecture", "parallel_attn", "qk_layernorm", "tie_word_embeddings", "use_bias",
    "use_parallel_residual", "use_qk_norm", "use_qkv_bias",
)  # fmt: skip
"""Fields that give layers other parts."""


def stored(kind: str, **fields: object) -> set[str]:
    """Names of the tensors that transformers saves of such a model."""
    config = AutoConfig.for_model(kind, num_hidden_layers=2, **MORE.get(kind, {}), **fields)
    with torch.device("meta"):
        model = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_config(config)
    return set(model.state_dict()) - set(model.all_tied_weights_keys)


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_what_every_model_of_a_kind_has_is_what_transformers_makes_whatever_its_fields_say(kind):
    usual = AutoConfig.for_model(kind, num_hidden_layers=2, **MORE.get(kind, {})).to_dict()
    for fields in ({}, {name: not usual[name] for name in TURNED if isinstance(usual.get(name), bool)}):
        names = stored(kind, **fields)
        parts = {placed(name).part for name in names}
        assert ALWAYS[kind] <= parts
        assert first_missing({"model_type": kind}, names) is None, "its own weights"
        alone = {name.partition(".")[2] for name in names if name.startswith(("model.", "transformer.", "gpt_neox."))}
        assert first_missing({"model_type": kind}, alone or names) is None, "without a head, and what is around it"
    assert first_missing({"model_type": kind}, []) is None, "without files"
    matrices = {part for part in parts if "N." in part and part.endswith("proj.weight")}
    assert not matrices or matrices & ALWAYS[kind], "its layers are known"


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model / NAME, tmp_path / "cache" / NAME)


def without(base: Path, *ends: str) -> None:
    weights = load_file(base / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.endswith(ends)}
    save_file(kept, base / "model.safetensors", {"format": "pt"})


def refusal(base: Path) -> str:
    with pytest.raises(TrainerError) as caught:
        config_file.require(base)
    assert caught.value.reason == "ModelUnusable"
    return caught.value.message.removeprefix(f"the model in {base} cannot be used: ")


def loading_refuses(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(config_file, "require", lambda _: None)
        with pytest.raises(TrainerError) as caught:
            load_model(base, dtype=None)
    assert caught.value.reason == "ModelUnusable"


def test_each_tensor_that_one_layer_lacks_is_named_as_loading_names_it(base, monkeypatch):
    weights = load_file(base / "model.safetensors")
    for name in [name for name in weights if ".1." in name]:
        save_file({one: value for one, value in weights.items() if one != name}, base / "model.safetensors")
        assert refusal(base) == f"its weights are incomplete: {name} cannot be found in its safetensors"
    loading_refuses(base, monkeypatch)


def test_the_file_that_should_have_it_is_named_by_the_index(base):
    without(base, "layers.1.mlp.up_proj.weight")
    sharded(base)
    assert refusal(base).startswith("its weights are incomplete: model.layers.1.mlp.up_proj.weight cannot be found in ")


@pytest.mark.parametrize("part", ["mlp.up_proj.weight", "input_layernorm.weight", "model.norm.weight"])
def test_what_no_layer_has_is_told_as_perhaps_another_kinds(base, monkeypatch, part):
    without(base, part)
    said = refusal(base)
    assert said.startswith('config.json: model_type is "llama", and the files of weights have no ')
    assert said.endswith(f"{part}, which every llama has: they are those of another kind, or incomplete")
    loading_refuses(base, monkeypatch)


@pytest.mark.parametrize(
    ("kind", "lacked"),
    [
        ("qwen2", "model.layers.0.self_attn.k_proj.bias"),
        ("qwen3", "model.layers.0.self_attn.k_norm.weight"),
        ("gemma2", "model.layers.0.post_feedforward_layernorm.weight"),
        ("phi3", "model.layers.0.mlp.gate_up_proj.weight"),
        ("gpt2", "h.0.attn.c_attn.bias"),
        ("opt", "decoder.layers.0.fc1.weight"),
    ],
)
def test_weights_of_another_kind_than_config_json_says_are_refused(base, monkeypatch, kind, lacked):
    change(base, model_type=kind, architectures="gone")
    assert f'model_type is "{kind}", and the files of weights have no {lacked}, which every {kind}' in refusal(base)
    loading_refuses(base, monkeypatch)


@pytest.mark.parametrize("kind", ["mistral", "gemma"])
def test_kinds_with_the_same_parts_are_left_alone(base, kind):
    change(base, model_type=kind)
    config_file.require(base)


@pytest.mark.parametrize(
    ("make", "name", "kind"),
    [
        (make_tiny_t5, T5, "bart"),
        (make_tiny_bart, BART, "t5"),
        (make_tiny_bart, BART, "pegasus"),
        (make_tiny_pegasus, PEGASUS, "bart"),
    ],
)
def test_so_are_encoder_decoders(tmp_path, make, name, kind):
    make(tmp_path)
    config_file.require(tmp_path / name)
    change(tmp_path / name, model_type=kind, architectures="gone")
    assert f'model_type is "{kind}"' in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("make", "name", "fields"),
    [
        (None, NAME, {"num_hidden_layers": 1}),
        (make_tiny_t5, T5, {"num_layers": 1, "num_decoder_layers": 2}),
        (make_tiny_t5, T5, {"num_decoder_layers": 1}),
        (make_tiny_t5, T5, {"num_decoder_layers": 3}),
        (make_tiny_bart, BART, {"encoder_layers": 1}),
        (make_tiny_bart, BART, {"decoder_layers": 1}),
        (make_tiny_bart, BART, {"decoder_layers": 3}),
    ],
)
@pytest.mark.usefixtures("base")
def test_a_number_of_layers_other_than_the_files_hold_is_refused(tmp_path, monkeypatch, make, name, fields):
    if make:
        make(tmp_path / "cache")
    folder, (field, *_) = tmp_path / "cache" / name, fields
    change(folder, **fields)
    more = "by config.json it has 1 layers, but its files have more: "
    assert refusal(folder).startswith(
        f"config.json: {field} is 3, and the files of weights hold 2 layers"
        if fields[field] == 3
        else f"config.json: {field} is 1: {more}"
    )
    loading_refuses(folder, monkeypatch)


@pytest.mark.parametrize("field", ["encoder_attention_heads", "decoder_attention_heads"])
def test_heads_that_do_not_part_the_width_of_the_model_are_refused(tmp_path, monkeypatch, field):
    folder = make_tiny_bart(tmp_path)
    change(folder, **{field: 5})
    assert refusal(folder) == f"config.json: {field} is 5, and d_model, 32, is not a multiple of it"
    loading_refuses(folder, monkeypatch)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("gpt2", {"n_embd": 32, "n_head": 3}),
        ("gptj", {"n_embd": 32, "n_head": 3, "rotary_dim": 4}),
        ("bloom", {"hidden_size": 32, "n_head": 3}),
        ("gpt_neo", {"hidden_size": 32, "num_heads": 3} | MORE["gpt_neo"]),
    ],
)
def test_so_it_is_of_the_other_kinds_that_transformers_refuses(tmp_path, kind, fields):
    config = {"model_type": kind, "num_layers": 2} if kind == "gpt_neo" else {"model_type": kind}
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    assert "is 3, and " in refusal(tmp_path)
    with pytest.raises(ValueError, match="divisible"), torch.device("meta"):
        AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields, num_hidden_layers=2))


@pytest.mark.parametrize("before", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.module."])
def test_names_that_a_wrapper_has_changed_are_told_by_name(before, tiny_model, tmp_path):
    base = shutil.copytree(tiny_model / NAME, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    save_file({before + name: value for name, value in weights.items()}, base / "model.safetensors")
    with pytest.raises(TrainerError) as caught:
        config_file.require(base)
    name = "model.layers.0.input_layernorm.weight"
    assert f"{before}{name} in model.safetensors should be {name}: " in caught.value.message
    assert "model._orig_mod of torch.compile" in caught.value.next_step


def test_a_wrapper_around_each_layer_is_told_too_and_what_lies_beside_the_whole_model_is_not():
    names = stored("llama")
    around_layers = {name.replace("layers.0.", "layers.0._checkpoint_wrapped_module.") for name in names}
    name = wrapped({"model_type": "llama"}, {one for one in around_layers if "layers.1." not in one})
    assert name == "model.layers.0._checkpoint_wrapped_module.input_layernorm.weight"
    assert unwrapped(name) in names
    assert wrapped({"model_type": "llama"}, names | {f"module.{one}" for one in names}) is None
