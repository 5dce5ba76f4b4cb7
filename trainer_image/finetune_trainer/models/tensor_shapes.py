"""How wide each matrix, norm and bias of the known kinds of models is, by the fields of config.json that say so.

Only those that have, by these fields, the shapes that transformers makes of them. A test makes a model of each kind
without weights, and compares. What follows from the table: `config_shapes.py`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from finetune_trainer.models.kinds import LLAMAS, T5S
from finetune_trainer.models.required_tensors import spelt

OF_EXPERTS = {
    **dict.fromkeys(("gpt_oss", "granitemoe", "granitemoeshared", "mixtral", "phimoe"), "num_local_experts"),
    **dict.fromkeys(("flex_olmo", "olmoe", "qwen2_moe", "qwen3_moe"), "num_experts"),
    **dict.fromkeys(("glm4_moe", "solar_open"), "n_routed_experts"),
    "ernie4_5_moe": "moe_num_experts",
}
"""Mixtures of experts with Llama's attention and norms, and the field that counts the experts of a layer."""
_SHORT_T5S = T5S - {"longt5"}

OWN_HEAD_DIM = frozenset({
    "cwm", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt_oss", "qwen3", "seed_oss", "solar_open",
})  # fmt: skip
"""Kinds whose heads have a width of their own where the file says none; of the others they part the hidden size."""


class Side(NamedTuple):
    """One side of a matrix, or a norm or bias: how wide it is, and the fields that say so."""

    width: Callable[[Mapping[str, int]], int]
    fields: tuple[str, ...]

    def by(self, sizes: Mapping[str, int]) -> int | None:
        """Its width by these fields; None where they do not say it."""
        return self.width(sizes) if sizes.keys() >= {*self.fields} else None


def _of(field: str, times: int = 1, more: int = 0) -> Side:
    return Side(lambda of: times * of[field] + more, (field,))


_MODEL, _INNER, _WORDS = _of("hidden_size"), _of("intermediate_size"), _of("vocab_size")
_ASKING = Side(lambda of: of["num_attention_heads"] * of["head_dim"], ("num_attention_heads", "head_dim"))
_ASKED = Side(lambda of: of["num_key_value_heads"] * of["head_dim"], ("num_key_value_heads", "head_dim"))
_ALL_OF_THEM = Side(
    lambda of: (of["num_attention_heads"] + 2 * of["num_key_value_heads"]) * of["head_dim"],
    ("num_attention_heads", "head_dim", "num_key_value_heads"),
)
_WIDE, _FED, _EMBEDDED, _GPT_INNER = _of("d_model"), _of("d_ff"), _of("n_embd"), _of("n_inner")
_ATTENDING = Side(lambda of: of["num_heads"] * of["d_kv"], ("num_heads", "d_kv"))

Sides = Mapping[str, tuple[Side, ...]]
"""Rows and columns of matrices, one side of the others, by the parts of a model that they are (`tensor_names.py`)."""


def _within(place: str, sides: Sides) -> Sides:
    return {f"{place}.{name}.weight": both for name, both in sides.items()}


def _norms(width: Side, *names: str) -> Sides:
    return dict.fromkeys(spelt(*(f"{name}.{{weight,bias}}" for name in names)), (width,))


def _with_biases(sides: Sides, result: int = 0) -> Sides:
    """And a bias for each layer, as wide as this side of its matrix."""
    biases = {part.removesuffix("weight") + "bias": (both[result],) for part, both in sides.items() if len(both) == 2}
    return {**sides, **biases}


