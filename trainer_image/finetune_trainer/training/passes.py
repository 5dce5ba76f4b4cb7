"""One forward pass: rows of a store as tensors, and the loss on them. Independent of optimizer and step.

    causal, packed     input_ids [1, tokens], rows concatenated; position_ids restart with each; lengths [rows]
    causal, padded     input_ids [rows, longest]
                       targets of both are the labels, shifted left by one within a row
    encoder-decoder    input_ids, attention_mask [rows, longest prompt]; decoder_input_ids is the start token and the
                       completion without its end; targets are the completion

A store holds a row for an encoder-decoder as prompt (without loss) followed by completion (with loss). The output head
runs only on positions with loss. The models' own losses are not used: T5's and BART's are means over one pass, and a
step has many (transformers' Trainer also scales them wrongly).
"""

import contextlib
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from finetune_trainer.computing.attention import inner
from finetune_trainer.data import IGNORED
from finetune_trainer.training.batches import even_rows, forward_passes, packed_rows
from finetune_trainer.training.token_store import TokenStore

Pass = dict[str, torch.Tensor]

_INPUTS = ("input_ids", "attention_mask", "decoder_input_ids", "position_ids")
_READ_BY_THE_HOST = ("tokens", "lengths")


@dataclass(frozen=True)
class Cut:
    """How a step is cut into forward passes: by tokens, or by rows if the job says so; packed or padded."""

    token_budget: int | None
    rows_each: int | None = None
    packed: bool = False
    filled: bool = False
    """Whether to pad packed passes to one of few lengths: a GPU selects its kernels again for each new length."""
    even: bool = False
    """Whether packed passes are of like sizes and even in number, as on a CPU, which computes several at a time."""
    rope_switch: int | None = None
    """Rows longer than this share no pass with shorter ones: see `attention.rope_switch_length`.

    The two answers of a pair share their pass, even if only one of them is longer.
    """


def passes_of(store: TokenStore, rows: list[int], cut: Cut) -> list[Pass]:
    """Split rows into forward passes."""
    lengths = store.lengths[rows].tolist()
    return [one_pass(store, group, cut) for group in groups(rows, cut, lengths, lengths)]


def groups(
    rows: Sequence[int], cut: Cut, lengths: Sequence[int], widths: Sequence[int], *, texts: int = 1
) -> list[list[int]]:
    """Rows of `texts` documents each, grouped by forward pass: packed by `lengths`, or padded by `widths`."""
    switch = math.inf if cut.rope_switch is None else cut.rope_switch * texts
    sides = ([place for place, one in enumerate(widths) if (one > switch) == is_long] for is_long in (True, False))
    return [[rows[side[place]] for place in group] for side in sides for group in _groups(cut, side, lengths, widths)]


def _groups(cut: Cut, side: list[int], lengths: Sequence[int], widths: Sequence[int]) -> list[list[int]]:
    if cut.packed and cut.token_budget is not None:
        rows_into_passes = even_rows if cut.even else packed_rows
        return rows_into_passes([lengths[place] for place in side], cut.token_budget)
    return forward_passes([widths[place] for place in side], token_budget=cut.token_budget, rows_each=cut.rows_each)


def one_pass(store: TokenStore, rows: list[int], cut: Cut) -> Pass:
    """One forward pass of these rows."""
    if not cut.packed:
        return padded(store, rows)
    return packed(store, rows, filler_of(store.lengths[rows].tolist(), cut.token_budget) if cut.filled else 0)


def filler_of(lengths: list[int], token_budget: int | None) -> int:
    """How many filler tokens to add after rows of these lengths: at most 1/32 of theirs, and within the budget.

    So a job's passes have dozens of lengths instead of thousands. Rows of equal length get no filler: their lengths
    recur, and they have a faster attention.
    """
    if len(set(lengths)) == 1:
        return 0
    tokens = sum(lengths)
    step = 1 << max(0, tokens.bit_length() - 6)
    filler = -tokens % step
    return filler if token_budget is None else max(0, min(filler, token_budget - tokens))


def packed(store: TokenStore, rows: list[int], filler: int = 0) -> Pass:
    """One forward pass of these rows, concatenated, for a model within `attention.kept_apart`.

    `filler` tokens are appended as a document without loss, which `tokens` does not count.
    """
    pairs = [store.row(row) for row in rows]
    tokens = sum(len(ids) for ids, _ in pairs)
    if filler:
        pairs.append((np.zeros(filler, dtype=np.int64), np.full(filler, IGNORED)))
    lengths = [len(ids) for ids, _ in pairs]
    row_by_row = {
        "input_ids": [ids for ids, _ in pairs],
        "targets": [_next(labels) for _, labels in pairs],
        "position_ids": [np.arange(length) for length in lengths],
    }
    batch = {name: torch.from_numpy(np.concatenate(parts))[None] for name, parts in row_by_row.items()}
    ends = np.cumsum([0, *lengths], dtype=np.int32)
    return batch | {
        "ends": torch.from_numpy(ends),
        "lengths": torch.tensor(lengths),
        **_labelled_places(batch["targets"]),
        "tokens": torch.tensor(tokens),
    }


