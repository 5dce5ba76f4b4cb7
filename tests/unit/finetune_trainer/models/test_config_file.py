"""A base model whose config.json says what no model can be is refused in words, by check, train and serve alike."""

import dataclasses
import json
import re
import shutil
import typing
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.job import FineTuneJobManifest
from finetune_trainer import check
from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_model import load_model, require_language_model
from finetune_trainer.models.kinds import KNOWN
from finetune_trainer.models.validation import config_file, config_values
from finetune_trainer.models.validation.config_values import ACTIVATIONS, DTYPES, NEVER_NULL, REALS, activation_field
from finetune_trainer.models.validation.generation_file import CACHES
from finetune_trainer.serving.artifact import open_artifact
from finetune_trainer.serving.load import LoadOptions, load
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do

GONE = object()


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, in the place of a cache, that a test may change."""
    return shutil.copytree(tiny_model / NAME, tmp_path / "cache" / NAME)


def change(base: Path, fields: dict[str, object], file: str = "config.json") -> None:
    path = base / file
    said = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in said.items() if value is not GONE}))


def refusal(base: Path) -> str:
    with pytest.raises(TrainerError) as caught:
        config_file.require(base)
    assert caught.value.reason == "ModelUnusable"
    assert caught.value.message.startswith(f"the model in {base} cannot be used: ")
    assert "finetune-trainer cache" in caught.value.next_step
    return caught.value.message.removeprefix(f"the model in {base} cannot be used: ")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": GONE}, "model_type is missing"),
        ({"model_type": 3}, "model_type is not text"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1, not a whole number from 1 on"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, not a whole number from 1 on"),
        ({"num_hidden_layers": "2"}, 'num_hidden_layers is "2", not a whole number from 1 on'),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers is 2.5, not a whole number from 1 on"),
        ({"num_hidden_layers": True}, "num_hidden_layers is true, not a whole number from 1 on"),
        ({"num_hidden_layers": None}, "num_hidden_layers is null, not a whole number from 1 on"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3, and the files of weights hold 2 layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, and the files of weights hold 2 layers"),
        ({"num_hidden_layers": 10**9, "model_type": "youtu"}, "num_hidden_layers is 1000000000, and the files of "
         "weights hold 20 tensors"),
        ({"vocab_size": 0}, "vocab_size is 0, not a whole number from 1 on"),
        ({"vocab_size": 64}, "vocab_size is 64, and model.embed_tokens.weight in model.safetensors has 377 rows"),
        ({"hidden_size": -32}, "hidden_size is -32, not a whole number from 1 on"),
        ({"hidden_size": 34, "head_dim": None}, "hidden_size is 34, which num_attention_heads, 4, do not divide"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, not a whole number from 1 on"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0, not a whole number from 1 on"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3, and num_attention_heads, 4, is not a multiple of it"),
        ({"head_dim": 0}, "head_dim is 0, not a whole number from 1 on"),
        ({"intermediate_size": -2}, "intermediate_size is -2, not a whole number from 1 on"),
        ({"intermediate_size": -2, "model_type": "youtu"}, "intermediate_size is -2, not a whole number from 0 on"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0, not a whole number above 0"),
        ({"max_position_embeddings": "512"}, 'max_position_embeddings is "512", not a whole number above 0'),
        ({"sliding_window": {}}, "sliding_window is {}, not a whole number"),
        ({"attention_bias": 1}, "attention_bias is 1, neither true nor false"),
        ({"eos_token_id": "x"}, 'eos_token_id is "x", not a token\'s number'),
        ({"eos_token_id": [2, 1.5]}, "eos_token_id is [2, 1.5], not a token's number"),
        ({"pad_token_id": 377}, "pad_token_id is 377, and vocab_size is 377: tokens are counted from 0 on"),
        ({"pad_token_id": -2}, "pad_token_id is -2, and vocab_size is 377: tokens are counted from 0 on"),
        ({"decoder_start_token_id": 999}, "decoder_start_token_id is 999, and vocab_size is 377: tokens are counted "
         "from 0 on"),
        ({"rope_parameters": "linear"}, "rope_parameters is not an object"),
        ({"rope_parameters": [1]}, "rope_parameters is not an object"),
        ({"rope_scaling": {"type": "nope", "factor": 2}}, 'rope_scaling.rope_type is "nope", and none of default, '
         "linear, dynamic, yarn, longrope, llama3, proportional, mrope, su"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor is missing: rotary positions of the kind linear "
         "need it"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": "4"}}, 'rope_parameters.factor is "4", not a number '
         "above 0"),
        ({"rope_parameters": {"rope_type": "linear", "factor": -2}}, "rope_parameters.factor is -2, not a number "
         "above 0"),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 0}}}, "rope_parameters.factor is 0, "
         "not a number above 0"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "rope_parameters.low_freq_factor is missing: "
         "rotary positions of the kind llama3 need it"),
        ({"rope_theta": 0}, "rope_theta is 0, not a number above 0"),
        ({"rms_norm_eps": "x"}, 'rms_norm_eps is "x", not a number from 0 on'),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1, not a number from 0 on"),
        ({"attention_dropout": 2}, "attention_dropout is 2, not a number from 0 to 1"),
        ({"dtype": "float99"}, 'dtype is "float99", not a number type such as bfloat16'),
        ({"torch_dtype": 3}, "torch_dtype is 3, not a number type such as bfloat16"),
        ({"dtype": "torch.bfloat16"}, 'dtype is "torch.bfloat16", not a number type such as bfloat16'),
        ({"torch_dtype": "auto"}, 'torch_dtype is "auto", not a number type such as bfloat16'),
        ({"dtype": {"text_config": "fp16"}}, 'dtype is "fp16", not a number type such as bfloat16'),
        ({"hidden_act": "swigl"}, 'hidden_act is "swigl", not an activation of transformers such as silu '
         "or gelu"),
        ({"hidden_act": None}, "hidden_act is null, not an activation of transformers such as silu or gelu"),
        ({"hidden_act": ["silu"]}, 'hidden_act is ["silu"], not an activation of transformers such as silu '
         "or gelu"),
        ({"model_type": "gpt2", "activation_function": "new"}, 'activation_function is "new", not an activation of '
         "transformers such as silu or gelu"),
        ({"model_type": "t5", "feed_forward_proj": "gated-new"}, 'feed_forward_proj is "gated-new", not an activation '
         "of transformers such as silu or gelu"),
        ({"layer_types": "full_attention"}, 'layer_types is "full_attention", not a list with a word for each layer'),
        ({"layer_types": ["full_attention", "full"]}, 'layer_types has "full", and none of attention, full_attention, '
         "sliding_attention"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 words, and num_hidden_layers is 2"),
        ({"rope_parameters": {"rope_type": None}}, "rope_parameters.rope_type is null, and none of default, linear, "
         "dynamic, yarn, longrope, llama3, proportional, mrope, su"),
        ({"quantization_config": {"quant_method": ["x"]}}, "quantization_config.quant_method is not text"),
        ({"output_hidden_states": "yes"}, 'output_hidden_states is "yes", neither true nor false'),
        ({"id2label": [1]}, "id2label is not an object"),
        ({"auto_map": None}, "auto_map is not an object"),
        ({"architectures": "LlamaForCausalLM"}, "architectures is not a list of names"),
        ({"architectures": [3]}, "architectures is not a list of names"),
        ({"tie_word_embeddings": "no"}, 'tie_word_embeddings is "no", neither true nor false'),
        ({"is_encoder_decoder": 1}, "is_encoder_decoder is 1, neither true nor false"),
        ({"use_cache": None}, "use_cache is null, and a llama has a value there; without the line it has the usual "
         "one"),
        ({"rms_norm_eps": None}, "rms_norm_eps is null, and a llama has a value there; without the line it has the "
         "usual one"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0, and transformers requires a decimal point there: 0.0"),
        ({"initializer_range": 1}, "initializer_range is 1, and transformers requires a decimal point there: 1.0"),
        ({"hidden_size": [32]}, "hidden_size is [32], not a whole number from 1 on"),
        ({"head_dim": []}, "head_dim is [], not a whole number from 1 on"),
        ({"return_dict": False}, "return_dict is false, and models are asked for results with names"),
        ({"return_dict": None}, "return_dict is null, and models are asked for results with names"),
        ({"use_return_dict": True}, "use_return_dict is not a field that can be set; remove it"),
        ({"bos_token_id": [1]}, "bos_token_id is [1], not a token's number"),
        ({"bos_token_id": False}, "bos_token_id is false, not a token's number"),
        ({"pad_token_id": [0]}, "pad_token_id is [0], and one token pads"),
        ({"pretraining_tp": 1.5}, "pretraining_tp is 1.5, not a whole number"),
        ({"num_labels": None}, "num_labels is null, not a whole number from 0 on"),
        ({"num_labels": -1}, "num_labels is -1, not a whole number from 0 on"),
        ({"id2label": {"a": 1}}, "id2label has a name that is not a number"),
        ({"base_model_tp_plan": ["x"]}, "base_model_tp_plan is not an object"),
        ({"per_layer_config": 0}, "per_layer_config is not an object"),
        ({"output_attentions": True}, "output_attentions is true, and what tokens attend to is not kept; set it to "
         "false"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder is true, and a llama is none"),
        ({"model_type": "t5", "is_encoder_decoder": False}, "is_encoder_decoder is false, and a t5 is one"),
        ({"decoder": {"a": 1}}, "decoder is set, and a llama has no such part; remove it"),
        ({"text_config": {}}, "text_config is set, and a llama has no such part; remove it"),
        ({"quantization_config": {}}, "quantization_config.quant_method is missing: nobody knows how to read the "
         "weights"),
        ({"quantization_config": 3}, "quantization_config is not an object"),
        ({"text_config": 3}, "text_config is not an object"),
        ({"text_config": {"num_hidden_layers": -1}}, "num_hidden_layers is -1, not a whole number from 1 on"),
        ({"auto_map": 3}, "auto_map is not an object"),
        ({"text_config": {"model_type": ["llama"]}}, "model_type is not text"),
        ({"rope_scaling": {"rope_type": ["linear"]}}, 'rope_scaling.rope_type is ["linear"], and none of default, '
         "linear, dynamic, yarn, longrope, llama3, proportional, mrope, su"),
    ],
)  # fmt: skip
def test_a_value_that_no_model_can_have_is_refused_by_file_and_field(base, fields, said):
    change(base, fields)
    assert refusal(base) == f"config.json: {said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b"", "is not JSON in UTF-8 (line 1)"),
        (b'{\n"a": }', "is not JSON in UTF-8 (line 2)"),
        (b'{"a": "\xff"}', "is not JSON in UTF-8"),
        (b"[" * 100_000, "is not JSON in UTF-8"),
    ],
)
def test_a_file_that_is_no_object_is_refused(base, text, said):
    (base / "config.json").write_bytes(text)
    assert refusal(base) == f"config.json: {said}"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"eos_token_id": "</s>"}, 'eos_token_id is "</s>", not a token\'s number'),
        ({"temperature": "hot"}, "temperature is 'hot', not a number from 0 on"),
        ({"temperature": -1}, "temperature is '-1', not a number from 0 on"),
        ({"temperature": False}, "temperature is 'False', not a number from 0 on"),
        ({"top_p": 1.5}, "top_p is '1.5', not a number above 0, up to 1"),
        ({"top_k": 1.5}, "top_k is '1.5', not a whole number"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1, not a whole number from 1 on"),
        ({"max_new_tokens": True}, "max_new_tokens is true, not a whole number from 1 on"),
        ({"early_stopping": 1.5}, 'early_stopping is 1.5, and none of true, false, "never"'),
        ({"assistant_ensemble_weight": 1}, "assistant_ensemble_weight is 1, not a number between 0 and 1"),
        ({"cache_implementation": "new"}, 'cache_implementation is "new", and none of dynamic, hybrid, hybrid_chunked, '
         "offloaded, offloaded_hybrid, offloaded_hybrid_chunked, offloaded_static, paged, quantized, sliding_window, "
         "static"),
        ({"compile_config": {}}, "compile_config is set, and cannot stand in a file; remove it"),
        ({"watermarking_config": {"a": 1}}, 'watermarking_config is {"a": 1}, not an object with bias, context_width, '
         "greenlist_ratio, hashing_key, seeding_scheme"),
        ({"streamer": None}, "streamer is an argument of generate(), and nothing that a file says; remove it"),
        ({"pad_token_id": [0]}, "pad_token_id is [0], and one token pads"),
        ({"num_return_sequences": 3}, "num_return_sequences is 3, and without do_sample there is one"),
        ({"num_return_sequences": 3, "num_beams": 2, "do_sample": True}, "num_return_sequences is 3, and of 2 beams "
         "(num_beams) come no more answers"),
        ({"num_return_sequences": "x"}, 'num_return_sequences is "x", not a whole number'),
        ({"suppress_tokens": 3}, "suppress_tokens is 3, not a list of tokens' numbers"),
        ({"suppress_tokens": [3], "forced_eos_token_id": 3}, "forced_eos_token_id is 3, which suppress_tokens forbids"),
    ],
)  # fmt: skip
def test_so_is_what_says_how_to_generate_before_it_is_trained_and_cannot_be_served(base, fields, said):
    change(base, fields, "generation_config.json")
    assert refusal(base) == f"generation_config.json: {said}"


def test_what_leaves_a_draw_open_is_no_fault(base):
    change(base, {"temperature": 0, "top_p": 0, "top_k": -1}, "generation_config.json")
    config_file.require(base)
    change(base, {"temperature": None, "top_p": None, "top_k": 0}, "generation_config.json")
    config_file.require(base)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pad_token_id": -1},
        {"eos_token_id": 99_999},
        {"num_key_value_heads": None},
        {"rope_scaling": None},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"model_type": "youtu", "intermediate_size": [1, 2], "num_key_value_heads": None, "head_dim": 0},
        {"model_type": "youtu", "max_position_embeddings": -1, "rope_scaling": {"type": "of-its-own"}},
        {"model_type": "youtu", "hidden_act": "of-its-own", "layer_types": ["of-its-own"]},
        {"model_type": "t5", "feed_forward_proj": "gated-silu"},
        {"activation_function": "of-another-kind"},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"dtype": {"": "bfloat16", "text_config": "float8_e4m3fn"}},
        {"num_hidden_layers": -1, "auto_map": {"AutoConfig": "own.Config"}},
    ],
)
def test_what_is_unusual_and_may_be_right_is_left_to_those_who_load_it(base, fields):
    if "model_type" in fields:
        (base / "model.safetensors").unlink()  # a llama's
    change(base, fields)
    config_file.require(base)


def test_a_damaged_file_of_weights_is_told_by_others(base):
    (base / "model.safetensors").write_bytes(b"no header")
    config_file.require(base)


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_no_kind_is_refused_for_what_transformers_says_of_it(tmp_path, kind):
    from transformers import AutoConfig

    (tmp_path / "config.json").write_text(AutoConfig.for_model(kind).to_json_string(use_diff=False))
    config_file.require(tmp_path)


def test_the_tables_of_words_are_those_of_torch_and_transformers():
    import torch
    from transformers import AutoConfig
    from transformers.activations import ACT2CLS

    kinds = {name: kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}
    whole = re.compile(r"u?int\d*|short|long")
    assert {name for name, kind in kinds.items() if kind.is_floating_point or whole.fullmatch(name)} == DTYPES
    assert set(ACT2CLS) == ACTIVATIONS
    fields = {kind: activation_field(kind) for kind in KNOWN}
    assert {kind for kind, name in fields.items() if name and not hasattr(AutoConfig.for_model(kind), name)} == set()


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_what_transformers_takes_is_taken(base, file):
    values = {
        "config.json": [
            {"use_cache": False}, {"return_dict": True}, {"attention_bias": False, "mlp_bias": False},
            {"pretraining_tp": None}, {"bos_token_id": None}, {"num_labels": 0}, {"id2label": {"0": "a"}},
            {"decoder": None}, {"layer_norm_eps": None}, {"model_type": "youtu", "use_cache": None, "decoder": {}},
            {"model_type": "bart", "is_encoder_decoder": False}, {"_attn_implementation": "flash_attention_2"},
            {"_experts_implementation": True},
        ],
        "generation_config.json": [
            {"max_new_tokens": 1}, {"max_new_tokens": None}, {"early_stopping": "never"}, {"early_stopping": True},
            {"cache_implementation": "static"}, {"num_return_sequences": 3, "do_sample": True},
            {"num_return_sequences": 3, "num_beams": 3}, {"watermarking_config": {}}, {"compile_config": None},
            {"suppress_tokens": [3], "forced_eos_token_id": [3, 4]}, {"assistant_ensemble_weight": 0.5},
        ],
    }  # fmt: skip
    before = (base / file).read_text()
    (base / "model.safetensors").unlink()  # a llama's
    for fields in values[file]:
        change(base, fields, file)
        config_file.require(base)
        (base / file).write_text(before)


def test_what_a_kind_cannot_do_without_is_what_transformers_says_of_it():
    from transformers import AutoConfig
    from transformers.generation.configuration_utils import ALL_CACHE_IMPLEMENTATIONS

    fields = {kind: {one.name: one.type for one in dataclasses.fields(AutoConfig.for_model(kind))} for kind in KNOWN}
    for name, kinds in NEVER_NULL.items():
        have = {kind: typing.get_args(types[name]) for kind, types in fields.items() if name in types}
        assert {kind for kind, of in have.items() if type(None) not in of or name == "attention_dropout"} == kinds, name
        assert name not in REALS or not any(int in typing.get_args(fields[kind][name]) for kind in kinds)
    assert {*ALL_CACHE_IMPLEMENTATIONS, "paged"} == CACHES


@pytest.mark.parametrize("word", ["flash_attention_2", "of-another-machine", 3])
def test_kernels_of_another_machine_are_passed_over(base, word):
    names = ("attn_implementation", "experts_implementation")
    names += tuple(f"_{name}" for name in names)
    change(base, {**dict.fromkeys(names, word), "dtype": {"text_config": "bfloat16"}})
    config_file.require(base)
    assert load_model(base, dtype=None).config._attn_implementation == "sdpa"
    load(open_artifact(base, None), LoadOptions(name="x"))


def test_kinds_of_rotary_positions_are_those_of_transformers():
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    assert set(ROPE_INIT_FUNCTIONS) <= set(config_values.ROPE_TYPES)


def test_check_train_and_serve_all_say_it(base, tmp_path):
    change(base, {"num_hidden_layers": -1})
    expected, cache = refusal(base), base.parents[1]
    job = make_job(tmp_path / "job", cache)
    about = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "a"}}
    verdict = check.check_job(FineTuneJobManifest.model_validate(about | {"spec": job.spec.wire()}), cache)
    assert (verdict.valid, verdict.reason) == (False, "ModelUnusable")
    code, report, _ = do(job)
    assert code == ExitCode.MODEL_UNUSABLE
    said = [verdict.message, report.failure.message]
    for refused in (
        lambda: require_language_model(base),
        lambda: load(open_artifact(base, None), LoadOptions(name="x")),
    ):
        with pytest.raises(TrainerError) as caught:
            refused()
        said.append(caught.value.message)
    assert said == [f"the model in {base} cannot be used: {expected}"] * 4
