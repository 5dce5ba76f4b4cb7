"""A frozen linear layer and its low-rank adapter as one autograd function: y = xWᵀ + (xAᵀ)(s·B)ᵀ.

peft's own layer casts x to the adapter's float32 and back for each of the seven layers of a block, keeps all of that
for the backward pass, and adds the two products in separate passes over memory. Here x is saved once, as it is.

peft also rounds xWᵀ to 16 bits before adding the adapter's part, which at first is smaller than the last bit there: a
third of it and more is lost. Here the sum is rounded once. Dropout saves one byte per number of x, a mask, instead of
another x.

Weights of a base in 4 bits are dequantised to 16 bits for each product, forward and backward, and then freed.
"""

from functools import cache
from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear
from torch.nn import functional


class AdaptedLinear(torch.nn.Module):
    """Mixed in before a class of peft's layers: replaces its forward pass in training; everything else is peft's."""

    disable_adapters: Any
    merged: Any
    active_adapters: Any
    base_layer: Any
    lora_A: Any  # noqa: N815 - peft's name
    lora_B: Any  # noqa: N815 - peft's name
    lora_dropout: Any
    scaling: Any

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """[..., in] → [..., out]."""
        if args or kwargs or self.disable_adapters or self.merged or self.active_adapters != [_NAME]:
            return super().forward(x, *args, **kwargs)
        base = self.base_layer
        state = getattr(base.weight, "quant_state", None)
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        first, second = _weight(self.lora_A), _weight(self.lora_B)
        if first.dtype != dtype and not torch.is_autocast_enabled(kind):
            return super().forward(x)
        flat = x.to(dtype).reshape(-1, x.shape[-1])
        stay = 1 - getattr(self.lora_dropout[_NAME], "p", 0.0) if self.training else 1.0
        kept = torch.empty_like(flat, dtype=torch.bool).bernoulli_(stay) if stay < 1 else None
        scale = self.scaling[_NAME] / stay
        weight = base.weight.to(dtype) if state is None else base.weight
        out: Any = _Adapted.apply(flat, weight, state, base.bias, first, second, scale, kept)
        return out.view(*x.shape[:-1], out.shape[-1])  # a view made here, since models may write into it


_NAME = "default"


def _weight(layers: Any) -> torch.Tensor:
    return cast("torch.Tensor", layers[_NAME].weight)


def _plain(weight: torch.Tensor, state: Any, dtype: torch.dtype) -> torch.Tensor:
    """A weight, dequantised if it is in 4 bits."""
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight, state).to(dtype)


def _sum(flat: torch.Tensor, weight: torch.Tensor, bias: Any, narrow: torch.Tensor, second: torch.Tensor) -> Any:
    """flat·weightᵀ + bias + narrow·secondᵀ, rounded once: [tokens, out].

    cuBLAS rounds a product to 16 bits before adding it to an accumulator. So on a GPU the operands are concatenated
    for a single product, padded to widths that its kernels are fast for; copying them takes as long as the addition
    did.
    """
    if not flat.is_cuda or flat.dtype is torch.float32:
        out = (narrow @ second.T).addmm_(flat, weight.T)
        return out if bias is None else out.add_(bias.to(out.dtype))
    filler = (0, -narrow.shape[-1] % 8)
    rows, columns = (
        torch.cat((wide, functional.pad(one, filler)), dim=1) for wide, one in ((flat, narrow), (weight, second))
    )
    return functional.linear(rows, columns, None if bias is None else bias.to(flat.dtype))


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes what `apply` got, by place
        ctx: Any, flat: torch.Tensor, weight: torch.Tensor, state: Any, bias: Any,
        first: Any, second: Any, scale: float, kept: Any,
    ) -> Any:  # fmt: skip
        ctx.adapter_dtype = first.dtype
        first, second = first.to(flat.dtype), (second * scale).to(flat.dtype)  # scaled in 32 bits, so rounded only once
        narrow = _only(kept, flat) @ first.T
        out = _sum(flat, _plain(weight, state, flat.dtype), bias, narrow, second)
        ctx.save_for_backward(flat, weight, first, second, narrow, kept)
        ctx.scale, ctx.state = scale, state
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        flat, weight, first, second, narrow, kept = ctx.saved_tensors
        down = grad @ second
        to_first = (down.T @ _only(kept, flat)).to(ctx.adapter_dtype)
        to_second = (grad.T @ narrow).to(ctx.adapter_dtype).mul_(ctx.scale)
        to_flat = None
        if ctx.needs_input_grad[0]:
            to_flat = _only(kept, down @ first).addmm_(grad, _plain(weight, ctx.state, grad.dtype))
        return to_flat, None, None, None, to_first, to_second, None, None


def _only(kept: Any, values: torch.Tensor) -> torch.Tensor:
    """Apply the dropout mask to the values; `scale` already includes the compensation."""
    return values if kept is None else values * kept


def fuse(model: Any) -> int:
    """Replace the forward pass of every suitable layer; returns how many.

    Layers with DoRA or several adapters keep peft's.
    """
    fitting = [module for module in model.modules() if _fits(module)]
    for module in fitting:
        kind: Any = type(module)
        module.__class__ = _adapted(kind)
    return len(fitting)


@cache
def _adapted(kind: Any) -> Any:
    """One class for all layers of a kind: compiled layers have guards on it."""
    return type(AdaptedLinear.__name__, (AdaptedLinear, kind), {})


def _fits(module: Any) -> bool:
    return (
        _is_linear(module)
        and list(module.lora_A) == [_NAME]
        and not module.lora_variant
        and not module.fan_in_fan_out
        and not module.lora_bias[_NAME]
        and not module.base_layer.weight.requires_grad
    )


def _is_linear(module: Any) -> bool:
    """Whether it is peft's linear layer, plain or in 4 bits (bitsandbytes' classes are matched by name)."""
    base = type(getattr(module, "base_layer", None))
    plain = type(module) is Linear and base is torch.nn.Linear
    return plain or type(module).__name__ == base.__name__ == "Linear4bit"
