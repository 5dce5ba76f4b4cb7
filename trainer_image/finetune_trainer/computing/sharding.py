"""A model that is sharded among the ranks, each of which holds a part of every weight: torch's fully_shard (FSDP2).

    an empty model → its layers are sharded → filled from rank 0's → trained → gathered into rank 0's again

A layer is unsharded while it computes. With full tuning, gradients and optimizer state are sharded like the weights;
gradients are summed, not averaged. Adapters are small: each rank holds all of them, as without sharding. Every rank
must run the same number of forward and backward passes in the same order. `memory_fit.py` decides when to shard.
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
    """Whether `shard` sharded it."""
    return isinstance(model, FSDPModule)


def shard(model: Any, whole: Any | None, device: str, compute_dtype: torch.dtype) -> None:
    """Shard an empty model in place, and fill it with `whole`, whose weights are freed.

    A collective call, with `whole` on rank 0 only. Weights are gathered in `compute_dtype`, to which autocast would
    cast and cache them layer by layer until the backward pass.

    Raises:
        TrainerError: InsufficientMemory, the model has no repeated layers to shard one by one.
    """
    all_ranks: Any = distributed.group.WORLD
    mesh = DeviceMesh.from_group(all_ranks, device)
    narrow = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    policy = MixedPrecisionPolicy() if compute_dtype == torch.float32 else narrow
    adapted = hasattr(model, "peft_config")
    adapters = {value for value in model.parameters() if value.requires_grad} if adapted else None
    for module in (*_layers(model), model):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=adapters)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo supports no other
    model.register_forward_hook(_reshard)
    model._apply(lambda value: torch.empty_like(value, device=device) if value.is_meta else value.to(device))  # noqa: SLF001 - `to` and `to_empty` know one case each
    _fill(model, whole)


def _reshard(model: Any, _inputs: Any, _output: Any) -> None:
    """Reshard parameters outside of the layers after a pass without gradients, as a backward pass does.

    Otherwise the model's parameters are copies in compute precision, unusable for optimizer and checkpoints.
    """
    if not torch.is_grad_enabled():
        model.reshard()


def gather(model: Any, whole: Any | None, compute_dtype: torch.dtype) -> None:
    """Copy the model's weights to `whole` on the CPU; sharded ones in `compute_dtype`.

    A collective call, with `whole` on rank 0 only.
    """
    places = dict(whole.named_parameters()) if whole is not None else {}
    for name, value in model.named_parameters():
        full = gathered(value, compute_dtype)
        if places:
            places[name].data = full.cpu()


def gathered(value: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The unsharded tensor, in `dtype` if it was sharded; a collective call."""
    if not isinstance(value, DTensor):
        return value.detach()
    parts: Any = value.detach().to(dtype or value.dtype)
    whole: torch.Tensor = parts.full_tensor()
    return whole


def bytes_here(value: torch.Tensor) -> int:
    """Bytes of a tensor on this rank."""
    return int((value.to_local() if isinstance(value, DTensor) else value).nbytes)


def like(value: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """`whole`, which every rank has, sharded like `value`."""
    if not isinstance(value, DTensor):
        return whole
    return distribute_tensor(whole, value.device_mesh, value.placements, src_data_rank=None)


@torch.no_grad()
def _fill(model: Any, whole: Any | None) -> None:
    """Fill one tensor at a time: a rank never holds more than one unsharded."""
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
