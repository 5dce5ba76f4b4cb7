"""Values of a base model's config.json that transformers refuses by the field's type, and those it fails on later.

Without transformers: `check` has none. What a kind does not have as a field may hold anything. A test compares the
tables with the fields of transformers' own kinds.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from finetune_trainer.models.config_words import Wrong, is_whole, shown
from finetune_trainer.models.kinds import BARTS, KNOWN, LLAMAS, T5S

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
"""Fields, and the kinds that cannot do without a value of it."""

REALS = ("initializer_range", "layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps")
"""Numbers that transformers takes only with a decimal point or an exponent."""

_PARTED = frozenset({"bloom", "cwm", "llama", "seed_oss"})
"""Kinds that say in how many parts their sums were made."""
_OTHER_PARTS = ("decoder", "encoder", "text_config", "text_encoder", "generator")
"""Fields in which a model of several parts has their configurations."""


def wrong_types(fields: Mapping[str, Any]) -> Iterator[Wrong]:
    """Values that are none of their field's in any kind, and then those that the known kinds refuse."""
    for name in ("base_model_tp_plan", "per_layer_config"):
        if not isinstance(fields.get(name), dict | None):
            yield Wrong(name, "is no object")
    labels = fields.get("num_labels", 2)
    if not (is_whole(labels) and labels >= 0):
        yield Wrong("num_labels", f"is {shown(labels)}, and no whole number from 0 on")
    named = fields.get("id2label")
    if isinstance(named, dict) and not all(key.strip().lstrip("+-").isdecimal() for key in named):
        yield Wrong("id2label", "has a name that is no number")
    if "use_return_dict" in fields:
        yield Wrong("use_return_dict", "is no field that can be set; remove it")
    if "return_dict" in fields and fields["return_dict"] is not True:
        yield Wrong("return_dict", f"is {shown(fields['return_dict'])}, and models are asked for results with names")
    if fields.get("model_type") in KNOWN:
        yield from _wrong_for_its_kind(fields, fields["model_type"])


def _wrong_for_its_kind(fields: Mapping[str, Any], kind: str) -> Iterator[Wrong]:
    for name, kinds in NEVER_NULL.items():
        if kind in kinds and name in fields and fields[name] is None:
            yield Wrong(name, f"is null, and a {kind} has a value there; without the line it has the usual one")
    for name in REALS:
        if kind in NEVER_NULL[name] and is_whole(value := fields.get(name)):
            yield Wrong(name, f"is {value}, and transformers wants a decimal point there: {value}.0")
    yield from _wrong_tokens(fields)
    value = fields.get("pretraining_tp")
    if kind in _PARTED and not (value is None or is_whole(value)):
        yield Wrong("pretraining_tp", f"is {shown(value)}, and no whole number")
    if fields.get("output_attentions") is True:
        yield Wrong("output_attentions", "is true, and what tokens attend to is not kept; set it to false")
    both = fields.get("is_encoder_decoder")
    if (both is True and kind not in _SEQ2SEQ) or (both is False and kind in T5S):
        yield Wrong("is_encoder_decoder", f"is {shown(both)}, and a {kind} is {'one' if kind in T5S else 'none'}")


def _wrong_tokens(fields: Mapping[str, Any]) -> Iterator[Wrong]:
    if (value := fields.get("bos_token_id")) is not None and not is_whole(value):
        yield Wrong("bos_token_id", f"is {shown(value)}, and no token's number")
    if isinstance(value := fields.get("pad_token_id"), list):
        yield Wrong("pad_token_id", f"is {shown(value)}, and one token pads")


def wrong_parts(fields: Mapping[str, Any]) -> Iterator[Wrong]:
    """Parts that a model of several has, in one of a known kind, which are all of one."""
    kind = fields.get("model_type")
    for name in _OTHER_PARTS:
        if kind in KNOWN and fields.get(name) is not None:
            yield Wrong(name, f"is set, and a {kind} has no such part; remove it")