def padded(store: TokenStore, rows: list[int]) -> Pass:
    """One padded forward pass of these rows; `tokens` does not count padding."""
    pairs = [store.row(row) for row in rows]
    start = store.decoder_start
    batch = _causal(pairs) if start is None else _encoder_decoder(pairs, start)
    batch |= _labelled_places(batch["targets"])
    batch["tokens"] = torch.tensor(sum(len(ids) for ids, _ in pairs))
    return batch


def _causal(pairs: Sequence[tuple[Any, Any]]) -> Pass:
    """Padding on the right needs no attention mask: a causal model never attends to the right."""
    return {
        "input_ids": _stacked([ids for ids, _ in pairs], 0),
        "targets": _stacked([_next(labels) for _, labels in pairs], IGNORED),
    }


def _next(labels: Any) -> Any:
    """The next token for each token of a row; the last one has none, even if another row follows."""
    return np.append(labels[1:], IGNORED)


def _labelled_places(targets: torch.Tensor) -> Pass:
    """Where loss is: columns in which some row has a target. Computed here, as on a GPU the host would have to wait."""
    return {"places": (targets != IGNORED).any(dim=0).nonzero().squeeze(1)}


def _encoder_decoder(pairs: Sequence[tuple[Any, Any]], start: int) -> Pass:
    """The encoder is bidirectional, so its padding is masked; the decoder's is on the right and needs no mask."""
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


def on_device(batch: Pass, device: Any) -> Pass:
    """The pass on `device`, except for tensors that the host reads: it would wait for the GPU.

    Copies are asynchronous only from pinned memory.
    """
    if torch.device(device).type == "cpu":
        return batch
    return {
        name: value if name in _READ_BY_THE_HOST else value.pin_memory().to(device, non_blocking=True)
        for name, value in batch.items()
    }


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Computes products in `dtype`; float32 needs no autocast."""
    return contextlib.nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype=dtype)


def loss_sum(model: Any, batch: Pass) -> torch.Tensor:
    """Negative log likelihood in nats, summed over the labelled tokens of a pass."""
    logits, targets = labelled_logits(model, batch)
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def document_log_likelihoods(model: Any, batch: Pass, documents: int) -> torch.Tensor:
    """Log likelihood in nats of each document of the pass, summed over its labelled tokens: [documents], float32."""
    logits, targets = labelled_logits(model, batch)
    losses = functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return _by_document(-losses, batch, documents)


def document_labels(batch: Pass, documents: int) -> torch.Tensor:
    """How many tokens with loss each document of the pass has: [documents], float32."""
    there = batch["targets"][:, batch["places"]] != IGNORED
    return _by_document(there.flatten().float(), batch, documents)


def _by_document(values: torch.Tensor, batch: Pass, documents: int) -> torch.Tensor:
    """Sum the values at the labelled places of a pass by document."""
    if "ends" not in batch:  # a document is a row
        return values.view(documents, -1).sum(dim=1)
    document = torch.searchsorted(batch["ends"][1:].to(torch.int64), batch["places"], right=True)
    return torch.zeros(documents, device=values.device).index_add(0, document, values)


def labelled_logits(model: Any, batch: Pass) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets of the positions with a target in some row: [rows, places, words], [rows, places].

    Only these positions go through the output head, if the model supports that.
    """
    targets, places = batch["targets"], batch["places"]
    only = {"logits_to_keep": places} if _takes_positions(model) else {}
    inputs = {name: batch[name] for name in _INPUTS if name in batch}
    logits: torch.Tensor = model(**inputs, **_boundaries(batch), use_cache=False, **only).logits
    if not only:
        logits = logits[:, places]
    return logits, targets[:, places]


def _boundaries(batch: Pass) -> dict[str, Any]:
    """The ends of the rows of a packed pass, under transformers' names."""
    if "ends" not in batch:
        return {}
    longest = int(batch["lengths"].max())
    ends = batch["ends"]
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def _takes_positions(model: Any) -> bool:
    """Whether the model can compute logits at selected positions only; models with their own code may not."""
    return "logits_to_keep" in inspect.signature(inner(model).forward).parameters


def labelled(batch: Pass) -> int:
    """Number of tokens with loss."""
    return int((batch["targets"] != IGNORED).sum())
