"""Turns a model in memory into QLoRA's base, in place: linear layers in 4 bits, as transformers loads them."""

from importlib import import_module
from typing import Any

import torch
from torch import nn


def quantise(model: Any) -> None:
    """Quantise all linear layers except the head, one after another. Resets the peak of GPU memory afterwards."""
    modules: Any = import_module("bitsandbytes.nn.modules")
    for path, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear) or path == "lm_head":
            continue
        layer = modules.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
            device="meta",
        )
        device, weight = module.weight.device, module.weight.data.cpu()
        layer.weight = modules.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
        layer.bias = module.bias
        parent, _, last = path.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.to(device))
    model.is_loaded_in_4bit = True  # read by peft
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()  # a real base is loaded in 4 bits, layer by layer
