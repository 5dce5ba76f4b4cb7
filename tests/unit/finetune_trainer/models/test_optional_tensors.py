"""Weights that transformers would leave out are told by the headers of their files, and those it takes are not."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_model import load_model
from finetune_trainer.models.validation import config_file
from finetune_trainer.models.validation.optional_tensors import MAYBE, OPTIONS, surplus_tensors
from finetune_trainer.models.validation.required_tensors import ALWAYS
from finetune_trainer.models.validation.tensor_names import placed
from tests.unit.finetune_trainer.models.test_config_shapes import base, change  # noqa: F401
from tests.unit.finetune_trainer.models.test_required_tensors import stored

OLD = {
    "gpt2": ["h.0.attn.bias", "h.0.attn.masked_bias"],
    "gpt_neox": ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.rotary_emb.inv_freq"],
    "llama": ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.9.self_attn.q_norm.weight"],
    "t5": ["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"],
    "qwen3": ["mtp.layers.0.input_layernorm.weight", "score.weight", "visual.layers.0.mlp.up_proj.bias"],
}
"""What many files hold and nobody needs."""


def found(kind: str, names: set[str], **fields: object) -> list[str]:
    said = {"model_type": kind, "num_hidden_layers": 2, "num_layers": 2} | fields
    return [wrong.field for wrong in surplus_tensors(said, {name: [1] for name in names}, Path())]


def made(kind: str, field: str, value: object) -> set[str]:
    extra = {"is_gated_act": value != "relu"} if field == "feed_forward_proj" else {}
    return stored(kind, **{field: value}, **extra)


@pytest.mark.parametrize("kind", sorted(ALWAYS))
def test_no_kinds_own_weights_are_left_out(kind):
    names = stored(kind)
    assert found(kind, names) == []
    assert found(kind, {*names, *OLD.get(kind, ())}) == [], "what old files have besides"


@pytest.mark.parametrize(
    ("kind", "field"), sorted({(kind, one.field) for kind, options in OPTIONS.items() for one in options})
)
def test_what_a_field_gives_is_what_transformers_makes_of_it_and_is_told_where_it_would_be_left_out(kind, field):
    values = ("relu", "gated-gelu") if field == "feed_forward_proj" else (False, True)
    usual = next(one.usual for one in OPTIONS[kind] if one.field == field)
    for value, other in (values, values[::-1]):
        names = made(kind, field, value)
        more = {placed(name).part for name in names} - {placed(name).part for name in made(kind, field, other)}
        given = [one for one in OPTIONS[kind] if one.field == field and one.holds({field: value})]
        assert set().union(*(one.parts for one in given)) == more
        assert found(kind, names, **{field: value}) == []
        if more:
            assert found(kind, names, **{field: other}) == [field]
            assert found(kind, names) == ([] if value == usual else [field]), "where the file does not say it"


@pytest.mark.parametrize("kind", sorted(MAYBE))
def test_what_some_of_a_kind_have_is_let_pass(kind):
    names = stored(kind)
    around = "".join({name.partition(".")[0] + "." for name in names if name.startswith(("model.", "transformer."))})
    assert found(kind, names | {around + part.replace("N.", "0.") for part in MAYBE[kind]}) == []


@pytest.mark.parametrize(
    ("kind", "called", "field"),
    [
        ("qwen3", "llama", "model_type"),
        ("qwen2", "llama", "model_type"),
        ("gemma2", "gemma", "model_type"),
        ("gemma3_text", "gemma2", "model_type"),
        ("seed_oss", "mistral", "model_type"),
    ],
)
def test_weights_of_a_kind_with_more_parts_are_told_where_they_are_called_another(kind, called, field):
    assert found(called, stored(kind)) == [field]


def test_weights_that_are_exactly_another_kinds_are_told_by_that_kind():
    shapes = {name: [1] for name in stored("qwen2")}
    (wrong,) = surplus_tensors({"model_type": "llama", "num_hidden_layers": 2, "attention_bias": False}, shapes, Path())
    assert wrong.why.startswith('is "llama", and the files have the weights of a qwen2, as ')


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("layers.1.self_attn.q_norm.weight", {}, 'model_type is "llama", and no llama has '),
        ("layers.0.input_layernorm.bias", {}, 'model_type is "llama", and no llama has '),
        ("norm.bias", {}, 'model_type is "llama", and no llama has '),
        ("layers.1.self_attn.q_proj.bias", {"attention_bias": False}, "attention_bias is false, and leaves no room "),
        ("layers.0.mlp.up_proj.bias", {"mlp_bias": "gone"}, "mlp_bias is missing, and leaves no room "),
        ("layers.0.self_attn.o_proj.bias", {"model_type": "qwen2"}, ""),
    ],
)  # fmt: skip
def test_it_is_said_before_a_gpu_is_asked_for_and_by_loading(base, monkeypatch, name, fields, said):  # noqa: F811
    weights = load_file(base / "model.safetensors")
    save_file(weights | {f"model.{name}": torch.ones(32)}, base / "model.safetensors", {"format": "pt"})
    change(base, **fields)
    with pytest.raises(TrainerError) as caught:
        config_file.require(base)
    assert f"config.json: {said}" in caught.value.message
    assert not said or f"model.{name} in model.safetensors" in caught.value.message
    monkeypatch.setattr(config_file, "require", lambda _: None)
    with pytest.raises(TrainerError) as caught:
        load_model(base, dtype=None)
    assert caught.value.reason == "ModelUnusable"
