"""Sizes in a base model's config.json that are at odds with the shapes of its weights, by the headers of its files.

Loading tells them too, once there is a pod with a GPU. Only kinds are judged whose matrices have, by these fields, the
shapes that transformers makes of them, and only by fields that the file has: a kind's own defaults are left to it. A
test makes a model of each kind without weights, and compares.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finetune_trainer.models.config_words import Fields, Wrong, is_whole
from finetune_trainer.models.weight_files import file_of

Shapes = Mapping[str, list[int]]
"""Of tensors by name, as the files have them."""

LLAMAS = frozenset({
    "apertus", "arcee", "cohere", "cwm", "exaone4", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "granite", "llama",
    "mistral", "olmo", "olmo2", "olmo3", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "starcoder2",
})  # fmt: skip
"""Kinds with Llama's names of layers and fields, some of whose layers are put together to one."""
T5S = frozenset({"mt5", "t5", "umt5"})

OWN_HEAD_DIM = frozenset({"cwm", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "qwen3", "seed_oss"})
"""Kinds whose heads have a width of their own where the file says none; of the others they part the hidden size."""


class Side(NamedTuple):
    """One side of a matrix: how wide it is, and the fields that say so."""

    width: Callable[[Mapping[str, int]], int]
    fields: tuple[str, ...]

    def by(self, sizes: Mapping[str, int]) -> int | None:
        """Its width by these fields; None where they do not say it."""
        return self.width(sizes) if sizes.keys() >= {*self.fields} else None


_MODEL = Side(lambda of: of["hidden_size"], ("hidden_size",))
_INNER = Side(lambda of: of["intermediate_size"], ("intermediate_size",))
_GATE_AND_UP = Side(lambda of: 2 * of["intermediate_size"], ("intermediate_size",))
_ASKING = Side(lambda of: of["num_attention_heads"] * of["head_dim"], ("num_attention_heads", "head_dim"))
_ASKED = Side(lambda of: of["num_key_value_heads"] * of["head_dim"], ("num_key_value_heads", "head_dim"))
_ALL_OF_THEM = Side(
    lambda of: (of["num_attention_heads"] + 2 * of["num_key_value_heads"]) * of["head_dim"],
    ("num_attention_heads", "head_dim", "num_key_value_heads"),
)
_WORDS = Side(lambda of: of["vocab_size"], ("vocab_size",))
_WIDE = Side(lambda of: of["d_model"], ("d_model",))
_FED = Side(lambda of: of["d_ff"], ("d_ff",))
_ATTENDING = Side(lambda of: of["num_heads"] * of["d_kv"], ("num_heads", "d_kv"))


class Family(NamedTuple):
    """Kinds whose matrices have the same names: of which part one is, and its rows and columns by that part."""

    name: re.Pattern[str]
    parts: Mapping[str, tuple[Side, Side]]


_OF_LLAMA = Family(
    re.compile(
        r"(?:model\.)?(?:layers\.(?P<layer>\d+)\.(?:self_attn|mlp)\.(?P<part>\w+)|(?P<alone>embed_tokens))\.weight"
    ),
    {
        "embed_tokens": (_WORDS, _MODEL),
        "q_proj": (_ASKING, _MODEL),
        "k_proj": (_ASKED, _MODEL),
        "v_proj": (_ASKED, _MODEL),
        "qkv_proj": (_ALL_OF_THEM, _MODEL),
        "o_proj": (_MODEL, _ASKING),
        "gate_proj": (_INNER, _MODEL),
        "up_proj": (_INNER, _MODEL),
        "gate_up_proj": (_GATE_AND_UP, _MODEL),
        "down_proj": (_MODEL, _INNER),
        "fc1": (_INNER, _MODEL),
        "fc2": (_MODEL, _INNER),
        "c_fc": (_INNER, _MODEL),
        "c_proj": (_MODEL, _INNER),
    },
)
_OF_T5 = Family(
    re.compile(r"(?:(?:en|de)coder\.block\.(?P<layer>\d+)\.layer\.\d+\.\w+\.(?P<part>\w+)|(?P<alone>shared))\.weight"),
    {
        "shared": (_WORDS, _WIDE),
        "q": (_ATTENDING, _WIDE),
        "k": (_ATTENDING, _WIDE),
        "v": (_ATTENDING, _WIDE),
        "o": (_WIDE, _ATTENDING),
        "wi": (_FED, _WIDE),
        "wi_0": (_FED, _WIDE),
        "wi_1": (_FED, _WIDE),
        "wo": (_WIDE, _FED),
    },
)
FAMILIES: Mapping[str, Family] = dict.fromkeys(LLAMAS, _OF_LLAMA) | dict.fromkeys(T5S, _OF_T5)
"""By model_type."""

