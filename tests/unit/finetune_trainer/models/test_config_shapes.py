"""A base model whose config.json has other sizes than its weights is refused by their headers, and no other one is."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_model import load_model
from finetune_trainer.models.kinds import BARTS, LLAMAS, T5S
from finetune_trainer.models.validation import config_file
from finetune_trainer.models.validation.config_shapes import UNTIED, wrong_shapes
from finetune_trainer.models.validation.tensor_names import placed
from finetune_trainer.models.validation.tensor_shapes import OF_EXPERTS, OWN_HEAD_DIM, SIDES
from tests.assets.tiny_model import NAME
from tests.assets.tiny_seq2seq import T5, make_tiny_t5

LLAMA = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1,
}  # fmt: skip
OF_T5 = {"vocab_size": 128, "d_model": 64, "d_ff": 96, "d_kv": 16, "num_layers": 2, "num_heads": 4}
OF_BART = {
    "vocab_size": 128, "d_model": 64, "encoder_ffn_dim": 96, "decoder_ffn_dim": 80, "encoder_layers": 2,
    "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 40,
}  # fmt: skip
OF_GPT = {"vocab_size": 128, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 40, "rotary_dim": 8}
OF_OTHERS: dict[str, list[dict[str, Any]]] = {
    **{kind: [OF_BART] for kind in BARTS},
    **{kind: [OF_GPT, OF_GPT | {"n_inner": 96}, OF_GPT | {"n_inner": None}] for kind in ("gpt2", "gptj")},
    "bloom": [{"vocab_size": 128, "hidden_size": 64, "n_layer": 2, "n_head": 4}],
    "gpt_neo": [
        {"vocab_size": 128, "hidden_size": 64, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 40,
         "attention_types": [[["global"], 2]], "intermediate_size": inner}
        for inner in (None, 96)
    ],
    "falcon": [
        {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, **more}
        for more in ({}, {"ffn_hidden_size": 96, "new_decoder_architecture": True, "num_kv_heads": 2})
    ],
    "mpt": [{"vocab_size": 128, "d_model": 64, "n_layers": 2, "n_heads": 4, "expansion_ratio": 4}],
    "stablelm": [LLAMA, LLAMA | {"use_qkv_bias": True, "use_parallel_residual": True}],
    "gpt_neox": [{name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}],
    "opt": [
        {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "ffn_dim": 96, "num_attention_heads": 4,
         "max_position_embeddings": 40, "word_embed_proj_dim": width}
        for width in (64, 32)
    ],
}  # fmt: skip

UNJUDGED = ("falcon", "num_attention_heads")
"""Its queries, keys and values are one matrix, whose width two more fields choose."""


def forms(kind: str) -> Iterator[dict[str, Any]]:
    """Configurations that a kind may have, as their files say them."""
    if kind in T5S:
        yield from ({**OF_T5, "feed_forward_proj": form} for form in ("relu", "gated-gelu"))
        return
    if kind in OF_OTHERS:
        yield from OF_OTHERS[kind]
        return
    usual = LLAMA | ({OF_EXPERTS[kind]: 6} if kind in OF_EXPERTS else {})
    yield {**usual, "head_dim": 32}
    yield {**usual, "head_dim": 16, "num_key_value_heads": 4}
    if kind not in OWN_HEAD_DIM:
        yield usual


def shapes(kind: str, fields: dict[str, Any]) -> dict[str, list[int]]:
    """Of the model that transformers makes of them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = AutoConfig.for_model(kind, **fields)
    with torch.device("meta"):
        model = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_config(config)
    return {name: list(value.shape) for name, value in model.named_parameters()}


def found(kind: str, fields: dict[str, Any], there: dict[str, list[int]]) -> list[str]:
    return [wrong.field for wrong in wrong_shapes({"model_type": kind} | fields, there, Path())]


