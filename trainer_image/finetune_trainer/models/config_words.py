"""Words of a base model's config.json that transformers looks up in tables of its own: numbers, activations, layers.

A word that its table has not ends in the bare word (`KeyError: 'swigl'`), long after `check` has let the job pass.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from finetune_trainer.models.kinds import KNOWN

Fields = Mapping[str, Any]

NUMBERS = frozenset({
    "bfloat16", "double", "float", "float16", "float32", "float4_e2m1fn_x2", "float64", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "half", "int", "int1", "int16", "int2",
    "int3", "int32", "int4", "int5", "int6", "int64", "int7", "int8", "long", "short", "uint1", "uint16", "uint2",
    "uint3", "uint32", "uint4", "uint5", "uint6", "uint64", "uint7", "uint8",
})  # fmt: skip
"""Types of numbers, as torch names them."""

ACTIVATIONS = frozenset({
    "gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh",
    "gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu", "relu2",
    "relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh", "xielu",
})  # fmt: skip

_ACTIVATION_FIELDS = {
    **dict.fromkeys(
        ("bart", "blenderbot", "codegen", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "opt", "pegasus", "xglm"),
        "activation_function",
    ),
    **dict.fromkeys(("longt5", "mt5", "t5", "umt5"), "feed_forward_proj"),
    **dict.fromkeys(("gemma2", "gemma3_text"), "hidden_activation"),
    "falcon": "activation",
    "bloom": None,
    "mpt": None,
}
"""Where a kind names its activation, if not in hidden_act; what it does not look up may hold any word."""
_GATED = "gated-"

LAYERS = frozenset({"attention", "full_attention", "sliding_attention"})
"""How layers of the known kinds attend; the first is an older name of the second."""


class Wrong(NamedTuple):
    """A field, and why its value cannot be."""

    field: str
    why: str


def wrong_words(fields: Fields) -> Iterator[Wrong]:
    """Words that are in none of the tables; of kinds that are not known only what is looked up for every kind."""
    for name in ("dtype", "torch_dtype"):
        said = fields.get(name)
        for value in said.values() if isinstance(said, dict) else [said]:
            if not (value is None or (isinstance(value, str) and value in NUMBERS)):
                yield Wrong(name, f"is {shown(value)}, and no type of numbers, as bfloat16 is one")
    if fields.get("model_type") in KNOWN:
        yield from _wrong_activation(fields)
        yield from _wrong_layers(fields)


def _wrong_activation(fields: Fields) -> Iterator[Wrong]:
    name = activation_field(fields["model_type"])
    if name is None or name not in fields:
        return
    value = fields[name]
    word = value.removeprefix(_GATED) if isinstance(value, str) and name == "feed_forward_proj" else value
    if not (isinstance(word, str) and word in ACTIVATIONS):
        yield Wrong(name, f"is {shown(value)}, and no activation that transformers has, as silu and gelu are")


def activation_field(kind: str) -> str | None:
    """The field in which a known kind of model names its activation; None where it has one of its own."""
    return _ACTIVATION_FIELDS.get(kind, "hidden_act")


def _wrong_layers(fields: Fields) -> Iterator[Wrong]:
    said, layers = fields.get("layer_types"), fields.get("num_hidden_layers")
    if said is None:
        return
    if not isinstance(said, list):
        yield Wrong("layer_types", f"is {shown(said)}, and no list with a word for each layer")
        return
    for value in said:
        if not (isinstance(value, str) and value in LAYERS):
            yield Wrong("layer_types", f"has {shown(value)}, and none of {', '.join(sorted(LAYERS))}")
    if isinstance(layers, int) and len(said) != layers:
        yield Wrong("layer_types", f"has {len(said)} words, and num_hidden_layers is {layers}")


def shown(value: Any) -> str:
    """A value as the file has it, or its beginning."""
    return json.dumps(value)[:60]


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, which true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)
