"""Invalid values in a base model's config.json, detected from the file alone: types, enum values, sizes, tokens.

Libraries take impossible numbers literally: a billion layers are created one by one. For an unknown enum value
transformers only raises `KeyError: 'swigl'`. Fields that a model type does not have may hold anything. Tests compare
the tables with transformers' own.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from finetune_trainer.models.kinds import BARTS, KNOWN, LLAMAS, T5S

Fields = Mapping[str, Any]

DTYPES = frozenset({
    "bfloat16", "double", "float", "float16", "float32", "float4_e2m1fn_x2", "float64", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "half", "int", "int1", "int16", "int2",
    "int3", "int32", "int4", "int5", "int6", "int64", "int7", "int8", "long", "short", "uint1", "uint16", "uint2",
    "uint3", "uint32", "uint4", "uint5", "uint6", "uint64", "uint7", "uint8",
})  # fmt: skip
"""Dtypes, as named by torch."""

ACTIVATIONS = frozenset({
    "gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh",
    "gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu", "relu2",
    "relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh", "xielu",
})  # fmt: skip

_ACTIVATION_FIELDS = {
    **dict.fromkeys(
        BARTS | {"codegen", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "opt", "xglm"}, "activation_function"
    ),
    **dict.fromkeys(T5S, "feed_forward_proj"),
    **dict.fromkeys(("gemma2", "gemma3_text"), "hidden_activation"),
    "falcon": "activation",
    "bloom": None,
    "mpt": None,
}
"""Field with the activation function of a model type, if not hidden_act; None if it is not looked up."""
_GATED = "gated-"

LAYER_TYPES = frozenset({"attention", "full_attention", "sliding_attention"})
"""Attention types of the known model types' layers; the first is an older name of the second."""

_SIZES = frozenset({
    "hidden_size", "d_model", "n_embd", "vocab_size", "num_hidden_layers", "num_layers", "n_layer", "n_layers",
    "num_decoder_layers", "decoder_layers", "encoder_layers", "num_attention_heads", "num_heads", "n_head", "n_heads",
    "decoder_attention_heads", "encoder_attention_heads",
})  # fmt: skip
"""Fields that must be at least 1; some model types have a list of them, one per layer."""
_NEEDED = frozenset({"hidden_size", "vocab_size", "num_hidden_layers"})
"""Those that have no default, if present."""
_OPTIONAL_SIZES = frozenset({"num_key_value_heads", "intermediate_size", "d_ff", "d_kv", "head_dim", "n_inner"})
"""Fields that are null or 0 in model types without such a part."""
_HEAD_FIELDS: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(("gpt2", "gptj"), (("n_embd", "n_head"),)),
    **dict.fromkeys(BARTS, (("d_model", "encoder_attention_heads"), ("d_model", "decoder_attention_heads"))),
    "bloom": (("hidden_size", "n_head"),),
    "gpt_neo": (("hidden_size", "num_heads"),),
}
"""Width and number of heads, for model types whose fields are not those of Llama; the latter must divide the former."""
_TOKENS = ("eos_token_id", "pad_token_id", "decoder_start_token_id")
_WITH_PADDING_INDEX = KNOWN - T5S - {
    "bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt",
}  # fmt: skip
"""Model types whose embedding table has a padding index, and cannot be created if that is out of range."""
_REAL_FIELDS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "initializer_range")
_RATES = ("attention_dropout", "attn_pdrop", "dropout", "dropout_rate", "embd_pdrop", "hidden_dropout", "resid_pdrop")
_BOOLEANS = (
    "attention_bias", "is_encoder_decoder", "mlp_bias", "output_attentions", "output_hidden_states", "return_dict",
    "tie_word_embeddings", "use_cache",
)  # fmt: skip
_OBJECTS = ("text_config", "quantization_config", "rope_scaling", "rope_parameters", "id2label")