@pytest.mark.parametrize("kind", sorted(SIDES))
def test_sizes_are_wrong_exactly_where_transformers_makes_another_model_of_them(kind):
    for fields in forms(kind):
        there = shapes(kind, fields)
        assert found(kind, fields, there) == [], "its own weights"
        judged = [shape for name, shape in there.items() if placed(name).part in SIDES[kind]]
        widths = {width for shape in judged for width in shape}
        assert 128 in widths, "the table of words"
        assert kind in OF_EXPERTS or {96, 2 * 96, 4 * 64} & widths, "the feed-forward layers"
        sizes = {"head_dim": 64, "num_key_value_heads": 1, "num_attention_heads": 8, "intermediate_size": 48}
        sizes |= {"d_kv": 32, "d_ff": 48, "num_heads": 8, "hidden_size": 32, "d_model": 32, "vocab_size": 64}
        sizes |= {"n_embd": 32, "n_inner": 48, "n_positions": 24, "max_position_embeddings": 24, "ffn_dim": 48}
        sizes |= dict.fromkeys(OF_EXPERTS.values(), 12)
        sizes |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "word_embed_proj_dim": 16}
        for name, value in sizes.items():
            if name not in fields:
                continue
            changed = {**fields, name: value}
            other = shapes(kind, changed)
            differ = any(other[one] != shape for one, shape in there.items() if one in other)
            if not (kind in OF_EXPERTS and name == "intermediate_size") and (kind, name) != UNJUDGED:
                assert bool(found(kind, changed, there)) == differ, (changed, name)
            if name != "num_heads" and "head_dim" in fields:
                # What Phi-3 has put together to one matrix does not tell these two apart.
                meant = (
                    {"num_attention_heads", "head_dim"} if kind == "phi3" and name == "num_attention_heads" else {name}
                )
                assert {*found(kind, changed, there)} <= meant, changed


@pytest.mark.parametrize("kind", sorted(SIDES))
def test_each_norm_and_bias_is_judged_and_one_of_another_width_is_a_wrong_file(kind):
    fields = next(forms(kind)) | {"use_qk_norm": True, "qk_layernorm": True, "attention_bias": True, "mlp_bias": True}
    there = shapes(kind, fields)
    assert found(kind, fields, there) == [], "its own weights"
    flat = {placed(name).part: name for name, shape in there.items() if len(shape) == 1 and "act_fn" not in name}
    flat = {part: name for part, name in flat.items() if ".norms." not in part}  # StableLM's, one for each head
    assert flat or kind == "olmo"
    for name in flat.values():
        with pytest.raises(TrainerError, match=re.escape(f"its weights are another model's: {name} in ")):
            found(kind, fields, {**there, name: [there[name][0] + 1]})


@pytest.mark.parametrize("kind", sorted(SIDES))
def test_a_table_of_words_and_a_head_are_missed_where_transformers_makes_them_of_nothing(kind):
    from transformers import AutoConfig

    fields = next(forms(kind))
    there = shapes(kind, fields)
    assert (kind in UNTIED) == (AutoConfig.for_model(kind, **fields).tie_word_embeddings is False)
    table = next(name for name in there if placed(name).part == next(iter(SIDES[kind])))
    body = {name: shape for name, shape in there.items() if name != table and "lm_head" not in name}
    for said in ({}, {"tie_word_embeddings": False}, {"tie_word_embeddings": True}):
        with pytest.raises(TrainerError, match=re.escape(f"its weights are incomplete: {table} cannot be found in ")):
            found(kind, fields | said, body)
    headed = {**body, "lm_head.weight": there[table]}
    assert found(kind, fields | {"tie_word_embeddings": True}, headed) == [], "the head may be the table"
    with pytest.raises(TrainerError, match=re.escape(f"its weights are incomplete: {table} cannot be found in ")):
        found(kind, fields | {"tie_word_embeddings": False}, headed)
    if "lm_head.weight" in there:
        assert found(kind, fields, {**body, table: there[table]}) == ["tie_word_embeddings"]


@pytest.mark.parametrize(("field", "layer"), [("attention_bias", "q_proj"), ("mlp_bias", "down_proj")])
@pytest.mark.parametrize("kind", sorted(LLAMAS))
def test_biases_are_missed_exactly_where_transformers_makes_some_by_a_field(kind, field, layer):
    fields = {**LLAMA, "head_dim": 16}
    makes_some = [
        any(name.endswith(f"{layer}.bias") for name in shapes(kind, {**fields, field: said})) for said in (True, False)
    ] == [True, False]
    there = shapes(kind, {**fields, field: True})
    assert found(kind, {**fields, field: True}, there) == [], "its own weights"
    without = {name: shape for name, shape in there.items() if not name.endswith(".bias")}
    assert found(kind, {**fields, field: True}, without) == ([field] if makes_some else [])
    assert found(kind, {**fields, field: False}, without) == []


