"""Parses the names of a base model's tensors in its files: list of layers, layer number, and part.

    model.layers.3.self_attn.q_proj.weight  →  part layers.N.self_attn.q_proj.weight, in `layers.`, number 3

Model types mostly have the same parts in all of their layers: `required_tensors.py`. This module also knows which field
of config.json counts the layers of a list, which may differ between encoder and decoder.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from finetune_trainer.models.kinds import BARTS, T5S
from finetune_trainer.models.validation.config_values import Fields, is_whole

LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")

_AROUND = re.compile(r"(?:model|transformer|gpt_neox)\.(?=.)")
"""Prefix of all names in a model that has a head; absent if the file was saved without one."""
_NUMBERED = re.compile(r"(?P<list>(?:.+?\.)?)(?P<number>\d+)\.(?P<rest>.+)")


class Placed(NamedTuple):
    """Position of a tensor in the model."""

    part: str
    """Its name, without the common prefix, and with N for the number of its layer."""
    layers: str = ""
    """The list that contains its layer, with a trailing dot; "" if none."""
    number: int = 0
    """Number of its layer, from 0."""


def prefix_of(name: str) -> str:
    """The common prefix in a tensor's name."""
    found = _AROUND.match(name)
    return found[0] if found else ""


def placed(name: str) -> Placed:
    """The position of the tensor with this name."""
    short = name.removeprefix(prefix_of(name))
    found = _NUMBERED.fullmatch(short)
    if found is None:
        return Placed(short)
    return Placed(f"{found['list']}N.{found['rest']}", found["list"], int(found["number"]))


def parts_by_layer(names: Iterable[str], layers: str) -> dict[int, set[str]]:
    """The parts of each layer in a list."""
    found: dict[int, set[str]] = {}
    for one in map(placed, names):
        if one.layers == layers:
            found.setdefault(one.number, set()).add(one.part)
    return found


def layer_count(fields: Fields, layers: str) -> int | None:
    """The number of layers in a list according to config.json; None if it does not say."""
    name = layer_count_field(fields, layers)
    return None if name is None else fields[name]


def layer_count_field(fields: Fields, layers: str) -> str | None:
    """The field that counts the layers of a list, which is named as in `placed`."""
    kind, side = fields.get("model_type"), layers.partition(".")[0]
    if kind in BARTS:
        named: tuple[str, ...] = (f"{side}_layers",)
    elif kind in T5S:
        named = ("num_decoder_layers", "num_layers") if side == "decoder" else ("num_layers",)
    else:
        named = LAYER_COUNTS
    return next((name for name in named if is_whole(fields.get(name))), None)
