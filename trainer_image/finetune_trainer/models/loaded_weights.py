"""Checks a loaded model's weights: libraries initialize missing weights, drop surplus ones and accept anything.

Weights that are missing or have another shape are initialized at random. Surplus weights mean that the model computes
something else than intended. Non-finite weights may go unnoticed until the first step: attention on a CPU keeps them
out of the loss.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_trainer.models.base_refusals import PUT_THERE_AGAIN, unusable
from finetune_trainer.models.weight_files import file_of, floats_of, promised_in

logger = logging.getLogger(__name__)

_OTHER_CONFIGURATION = (
    "Correct config.json, or have the model put into the cache again (finetune-trainer cache), and try again (in a "
    "cluster by spec.retryNonce)."
)
_SPOILT = (
    "Zeros are what a file system shows where a download or a copy was broken off: have the model put into the cache "
    "again (finetune-trainer cache), and try again (in a cluster by spec.retryNonce)."
)
_TABLE = re.compile(r"(?:.+\.)?(?:embed_tokens|wte|word_embeddings|embed_in|shared|lm_head|embed_out)\.weight")
"""An embedding table or an output head. If it is all zeros, every input gets the same output."""
_NUMBERED = re.compile(r"(?P<list>.+?)\.(?P<number>\d+)\.(?P<rest>.+)")


def require_whole(folder: Path, found: Mapping[str, Any]) -> None:
    """Refuse files that lack some of the model's weights: transformers would initialize them and only log a warning.

    Raises:
        TrainerError: ModelUnusable.
    """
    missing = sorted(found["missing_keys"])
    if missing:
        why = f"its weights are incomplete: {_some(missing)} cannot be found in {promised_in(folder, missing[0])}"
        raise unusable(folder, why, PUT_THERE_AGAIN)
    for name, stored, expected in sorted(found["mismatched_keys"]):
        why = f"{name} in {file_of(folder, name)} is {tuple(stored)}, and by config.json {tuple(expected)}"
        raise unusable(folder, f"its weights are another model's: {why}", PUT_THERE_AGAIN)


def require_no_rest(folder: Path, model: Any, left: Iterable[str]) -> None:
    """Refuse files with surplus weights that would change the output if config.json had a place for them.

    These are whole layers after the last one, and weights within an existing layer, such as query and key norms that
    this model type does not have. Other surplus weights belong to other parts in the same files, such as a vision
    tower; they are logged.

    Raises:
        TrainerError: ModelUnusable.
    """
    rest = sorted(left)
    if not rest:
        return
    modules = dict(model.named_modules())
    if layer := _layer_behind_the_last(modules, rest):
        there = len(modules[layer.rpartition(".")[0]])
        where = file_of(folder, next(name for name in rest if name.startswith(f"{layer}.")))
        why = f"by config.json it has {there} layers, but its files have more: {layer} in {where}"
        raise unusable(folder, why, _OTHER_CONFIGURATION)
    layers = _layers(modules)
    if name := next((one for one in rest if _of_a_layer(modules, one) or _within(layers, one)), None):
        why = f"config.json leaves no room for {name} in {file_of(folder, name)}: the model would compute without it"
        raise unusable(folder, why, _OTHER_CONFIGURATION)
    logger.warning("%s: the model has no place for %d weights of its files: %s", folder, len(rest), _some(rest))


def _layer_behind_the_last(modules: Mapping[str, Any], rest: Iterable[str]) -> str | None:
    """The first surplus layer that has only parts that the others have too; multi-token prediction layers have more."""
    layers: dict[str, set[str]] = {}
    for name in rest:
        found = _NUMBERED.fullmatch(name)
        if found and found["list"] in modules and f"{found['list']}.{found['number']}" not in modules:
            layers.setdefault(f"{found['list']}.{found['number']}", set()).add(found["rest"])
    for layer, parts in layers.items():
        of_list = layer.rpartition(".")[0]
        known = {name for one in modules[of_list].children() for name, _ in one.named_parameters()}
        if parts <= known:
            return layer
    return None


def _of_a_layer(modules: Mapping[str, Any], name: str) -> bool:
    owner, _, kind = name.rpartition(".")
    module = modules.get(owner)
    return kind in ("weight", "bias") and module is not None and any(True for _ in module.parameters(recurse=False))


def _layers(modules: Mapping[str, Any]) -> set[str]:
    from torch.nn import ModuleList

    lists = {name: module for name, module in modules.items() if isinstance(module, ModuleList)}
    return {f"{name}.{number}" for name, module in lists.items() for number in range(len(module))}


def _within(layers: set[str], name: str) -> bool:
    """Whether it is a weight within one of these layers. Other names are buffers of old files, or scales."""
    return name.endswith(".weight") and any(name[: end.start()] in layers for end in re.finditer(r"\.", name))


def require_sound(folder: Path, model: Any, left: Iterable[str], *, quantised: bool) -> None:
    """Refuse a model with non-finite weights, or with zeros in place of weights, before hours of training.

    `left`: surplus weights in its files. Weights that were quantized to 4 bits when loading are checked in the files,
    because quantization turns non-finite numbers into finite ones.

    Raises:
        TrainerError: ModelUnusable.
    """
    zeros = Zeros()
    weights = floats_of(folder, frozenset(left)) if quantised else model.named_parameters()
    if name := first_not_finite(zeros.looked_for(weights)):
        why = f"{name} in {file_of(folder, name)} has numbers that are not finite (NaN or infinite)"
        raise unusable(folder, why, PUT_THERE_AGAIN)
    if name := zeros.spoilt():
        raise unusable(folder, f"{name} in {file_of(folder, name)} has nothing but zeros", _SPOILT)


class Zeros:
    """Finds matrices of nothing but zeros that a trained model would not have.

    Biases, norms, and matrices that add to the residual stream may be zeros: new layers are initialized so. An
    embedding table may not, nor may all matrices of a layer: neither would ever learn anything.
    """

    def __init__(self) -> None:
        self._empty: list[str] = []
        self._filled: set[str | None] = set()
        """Layers with at least one nonzero matrix."""

    def looked_for(self, weights: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Pass the weights through, taking note of zeros."""
        for name, value in weights:
            if value.is_floating_point() and value.dim() > 1 and value.numel():
                if value[0].any() or value.any():  # mostly the first row is enough
                    self._filled.add(_layer_of(name))
                else:
                    self._empty.append(name)
            yield name, value

    def spoilt(self) -> str | None:
        """The first matrix that must not be zeros."""
        return next(filter(self._is_spoilt, self._empty), None)

    def _is_spoilt(self, name: str) -> bool:
        layer = _layer_of(name)
        return bool(_TABLE.fullmatch(name)) or (layer is not None and layer not in self._filled)


def _layer_of(name: str) -> str | None:
    """The layer of a weight."""
    found = _NUMBERED.fullmatch(name)
    return f"{found['list']}.{found['number']}" if found else None


def first_not_finite(weights: Iterable[tuple[str, Any]]) -> str | None:
    """The name of the first floating-point tensor with NaN or infinite numbers; each tensor is read once."""
    import torch

    for name, value in weights:
        # A single such number makes the sum non-finite; the second check is for sums that overflow on their own.
        if value.is_floating_point() and not torch.isfinite(value.detach().sum()) and not torch.isfinite(value).all():
            return name
    return None


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
