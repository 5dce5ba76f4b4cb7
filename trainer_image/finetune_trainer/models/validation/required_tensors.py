"""Tensors that every model of a known type has, whatever its config.json says, and weight files that lack one.

Loading would report them too, but only in a pod with a GPU: transformers initializes them. A test creates models of
each type without weights and compares. Embedding tables and output heads are not listed: they may be tied.
"""

import re
from collections.abc import Collection, Mapping
from itertools import product
from typing import NamedTuple

from finetune_trainer.models.validation.config_values import Fields
from finetune_trainer.models.validation.tensor_names import layer_count, parts_by_layer, placed, prefix_of

_BRACES = re.compile(r"\{([^}]*)\}")
_WRAPPER = re.compile(r"^module\.|(?:^|(?<=\.))_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.")
"""What torch's wrappers add to the tensor names of a model that is saved inside them."""


def alternatives(name: str) -> list[str]:
    """All expansions of a name with alternatives in braces, as in a shell, in order."""
    pieces = [part.split(",") if place % 2 else [part] for place, part in enumerate(_BRACES.split(name))]
    return ["".join(one) for one in product(*pieces)]


def expand(*names: str) -> frozenset[str]:
    """All expansions of several such names."""
    return frozenset(one for name in names for one in alternatives(name))


_ATTENTION = expand("layers.N.self_attn.{q,k,v,o}_proj.weight")
_GATED = expand("layers.N.mlp.{gate,up,down}_proj.weight")
_NORMS = expand("layers.N.{input,post_attention}_layernorm.weight")
_LLAMA = _ATTENTION | _GATED | _NORMS | {"norm.weight"}
_NORMED_HEADS = expand("layers.N.self_attn.{q,k}_norm.weight")
_OLMO2 = (
    _ATTENTION
    | _GATED
    | _NORMED_HEADS
    | expand("layers.N.post_{attention,feedforward}_layernorm.weight", "norm.weight")
)
_COHERE = _ATTENTION | _GATED | {"layers.N.input_layernorm.weight", "norm.weight"}
_GEMMA2 = _LLAMA | expand("layers.N.{pre,post}_feedforward_layernorm.weight")
_GLM = (_LLAMA - _GATED) | expand("layers.N.mlp.{gate_up,down}_proj.weight")
_GPT2 = expand(
    "wpe.weight", "ln_f.{weight,bias}", "h.N.ln_{1,2}.{weight,bias}", "h.N.attn.{c_attn,c_proj}.{weight,bias}",
    "h.N.mlp.{c_fc,c_proj}.{weight,bias}",
)  # fmt: skip
_GPTJ = expand("ln_f.{weight,bias}", "h.N.ln_1.{weight,bias}", "h.N.mlp.{fc_in,fc_out}.{weight,bias}")
_NEOX_FED = expand("layers.N.mlp.{dense_h_to_4h,dense_4h_to_h}.{weight,bias}")
_NEOX_NORMS = expand("layers.N.{input,post_attention}_layernorm.{weight,bias}")
_BART = expand(
    "{en,de}coder.layers.N.self_attn.{q,k,v,out}_proj.{weight,bias}",
    "decoder.layers.N.encoder_attn.{q,k,v,out}_proj.{weight,bias}",
    "{en,de}coder.layers.N.{fc1,fc2,self_attn_layer_norm,final_layer_norm}.{weight,bias}",
    "decoder.layers.N.encoder_attn_layer_norm.{weight,bias}",
)
_PEGASUS = _BART | expand("{en,de}coder.layer_norm.{weight,bias}")
_LONG_T5 = expand(
    "decoder.block.N.layer.0.SelfAttention.{q,k,v,o}.weight",
    "decoder.block.N.layer.1.EncDecAttention.{q,k,v,o}.weight",
    "decoder.block.N.layer.2.DenseReluDense.wo.weight", "decoder.block.N.layer.{0,1,2}.layer_norm.weight",
    "encoder.block.N.layer.1.DenseReluDense.wo.weight", "encoder.block.N.layer.{0,1}.layer_norm.weight",
    "{en,de}coder.final_layer_norm.weight",
)  # fmt: skip
_T5 = _LONG_T5 | expand("encoder.block.N.layer.0.SelfAttention.{q,k,v,o}.weight")

