"""A model that is shared out among the ranks, each of which holds a part of every weight: torch's fully_shard (FSDP2).

    an empty model → its layers are shared out → filled from rank 0's → trained → gathered into rank 0's again

A layer is whole for as long as it computes. Of a model that is tuned as a whole, gradients and optimizer are shared out
as its weights are; gradients are summed, not averaged. Adapters are small: each rank holds all of them, as without
sharding. Every rank must make the same forward and backward passes, in number and order. When a model is shared out is
decided in `memory_fit.py`.
"""

from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from finetune_api.reasons import Reason
from finetune_trainer.computing.attention import inner
from finetune_trainer.errors import TrainerError


def is_sharded(model: Any) -> bool:
    """Whether `spread` made it."""
    return isinstance(model, FSDPModule)


def spread(model: Any, whole: Any | None, device: str, compute_dtype: torch.dtype) -> None:
    """Share out an empty model in place, and fill it with `whole`, whose weights are gone afterwards.

    Every rank has to call it, rank 0 alone with `whole`. Weights are gathered as `compute_dtype`: what autocast would
    make of them and keep, layer after layer, until the backward pass.

    Raises:
        TrainerError: InsufficientMemory, the model has no repeated layers that could be shared out one by one.
    """
    everybody: Any = distributed.group.WORLD
    mesh = DeviceMesh.from_group(everybody, device)
    narrow = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    policy = MixedPrecisionPolicy() if compute_dtype == torch.float32 else narrow
    adapted = hasattr(model, "peft_config")
    adapters = {value for value in model.parameters() if value.requires_grad} if adapted else None
    for module in (*_layers(model), model):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=adapters)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    model.register_forward_hook(_share_again)
    model._apply(lambda value: torch.empty_like(value, device=device) if value.is_meta else value.to(device))  # noqa: SLF001 - `to` and `to_empty` know one case each
    _fill(model, whole)


def _share_again(model: Any, _inputs: Any, _output: Any) -> None:
    """Share out again, after a pass without gradients, what stands outside of the layers, as a backward pass does.

    Else the model's parameters are copies, in the precision of products, that no optimizer and no checkpoint may take.
    """
    if not torch.is_grad_enabled():
        model.reshard()


def gather(model: Any, whole: Any | None, compute_dtype: torch.dtype) -> None:
    """Give `whole` the weights of the model: what is shared out as `compute_dtype`, on the CPU.

    Every rank has to call it, rank 0 alone with `whole`.
    """
    places = dict(whole.named_parameters()) if whole is not None else {}
    for name, value in model.named_parameters():
        full = gathered(value, compute_dtype)
        if places:
            places[name].data = full.cpu()


def gathered(value: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A tensor as a whole, in `dtype` where it was shared out; every rank has to call it."""
    if not isinstance(value, DTensor):
        return value.detach()
    parts: Any = value.detach().to(dtype or value.dtype)
    whole: torch.Tensor = parts.full_tensor()
    return whole


def bytes_here(value: torch.Tensor) -> int:
    """What a tensor takes on this rank."""
    return int((value.to_local() if isinstance(value, DTensor) else value).nbytes)


def like(value: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """`whole`, which every rank has, shared out as `value` is."""
    if not isinstance(value, DTensor):
        return whole
    return distribute_tensor(whole, value.device_mesh, value.placements, src_data_rank=None)


@torch.no_grad()
def _fill(model: Any, whole: Any | None) -> None:
    """One tensor at a time: a rank never has more than one that is whole."""
    given = {} if whole is None else dict(whole.named_parameters()) | dict(whole.named_buffers())
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        local = value.to_local() if isinstance(value, DTensor) else value
        full = torch.empty(value.shape, dtype=value.dtype, device=local.device)
        if given:
            full.copy_(given[name])
            if isinstance(given[name], torch.nn.Parameter):
                given[name].data = full.new_empty(0, device="cpu")
        if isinstance(value, DTensor):
            value.copy_(distribute_tensor(full, value.device_mesh, value.placements))
        else:
            distributed.broadcast(full, src=0)
            value.copy_(full)


def _layers(model: Any) -> list[Any]:
    net = inner(model)
    names = net._no_split_modules or ()  # noqa: SLF001 - transformers' name for layers that stay on one device
    found = [module for module in net.modules() if type(module).__name__ in names][::-1]  # inner ones first
    if not found:
        raise TrainerError(
            Reason.INSUFFICIENT_MEMORY,
            "the model does not fit on one GPU, and it has no repeated layers that could be shared out among several",
        )
    return found
