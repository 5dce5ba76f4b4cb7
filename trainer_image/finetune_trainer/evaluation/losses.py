"""Negative log likelihood of the test set's completions, weighted by token: unlike batches count as they should."""

from typing import Any

import torch

from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.training.batches import SORTED_TOGETHER
from finetune_trainer.training.passes import Cut, autocast, labelled, loss_sum, on_device, passes_of
from finetune_trainer.training.token_store import TokenStore


def loss_on(
    net: Any, store: TokenStore, *, token_budget: int, compute_dtype: torch.dtype, interruption: Interruption
) -> float | None:
    """Nats per labelled token over the whole store; None where no token has a label.

    The sum over all tokens divided by their number, not a mean of batches' means. Rows are cut as in training.
    """
    net.eval()
    device = next(net.parameters()).device
    total, tokens = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(store), SORTED_TOGETHER):
            rows = list(range(start, min(start + SORTED_TOGETHER, len(store))))
            for batch in passes_of(store, rows, Cut(token_budget)):
                interruption.check()
                with autocast(device, compute_dtype):
                    total += float(loss_sum(net, on_device(batch, device)))
                tokens += labelled(batch)
    return total / tokens if tokens else None
