"""Negative log likelihood of the test set's completions, weighted by token, independent of batching."""

from collections.abc import Sequence
from typing import Any

import torch

from finetune_api.reasons import Reason
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.computing import gpus
from finetune_trainer.computing.attention import rope_switch_length
from finetune_trainer.errors import TrainerError, is_short_of_device_memory
from finetune_trainer.training.batches import SORTED_TOGETHER
from finetune_trainer.training.passes import Cut, Pass, autocast, labelled, loss_sum, on_device, passes_of
from finetune_trainer.training.token_store import TokenStore


def loss_on(
    net: Any, store: TokenStore, *, token_budget: int, compute_dtype: torch.dtype, interruption: Interruption
) -> float | None:
    """Nats per labelled token over the whole store; None if no token has a label.

    The sum over all tokens divided by their number, not a mean of batch means. Rows are cut as in training, and into
    smaller passes once a GPU runs out of memory.

    Raises:
        TrainerError: OutOfMemory, even for a single row.
    """
    net.eval()
    total, tokens, rope_switch = 0.0, 0, rope_switch_length(net)
    for start in range(0, len(store), SORTED_TOGETHER):
        rows = list(range(start, min(start + SORTED_TOGETHER, len(store))))
        passes = passes_of(store, rows, Cut(token_budget, rope_switch=rope_switch))
        while (loss := _sum_of(net, passes, compute_dtype, interruption)) is None:
            gpus.empty_cache()
            if len(passes) == len(rows):
                raise TrainerError(Reason.OUT_OF_MEMORY, "the GPU's memory was not enough for the loss of one row")
            token_budget //= 2
            passes = passes_of(store, rows, Cut(token_budget, rope_switch=rope_switch))
        total, tokens = total + loss, tokens + sum(map(labelled, passes))
    return total / tokens if tokens else None


def _sum_of(net: Any, passes: Sequence[Pass], compute_dtype: torch.dtype, interruption: Interruption) -> float | None:
    """Nats of all passes, or None if out of memory: the failed pass is freed only once the exception is gone."""
    device, total = next(net.parameters()).device, 0.0
    try:
        for batch in passes:
            interruption.check()
            with torch.no_grad(), autocast(device, compute_dtype):
                total += float(loss_sum(net, on_device(batch, device)))
    except RuntimeError as error:
        if not is_short_of_device_memory(error):
            raise
        return None
    return total
