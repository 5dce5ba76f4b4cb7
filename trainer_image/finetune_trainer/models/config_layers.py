"""How many layers a base model's config.json names, beside those that its files hold: more of them, or fewer."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_trainer.models.config_words import Fields, Wrong, is_whole
from finetune_trainer.models.kind_parts import ALWAYS
from finetune_trainer.models.layer_counts import BARTS, LAYERS, T5S, field_of
from finetune_trainer.models.target_names import NAMED_AS_STORED
from finetune_trainer.models.tensor_names import around_of, parts_by_layer, placed
from finetune_trainer.models.weight_files import file_of


def wrong_count(fields: Fields, shapes: Mapping[str, Any], folder: Path) -> Iterator[Wrong]:
    """A number of layers that the files contradict: by their lists of layers, else by the number of their tensors."""
    kind, lists = fields.get("model_type"), sorted({placed(one).layers for one in shapes} - {""})
    if kind in NAMED_AS_STORED and (len(lists) == 1 or kind in T5S | BARTS):
        for layers in lists:
            yield from _wrong_in(layers, fields, shapes, folder)
        return
    name = next((one for one in LAYERS if is_whole(fields.get(one))), None)
    if name is not None and shapes and fields[name] > len(shapes):
        yield Wrong(name, f"is {fields[name]}, and the files of weights hold {len(shapes)} tensors")


def _wrong_in(layers: str, fields: Fields, shapes: Mapping[str, Any], folder: Path) -> Iterator[Wrong]:
    name = field_of(fields, layers)
    if name is None:
        return
    said, held = fields[name], parts_by_layer(shapes, layers)
    if said > (most := 1 + max(held)):
        yield Wrong(name, f"is {said}, and the files of weights hold {most} layers")
        return
    whole = {part for part in ALWAYS[fields["model_type"]] if part.startswith(f"{layers}N.")}
    before: set[str] = set().union(*(held.get(number, set()) for number in range(said)))
    if said in held and whole <= held[said] <= before:
        # Layers that guess further tokens have parts that no other one has, and are left out by design.
        first = next(one for one in shapes if placed(one)[1:] == (layers, said))
        layer = f"{around_of(first)}{layers}{said} in {file_of(folder, first)}"
        yield Wrong(name, f"is {said}: by config.json it has {said} layers, but its files have more: {layer}")
