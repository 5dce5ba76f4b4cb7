"""A trial pass: made-up rows go forward and backward through the model, as in training. Leaves no trace."""

from collections.abc import Iterator
from typing import Any

import torch

from finetune_trainer.computing.attention import inner
from finetune_trainer.data import IGNORED
from finetune_trainer.training.passes import autocast, loss_sum, on_device, padded
from finetune_trainer.training.token_store import TokenStore

_LENGTHS, _ASKED = (12, 7), 3
"""Tokens of the rows, and how many of each carry no loss: within the limits of any model."""


def learn(model: Any, compute_dtype: torch.dtype, decoder_start: int | None) -> float:
    """Compute gradients of all trained weights for rows of different lengths, and discard them; returns the loss.

    Raises:
        Exception: whatever the model's own code raises.
    """
    net, training = inner(model), model.training
    rows = TokenStore(_rows(len(net.get_input_embeddings().weight)), decoder_start=decoder_start)
    batch = on_device(padded(rows, list(range(len(rows)))), net.device)
    with torch.random.fork_rng([net.device] if net.device.type == "cuda" else []):
        try:
            model.train()
            with autocast(net.device, compute_dtype):
                loss = loss_sum(model, batch)
            loss.backward()  # type: ignore[no-untyped-call] # not torch.autograd.grad: sharded layers do not support it
            return float(loss.detach())
        finally:
            model.zero_grad(set_to_none=True)
            model.train(training)


def _rows(vocabulary: int) -> Iterator[tuple[list[int], list[int]]]:
    for length in _LENGTHS:
        ids = [place * 7919 % vocabulary for place in range(1, length + 1)]
        yield ids, [IGNORED] * _ASKED + ids[_ASKED:]
