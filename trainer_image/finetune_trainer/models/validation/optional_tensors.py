"""Tensors that models of a known type have depending on config.json, and tensors that a type never has.

Transformers ignores the latter, and the model computes something else than its weights were made for: Qwen3's weights
with Llama's type would be trained without query and key norms. Required tensors are in `required_tensors.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finetune_trainer.models.validation.config_values import Fields, Invalid, shown
from finetune_trainer.models.validation.required_tensors import ALWAYS, expand
from finetune_trainer.models.validation.tensor_names import layer_count, placed, prefix_of
from finetune_trainer.models.weight_files import file_of


class Option(NamedTuple):
    """Parts that exist exactly if a field has certain values."""

    field: str
    usual: Any
    """The model type's default, if the file has no value."""
    parts: frozenset[str]
    has: Callable[[Any], bool] = bool

    def holds(self, fields: Fields) -> bool:
        """Whether a model with this config has the parts."""
        return self.has(fields.get(self.field, self.usual))


def _gated(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("gated-")


def _plain(value: Any) -> bool:
    return not _gated(value)


_QKV = expand("layers.N.self_attn.{q,k,v}_proj.bias")
_OUT = expand("layers.N.self_attn.o_proj.bias")
_FED = expand("layers.N.mlp.{gate,up,down}_proj.bias")
_BIASED = (Option("attention_bias", False, _QKV | _OUT),)
_FED_BIASED = (Option("mlp_bias", False, _FED),)
_NORMED_HEADS = expand("layers.N.self_attn.{q,k}_layernorm.{weight,bias}")
_T5_FED = "{encoder.block.N.layer.1,decoder.block.N.layer.2}.DenseReluDense."


def _t5(usual: str) -> tuple[Option, ...]:
    return (
        Option("feed_forward_proj", usual, expand(_T5_FED + "wi_{0,1}.weight"), _gated),
        Option("feed_forward_proj", usual, expand(_T5_FED + "wi.weight"), _plain),
    )


OPTIONS: Mapping[str, tuple[Option, ...]] = {
    **dict.fromkeys(
        ("apertus", "cohere2", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "olmo3", "qwen3"), _BIASED
    ),
    **dict.fromkeys(("granite", "llama", "smollm3"), _BIASED + _FED_BIASED),
    **dict.fromkeys(("glm", "glm4"), (Option("attention_bias", True, _QKV),)),
    **dict.fromkeys(("mt5", "umt5"), _t5("gated-gelu")),
    **dict.fromkeys(("longt5", "t5"), _t5("relu")),
    "arcee": (*_BIASED, Option("mlp_bias", False, expand("layers.N.mlp.{up,down}_proj.bias"))),
    "cohere": (*_BIASED, Option("use_qk_norm", False, expand("layers.N.self_attn.{q,k}_norm.weight"))),
    "cwm": _FED_BIASED,
    "gpt_neox": (Option("attention_bias", True, expand("layers.N.attention.{dense,query_key_value}.bias")),),
    "helium": (Option("attention_bias", False, _QKV), *_FED_BIASED),
    "persimmon": (Option("qk_layernorm", True, _NORMED_HEADS),),
    "phi": (Option("qk_layernorm", False, _NORMED_HEADS),),
    "seed_oss": (
        Option("attention_bias", True, _QKV),
        Option("attention_out_bias", False, _OUT),
        *_FED_BIASED,
    ),
    "starcoder2": (Option("use_bias", True, _QKV | _OUT | expand("layers.N.mlp.{c_fc,c_proj}.bias")),),
}
"""By model_type."""

_PLACES_OF_T5 = expand(
    "{en,de}coder.block.N.layer.0.SelfAttention.relative_attention_bias.weight",
    "decoder.block.N.layer.1.EncDecAttention.relative_attention_bias.weight",  # in old files; never used
)
MAYBE: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("mt5", "t5", "umt5"), _PLACES_OF_T5),
    **dict.fromkeys(("codegen", "gptj", "phi"), frozenset({"lm_head.bias"})),
    "falcon": expand(
        "h.N.{input_layernorm,post_attention_layernorm,ln_attn,ln_mlp}.{weight,bias}",
        "h.N.mlp.{dense_h_to_4h,dense_4h_to_h}.bias", "h.N.self_attention.{dense,query_key_value}.bias",
    ),
    "gpt2": expand("h.N.crossattention.{c_attn,c_proj,q_attn}.{weight,bias}", "h.N.ln_cross_attn.{weight,bias}"),
    "longt5": _PLACES_OF_T5 | expand(
        "encoder.block.N.layer.0.{Local,TransientGlobal}SelfAttention.{q,k,v,o,relative_attention_bias}.weight",
        "encoder.block.N.layer.0.TransientGlobalSelfAttention.global_{relative_attention_bias,input_layer_norm}.weight",
    ),
    "opt": expand(
        "decoder.layers.N.{fc1,fc2}.bias", "decoder.layers.N.{self_attn,final}_layer_norm.{weight,bias}",
        "decoder.layers.N.self_attn.{q,k,v,out}_proj.bias", "decoder.final_layer_norm.{weight,bias}",
    ),
    "xglm": expand(
        "layers.N.encoder_attn.{q,k,v,out}_proj.{weight,bias}", "layers.N.encoder_attn_layer_norm.{weight,bias}"
    ),
}  # fmt: skip
"""Further optional parts of model types, depending on fields that are in no table here."""

