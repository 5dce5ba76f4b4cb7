"""QLoRA's base model: linear layers in 4-bit NormalFloat with double quantisation, by bitsandbytes.

Dettmers et al., QLoRA (2023). Checks where that works and makes the loaded model safe to train; `base_model.py` loads
it. Adapters, checkpoints and artifacts are those of LoRA: no file contains 4-bit weights.
"""

import gc
import importlib
import sys
from pathlib import Path
from typing import Any

from finetune_api.reasons import Reason
from finetune_trainer.computing import heap
from finetune_trainer.errors import TrainerError

BLOCK = 64
"""Weights that share a scale."""

_NEXT_STEP = "Set method: LoRA and apply the job under a new name, or use a connection with GPUs."


def block_import(base: Path) -> None:
    """Keep bitsandbytes from being imported into this process, unless the model in `base` was saved quantised.

    PEFT imports it for all kinds of adapters, and with it torch's compiler: a fifth of a pod's start-up time, and 50
    MB. None in sys.modules is Python's way to block an import; PEFT and transformers check before using it. A module
    that is already imported stays.
    """
    config = base / "config.json"
    if config.is_file() and b'"quantization_config"' not in config.read_bytes():
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]


def settings(compute_dtype: Any) -> Any:
    """Transformers' quantisation settings: NF4, double quantisation; products are computed in `compute_dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def require_kernels(device: str) -> None:
    """Quantise and dequantise a few numbers on `device`.

    Raises:
        TrainerError: SpecInvalid, bitsandbytes is missing or has no kernels for this machine.
    """
    import torch

    try:
        functional = importlib.import_module("bitsandbytes.functional")
        ramp = torch.linspace(-1, 1, BLOCK, device=device)
        packed, state = functional.quantize_4bit(ramp, quant_type="nf4", compress_statistics=True)
        error = float((functional.dequantize_4bit(packed, state) - ramp).abs().max())
    except Exception as found:
        raise _refused(f"bitsandbytes does not work on this machine's {device} ({type(found).__name__})") from found
    if not error < 0.2:  # half of NF4's widest step is 0.15
        raise _refused(f"bitsandbytes gives back wrong numbers on this machine's {device}")


def prepare(model: Any) -> None:
    """Make a model that was just loaded in 4 bits safe for training and evaluation, in place.

    On CPUs bitsandbytes 0.50 mixes up the scales of rows that are not a multiple of a block. And in evaluation mode it
    repacks weights for AVX-512, with coarser scales and without a backward pass: training after a validation would
    continue without gradients. So the former is refused and the latter disabled.

    Raises:
        TrainerError: SpecInvalid, a layer's width is unsupported by the CPU kernels.
    """
    from bitsandbytes.nn.modules import Linear4bit

    layers = {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    if model.device.type != "cpu":
        return
    unfit = next((name for name, layer in layers.items() if layer.in_features % BLOCK), None)
    if unfit is not None:
        raise _refused(f"on a CPU every layer's width must be a multiple of {BLOCK}, {unfit} has another one")
    for layer in layers.values():
        layer.support_avx512bf16_for_cpu = False
    _copy_from_files(model, layers)


def _copy_from_files(model: Any, layers: dict[str, Any]) -> None:
    """Copy weights that are not in 4 bits: as views into the mapped file they would keep all of it in memory.

    Quantising leaves free blocks of four times the model's size, too fragmented for anything else.
    """
    quantised = {id(layer.weight) for layer in layers.values()}
    for value in model.parameters():
        if id(value) not in quantised:
            value.data = value.data.clone()
    gc.collect()
    heap.trim()


def _refused(why: str) -> TrainerError:
    return TrainerError(Reason.SPEC_INVALID, f"spec.method: QLoRA cannot run here: {why}", _NEXT_STEP)
