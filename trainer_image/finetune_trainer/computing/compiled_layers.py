"""How a model computes in training: rows kept separate, and optionally its repeated layers compiled.

Compilation fuses norms, rotary embeddings and activations into a few kernels. It needs a GPU and, for Triton's
launcher, a C compiler; without these layers run uncompiled.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from finetune_trainer.computing import c_compiler
from finetune_trainer.computing.attention import inner, kept_apart


def why_not_compiled() -> str | None:
    """Why layers cannot be compiled on this machine, or None if they can."""
    if not torch.cuda.is_available():
        return "there is no GPU"
    return c_compiler.why_none()


_MOST_WAYS = 64
"""Limit of recompilations per layer. After torch's default of 8 the layer runs uncompiled. Passes differ: many
lengths, one length, a single row; training or validation; two kinds of layers in a model; short passes have their own
kernels."""


@contextmanager
def compiled(model: Any) -> Iterator[None]:
    """Compile layers at their first pass, for any number of tokens, until the end of the block.

    An adapter's scale is compiled in as a constant: as an input it would be a CPU scalar, for which torch builds C++.
    """
    from torch._dynamo import config  # a late import: torch's compiler is large

    net = inner(model)
    repeated = [module for module in net.modules() if type(module).__name__ in (net._no_split_modules or ())]  # noqa: SLF001 - no public name
    for layer in repeated:
        layer.compile(dynamic=True)
    alike = net.get_input_embeddings().register_forward_hook(_require_grad)
    try:
        with config.patch(recompile_limit=_MOST_WAYS, specialize_float=True):
            yield
    finally:
        alike.remove()
        for layer in repeated:
            layer._compiled_call_impl = None  # noqa: SLF001 - torch has no public way to undo it


def _require_grad(_module: Any, _given: Any, out: torch.Tensor) -> None:
    """Make the first layer's input require gradients like the others': compiled alone, it takes half of all the time.

    The unused gradient is computed for its first three products: 0.2 % of a pass.
    """
    if torch.is_grad_enabled():
        out.requires_grad_()


@contextmanager
def in_training(
    model: Any, trained: Sequence[torch.nn.Parameter], *, packed: bool, compile_layers: bool
) -> Iterator[None]:
    """Set the model up for training until the end of the block, then restore it.

    zero_grad is replaced by a loop over trained parameters: over all modules, thousands, it takes as long as a small
    pass.
    """

    def forget(set_to_none: bool = True) -> None:  # noqa: ARG001 - torch's signature
        for value in trained:
            value.grad = None

    with ExitStack() as ways:
        if packed:
            ways.enter_context(kept_apart(model))
        if compile_layers:
            ways.enter_context(compiled(model))
        model.zero_grad = forget
        ways.callback(delattr, model, "zero_grad")
        yield