_UNTOLD = frozenset({"stablelm"})
"""Model types with one norm per head in a layer."""
_HEAD = "lm_head"


def surplus_tensors(fields: Fields, shapes: Mapping[str, Any], folder: Path) -> Iterator[Invalid]:
    """The first weight or bias in the model's own layers for which a model with this config has no place.

    Only if the files contain everything that the type requires. Buffers in old files, such as `attn.bias`, are ignored.
    """
    kind = fields.get("model_type", "")
    always = ALWAYS.get(kind)
    there = {placed(name).part for name in shapes}
    if always is None or kind in _UNTOLD or not always <= there:
        return
    options = OPTIONS.get(kind, ())
    known = always.union(MAYBE.get(kind, ()), *(one.parts for one in options if one.holds(fields)))
    never = known.union(*(one.parts for one in options))
    lists = {part.partition("N.")[0] for part in always if "N." in part}
    for name in sorted(shapes, key=lambda one: (placed(one).number, one)):
        part, layers, number = placed(name)
        if part in known or (layers and number >= (layer_count(fields, layers) or number + 1)):
            continue
        if not (part.endswith(".weight") and layers in lists) and not _is_bias(part, never):
            continue
        where = f"{name} in {file_of(folder, name)}"
        option = next((one for one in options if part in one.parts), None)
        if option is not None and not option.parts <= there and (other := _whose(there)):
            yield Invalid("model_type", f"is {shown(kind)}, and the files have the weights of a {other}, as {where}")
        elif option is None:
            yield Invalid("model_type", f"is {shown(kind)}, and no {kind} has {where}: they are the weights of another "
                        "kind, and would be trained without it")  # fmt: skip
        else:
            value = f"is {shown(fields[option.field])}" if option.field in fields else "is missing"
            yield Invalid(option.field, f"{value}, and leaves no room for {where}: the model would compute without it")
        return


def _whose(there: set[str]) -> str | None:
    """The model type that has exactly these parts in any config; Qwen2's biases are not all of Llama's, for example."""
    layered = {part for part in there if "N." in part}
    fits = [kind for kind, always in ALWAYS.items() if layered == {part for part in always if "N." in part}]
    return next((kind for kind in fits if not OPTIONS.get(kind)), None)


def _is_bias(part: str, known: frozenset[str]) -> bool:
    owner = part.removesuffix(".bias")
    return owner != part and (owner == _HEAD or f"{owner}.weight" in known)


def missing_tensors(fields: Fields, shapes: Mapping[str, Any]) -> Iterator[Invalid]:
    """The first field that requires tensors of the layers that the files lack entirely."""
    parts = {placed(name).part: name for name in shapes}
    for option in OPTIONS.get(fields.get("model_type", ""), ()):
        missing = min(option.parts - parts.keys(), default=None)
        if missing is None or option.field not in fields or not option.holds(fields):
            continue
        neighbour = next((name for part, name in parts.items() if part.startswith(missing.partition("N.")[0])), None)
        if neighbour is not None:
            name = prefix_of(neighbour) + missing.replace("N.", "0.")
            yield Invalid(option.field, f"is {shown(fields[option.field])}, and the files of weights have no {name}")
            return