_HEAD = "lm_head.weight"

_WITH_BIASES: Mapping[str, tuple[str, frozenset[str]]] = {
    "attention_bias": (
        "self_attn.q_proj",
        LLAMAS - {"cwm", "exaone4", "mistral", "phi", "phi3", "qwen2", "starcoder2"},
    ),
    "mlp_bias": ("mlp.down_proj", frozenset({"arcee", "cwm", "granite", "llama", "seed_oss", "smollm3"})),
}
"""Fields that give layers biases: one of these layers, and the kinds that heed the field."""


def wrong_shapes(fields: Fields, shapes: Shapes, folder: Path) -> Iterator[Wrong]:
    """The first size that the weights contradict, or a head of its own or biases that they have not.

    Where they contradict one another a file is wrong and no size: that is told by whoever loads it.

    Args:
        fields: Of config.json.
        shapes: Of all tensors, which are floats: quantised matrices are packed, and have other shapes.
        folder: Of the files, for people.
    """
    family = FAMILIES.get(fields.get("model_type", ""))
    if family is None or fields.get("quantization_config") is not None:
        return
    sizes = _sizes(fields)
    right: set[str] = set()
    wrong: list[tuple[str, Side]] = []
    for name, sides in _judged(family, shapes, layers=fields.get("num_hidden_layers", fields.get("num_layers"))):
        for side, there in zip(sides, shapes[name], strict=True):
            if side.by(sizes) == there:
                right.update(side.fields)
            elif side.by(sizes) is not None:
                wrong.append((name, side))
    if wrong:
        name, _ = wrong[0]
        field = _blamed([side for _, side in wrong], right)
        if field is None:
            return
        said = f"is {fields[field]}" if field in fields else "is missing"
        where = f"{name} in {file_of(folder, name)} is {tuple(shapes[name])}"
        yield Wrong(field, f"{said}, and {where}, by config.json {_by_config(family, name, sizes, shapes[name])}")
    elif fields.get("tie_word_embeddings") is False and right and _HEAD not in shapes:
        yield Wrong("tie_word_embeddings", f"is false, and the files of weights have no {_HEAD}")
    else:
        yield from _without_biases(fields, shapes)


def _without_biases(fields: Fields, shapes: Shapes) -> Iterator[Wrong]:
    """Fields that speak of biases, where the files have such layers and none of them has one."""
    for field, (layer, kinds) in _WITH_BIASES.items():
        if fields.get(field) is not True or fields["model_type"] not in kinds:
            continue
        first = next((name for name in shapes if name.endswith(f"{layer}.weight")), None)
        if first is not None and not any(name.endswith(f"{layer}.bias") for name in shapes):
            yield Wrong(field, f"is true, and the files of weights have no {first.removesuffix('weight')}bias")
            return


def _judged(family: Family, shapes: Shapes, *, layers: Any) -> Iterator[tuple[str, tuple[Side, Side]]]:
    """Names of matrices, and their sides, of the layers that the model has: part by part, the earliest layer first."""
    found = {name: match for name in shapes if (match := family.name.fullmatch(name))}
    order = list(family.parts)
    named = [(match["part"] or match["alone"], int(match["layer"] or 0), name) for name, match in found.items()]
    known = [one for one in named if one[0] in family.parts and len(shapes[one[2]]) == 2]
    for part, layer, name in sorted(known, key=lambda one: (order.index(one[0]), one[1], one[2])):
        if not is_whole(layers) or layer < layers:
            yield name, family.parts[part]


def _sizes(fields: Fields) -> Mapping[str, int]:
    """What the file says, and the width of heads where that follows from it."""
    sizes = {name: value for name, value in fields.items() if is_whole(value) and value > 0}
    hidden, heads = sizes.get("hidden_size"), sizes.get("num_attention_heads")
    if hidden and heads and "head_dim" not in fields and fields["model_type"] not in OWN_HEAD_DIM:
        sizes["head_dim"] = hidden // heads
    return sizes


def _by_config(family: Family, name: str, sizes: Mapping[str, int], there: list[int]) -> tuple[int, ...]:
    found = family.name.fullmatch(name)
    assert found is not None  # noqa: S101 - it was judged
    sides = family.parts[found["part"] or found["alone"]]
    return tuple(side.by(sizes) or width for side, width in zip(sides, there, strict=True))


def _blamed(wrong: list[Side], right: set[str]) -> str | None:
    """The field that explains most: of those of the first wrong side, but for what other sides show to be right.

    None where those show all of them to be right.
    """
    suspects = [name for name in reversed(wrong[0].fields) if name not in right]
    return max(suspects, key=lambda name: sum(name in side.fields for side in wrong), default=None)
