"""Names of a base model's tensors, as its files have them, taken apart: which layer of which list, and what of it.

    model.layers.3.self_attn.q_proj.weight  →  part layers.N.self_attn.q_proj.weight, in `layers.`, number 3

Kinds of models have the same parts in all of their layers, mostly. Which kind has which: `kind_parts.py`.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

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