ALWAYS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("cwm", "gemma", "granite", "helium", "llama", "mistral", "seed_oss", "smollm3"), _LLAMA),
    **dict.fromkeys(("exaone4", "olmo2", "olmo3"), _OLMO2),
    **dict.fromkeys(("cohere", "cohere2"), _COHERE),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), _GPT2),
    **dict.fromkeys(("blenderbot", "pegasus"), _PEGASUS),
    **dict.fromkeys(("mt5", "t5", "umt5"), _T5),
    "apertus": _ATTENTION | _NORMED_HEADS
    | expand("layers.N.mlp.{up,down}_proj.weight", "layers.N.{attention,feedforward}_layernorm.weight", "norm.weight"),
    "arcee": _LLAMA - {"layers.N.mlp.gate_proj.weight"},
    "bart": _BART | expand("{en,de}coder.embed_positions.weight", "{en,de}coder.layernorm_embedding.{weight,bias}"),
    "bloom": expand(
        "{ln_f,word_embeddings_layernorm}.{weight,bias}", "h.N.mlp.{dense_h_to_4h,dense_4h_to_h}.{weight,bias}",
        "h.N.self_attention.{dense,query_key_value}.{weight,bias}",
        "h.N.{input,post_attention}_layernorm.{weight,bias}",
    ),
    "codegen": _GPTJ | expand("h.N.attn.{out,qkv}_proj.weight"),
    "falcon": expand(
        "ln_f.{weight,bias}", "h.N.mlp.{dense_h_to_4h,dense_4h_to_h}.weight",
        "h.N.self_attention.{dense,query_key_value}.weight",
    ),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2 | _NORMED_HEADS,
    "glm": _GLM,
    "glm4": _GLM | expand("layers.N.post_{mlp,self_attn}_layernorm.weight"),
    "gpt_neo": expand(
        "wpe.weight", "ln_f.{weight,bias}", "h.N.ln_{1,2}.{weight,bias}", "h.N.mlp.{c_fc,c_proj}.{weight,bias}",
        "h.N.attn.attention.{q,k,v,out}_proj.weight", "h.N.attn.attention.out_proj.bias",
    ),
    "gpt_neox": _NEOX_FED | _NEOX_NORMS
    | expand("final_layer_norm.{weight,bias}", "layers.N.attention.{dense,query_key_value}.weight"),
    "gptj": _GPTJ | expand("h.N.attn.{q,k,v,out}_proj.weight"),
    "longt5": _LONG_T5,
    "mpt": expand(
        "norm_f.weight", "blocks.N.attn.{Wqkv,out_proj}.weight", "blocks.N.ffn.{up,down}_proj.weight",
        "blocks.N.norm_{1,2}.weight",
    ),
    "olmo": _ATTENTION | _GATED,
    "opt": expand(
        "decoder.embed_positions.weight", "decoder.layers.N.self_attn.{q,k,v,out}_proj.weight",
        "decoder.layers.N.{fc1,fc2}.weight",
    ),
    "persimmon": _NEOX_FED | _NEOX_NORMS
    | expand("final_layernorm.{weight,bias}", "layers.N.self_attn.{dense,query_key_value}.{weight,bias}"),
    "phi": expand(
        "final_layernorm.{weight,bias}", "layers.N.self_attn.{q_proj,k_proj,v_proj,dense}.{weight,bias}",
        "layers.N.mlp.{fc1,fc2}.{weight,bias}", "layers.N.input_layernorm.{weight,bias}",
    ),
    "phi3": _NORMS
    | expand("norm.weight", "layers.N.mlp.{gate_up,down}_proj.weight", "layers.N.self_attn.{qkv,o}_proj.weight"),
    "qwen2": _LLAMA | expand("layers.N.self_attn.{q,k,v}_proj.bias"),
    "qwen3": _LLAMA | _NORMED_HEADS,
    "stablelm": _COHERE | expand("norm.bias", "layers.N.input_layernorm.bias"),
    "starcoder2": _ATTENTION
    | expand("layers.N.mlp.{c_fc,c_proj}.weight", "layers.N.{input,post_attention}_layernorm.{weight,bias}")
    | expand("norm.{weight,bias}"),
    "xglm": expand(
        "layer_norm.{weight,bias}", "layers.N.self_attn.{q,k,v,out}_proj.{weight,bias}",
        "layers.N.{fc1,fc2,self_attn_layer_norm,final_layer_norm}.{weight,bias}",
    ),
}  # fmt: skip
"""By model_type: parts, as named by `tensor_names.py`."""

