"""Sizes and numbers of layers in a base model's config.json that contradict its weights, by their headers.

Loading would report them too, but only in a pod with a GPU. Limited to model types whose matrices have, by these
fields, the shapes that transformers creates, and to fields present in the file: a type's own defaults are not judged.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finetune_trainer.models.base_refusals import PUT_THERE_AGAIN, unusable
from finetune_trainer.models.kinds import BARTS, KNOWN, LLAMAS, T5S
from finetune_trainer.models.validation.config_values import Fields, Invalid, is_whole, shown
from finetune_trainer.models.validation.optional_tensors import missing_tensors
from finetune_trainer.models.validation.required_tensors import ALWAYS
from finetune_trainer.models.validation.tensor_names import (
    LAYER_COUNTS,
    layer_count,
    layer_count_field,
    parts_by_layer,
    placed,
    prefix_of,
)
from finetune_trainer.models.validation.tensor_shapes import FOUR_TIMES, OF_EXPERTS, OWN_HEAD_DIM, SIDES, Side, Sides
from finetune_trainer.models.weight_files import file_of, indexed_file

Shapes = Mapping[str, list[int]]
"""Shapes of tensors by name, as in the files."""

_HEAD = "lm_head.weight"
_OLD_HEAD = "embed_out.weight"
_HEADED = LLAMAS | OF_EXPERTS.keys() | T5S | {"gpt_neox", "gptj", "stablelm"}
"""Model types whose output head has one of these names, in files of any age."""
_TIED = {"cohere", "cohere2", "ernie4_5_moe", "gemma", "gemma2", "gemma3_text", "smollm3", "starcoder2"}
UNTIED = (LLAMAS | OF_EXPERTS.keys()) - _TIED | {"gpt_neox", "gptj", "stablelm"}
"""Model types whose output head is not tied by default."""
_TABLES = frozenset({"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"})
"""Names that the single embedding table of such model types may have in its files."""


class Mismatch(NamedTuple):
    """A tensor with a side that differs from the size in the fields."""

    tensor: str
    side: Side


def wrong_count(fields: Fields, shapes: Mapping[str, Any], folder: Path) -> Iterator[Invalid]:
    """A number of layers that contradicts the files: their lists of layers, or else the number of their tensors."""
    kind, lists = fields.get("model_type"), sorted({placed(one).layers for one in shapes} - {""})
    if kind in KNOWN and (len(lists) == 1 or kind in T5S | BARTS):
        for layers in lists:
            yield from _wrong_layer_count(layers, fields, shapes, folder)
        return
    name = next((one for one in LAYER_COUNTS if is_whole(fields.get(one))), None)
    if name is not None and shapes and fields[name] > len(shapes):
        yield Invalid(name, f"is {fields[name]}, and the files of weights hold {len(shapes)} tensors")


def _wrong_layer_count(layers: str, fields: Fields, shapes: Mapping[str, Any], folder: Path) -> Iterator[Invalid]:
    name = layer_count_field(fields, layers)
    if name is None:
        return
    count, held = fields[name], parts_by_layer(shapes, layers)
    if count > (most := 1 + max(held)):
        yield Invalid(name, f"is {count}, and the files of weights hold {most} layers")
        return
    whole = {part for part in ALWAYS[fields["model_type"]] if part.startswith(f"{layers}N.")}
    before: set[str] = set().union(*(held.get(number, set()) for number in range(count)))
    if count in held and whole <= held[count] <= before:
        # Layers for multi-token prediction have additional parts, and are ignored by design.
        first = next(one for one in shapes if placed(one)[1:] == (layers, count))
        layer = f"{prefix_of(first)}{layers}{count} in {file_of(folder, first)}"
        yield Invalid(name, f"is {count}: by config.json it has {count} layers, but its files have more: {layer}")


def wrong_shapes(fields: Fields, shapes: Shapes, folder: Path) -> Iterator[Invalid]:
    """The first size that contradicts the weights, or a separate head or biases that the files lack.

    All tensors must be floats: quantized matrices are packed and have other shapes.

    Raises:
        TrainerError: ModelUnusable, the weights contradict each other: then a file is wrong, not a size.
    """
    sides = SIDES.get(fields.get("model_type", ""))
    if sides is None or fields.get("quantization_config") is not None:
        return
    sizes = _sizes(fields)
    confirmed: set[str] = set()
    mismatches: list[Mismatch] = []
    for name, both in _checked_tensors(sides, shapes, fields):
        for side, there in zip(both, shapes[name], strict=True):
            if side.by(sizes) == there:
                confirmed.update(side.fields)
            elif side.by(sizes) is not None:
                mismatches.append(Mismatch(name, side))
    if mismatches:
        field = _most_likely_field([one.side for one in mismatches], confirmed)
        name = mismatches[0].tensor if field else min(one.tensor for one in mismatches)
        by_config = tuple(
            side.by(sizes) or width for side, width in zip(sides[placed(name).part], shapes[name], strict=True)
        )
        where = f"{name} in {file_of(folder, name)} is {tuple(shapes[name])}"
        if field is None:
            why = f"its weights are another model's: {where}, and by config.json {by_config}"
            raise unusable(folder, why, PUT_THERE_AGAIN)
        value = f"is {shown(fields[field])}" if field in fields else "is missing"
        yield Invalid(field, f"{value}, and {where}, by config.json {by_config}")
    elif confirmed and (no_head := _no_head(fields, shapes, folder)):
        yield no_head
    else:
        yield from missing_tensors(fields, shapes)


def _no_head(fields: Fields, shapes: Shapes, folder: Path) -> Invalid | None:
    """The problem if the output head is not tied and the files have none.

    Raises:
        TrainerError: ModelUnusable, they have no embedding table, and no head that it could be tied to.
    """
    kind = fields["model_type"]
    there = {placed(name).part: name for name in shapes}
    is_tied = fields.get("tie_word_embeddings", kind not in UNTIED) is not False
    table = next(iter(SIDES[kind]))
    names = _TABLES if table in _TABLES else {table}
    if not names & there.keys() and not (is_tied and _HEAD in there):
        name = max(map(prefix_of, shapes), key=len) + table
        why = f"its weights are incomplete: {name} cannot be found in {indexed_file(folder, name)}"
        raise unusable(folder, why, PUT_THERE_AGAIN)
    if is_tied or {_HEAD, _OLD_HEAD} & there.keys() or kind not in _HEADED:
        return None
    value = "is false" if "tie_word_embeddings" in fields else f"is missing, which is false for a {kind}"
    return Invalid("tie_word_embeddings", f"{value}, and the files of weights have no {_HEAD}")


def _checked_tensors(sides: Sides, shapes: Shapes, fields: Fields) -> Iterator[tuple[str, tuple[Side, ...]]]:
    """Tensors of the model's layers, and their expected sides: part by part, the first layer first."""
    order = {part: place for place, part in enumerate(sides)}
    found = [(placed(name), name) for name in shapes]
    known = [
        (place, name) for place, name in found if place.part in order and len(sides[place.part]) == len(shapes[name])
    ]
    for place, name in sorted(known, key=lambda one: (order[one[0].part], one[0].number, one[1])):
        layers = layer_count(fields, place.layers)
        if layers is None or place.number < layers:
            yield name, sides[place.part]


def _sizes(fields: Fields) -> Mapping[str, int]:
    """The sizes in the file, and those derived from them: head dimension, and width of feed-forward layers."""
    sizes = {name: value for name, value in fields.items() if is_whole(value) and value > 0}
    hidden, heads, kind = sizes.get("hidden_size"), sizes.get("num_attention_heads"), fields["model_type"]
    if hidden and heads and "head_dim" not in fields and kind not in OWN_HEAD_DIM:
        sizes["head_dim"] = hidden // heads
    inner, width = FOUR_TIMES.get(kind, ("", ""))
    if width in sizes and fields.get(inner) is None:
        sizes[inner] = 4 * sizes[width]
    return sizes


def _most_likely_field(wrong: list[Side], confirmed: set[str]) -> str | None:
    """The field that explains most mismatches: one of the first wrong side's, unless other sides confirm it.

    None if all of its fields are confirmed.
    """
    suspects = [name for name in reversed(wrong[0].fields) if name not in confirmed]
    return max(suspects, key=lambda name: sum(name in side.fields for side in wrong), default=None)