ROPE_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "proportional": (),
    "mrope": (),
    "su": (),
}
"""Required fields of each type of rotary position embeddings in transformers, including former names."""
_POSITIVE = ("factor", "rope_theta", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")

_SEQ2SEQ = T5S | BARTS
_GPTS = frozenset({"bloom", "codegen", "gpt2", "gpt_bigcode", "gptj", "mpt"}) | T5S
_RMS_NORMED = LLAMAS - {"cohere", "cohere2", "olmo", "phi", "starcoder2"} | {"helium"}

NEVER_NULL: Mapping[str, frozenset[str]] = {
    "use_cache": KNOWN,
    "tie_word_embeddings": KNOWN - {"t5", "umt5"},
    "initializer_range": KNOWN - _SEQ2SEQ - {"opt", "xglm"},
    "max_position_embeddings": KNOWN - _GPTS,
    "intermediate_size": KNOWN - _GPTS - _SEQ2SEQ - {"falcon", "gpt_neo", "opt", "xglm"},
    "num_attention_heads": KNOWN - _GPTS - _SEQ2SEQ - {"gpt_neo", "xglm"},
    "num_key_value_heads": frozenset({
        "cwm", "exaone4", "gemma", "gemma2", "gemma3_text", "glm4", "helium", "mistral", "stablelm", "starcoder2",
    }),
    "head_dim": frozenset({"cwm", "gemma", "gemma2", "gemma3_text", "glm4", "helium", "qwen3"}),
    "rms_norm_eps": _RMS_NORMED,
    "layer_norm_eps": frozenset({"cohere2", "gpt_neox", "persimmon", "phi", "stablelm"}),
    "layer_norm_epsilon": _GPTS | {"gpt_neo"},
    "attention_bias": _RMS_NORMED - {"cwm", "exaone4", "mistral", "phi3", "qwen2"}
    | {"cohere", "cohere2", "gpt_neox", "olmo"},
    "mlp_bias": frozenset({"arcee", "cwm", "granite", "helium", "llama", "seed_oss", "smollm3"}),
    "attention_dropout": KNOWN - _GPTS | {"bloom"},
    "pretraining_tp": frozenset({"bloom", "cwm", "seed_oss"}),
}  # fmt: skip
"""Fields, and the model types that require a value for them."""

REALS = ("initializer_range", "layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps")
"""Numbers that transformers accepts only with a decimal point or an exponent."""

_WITH_PRETRAINING_TP = frozenset({"bloom", "cwm", "llama", "seed_oss"})
"""Model types with a field for the tensor parallelism in pretraining."""
_SUBMODELS = ("decoder", "encoder", "text_config", "text_encoder", "generator")
"""Fields in which composite models have the configs of their parts."""


class Invalid(NamedTuple):
    """A field, and what is wrong with its value."""

    field: str
    why: str


def wrong_values(config: Fields, text: Fields) -> Iterator[Invalid]:
    """All invalid values of a config and of its language model's part, which is often the same."""
    yield from _wrong_value(config)
    yield from _wrong_value(text)
    yield from _wrong_parts(config)
    yield from _wrong_rope(text)
    yield from _wrong_size(text)


def _wrong_value(fields: Fields) -> Iterator[Invalid]:
    """Values that are invalid for any model type."""
    yield from (Invalid(name, "is not an object") for name in _OBJECTS if not _is(fields.get(name), dict))
    yield from (Invalid(name, f"is {shown(fields[name])}, neither true nor false") for name in _BOOLEANS
                if not _is(fields.get(name), bool))  # fmt: skip
    if not _is(fields.get("model_type"), str):
        yield Invalid("model_type", "is not text")
    yield from _wrong_names(fields)
    quantised = fields.get("quantization_config")
    if quantised is not None and not _is(quantised.get("quant_method"), str):
        yield Invalid("quantization_config.quant_method", "is not text")
    elif quantised is not None and not {"quant_method", "load_in_4bit", "load_in_8bit"} & quantised.keys():
        yield Invalid("quantization_config.quant_method", "is missing: nobody knows how to read the weights")
    named = fields.get("architectures")
    if not (_is(named, list) and all(isinstance(one, str) for one in named or ())):
        yield Invalid("architectures", "is not a list of names")
    yield from _wrong_numbers(fields)
    yield from wrong_tokens(fields)
    yield from _wrong_types(fields)


def _is(value: Any, kind: type) -> bool:
    return value is None or isinstance(value, kind)


def _wrong_numbers(fields: Fields) -> Iterator[Invalid]:
    kind = fields.get("model_type")
    for name in sorted((_SIZES | _OPTIONAL_SIZES) & fields.keys()):
        value = fields[name]
        least = 1 if name in _SIZES or (kind in KNOWN and value is not None) else 0
        if (value is None and name not in _NEEDED) or (isinstance(value, list) and kind not in KNOWN):
            continue
        if not is_whole(value) or value < least:
            yield Invalid(name, f"is {shown(value)}, not a whole number from {least} on")
    positions = fields.get("max_position_embeddings")
    if not (positions is None or (is_whole(positions) and (positions > 0 or positions == -1))):
        yield Invalid("max_position_embeddings", f"is {shown(positions)}, not a whole number above 0")
    window = fields.get("sliding_window")
    if not (window is None or is_whole(window) or isinstance(window, list)):
        yield Invalid("sliding_window", f"is {shown(window)}, not a whole number")
    for name in (*_REAL_FIELDS, *_RATES):
        value = fields.get(name)
        if value is not None and not (is_number(value) and value >= 0 and (name in _REAL_FIELDS or value <= 1)):
            yield Invalid(name, f"is {shown(value)}, not a number from 0 {'on' if name in _REAL_FIELDS else 'to 1'}")


def wrong_tokens(fields: Fields) -> Iterator[Invalid]:
    """Invalid token ids, and tokens without an embedding in model types that look it up.

    The end-of-sequence token is not looked up: the tokenizer names it too, and many configs have another model's.
    """
    kind, vocabulary = fields.get("model_type"), fields.get("vocab_size")
    for name in _TOKENS:
        value = fields.get(name)
        looked_up = name == "decoder_start_token_id" or (name == "pad_token_id" and kind in _WITH_PADDING_INDEX)
        for token in value if isinstance(value, list) else [] if value is None else [value]:
            if not is_whole(token):
                yield Invalid(name, f"is {shown(value)}, not a token's number")
            elif looked_up and is_whole(vocabulary) and not -1 <= token < vocabulary:
                yield Invalid(name, f"is {token}, and vocab_size is {vocabulary}: tokens are counted from 0 on")


def _wrong_rope(text: Fields) -> Iterator[Invalid]:
    for name in ("rope_scaling", "rope_parameters"):
        ropes = text.get(name) or {}
        layers = [one for one in ropes.values() if isinstance(one, dict)]
        for rope in layers or [ropes]:
            yield from _wrong_rope_parameters(name, rope, kind=text.get("model_type"))
    theta = text.get("rope_theta")
    if not (theta is None or (is_number(theta) and theta > 0)):
        yield Invalid("rope_theta", f"is {shown(theta)}, not a number above 0")


def _wrong_rope_parameters(name: str, rope: Fields, *, kind: Any) -> Iterator[Invalid]:
    form = rope.get("rope_type", rope.get("type", "default"))
    for part in _POSITIVE:
        value = rope.get(part)
        if not (value is None or (is_number(value) and value > 0)):
            yield Invalid(f"{name}.{part}", f"is {shown(value)}, not a number above 0")
    if not rope or kind not in KNOWN:
        return
    if not (isinstance(form, str) and form in ROPE_TYPES):
        yield Invalid(f"{name}.rope_type", f"is {shown(form)}, and none of {', '.join(ROPE_TYPES)}")
        return
    missing = [part for part in ROPE_TYPES[form] if part not in rope]
    if missing:
        yield Invalid(f"{name}.{missing[0]}", f"is missing: rotary positions of the kind {form} need it")


def _wrong_size(text: Fields) -> Iterator[Invalid]:
    """Sizes that do not fit together, for known model types."""
    kind = text.get("model_type")
    if kind not in KNOWN:
        return
    for width, count in _HEAD_FIELDS.get(kind, ()):
        wide: Any = text.get(width)
        parts: Any = text.get(count)
        if is_whole(wide) and is_whole(parts) and wide % parts:
            yield Invalid(count, f"is {parts}, and {width}, {wide}, is not a multiple of it")
    hidden: Any = text.get("hidden_size")
    heads: Any = text.get("num_attention_heads")
    groups = text.get("num_key_value_heads")
    if not (is_whole(hidden) and is_whole(heads)):
        return
    if text.get("head_dim") is None and hidden % heads:
        yield Invalid("hidden_size", f"is {hidden}, which num_attention_heads, {heads}, do not divide")
    if is_whole(groups) and heads % groups:
        yield Invalid("num_key_value_heads", f"is {groups}, and num_attention_heads, {heads}, is not a multiple of it")


def _wrong_names(fields: Fields) -> Iterator[Invalid]:
    """Unknown enum values; for unknown model types only those that are looked up for every type."""
    for name in ("dtype", "torch_dtype"):
        dtype = fields.get(name)
        for value in dtype.values() if isinstance(dtype, dict) else [dtype]:
            if not (value is None or (isinstance(value, str) and value in DTYPES)):
                yield Invalid(name, f"is {shown(value)}, not a number type such as bfloat16")
    if fields.get("model_type") in KNOWN:
        yield from _wrong_activation(fields)
        yield from _wrong_layers(fields)


def _wrong_activation(fields: Fields) -> Iterator[Invalid]:
    name = activation_field(fields["model_type"])
    if name is None or name not in fields:
        return
    value = fields[name]
    word = value.removeprefix(_GATED) if isinstance(value, str) and name == "feed_forward_proj" else value
    if not (isinstance(word, str) and word in ACTIVATIONS):
        yield Invalid(name, f"is {shown(value)}, not an activation of transformers such as silu or gelu")


def activation_field(kind: str) -> str | None:
    """The field in which a known model type names its activation function; None if it is fixed."""
    return _ACTIVATION_FIELDS.get(kind, "hidden_act")


def _wrong_layers(fields: Fields) -> Iterator[Invalid]:
    types, layers = fields.get("layer_types"), fields.get("num_hidden_layers")
    if types is None:
        return
    if not isinstance(types, list):
        yield Invalid("layer_types", f"is {shown(types)}, not a list with a word for each layer")
        return
    for value in types:
        if not (isinstance(value, str) and value in LAYER_TYPES):
            yield Invalid("layer_types", f"has {shown(value)}, and none of {', '.join(sorted(LAYER_TYPES))}")
    if isinstance(layers, int) and len(types) != layers:
        yield Invalid("layer_types", f"has {len(types)} words, and num_hidden_layers is {layers}")


def _wrong_types(fields: Mapping[str, Any]) -> Iterator[Invalid]:
    """Values that are invalid for any model type, then those that the known types refuse."""
    for name in ("base_model_tp_plan", "per_layer_config"):
        if not isinstance(fields.get(name), dict | None):
            yield Invalid(name, "is not an object")
    labels = fields.get("num_labels", 2)
    if not (is_whole(labels) and labels >= 0):
        yield Invalid("num_labels", f"is {shown(labels)}, not a whole number from 0 on")
    named = fields.get("id2label")
    if isinstance(named, dict) and not all(key.strip().lstrip("+-").isdecimal() for key in named):
        yield Invalid("id2label", "has a name that is not a number")
    if "use_return_dict" in fields:
        yield Invalid("use_return_dict", "is not a field that can be set; remove it")
    if "return_dict" in fields and fields["return_dict"] is not True:
        yield Invalid("return_dict", f"is {shown(fields['return_dict'])}, and models are asked for results with names")
    if fields.get("model_type") in KNOWN:
        yield from _wrong_for_type(fields, fields["model_type"])


def _wrong_for_type(fields: Mapping[str, Any], kind: str) -> Iterator[Invalid]:
    for name, kinds in NEVER_NULL.items():
        if kind in kinds and name in fields and fields[name] is None:
            yield Invalid(name, f"is null, and a {kind} has a value there; without the line it has the usual one")
    for name in REALS:
        if kind in NEVER_NULL[name] and is_whole(value := fields.get(name)):
            yield Invalid(name, f"is {value}, and transformers requires a decimal point there: {value}.0")
    if (value := fields.get("bos_token_id")) is not None and not is_whole(value):
        yield Invalid("bos_token_id", f"is {shown(value)}, not a token's number")
    if isinstance(value := fields.get("pad_token_id"), list):
        yield Invalid("pad_token_id", f"is {shown(value)}, and one token pads")
    value = fields.get("pretraining_tp")
    if kind in _WITH_PRETRAINING_TP and not (value is None or is_whole(value)):
        yield Invalid("pretraining_tp", f"is {shown(value)}, not a whole number")
    if fields.get("output_attentions") is True:
        yield Invalid("output_attentions", "is true, and what tokens attend to is not kept; set it to false")
    both = fields.get("is_encoder_decoder")
    if (both is True and kind not in _SEQ2SEQ) or (both is False and kind in T5S):
        yield Invalid("is_encoder_decoder", f"is {shown(both)}, and a {kind} is {'one' if kind in T5S else 'none'}")


def _wrong_parts(fields: Mapping[str, Any]) -> Iterator[Invalid]:
    """Parts of a composite model in a model type that is not composite."""
    kind = fields.get("model_type")
    for name in _SUBMODELS:
        if kind in KNOWN and fields.get(name) is not None:
            yield Invalid(name, f"is set, and a {kind} has no such part; remove it")


def shown(value: Any) -> str:
    """A value as in the file, truncated."""
    return json.dumps(value)[:60]


def is_whole(value: Any) -> bool:
    """Whether it is an integer, but not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, but not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