_LATENT = _NORMS | expand(
    "layers.N.self_attn.{kv_a_layernorm,kv_a_proj_with_mqa,kv_b_proj,o_proj}.weight", "norm.weight"
)
_ATTENDING = _ATTENTION | _NORMS | {"norm.weight"}

BESIDE_EXPERTS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe_lite"), _LATENT),
    **dict.fromkeys(("ernie4_5_moe", "glm4_moe", "granitemoe", "granitemoeshared"), _ATTENDING),
    **dict.fromkeys(("llama4_text", "mixtral", "qwen2_moe", "solar_open"), _ATTENDING),
    **dict.fromkeys(("olmoe", "qwen3_moe"), _ATTENDING | _NORMED_HEADS),
    "flex_olmo": _OLMO2 - _GATED,
    "gpt_oss": _ATTENDING
    | expand("layers.N.self_attn.sinks", "layers.N.mlp.router.{weight,bias}")
    | expand("layers.N.mlp.experts.{gate_up,down}_proj{,_bias}"),
    "phimoe": _ATTENDING | expand("layers.N.{input,post_attention}_layernorm.bias", "norm.bias"),
}
"""The same for mixtures of experts without their feed-forward layers, whose names vary: see `experts.py`."""


class Missing(NamedTuple):
    """A missing tensor."""

    name: str
    everywhere: bool
    """Whether no layer has it: then it is probably another model type."""


def first_missing(fields: Fields, names: Collection[str]) -> Missing | None:
    """What the files of a known model type lack; None if they are complete, or have unknown names."""
    kind = fields.get("model_type", "")
    always = ALWAYS.get(kind) or BESIDE_EXPERTS.get(kind, frozenset())
    there = {placed(name).part for name in names}
    is_nested = any(part.endswith(f".{known}") for part in there for known in always)
    if not there or (is_nested and not always & there):
        return None  # part of a larger model, which its loader may know how to extract
    prefix = next((prefix_of(name) for name in names if placed(name).part in always), "")
    for part in sorted(always - there, key=lambda one: ("N." not in one, one)):
        return Missing(prefix + part.replace("N.", "0."), everywhere=True)
    for layers in sorted({part.partition("N.")[0] for part in always if "N." in part}):
        held = parts_by_layer(names, layers)
        each = {part for part in always if part.startswith(f"{layers}N.")}
        for number in range(layer_count(fields, layers) or 1 + max(held)):
            for part in sorted(each - held.get(number, set())):
                return Missing(prefix + part.replace("N.", f"{number}."), everywhere=False)
    return None


def wrapped(fields: Fields, names: Collection[str]) -> str | None:
    """The first name that is one of this type's after removing a wrapper's prefix; None if nothing is missing."""
    always = ALWAYS.get(fields.get("model_type", ""), frozenset())
    if always <= {placed(name).part for name in names}:
        return None
    return next(
        (name for name in sorted(names) if placed(bare := unwrapped(name)).part in always and bare != name), None
    )


def unwrapped(name: str) -> str:
    """A tensor's name without prefixes of wrappers."""
    return re.sub(r"^(?:module\.)+", "", _WRAPPER.sub("", name))
