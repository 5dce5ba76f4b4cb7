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
from finetune_trainer.models.weight_files import file_of, floats_of, indexed_file

logger = logging.getLogger(__name__)

_CONFIG_STEP = (
    "Correct config.json, or have the model put into the cache again (finetune-trainer cache), and try again (in a "
    "cluster by spec.retryNonce)."
)
_ZEROS_STEP = (
    "Zeros are what a file system shows where a download or a copy was broken off: have the model put into the cache "
    "again (finetune-trainer cache), and try again (in a cluster by spec.retryNonce)."
)
_EMBEDDING = re.compile(r"(?:.+\.)?(?:embed_tokens|wte|word_embeddings|embed_in|shared|lm_head|embed_out)\.weight")
"""An embedding table or an output head. If it is all zeros, every input gets the same output."""
_NUMBERED = re.compile(r"(?P<list>.+?)\.(?P<number>\d+)\.(?P<rest>.+)")


def require_whole(folder: Path, found: Mapping[str, Any]) -> None:
    """Refuse files that lack some of the model's weights: transformers would initialize them and only log a warning.

    Raises:
        TrainerError: ModelUnusable.
    """
    missing = sorted(found["missing_keys"])
    if missing:
        why = f"its weights are incomplete: {_some(missing)} cannot be found in {indexed_file(folder, missing[0])}"
        raise unusable(folder, why, PUT_THERE_AGAIN)
    for name, stored, expected in sorted(found["mismatched_keys"]):
        why = f"{name} in {file_of(folder, name)} is {tuple(stored)}, and by config.json {tuple(expected)}"
        raise unusable(folder, f"its weights are another model's: {why}", PUT_THERE_AGAIN)


def require_no_rest(folder: Path, model: Any, surplus: Iterable[str]) -> None:
    """Refuse files with surplus weights that would change the output if config.json had a place for them.

    These are whole layers after the last one, and weights within an existing layer, such as query and key norms that
    this model type does not have. Other surplus weights belong to other parts in the same files, such as a vision
    tower; they are logged.

    Raises:
        TrainerError: ModelUnusable.
    """
    surplus_names = sorted(surplus)
    if not surplus_names:
        return
    modules = dict(model.named_modules())
    if layer := _surplus_layer(modules, surplus_names):
        there = len(modules[layer.rpartition(".")[0]])
        where = file_of(folder, next(name for name in surplus_names if name.startswith(f"{layer}.")))
        why = f"by config.json it has {there} layers, but its files have more: {layer} in {where}"
        raise unusable(folder, why, _CONFIG_STEP)
    layers = _layers(modules)
    if name := next(
        (one for one in surplus_names if _is_layer_weight(modules, one) or _is_in_layer(layers, one)), None
    ):
        why = f"config.json leaves no room for {name} in {file_of(folder, name)}: the model would compute without it"
        raise unusable(folder, why, _CONFIG_STEP)
    logger.warning(
        "%s: the model has no place for %d weights of its files: %s", folder, len(surplus_names), _some(surplus_names)
    )


def _surplus_layer(modules: Mapping[str, Any], surplus_names: Iterable[str]) -> str | None:
    """The first surplus layer that has only parts that the others have too; multi-token prediction layers have more."""
    layers: dict[str, set[str]] = {}
    for name in surplus_names:
        found = _NUMBERED.fullmatch(name)
        if found and found["list"] in modules and f"{found['list']}.{found['number']}" not in modules:
            layers.setdefault(f"{found['list']}.{found['number']}", set()).add(found["rest"])
    for layer, parts in layers.items():
        parent = layer.rpartition(".")[0]
        known = {name for one in modules[parent].children() for name, _ in one.named_parameters()}
        if parts <= known:
            return layer
    return None


def _is_layer_weight(modules: Mapping[str, Any], name: str) -> bool:
    owner, _, kind = name.rpartition(".")
    module = modules.get(owner)
    return kind in ("weight", "bias") and module is not None and any(True for _ in module.parameters(recurse=False))


def _layers(modules: Mapping[str, Any]) -> set[str]:
    from torch.nn import ModuleList

    lists = {name: module for name, module in modules.items() if isinstance(module, ModuleList)}
    return {f"{name}.{number}" for name, module in lists.items() for number in range(len(module))}


def _is_in_layer(layers: set[str], name: str) -> bool:
    """Whether it is a weight within one of these layers. Other names are buffers of old files, or scales."""
    return name.endswith(".weight") and any(name[: end.start()] in layers for end in re.finditer(r"\.", name))


def require_sound(folder: Path, model: Any, surplus: Iterable[str], *, quantised: bool) -> None:
    """Refuse a model with non-finite weights, or with zeros in place of weights, before hours of training.

    `surplus`: weights in its files that the model does not have. Weights quantized to 4 bits are checked in the files,
    because quantization turns non-finite numbers into finite ones.

    Raises:
        TrainerError: ModelUnusable.
    """
    zeros = ZeroMatrices()
    weights = floats_of(folder, frozenset(surplus)) if quantised else model.named_parameters()
    if name := first_not_finite(zeros.watched(weights)):
        why = f"{name} in {file_of(folder, name)} has numbers that are not finite (NaN or infinite)"
        raise unusable(folder, why, PUT_THERE_AGAIN)
    if name := zeros.first_suspicious():
        raise unusable(folder, f"{name} in {file_of(folder, name)} has nothing but zeros", _ZEROS_STEP)


class ZeroMatrices:
    """Finds matrices of nothing but zeros that a trained model would not have.

    Biases, norms, and matrices that add to the residual stream may be zeros: new layers are initialized so. An
    embedding table may not, nor may all matrices of a layer: neither would ever learn anything.
    """

    def __init__(self) -> None:
        self._zeros: list[str] = []
        self._nonzero_layers: set[str | None] = set()
        """Layers with at least one nonzero matrix."""

    def watched(self, weights: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Pass the weights through, taking note of zeros."""
        for name, value in weights:
            if value.is_floating_point() and value.dim() > 1 and value.numel():
                if value[0].any() or value.any():  # mostly the first row is enough
                    self._nonzero_layers.add(_layer_of(name))
                else:
                    self._zeros.append(name)
            yield name, value

    def first_suspicious(self) -> str | None:
        """The first matrix that must not be zeros."""
        return next(filter(self._is_suspicious, self._zeros), None)

    def _is_suspicious(self, name: str) -> bool:
        layer = _layer_of(name)
        return bool(_EMBEDDING.fullmatch(name)) or (layer is not None and layer not in self._nonzero_layers)


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