@pytest.mark.parametrize("kind", sorted(LLAMAS))
def test_what_the_file_does_not_say_is_left_to_the_kind(kind):
    for name in LLAMA:
        fields = {one: value for one, value in LLAMA.items() if one != name}
        if name != "hidden_size" or kind not in OWN_HEAD_DIM:
            assert found(kind, fields, {}) == []
    usual = {"num_attention_heads": 4, "vocab_size": 128, "num_hidden_layers": 1, "hidden_size": 64}
    assert found(kind, usual, shapes(kind, usual | {"intermediate_size": 32, "pad_token_id": 0})) == []


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model / NAME, tmp_path / "cache" / NAME)


def change(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    said = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in said.items() if value != "gone"}))


OF_Q = "model.layers.0.self_attn.q_proj.weight in model.safetensors is (32, 32), by config.json"
OF_K = "model.layers.0.self_attn.k_proj.weight in model.safetensors is (16, 32), by config.json"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"head_dim": 16}, f"head_dim is 16, and {OF_Q} (64, 32)"),
        ({"num_attention_heads": 8}, f"num_attention_heads is 8, and {OF_Q} (64, 32)"),
        ({"num_key_value_heads": 4}, f"num_key_value_heads is 4, and {OF_K} (32, 32)"),
        ({"num_key_value_heads": 1}, f"num_key_value_heads is 1, and {OF_K} (8, 32)"),
        ({"num_attention_heads": 8, "head_dim": "gone"}, f"num_key_value_heads is 2, and {OF_K} (8, 32)"),
        ({"intermediate_size": 48}, "intermediate_size is 48, and model.layers.0.mlp.gate_proj.weight in "
         "model.safetensors is (64, 32), by config.json (48, 32)"),
        ({"hidden_size": 64}, "hidden_size is 64, and model.embed_tokens.weight in model.safetensors is (377, 32), by "
         "config.json (377, 64)"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is false, and the files of weights have no "
         "lm_head.weight"),
        ({"tie_word_embeddings": "gone"}, "tie_word_embeddings is missing, which is false for a llama, and the "
         "files of weights have no lm_head.weight"),
    ],
)  # fmt: skip
def test_it_is_said_before_a_gpu_is_asked_for_and_loading_would_have_refused_it(base, monkeypatch, fields, said):
    change(base, **fields)
    with pytest.raises(TrainerError) as caught:
        config_file.require(base)
    assert caught.value.message == f"the model in {base} cannot be used: config.json: {said}"
    monkeypatch.setattr(config_file, "require", lambda _: None)
    with pytest.raises(TrainerError) as caught:
        load_model(base, dtype=None)
    assert caught.value.reason == "ModelUnusable"


def refusals(base: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """By headers, and by loading without them."""
    said = []
    for judge in (config_file.require, lambda folder: load_model(folder, dtype=None)):
        try:
            judge(base)
        except TrainerError as error:
            said.append(error.message)
        monkeypatch.setattr(config_file, "require", lambda _: None)
    return said


@pytest.mark.parametrize(("tied", "is_refused"), [(True, False), (False, True), ("gone", True)])
def test_a_head_without_a_table_of_words_is_taken_where_loading_takes_it(base, monkeypatch, tied, is_refused):
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    change(base, tie_word_embeddings=tied)
    said = refusals(base, monkeypatch)
    assert len(said) == 2 * is_refused
    assert len({*said}) <= 1


def test_a_norm_of_another_width_is_told_by_the_headers_as_by_loading(base, monkeypatch):
    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.input_layernorm.weight"] = weights["model.layers.1.input_layernorm.weight"][:31].clone()
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainerError) as by_headers:
        config_file.require(base)
    monkeypatch.setattr(config_file, "require", lambda _: None)
    with pytest.raises(TrainerError) as by_loading:
        load_model(base, dtype=None)
    assert by_headers.value.message == by_loading.value.message
    assert by_headers.value.next_step == by_loading.value.next_step


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", [(376, 32), (377, 31)])
def test_a_head_of_another_shape_is_told_by_the_headers_where_loading_refuses_it(base, monkeypatch, tied, shape):
    import torch

    stored(base, lm_head__weight=torch.zeros(*shape))
    change(base, tie_word_embeddings=tied)
    said = refusals(base, monkeypatch)
    assert len(said) == 2
    assert f"lm_head.weight in model.safetensors is {shape}, and by config.json (377, 32)" in said[0]


