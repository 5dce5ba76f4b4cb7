"""Shapes of the matrices, norms and biases of the known model types, by fields of config.json.

Only those that transformers creates with these shapes. A test creates a model of each type without weights and
compares. What follows from the tables is in `config_shapes.py`.
"""

from collections.abc import Mapping
from functools import cache
from math import prod
from typing import NamedTuple

from finetune_trainer.models.kinds import BARTS, LLAMAS, T5S
from finetune_trainer.models.validation.required_tensors import alternatives

OF_EXPERTS = {
    **dict.fromkeys(("gpt_oss", "granitemoe", "granitemoeshared", "mixtral", "phimoe"), "num_local_experts"),
    **dict.fromkeys(("flex_olmo", "olmoe", "qwen2_moe", "qwen3_moe"), "num_experts"),
    **dict.fromkeys(("glm4_moe", "solar_open"), "n_routed_experts"),
    "ernie4_5_moe": "moe_num_experts",
}
"""Mixtures of experts with Llama's attention and norms, and the field with the number of experts per layer."""

OWN_HEAD_DIM = frozenset({
    "cwm", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt_oss", "qwen3", "seed_oss", "solar_open",
})  # fmt: skip
"""Model types with a default head dimension; for others it is the hidden size divided by the number of heads."""


class Side(NamedTuple):
    """One side of a matrix, or the length of a norm or bias, as a formula of config fields."""

    formula: str
    """Sum of products of fields and integers; `//` binds tighter than `*`."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields in order of appearance."""
        words = (word for term in _terms(self.formula) for factor in term for word in factor)
        return tuple(dict.fromkeys(word for word in words if word and not word.isdecimal()))

    def by(self, sizes: Mapping[str, int]) -> int | None:
        """The size for these field values; None if some are missing."""
        if not sizes.keys() >= {*self.fields}:
            return None

        def number(word: str) -> int:
            return int(word) if word.isdecimal() else sizes[word]

        terms = _terms(self.formula)
        return sum(prod(number(one) // number(part or "1") for one, part in term) for term in terms)


@cache
def _terms(formula: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Summands, each as factors with their divisors ("" for none)."""

    def factor(text: str) -> tuple[str, str]:
        whole, _, part = text.partition("//")
        return whole, part

    return tuple(tuple(map(factor, term.split("*"))) for term in formula.split("+"))


Sides = Mapping[str, tuple[Side, ...]]
"""Rows and columns of matrices, or the length of vectors, by part of the model (`tensor_names.py`)."""


def _sides(table: str, *, result: int = 0) -> Sides:
    """Parses lines with a layer and its sides, for its weight and its bias; braces hold alternatives.

    `result`: which side of a matrix the bias matches.
    """
    weights: dict[str, tuple[Side, ...]] = {}
    biases: dict[str, tuple[Side, ...]] = {}
    for line in table.strip().splitlines():
        names, *formulas = line.split()
        sides = tuple(map(Side, formulas))
        for name in alternatives(names):
            weights[f"{name}.weight"] = sides
            biases[f"{name}.bias"] = (sides[result if len(sides) > 1 else 0],)
    return {**weights, **biases}


_LLAMA = _sides("""
    embed_tokens                          vocab_size                         hidden_size
    layers.N.self_attn.q_proj             num_attention_heads*head_dim       hidden_size
    layers.N.self_attn.{k,v}_proj         num_key_value_heads*head_dim       hidden_size
    layers.N.self_attn.qkv_proj           num_attention_heads*head_dim+2*num_key_value_heads*head_dim hidden_size
    layers.N.self_attn.{o_proj,dense}     hidden_size                        num_attention_heads*head_dim
    layers.N.mlp.{gate_proj,up_proj,fc1,c_fc} intermediate_size              hidden_size
    layers.N.mlp.gate_up_proj             2*intermediate_size                hidden_size
    layers.N.mlp.{down_proj,fc2,c_proj}   hidden_size                        intermediate_size
    {norm,final_layernorm}                hidden_size
    layers.N.{input,attention,feedforward,pre_feedforward}_layernorm         hidden_size
    layers.N.post_{attention,feedforward,mlp,self_attn}_layernorm            hidden_size
""")
_HEAD_NORMS = _sides("layers.N.self_attn.{q,k}_norm  head_dim")
_WHOLE_NORMS = _sides("""
    layers.N.self_attn.q_norm             num_attention_heads*head_dim
    layers.N.self_attn.k_norm             num_key_value_heads*head_dim
""")
_OLMOE_NORMS = _sides("""
    layers.N.self_attn.q_norm             hidden_size
    layers.N.self_attn.k_norm             num_key_value_heads*hidden_size//num_attention_heads
""")
_PHI_NORMS = _sides("layers.N.self_attn.{q,k}_layernorm  hidden_size//num_attention_heads")
"""Of its heads' size, ignoring head_dim."""
_STABLELM = _sides("""
    layers.N.self_attn.q_proj             hidden_size                        hidden_size
    layers.N.self_attn.{k,v}_proj         num_key_value_heads*hidden_size//num_attention_heads hidden_size
    layers.N.self_attn.o_proj             hidden_size                        hidden_size
""")
_T5 = _sides("""
    shared                                                    vocab_size          d_model
    {en,de}coder.block.N.layer.0.SelfAttention.{q,k,v}        num_heads*d_kv      d_model
    {en,de}coder.block.N.layer.0.SelfAttention.o              d_model             num_heads*d_kv
    decoder.block.N.layer.1.EncDecAttention.{q,k,v}           num_heads*d_kv      d_model
    decoder.block.N.layer.1.EncDecAttention.o                 d_model             num_heads*d_kv
    {encoder.block.N.layer.1,decoder.block.N.layer.2}.DenseReluDense.{wi,wi_0,wi_1}  d_ff  d_model
    {encoder.block.N.layer.1,decoder.block.N.layer.2}.DenseReluDense.wo              d_model  d_ff
    {en,de}coder.block.N.layer.0.SelfAttention.relative_attention_bias  relative_attention_num_buckets num_heads
    {en,de}coder.final_layer_norm                             d_model
    {en,de}coder.block.N.layer.{0,1,2}.layer_norm             d_model
""")
_BART = _sides("""
    shared                                                    vocab_size          d_model
    encoder.layers.N.self_attn.{q,k,v,out}_proj               d_model             d_model
    decoder.layers.N.{self,encoder}_attn.{q,k,v,out}_proj     d_model             d_model
    encoder.layers.N.fc1                                      encoder_ffn_dim     d_model
    encoder.layers.N.fc2                                      d_model             encoder_ffn_dim
    decoder.layers.N.fc1                                      decoder_ffn_dim     d_model
    decoder.layers.N.fc2                                      d_model             decoder_ffn_dim
    {en,de}coder.{layer_norm,layernorm_embedding}             d_model
    {en,de}coder.layers.N.{self_attn,final}_layer_norm        d_model
    decoder.layers.N.encoder_attn_layer_norm                  d_model
""")
_OPT = _sides("""
    decoder.embed_tokens                          vocab_size                  word_embed_proj_dim
    decoder.embed_positions                       max_position_embeddings+2   hidden_size
    decoder.layers.N.self_attn.{q,k,v,out}_proj   hidden_size                 hidden_size
    decoder.layers.N.fc1                          ffn_dim                     hidden_size
    decoder.layers.N.fc2                          hidden_size                 ffn_dim
    decoder.final_layer_norm                      hidden_size
    decoder.layers.N.{self_attn,final}_layer_norm hidden_size
""")
_GPT2 = _sides(
    """
    wte                     vocab_size      n_embd
    wpe                     n_positions     n_embd
    h.N.attn.c_attn         n_embd          3*n_embd
    h.N.attn.c_proj         n_embd          n_embd
    h.N.mlp.c_fc            n_embd          n_inner
    h.N.mlp.c_proj          n_inner         n_embd
    {ln_f,h.N.ln_1,h.N.ln_2} n_embd
    """,
    result=1,  # its matrices are transposed
)
_GPTJ = _sides("""
    wte                     vocab_size      n_embd
    h.N.attn.{q,k,v,out}_proj n_embd        n_embd
    h.N.mlp.fc_in           n_inner         n_embd
    h.N.mlp.fc_out          n_embd          n_inner
    {ln_f,h.N.ln_1}         n_embd
""")
_GPT_NEO = _sides("""
    wte                                   vocab_size                hidden_size
    wpe                                   max_position_embeddings   hidden_size
    h.N.attn.attention.{q,k,v,out}_proj   hidden_size               hidden_size
    h.N.mlp.c_fc                          intermediate_size         hidden_size
    h.N.mlp.c_proj                        hidden_size               intermediate_size
    {ln_f,h.N.ln_1,h.N.ln_2}              hidden_size
""")
_GPT_NEOX = _sides("""
    embed_in                              vocab_size                hidden_size
    layers.N.attention.query_key_value    3*hidden_size             hidden_size
    layers.N.attention.dense              hidden_size               hidden_size
    layers.N.mlp.dense_h_to_4h            intermediate_size         hidden_size
    layers.N.mlp.dense_4h_to_h            hidden_size               intermediate_size
    {final_layer_norm,layers.N.input_layernorm,layers.N.post_attention_layernorm} hidden_size
""")
_BLOOM = _sides("""
    word_embeddings                       vocab_size                hidden_size
    h.N.self_attention.query_key_value    3*hidden_size             hidden_size
    h.N.self_attention.dense              hidden_size               hidden_size
    h.N.mlp.dense_h_to_4h                 4*hidden_size             hidden_size
    h.N.mlp.dense_4h_to_h                 hidden_size               4*hidden_size
    {ln_f,word_embeddings_layernorm,h.N.input_layernorm,h.N.post_attention_layernorm} hidden_size
""")
_FALCON = _sides("""
    word_embeddings                       vocab_size                hidden_size
    h.N.self_attention.dense              hidden_size               hidden_size
    h.N.mlp.dense_h_to_4h                 ffn_hidden_size           hidden_size
    h.N.mlp.dense_4h_to_h                 hidden_size               ffn_hidden_size
    {ln_f,h.N.ln_attn,h.N.ln_mlp}         hidden_size
    h.N.{input,post_attention}_layernorm  hidden_size
""")
_MPT = _sides("""
    wte                     vocab_size                d_model
    blocks.N.attn.Wqkv      3*d_model                 d_model
    blocks.N.attn.out_proj  d_model                   d_model
    blocks.N.ffn.up_proj    expansion_ratio*d_model   d_model
    blocks.N.ffn.down_proj  d_model                   expansion_ratio*d_model
    norm_f                  d_model
    blocks.N.norm_{1,2}     d_model
""")
_POSITIONS = "{en,de}coder.embed_positions  max_position_embeddings"


def _of_experts(kind: str) -> Sides:
    """Everything except the experts, which are in `experts.py`."""
    norms = {
        "flex_olmo": _WHOLE_NORMS, "glm4_moe": _HEAD_NORMS, "olmoe": _OLMOE_NORMS, "qwen3_moe": _HEAD_NORMS,
        "gpt_oss": {"layers.N.self_attn.sinks": (Side("num_attention_heads"),)},
    }.get(kind, {})  # fmt: skip
    routing = "layers.N.{block_sparse_moe,mlp}.{gate,router,router.layer}"
    return {**_LLAMA, **norms, **_sides(f"{routing} {OF_EXPERTS[kind]} hidden_size")}


_BY_KIND: Mapping[str, Sides] = {
    **dict.fromkeys(LLAMAS, _LLAMA),
    **{kind: {**_LLAMA, **_HEAD_NORMS} for kind in ("apertus", "exaone4", "gemma3_text", "qwen3")},
    **{kind: {**_LLAMA, **_WHOLE_NORMS} for kind in ("olmo2", "olmo3")},
    **dict.fromkeys(T5S - {"longt5"}, _T5),
    **{kind: _of_experts(kind) for kind in OF_EXPERTS},
    **{kind: {**_BART, **_sides(f"{_POSITIONS} d_model")} for kind in BARTS},
    "bart": {**_BART, **_sides(f"{_POSITIONS}+2 d_model")},
    "bloom": _BLOOM,
    "falcon": _FALCON,
    "gpt2": _GPT2,
    "gpt_neo": _GPT_NEO,
    "gpt_neox": _GPT_NEOX,
    "gptj": _GPTJ,
    "mpt": _MPT,
    "opt": _OPT,
    "phi": {**_LLAMA, **_PHI_NORMS},
    "stablelm": {**_LLAMA, **_STABLELM},
}


def _with_head(sides: Sides) -> Sides:
    """Adds the output head, which has the shape of the embedding table; it is checked on loading even if tied."""
    heads = dict.fromkeys(("lm_head.weight", "embed_out.weight"), next(iter(sides.values())))
    return {**sides, **heads, "lm_head.bias": (Side("vocab_size"),)}


SIDES: Mapping[str, Sides] = {kind: _with_head(sides) for kind, sides in _BY_KIND.items()}
"""By model_type; the embedding table comes first."""

FOUR_TIMES: Mapping[str, tuple[str, str]] = {
    "falcon": ("ffn_hidden_size", "hidden_size"),
    "gpt2": ("n_inner", "n_embd"),
    "gpt_neo": ("intermediate_size", "hidden_size"),
    "gptj": ("n_inner", "n_embd"),
}
"""Model types whose feed-forward layers have four times the model's width if the first field is missing."""
