"""A few values of a base model's weights, to detect that another model has its name.

Someone may put a newer revision, or another model, into the cache under the same name. If its shapes are the same it
loads, and an adapter on it produces nonsense. Resharding and another precision of the stored weights are tolerated.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from finetune_trainer.models.weight_files import FLOATS

Probe = dict[str, list[float]]

BASE_PROBE = "baseProbe"
"""Field of an artifact's manifest."""

_TENSORS, _VALUES = 16, 8

_ROUNDING = 2**-7
"""Relative tolerance for a number and its 16-bit version: bfloat16 has 8 significant bits."""


def probe(folder: Path, names: Iterable[str] | None = None) -> Probe:
    """The first values of the middle rows of some matrices, by name; of those in `names`, if given.

    Empty if there are no floating-point matrices or files are damaged: loading them will report it.
    """
    from safetensors import SafetensorError

    try:
        return _probe(folder, names)
    except (OSError, SafetensorError):
        return {}


def _probe(folder: Path, names: Iterable[str] | None) -> Probe:
    from safetensors import safe_open

    files = {name: path for path in sorted(folder.glob("*.safetensors")) for name in _matrices(path)}
    chosen = sorted(files.keys() & set(names)) if names is not None else _spread(sorted(files))
    found: Probe = {}
    for name in chosen:
        with safe_open(files[name], framework="pt") as file:
            part = file.get_slice(name)
            middle = part.get_shape()[0] // 2
            values: Any = part[middle : middle + 1, :_VALUES]
            found[name] = [float(f"{value:.6g}") for value in values.float().flatten().tolist()]
    return found


def differs(known: Mapping[str, list[float]], present: Mapping[str, list[float]]) -> str | None:
    """The first common matrix with different values; None if there is none."""
    return next(
        (name for name in sorted(known.keys() & present.keys()) if not _is_close(known[name], present[name])), None
    )


def _is_close(one: list[float], other: list[float]) -> bool:
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(math.isclose(a, b, rel_tol=_ROUNDING, abs_tol=1e-6) for a, b in pairs)


def _spread(names: list[str]) -> list[str]:
    return names[:: max(len(names) // _TENSORS, 1)][:_TENSORS]


def _matrices(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is not a dict
        return [name for name, part in slices.items() if len(part.get_shape()) == 2 and part.get_dtype() in FLOATS]
