"""Names of a base model's tensors, as its files have them, taken apart: which layer of which list, and what of it.

    model.layers.3.self_attn.q_proj.weight  →  part layers.N.self_attn.q_proj.weight, in `layers.`, number 3

Kinds of models have the same parts in all of their layers, mostly: `required_tensors.py`. Which field of config.json
counts the layers of a list is told here, too: an encoder's are none of a decoder's.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from finetune_trainer.models.kinds import BARTS, T5S
from finetune_trainer.models.validation.config_values import Fields, is_whole

LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")

_AROUND = re.compile(r"(?:model|transformer|gpt_neox)\.(?=.)")
"""What libraries put before all names of a model that has a head, and leave out where the file has none."""
_NUMBERED = re.compile(r"(?P<list>(?:.+?\.)?)(?P<number>\d+)\.(?P<rest>.+)")


class Placed(NamedTuple):
    """Where a tensor stands."""

    part: str
    """Its name, without what is around all of them, and with N for the number of its layer."""
    layers: str = ""
    """The list that its layer is in, with a point behind; "" where it is in none."""
    number: int = 0
    """Of its layer, from 0 on."""


def around_of(name: str) -> str:
    """What is before the tensor's name for all of them."""
    found = _AROUND.match(name)
    return found[0] if found else ""


def placed(name: str) -> Placed:
    """Where the tensor of this name stands."""
    short = name.removeprefix(around_of(name))
    found = _NUMBERED.fullmatch(short)
    if found is None:
        return Placed(short)
    return Placed(f"{found['list']}N.{found['rest']}", found["list"], int(found["number"]))


def parts_by_layer(names: Iterable[str], layers: str) -> dict[int, set[str]]:
    """The parts of each layer that a list has."""
    found: dict[int, set[str]] = {}
    for one in map(placed, names):
        if one.layers == layers:
            found.setdefault(one.number, set()).add(one.part)
    return found


def count_of(fields: Fields, layers: str) -> int | None:
    """How many layers config.json says that a list of them has; None where it does not say it."""
    name = field_of(fields, layers)
    return None if name is None else fields[name]


def field_of(fields: Fields, layers: str) -> str | None:
    """The field that counts the layers of a list, as `placed` names it."""
    kind, side = fields.get("model_type"), layers.partition(".")[0]
    if kind in BARTS:
        named: tuple[str, ...] = (f"{side}_layers",)
    elif kind in T5S:
        named = ("num_decoder_layers", "num_layers") if side == "decoder" else ("num_layers",)
    else:
        named = LAYER_COUNTS
    return next((name for name in named if is_whole(fields.get(name))), None)