@pytest.mark.parametrize("kind", sorted(SIDES))
def test_a_head_of_its_own_is_judged_as_the_table_of_words_is(kind):
    fields = next(forms(kind)) | {"tie_word_embeddings": False}
    there = shapes(kind, fields)
    table = next(name for name in there if placed(name).part == next(iter(SIDES[kind])))
    head = "embed_out.weight" if "embed_out.weight" in there else "lm_head.weight"
    assert there.setdefault(head, there[table]) == there[table]
    assert found(kind, fields, there) == [], "its own weights"
    with pytest.raises(TrainerError, match=re.escape(f"its weights are another model's: {head} in ")):
        found(kind, fields, {**there, head: [there[head][0] + 1, there[head][1]]})


@pytest.mark.parametrize("kind", sorted(T5S & SIDES.keys()))
def test_the_table_of_distances_of_a_t5_is_judged(kind):
    fields = next(forms(kind)) | {"relative_attention_num_buckets": 32}
    there = shapes(kind, fields)
    tables = [name for name in there if name.endswith("relative_attention_bias.weight")]
    assert found(kind, fields, there) == [], "its own weights"
    assert found(kind, fields, {**there, **{name: [16, 4] for name in tables}}) == ["relative_attention_num_buckets"]
    with pytest.raises(TrainerError, match=re.escape(f"its weights are another model's: {tables[0]} in ")):
        found(kind, fields, {**there, tables[0]: [32, 5]})


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"d_ff": 48}, "d_ff"), ({"d_kv": 16}, "d_kv"), ({"d_model": 64}, "d_model"), ({"vocab_size": 64}, "vocab_size")],
)
def test_so_it_is_of_an_encoder_decoder(tmp_path, monkeypatch, fields, field):
    make_tiny_t5(tmp_path)
    t5 = tmp_path / T5
    config_file.require(t5)
    change(t5, **fields)
    with pytest.raises(TrainerError, match=f"config.json: {field} is {fields[field]}, and "):
        config_file.require(t5)
    monkeypatch.setattr(config_file, "require", lambda _: None)
    with pytest.raises(TrainerError):
        load_model(t5, dtype=None)


def sharded(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names = sorted(weights)
    files = {name: f"model-{1 + (place >= 9)}-of-2.safetensors" for place, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: weights[name] for name in names if files[name] == file}, base / file)
    index = {"metadata": {}, "weight_map": files}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))


def stored(base: Path, **more: Any) -> None:
    weights = load_file(base / "model.safetensors")
    save_file(weights | {name.replace("__", "."): value for name, value in more.items()}, base / "model.safetensors")


def with_a_head(base: Path) -> None:
    import torch

    stored(base, lm_head__weight=torch.zeros(377, 32))


def with_a_layer_that_guesses_further_tokens(base: Path) -> None:
    import torch

    stored(base, model__layers__2__self_attn__q_proj__weight=torch.zeros(64, 64))


def packed(base: Path) -> None:
    import torch

    change(base, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    stored(base, model__layers__0__self_attn__q_proj__weight=torch.zeros(512, 1, dtype=torch.uint8))


def packed_without_a_word(base: Path) -> None:
    import torch

    stored(base, model__layers__0__self_attn__q_proj__weight=torch.zeros(512, 1, dtype=torch.uint8))


def of_a_kind_of_its_own(base: Path) -> None:
    change(base, model_type="youtu", head_dim=16)


def with_code_of_its_own(base: Path) -> None:
    change(base, auto_map={"AutoModelForCausalLM": "own.Model"}, head_dim=16)


def as_another_part(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    save_file({f"language_model.{name}": value for name, value in weights.items()}, base / "model.safetensors")
    change(base, tie_word_embeddings=False)


@pytest.mark.parametrize(
    "changed",
    [
        sharded,
        with_a_head,
        with_a_layer_that_guesses_further_tokens,
        packed,
        packed_without_a_word,
        of_a_kind_of_its_own,
        with_code_of_its_own,
        as_another_part,
    ],
)
def test_weights_that_are_stored_otherwise_are_left_to_those_who_load_them(base, changed):
    changed(base)
    config_file.require(base)