_OF_LLAMA: Sides = {
    "embed_tokens.weight": (_WORDS, _MODEL),
    **_within(
        "layers.N.self_attn",
        {
            "q_proj": (_ASKING, _MODEL),
            "k_proj": (_ASKED, _MODEL),
            "v_proj": (_ASKED, _MODEL),
            "qkv_proj": (_ALL_OF_THEM, _MODEL),
            "o_proj": (_MODEL, _ASKING),
        },
    ),
    **_within(
        "layers.N.mlp",
        {
            "gate_proj": (_INNER, _MODEL),
            "up_proj": (_INNER, _MODEL),
            "gate_up_proj": (_of("intermediate_size", 2), _MODEL),
            "down_proj": (_MODEL, _INNER),
            "fc1": (_INNER, _MODEL),
            "fc2": (_MODEL, _INNER),
            "c_fc": (_INNER, _MODEL),
            "c_proj": (_MODEL, _INNER),
        },
    ),
    "layers.N.self_attn.dense.weight": (_MODEL, _ASKING),
    **_norms(
        _MODEL, "norm", "final_layernorm", "layers.N.{input,attention,feedforward}_layernorm",
        "layers.N.post_{attention,feedforward,mlp,self_attn}_layernorm", "layers.N.pre_feedforward_layernorm",
    ),
}  # fmt: skip
_HEAD_NORMS = _norms(_of("head_dim"), "layers.N.self_attn.{q,k}_norm")
_PARTED = Side(lambda of: of["hidden_size"] // of["num_attention_heads"], ("hidden_size", "num_attention_heads"))
"""Of Phi's heads, whatever head_dim says."""
_PARTED_ASKED = Side(
    lambda of: of["num_key_value_heads"] * (of["hidden_size"] // of["num_attention_heads"]),
    ("num_key_value_heads", "hidden_size", "num_attention_heads"),
)
_OF_STABLELM: Sides = {
    **_OF_LLAMA,
    "layers.N.self_attn.q_proj.weight": (_MODEL, _MODEL),
    "layers.N.self_attn.k_proj.weight": (_PARTED_ASKED, _MODEL),
    "layers.N.self_attn.v_proj.weight": (_PARTED_ASKED, _MODEL),
    "layers.N.self_attn.o_proj.weight": (_MODEL, _MODEL),
}
_WHOLE_NORMS: Sides = {
    "layers.N.self_attn.q_norm.weight": (_ASKING,),
    "layers.N.self_attn.k_norm.weight": (_ASKED,),
}
_ATTENTION_OF_T5: Sides = {
    "q": (_ATTENDING, _WIDE),
    "k": (_ATTENDING, _WIDE),
    "v": (_ATTENDING, _WIDE),
    "o": (_WIDE, _ATTENDING),
}
_FEEDING_OF_T5: Sides = {
    "wi": (_FED, _WIDE),
    "wi_0": (_FED, _WIDE),
    "wi_1": (_FED, _WIDE),
    "wo": (_WIDE, _FED),
}
_OF_T5: Sides = {
    "shared.weight": (_WORDS, _WIDE),
    **_within("encoder.block.N.layer.0.SelfAttention", _ATTENTION_OF_T5),
    **_within("decoder.block.N.layer.0.SelfAttention", _ATTENTION_OF_T5),
    **_within("decoder.block.N.layer.1.EncDecAttention", _ATTENTION_OF_T5),
    **_within("encoder.block.N.layer.1.DenseReluDense", _FEEDING_OF_T5),
    **_within("decoder.block.N.layer.2.DenseReluDense", _FEEDING_OF_T5),
    **dict.fromkeys(
        spelt("{en,de}coder.block.N.layer.0.SelfAttention.relative_attention_bias.weight"),
        (_of("relative_attention_num_buckets"), _of("num_heads")),
    ),
    **_norms(_WIDE, "{en,de}coder.final_layer_norm", "{en,de}coder.block.N.layer.{0,1,2}.layer_norm"),
}


_NORMS_OF_OLMOE: Sides = {
    "layers.N.self_attn.q_norm.weight": (_MODEL,),
    "layers.N.self_attn.k_norm.weight": (_PARTED_ASKED,),
}


def _of_experts(kind: str) -> Sides:
    """What is beside the experts: `experts.py` has those."""
    norms = {
        "flex_olmo": _WHOLE_NORMS, "glm4_moe": _HEAD_NORMS, "olmoe": _NORMS_OF_OLMOE, "qwen3_moe": _HEAD_NORMS,
        "gpt_oss": {"layers.N.self_attn.sinks": (_of("num_attention_heads"),)},
    }.get(kind, {})  # fmt: skip
    routing = spelt("layers.N.{block_sparse_moe,mlp}.{gate,router,router.layer}.weight")
    return {**_OF_LLAMA, **norms, **dict.fromkeys(routing, (_of(OF_EXPERTS[kind]), _MODEL))}


def _squares(width: Side, *names: str) -> Sides:
    return dict.fromkeys(names, (width, width))


_OF_BART: Sides = {
    "shared.weight": (_WORDS, _WIDE),
    **{
        part: sides
        for side in ("encoder", "decoder")
        for attention in (("self_attn",) if side == "encoder" else ("self_attn", "encoder_attn"))
        for part, sides in _within(
            f"{side}.layers.N.{attention}", _squares(_WIDE, "q_proj", "k_proj", "v_proj", "out_proj")
        ).items()
    },
    "encoder.layers.N.fc1.weight": (_of("encoder_ffn_dim"), _WIDE),
    "encoder.layers.N.fc2.weight": (_WIDE, _of("encoder_ffn_dim")),
    "decoder.layers.N.fc1.weight": (_of("decoder_ffn_dim"), _WIDE),
    "decoder.layers.N.fc2.weight": (_WIDE, _of("decoder_ffn_dim")),
    **_norms(
        _WIDE, "{en,de}coder.{layer_norm,layernorm_embedding}", "{en,de}coder.layers.N.{self_attn,final}_layer_norm",
        "decoder.layers.N.encoder_attn_layer_norm",
    ),
}  # fmt: skip


def _places_of_bart(more: int = 0) -> Sides:
    both = (_of("max_position_embeddings", more=more), _WIDE)
    return {f"{side}.embed_positions.weight": both for side in ("encoder", "decoder")}


_OF_OPT: Sides = {
    "decoder.embed_tokens.weight": (_WORDS, _of("word_embed_proj_dim")),
    "decoder.embed_positions.weight": (_of("max_position_embeddings", more=2), _MODEL),
    **_within("decoder.layers.N.self_attn", _squares(_MODEL, "q_proj", "k_proj", "v_proj", "out_proj")),
    "decoder.layers.N.fc1.weight": (_of("ffn_dim"), _MODEL),
    "decoder.layers.N.fc2.weight": (_MODEL, _of("ffn_dim")),
    **_norms(_MODEL, "decoder.final_layer_norm", "decoder.layers.N.{self_attn,final}_layer_norm"),
}
_OF_GPT2: Sides = {
    "wte.weight": (_WORDS, _EMBEDDED),
    "wpe.weight": (_of("n_positions"), _EMBEDDED),
    "h.N.attn.c_attn.weight": (_EMBEDDED, _of("n_embd", 3)),  # on its side, as all of GPT-2's
    "h.N.attn.c_proj.weight": (_EMBEDDED, _EMBEDDED),
    "h.N.mlp.c_fc.weight": (_EMBEDDED, _GPT_INNER),
    "h.N.mlp.c_proj.weight": (_GPT_INNER, _EMBEDDED),
    **_norms(_EMBEDDED, "ln_f", "h.N.ln_{1,2}"),
}
_OF_GPTJ: Sides = {
    "wte.weight": (_WORDS, _EMBEDDED),
    **_within("h.N.attn", _squares(_EMBEDDED, "q_proj", "k_proj", "v_proj", "out_proj")),
    "h.N.mlp.fc_in.weight": (_GPT_INNER, _EMBEDDED),
    "h.N.mlp.fc_out.weight": (_EMBEDDED, _GPT_INNER),
    **_norms(_EMBEDDED, "ln_f", "h.N.ln_1"),
}
_OF_NEO: Sides = {
    "wte.weight": (_WORDS, _MODEL),
    "wpe.weight": (_of("max_position_embeddings"), _MODEL),
    **_within("h.N.attn.attention", _squares(_MODEL, "q_proj", "k_proj", "v_proj", "out_proj")),
    "h.N.mlp.c_fc.weight": (_INNER, _MODEL),
    "h.N.mlp.c_proj.weight": (_MODEL, _INNER),
    **_norms(_MODEL, "ln_f", "h.N.ln_{1,2}"),
}
_OF_NEOX: Sides = {
    "embed_in.weight": (_WORDS, _MODEL),
    "layers.N.attention.query_key_value.weight": (_of("hidden_size", 3), _MODEL),
    "layers.N.attention.dense.weight": (_MODEL, _MODEL),
    "layers.N.mlp.dense_h_to_4h.weight": (_INNER, _MODEL),
    "layers.N.mlp.dense_4h_to_h.weight": (_MODEL, _INNER),
    **_norms(_MODEL, "final_layer_norm", "layers.N.{input,post_attention}_layernorm"),
}
_OF_BLOOM: Sides = {
    "word_embeddings.weight": (_WORDS, _MODEL),
    "h.N.self_attention.query_key_value.weight": (_of("hidden_size", 3), _MODEL),
    "h.N.self_attention.dense.weight": (_MODEL, _MODEL),
    "h.N.mlp.dense_h_to_4h.weight": (_of("hidden_size", 4), _MODEL),
    "h.N.mlp.dense_4h_to_h.weight": (_MODEL, _of("hidden_size", 4)),
    **_norms(_MODEL, "ln_f", "word_embeddings_layernorm", "h.N.{input,post_attention}_layernorm"),
}
_OF_FALCON: Sides = {
    "word_embeddings.weight": (_WORDS, _MODEL),
    "h.N.self_attention.dense.weight": (_MODEL, _MODEL),
    "h.N.mlp.dense_h_to_4h.weight": (_of("ffn_hidden_size"), _MODEL),
    "h.N.mlp.dense_4h_to_h.weight": (_MODEL, _of("ffn_hidden_size")),
    **_norms(_MODEL, "ln_f", "h.N.{input_layernorm,post_attention_layernorm,ln_attn,ln_mlp}"),
}
_EXPANDED = Side(lambda of: of["expansion_ratio"] * of["d_model"], ("expansion_ratio", "d_model"))
_OF_MPT: Sides = {
    "wte.weight": (_WORDS, _WIDE),
    "blocks.N.attn.Wqkv.weight": (_of("d_model", 3), _WIDE),
    "blocks.N.attn.out_proj.weight": (_WIDE, _WIDE),
    "blocks.N.ffn.up_proj.weight": (_EXPANDED, _WIDE),
    "blocks.N.ffn.down_proj.weight": (_WIDE, _EXPANDED),
    **_norms(_WIDE, "norm_f", "blocks.N.norm_{1,2}"),
}
_MATRICES: Mapping[str, Sides] = {
    **dict.fromkeys(LLAMAS, _OF_LLAMA),
    **{kind: {**_OF_LLAMA, **_HEAD_NORMS} for kind in ("apertus", "exaone4", "gemma3_text", "qwen3")},
    **{kind: {**_OF_LLAMA, **_WHOLE_NORMS} for kind in ("olmo2", "olmo3")},
    **dict.fromkeys(_SHORT_T5S, _OF_T5),
    **{kind: _of_experts(kind) for kind in OF_EXPERTS},
    "phi": {**_OF_LLAMA, **_norms(_PARTED, "layers.N.self_attn.{q,k}_layernorm")},
    "bart": {**_OF_BART, **_places_of_bart(more=2)},
    "blenderbot": {**_OF_BART, **_places_of_bart()},
    "pegasus": {**_OF_BART, **_places_of_bart()},
    "bloom": _OF_BLOOM,
    "falcon": _OF_FALCON,
    "mpt": _OF_MPT,
    "stablelm": _OF_STABLELM,
    "gpt_neo": _OF_NEO,
    "gpt_neox": _OF_NEOX,
    "gptj": _OF_GPTJ,
    "opt": _OF_OPT,
}


def _with_head(sides: Sides) -> Sides:
    """And the output head, which has the shape of the table of words; loading minds it where both are one, too."""
    return {**sides, **dict.fromkeys(("lm_head.weight", "embed_out.weight"), next(iter(sides.values())))}


SIDES: Mapping[str, Sides] = {
    **{kind: {**_with_head(_with_biases(sides)), "lm_head.bias": (_WORDS,)} for kind, sides in _MATRICES.items()},
    "gpt2": _with_head(_with_biases(_OF_GPT2, result=1)),
}
"""By model_type."""

FOUR_TIMES: Mapping[str, tuple[str, str]] = {
    "falcon": ("ffn_hidden_size", "hidden_size"),
    "gpt2": ("n_inner", "n_embd"),
    "gpt_neo": ("intermediate_size", "hidden_size"),
    "gptj": ("n_inner", "n_embd"),
}
"""Kinds whose feed-forward layers are four times as wide as the model where the first field says nothing."""
