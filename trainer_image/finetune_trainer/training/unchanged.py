"""Whether the model that a user's code wrote equals its base model: a warning of the version, not an error.

    a whole model   each tensor equals one of the base's, under its own name or, as libraries rename them, another
    an adapter      halves that started as zeros still are; the base's own magnitudes (DoRA) and biases

In doubt there is no warning.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from finetune_api.job_status import NOTHING_LEARNT
from finetune_trainer.models.weight_files import FLOATS, UNREADABLE, header, weight_files

_RANDOM, _ZEROS = re.compile(r"\.lora_(A|embedding_B)\b"), re.compile(r"\.lora_(B|embedding_A)\b")
"""Initial values of an adapter's two halves; on an embedding they are swapped."""
_MAGNITUDE, _BIAS = re.compile(r"\.lora_magnitude_vector\b"), re.compile(r"(?<!\.lora_A)(?<!\.lora_B)\.bias$")
_BEFORE_NAMES, _WITHIN_NAMES = "base_model.model.", ".base_layer"
"""What peft inserts into the names of a model's parameters."""

_BLOCKS, _SCALES = "_blocks", "_scales"
"""Suffixes of the two tensors of an MXFP4 weight."""

_NEAR = 1e-5
"""Relative difference of a magnitude due to the order of summation."""

Tensors = Mapping[str, Callable[[], Any]]
"""By name; each is read when called."""


def nothing_learnt(base: Path, folder: Path, model: Any) -> list[str] | None:
    """A warning if the model certainly equals its base; otherwise None."""
    try:
        same = _adds_nothing(base, model) if hasattr(model, "peft_config") else _is_the_base(base, folder)
    except (*UNREADABLE, RuntimeError):  # it was readable before; and a failed check must not cost the model
        return None
    if not same:
        return None
    return [f"{NOTHING_LEARNT}: the code has left every weight as it was. Look at whether it saves what it trains"]


def _is_the_base(base: Path, folder: Path) -> bool:
    with _stored(folder) as now:
        return _are_of(base, now)


def _adds_nothing(base: Path, model: Any) -> bool:
    """Whether everything except the random halves is still in its initial state."""
    from peft import get_peft_model_state_dict

    saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    biases = {name: value for name, value in saved.items() if _BIAS.search(name)}
    halves = {name: value for name, value in saved.items() if _ZEROS.search(name)}
    known = biases.keys() | halves.keys()
    rest = [name for name in saved if name not in known and not _RANDOM.search(name)]
    if any(value.any() for value in halves.values()) or not all(map(_MAGNITUDE.search, rest)):
        return False
    now = {plain_name(name): lambda value=value: value for name, value in biases.items()}
    return _has_its_magnitudes(base, model) and _are_of(base, now)


def plain_name(name: str) -> str:
    """A tensor's name in the base model, from peft's name for it."""
    return name.removeprefix(_BEFORE_NAMES).replace(_WITHIN_NAMES, "")


def _has_its_magnitudes(base: Path, model: Any) -> bool:
    """Whether each magnitude is the norm of the base's weights, the initial value in DoRA.

    Of the weights as loaded here, or as stored: the code may have used either precision.
    """
    layers = {path: one for path, one in model.named_modules() if getattr(one, "lora_magnitude_vector", None)}
    with _stored(base) as was:
        for path, layer in layers.items():
            stored = _under(f"{plain_name(path)}.weight", was)
            weights = [layer.get_base_layer().weight, *([was[stored]()] if stored else [])]
            for added in layer.lora_magnitude_vector.values():
                if not any(_is_length(added, weight.detach().float()) for weight in weights):
                    return False
    return True


def _under(name: str, tensors: Tensors) -> str | None:
    """The tensor's name in the files: some omit the beginning of transformers' names."""
    return next((one for one in tensors if name == one or name.endswith(f".{one}")), None)


def _is_length(added: Any, weight: Any) -> bool:
    import torch

    now = added.weight.detach().float()
    was = added.get_weight_norm(weight, weight.new_zeros(()), 1.0)  # any shape: peft may transpose it first
    return was.shape == now.shape and torch.allclose(now, was, rtol=_rounding_of(now), atol=0.0)


def _rounding_of(values: Any) -> float:
    """Relative rounding error of these numbers, by the narrowest type that holds all of them."""
    import torch

    held = (kind for kind in (torch.bfloat16, torch.float16) if values.to(kind).float().equal(values))
    kind = next(held, None)
    return _NEAR if kind is None else torch.finfo(kind).eps


@contextmanager
def _stored(folder: Path) -> Iterator[Tensors]:
    """The tensors in a folder's files; FP8 and MXFP4 weights are dequantised."""
    from safetensors import safe_open

    with ExitStack() as opened:
        files = [opened.enter_context(safe_open(path, framework="pt")) for path in weight_files(folder)]
        read = {name: partial(file.get_tensor, name) for file in files for name in file.keys()}  # noqa: SIM118 - no dict
        scales = {name: read[f"{name}_scale_inv"] for name in read if f"{name}_scale_inv" in read}
        packed = [name.removesuffix(_BLOCKS) for name in read if name.endswith(_BLOCKS)]
        plain = {name: partial(_unpacked, read[name + _BLOCKS], read[name + _SCALES]) for name in packed}
        yield read | plain | {name: partial(_times, read[name], scale) for name, scale in scales.items()}


def _times(read: Callable[[], Any], scale: Callable[[], Any]) -> Any:
    """A weight times its scales, one per block; a single scale is that of the whole."""
    value, grid = read().float(), scale().float()
    for side in (-2, -1) if grid.dim() > 1 else ():
        grid = grid.repeat_interleave(value.shape[side] // grid.shape[side], side)
    return value * grid


def _unpacked(blocks: Callable[[], Any], scales: Callable[[], Any]) -> Any:
    """Dequantised MXFP4 weights, stored two to a byte."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    return convert_moe_packed_tensors(blocks(), scales())


def _are_of(base: Path, now: Tensors) -> bool:
    """Whether each tensor equals one of the base's, in its saved dtype.

    Compares by name first and stops at the first difference: training moves every tensor.
    """
    with _stored(base) as was:
        if not all(_alike(now[name](), was[name]()) for name in now.keys() & was.keys()):
            return False
        renamed = [now[name] for name in now.keys() - was.keys()]
        return not renamed or _are_among(was, renamed, _shapes(base))


def _alike(now: Any, was: Any) -> bool:
    return bool(was.shape == now.shape and was.to(now.dtype).equal(now))


def _shapes(base: Path) -> Mapping[str, tuple[int, ...]]:
    """Shapes of the base's float tensors."""
    entries = (entry for path in weight_files(base) for entry in header(path).items())
    return {name: tuple(entry["shape"]) for name, entry in entries if entry["dtype"] in FLOATS}


def _are_among(was: Tensors, renamed: list[Callable[[], Any]], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether each of these is in the base under any name, by hashes: only one is in memory at a time."""
    meant: dict[tuple[int, ...], set[Any]] = {}
    for read in renamed:
        value = read()
        meant.setdefault(tuple(value.shape), set()).add(value.dtype)
    known = {_hash(was[name]().to(kind)) for name, shape in shapes.items() for kind in meant.get(shape, ())}
    return all(_hash(read()) in known for read in renamed)


def _hash(value: Any) -> tuple[Any, ...]:
    import torch

    flat = value.contiguous().reshape(-1).view(torch.uint8)
    return tuple(value.shape), value.dtype, hashlib.sha256(flat.numpy()).digest()
