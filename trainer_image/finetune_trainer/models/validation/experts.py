"""Checks the experts of a mixture, by the headers of its files: all experts of a layer have the same parts and shapes.

Files have a matrix per expert, or a three-dimensional one for all. Transformers fuses the former when loading, and if
one is missing or has a wrong shape it only says that this failed. Routers and shared experts have varying names, but
within a model all layers with experts have the same ones, and so have all layers without.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from finetune_trainer.models.base_refusals import PUT_THERE_AGAIN, unusable
from finetune_trainer.models.validation.config_values import Fields, Invalid, is_whole
from finetune_trainer.models.validation.required_tensors import BESIDE_EXPERTS
from finetune_trainer.models.validation.tensor_names import layer_count, placed, prefix_of
from finetune_trainer.models.weight_files import file_of, indexed_file

_SINGLE_EXPERT = re.compile(r"(?P<list>.+\.experts)\.(?P<number>\d+)\.(?P<part>.+)")
_FUSED_EXPERTS = re.compile(r".+\.experts\.[a-z_]+")
_ROUTED = re.compile(r"\.(experts|router|input_linear)\.|\.gate\.weight$")
"""Parts that only layers with experts have, in any model type."""
_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""Fields with the number of experts per layer; model types accept each other's names."""

_LAYERS = "layers."
_WEIGHTS = (".weight", "bias", ".sinks", ".gate_up_proj", ".down_proj")

Shapes = Mapping[str, list[int]]
_Expert = dict[str, list[int]]


def wrong_experts(fields: Fields, shapes: Shapes, folder: Path) -> Iterator[Invalid]:
    """The first number of experts that contradicts the files.

    Raises:
        TrainerError: ModelUnusable, an expert lacks a part of the others in its layer, or has it in another shape.
    """
    if fields.get("model_type") not in BESIDE_EXPERTS:
        return
    field = next((name for name in _COUNTS if is_whole(fields.get(name))), None)
    lists: dict[str, dict[int, _Expert]] = {}
    for name, shape in shapes.items():
        if found := _SINGLE_EXPERT.fullmatch(name):
            lists.setdefault(found["list"], {}).setdefault(int(found["number"]), {})[found["part"]] = shape
        elif field and len(shape) == 3 and _FUSED_EXPERTS.fullmatch(name) and shape[0] != fields[field]:
            yield Invalid(field, f"is {fields[field]}, and {name} in {file_of(folder, name)} has {shape[0]} experts")
    _require_same_layers(fields, shapes, folder)
    for place, experts in sorted(lists.items()):
        _require_same_parts(place, experts, folder)
        if field and max(experts) + 1 != fields[field]:
            yield Invalid(field, f"is {fields[field]}, and the files of weights hold {max(experts) + 1} in {place}")


def _require_same_layers(fields: Fields, shapes: Shapes, folder: Path) -> None:
    """Compare layers with experts with each other, and those without; experts are compared within their own list."""
    layers: dict[int, dict[str, str]] = {}
    for name in shapes:
        place = placed(name)
        if (
            place.layers == _LAYERS
            and name.endswith(_WEIGHTS)
            and place.number < (layer_count(fields, _LAYERS) or math.inf)
        ):
            layers.setdefault(place.number, {})[place.part] = name
    routed = {number for number, parts in layers.items() if any(map(_ROUTED.search, parts))}
    for numbers in (sorted(routed), sorted(layers.keys() - routed)):
        having = Counter(part for number in numbers for part in layers[number] if not _SINGLE_EXPERT.fullmatch(part))
        for part in sorted(having):
            lacking = [number for number in numbers if part not in layers[number]]
            if lacking and 2 * having[part] >= len(numbers):
                like = next(layers[number][part] for number in numbers if part in layers[number])
                name = f"{prefix_of(like)}{part.replace('.N.', f'.{lacking[0]}.', 1)}"
                why = f"its weights are incomplete: {name} cannot be found in {indexed_file(folder, name)}"
                raise unusable(folder, why, PUT_THERE_AGAIN)


def _require_same_parts(place: str, experts: Mapping[int, _Expert], folder: Path) -> None:
    having = Counter(part for expert in experts.values() for part in expert)
    for part in sorted(having):
        usual, _ = Counter(tuple(one[part]) for one in experts.values() if part in one).most_common(1)[0]
        for number in range(1 + max(experts)):
            name, shape = f"{place}.{number}.{part}", experts.get(number, {}).get(part)
            if shape is None and 2 * having[part] > len(experts):
                why = f"its weights are incomplete: {name} cannot be found in {indexed_file(folder, name)}"
                raise unusable(folder, why, PUT_THERE_AGAIN)
            if shape is not None and tuple(shape) != usual:
                why = f"its weights are another model's: {name} in {file_of(folder, name)} is {tuple(shape)}, and"
                raise unusable(folder, f"{why} other experts' {usual}", PUT_THERE_AGAIN)
