"""A model's repeated layers, compiled one for all: norms, rotations and activations become a few kernels.

It needs a GPU and a C compiler on the machine, with which Triton builds its launcher; without one layers run as they are.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from finetune_trainer.attention import inner


def why_not_compiled() -> str | None:
    """Why layers cannot be compiled on this machine, or None where they can."""
    if not torch.cuda.is_available():
        return "there is no GPU"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "the machine has no C compiler"
    return None


@contextmanager
def compiled(model: Any) -> Iterator[None]:
    """Layers are compiled at their first pass, for any number of tokens, until the end of the block."""
    net = inner(model)
    repeated = [module for module in net.modules() if type(module).__name__ in (net._no_split_modules or ())]  # noqa: SLF001
    for layer in repeated:
        layer.compile(dynamic=True)
    try:
        yield
    finally:
        for layer in repeated:
            layer._compiled_call_impl = None  # noqa: SLF001 - torch has no way back by name
