"""How a model computes while it is trained: rows kept apart, and its repeated layers perhaps compiled, one for all.

Compiled, norms, rotations and activations become a few kernels. That needs a GPU and a C compiler on the machine, with
which Triton builds its launcher; without one layers run as they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from finetune_trainer.computing import c_compiler
from finetune_trainer.computing.attention import inner, kept_apart


def why_not_compiled() -> str | None:
    """Why layers cannot be compiled on this machine, or None where they can."""
    if not torch.cuda.is_available():
        return "there is no GPU"
    return c_compiler.why_none()


_MOST_WAYS = 64
"""How often a layer may be compiled anew. Torch stops at 8 and computes what comes then layer by layer, as it is. One
pass has rows of many lengths, another of one, a third has one row; some are validated; a model's layers may be of two
kinds; and short passes have kernels of their own."""


@contextmanager
def compiled(model: Any) -> Iterator[None]:
    """Layers are compiled at their first pass, for any number of tokens, until the end of the block.

    An adapter's scale is a part of the code: as an input it would be a number of the CPU, for which torch builds C++.
    """
    from torch._dynamo import config  # not before: torch's compiler is large

    net = inner(model)
    repeated = [module for module in net.modules() if type(module).__name__ in (net._no_split_modules or ())]  # noqa: SLF001 - no public name
    for layer in repeated:
        layer.compile(dynamic=True)
    alike = net.get_input_embeddings().register_forward_hook(_as_if_learnt)
    try:
        with config.patch(recompile_limit=_MOST_WAYS, specialize_float=True):
            yield
    finally:
        alike.remove()
        for layer in repeated:
            layer._compiled_call_impl = None  # noqa: SLF001 - torch has no way back by name


def _as_if_learnt(_module: Any, _given: Any, out: torch.Tensor) -> None:
    """The first layer gets what the others get: else it would be compiled for itself, in half of all the time for it.

    A gradient that nobody wants is computed for its three first products: two thousandths of a pass.
    """
    if torch.is_grad_enabled():
        out.requires_grad_()


@contextmanager
def in_training(
    model: Any, trained: Sequence[torch.nn.Parameter], *, packed: bool, compile_layers: bool
) -> Iterator[None]:
    """The ways of training, until the end of the block; after it the model computes as before.

    Gradients are forgotten without a walk over all modules: there are thousands, and it takes as long as a small pass.
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
