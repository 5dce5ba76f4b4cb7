"""One forward pass: rows of a store as padded tensors, and the loss on them. Knows no optimizer and no step.

    causal model       input_ids [rows, longest]; targets are the labels, one place to the left
    encoder-decoder    input_ids, attention_mask [rows, longest prompt]; decoder_input_ids is the start token and the
                       completion without its end; targets are the completion

A store holds a row for an encoder-decoder as prompt (without loss) and completion (with loss), one after the other.
The output head runs on positions that carry loss. The models' own losses are not used: T5's and BART's are means over
one pass, and a step has many (transformers' Trainer scales them wrongly, too).
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from finetune_trainer.batches import forward_passes
from finetune_trainer.token_store import IGNORED, TokenStore

Pass = dict[str, torch.Tensor]

_INPUTS = ("input_ids", "attention_mask", "decoder_input_ids")


@dataclass(frozen=True)
class Cut:
    """How a step is cut into forward passes: by tokens with padding, or by rows where the job says so."""

    token_budget: int | None
    rows_each: int | None = None


def passes_of(store: TokenStore, rows: list[int], cut: Cut) -> list[Pass]:
    """Rows as padded forward passes."""
    lengths = [int(store.lengths[row]) for row in rows]
    places = forward_passes(lengths, token_budget=cut.token_budget, rows_each=cut.rows_each)
    return [padded(store, [rows[place] for place in group]) for group in places]


def padded(store: TokenStore, rows: list[int]) -> Pass:
    """One forward pass of these rows; `tokens` counts no padding."""
    pairs = [store.row(row) for row in rows]
    start = store.decoder_start
    batch = _causal(pairs) if start is None else _encoder_decoder(pairs, start)
    batch["tokens"] = torch.tensor(sum(len(ids) for ids, _ in pairs))
    return batch


def _causal(pairs: Sequence[tuple[Any, Any]]) -> Pass:
    """Padding on the right needs no attention mask: a causal model never looks to the right."""
    return {
        "input_ids": _stacked([ids for ids, _ in pairs], 0),
        "targets": _stacked([np.append(labels[1:], IGNORED) for _, labels in pairs], IGNORED),
    }


def _encoder_decoder(pairs: Sequence[tuple[Any, Any]], start: int) -> Pass:
    """The encoder looks both ways, so its padding is masked; the decoder's is on the right."""
    prompts = [ids[labels == IGNORED] for ids, labels in pairs]
    answers = [labels[labels != IGNORED] for _, labels in pairs]
    return {
        "input_ids": _stacked(prompts, 0),
        "attention_mask": _stacked([np.ones(len(prompt), dtype=np.int64) for prompt in prompts], 0),
        "decoder_input_ids": _stacked([np.concatenate(([start], answer[:-1])) for answer in answers], 0),
        "targets": _stacked(answers, IGNORED),
    }


def _stacked(rows: Sequence[Any], padding: int) -> torch.Tensor:
    stacked = torch.full((len(rows), max(map(len, rows))), padding)
    for place, row in enumerate(rows):
        stacked[place, : len(row)] = torch.from_numpy(row)
    return stacked


def loss_sum(model: Any, batch: Pass) -> torch.Tensor:
    """Negative log likelihood in nats, summed over the labelled tokens of a pass.

    Only positions at which some row has a target go through the output head, where the model can be told so.
    """
    targets = batch["targets"]
    positions = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)
    only = {"logits_to_keep": positions} if _takes_positions(model) else {}
    inputs = {name: batch[name] for name in _INPUTS if name in batch}
    logits: torch.Tensor = model(**inputs, use_cache=False, **only).logits
    if not only:
        logits = logits[:, positions]
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), targets[:, positions].flatten(), ignore_index=IGNORED, reduction="sum"
    )


def _takes_positions(model: Any) -> bool:
    """Whether the model can be told to compute logits at some positions only; models' own code may not know it."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


def labelled(batch: Pass) -> int:
    """Tokens of a pass that carry loss."""
    return int((batch["targets"] != IGNORED).sum())
