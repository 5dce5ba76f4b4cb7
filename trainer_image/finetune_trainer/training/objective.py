"""What a step minimises: likelihood of completions, or preference of one answer over another. Independent of optimizer.

an objective = how rows become forward passes, sums over a pass, and what the mean is taken over
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from finetune_api.preference import Preference
from finetune_trainer.attempt.metrics import CHOSEN_LOSS
from finetune_trainer.training.pair_store import PairStore
from finetune_trainer.training.passes import (
    Cut,
    Pass,
    document_labels,
    document_log_likelihoods,
    groups,
    labelled,
    loss_sum,
    one_pass,
    passes_of,
)

Sums = Callable[[Any, Pass], torch.Tensor]


@dataclass(frozen=True)
class Objective:
    """What is minimised."""

    passes: Callable[[Any, list[int], Cut], list[Pass]]
    """Splits (store, rows, cut) into forward passes."""
    sums: Sums
    """(model, pass) → the loss, then the `measures`, each summed over the pass."""
    weight: Callable[[Pass], int]
    """Weight of a pass: the means are the sums over all passes, divided by the sum of weights."""
    unit: str
    """Name of the weight in the record."""
    measures: tuple[str, ...] = ()
    """Names of the values recorded beside the loss."""
    texts: int = 1
    """Number of texts that the model sees for one row."""


def by_loss(loss: Callable[[Any, Pass], torch.Tensor]) -> Objective:
    """Objective for a loss of (model, pass), summed over the tokens that carry loss."""
    return Objective(passes_of, lambda model, batch: loss(model, batch).reshape(1), labelled, "completionTokens")


LIKELIHOOD = by_loss(loss_sum)


def objective_of(preference: Preference | None) -> Objective:
    """The objective of a job."""
    return LIKELIHOOD if preference is None else by_preference(preference)


def by_preference(preference: Preference) -> Objective:
    """Direct preference optimisation for rows with two answers."""

    def sums(model: Any, batch: Pass) -> torch.Tensor:
        likelihoods = likelihoods_of(model, batch)
        margins = preference.beta * (likelihoods[0] - likelihoods[1] - batch["reference"])
        losses = dpo_losses(margins, preference.label_smoothing)
        chosen = -likelihoods[0] / document_labels(batch, likelihoods.numel())[::2]
        return torch.stack((losses.sum(), *(one.detach().sum() for one in ((margins > 0).float(), margins, chosen))))

    measures = ("rewardAccuracy", "rewardMargin", CHOSEN_LOSS)
    return Objective(pair_passes, sums, lambda batch: len(batch["reference"]), "pairs", measures, texts=2)


def dpo_losses(margins: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Loss of each pair from its reward margin m: -log sigmoid(m), equation 7 of arXiv 2305.18290.

    m is beta times the log-likelihood advantage of chosen over rejected, in nats, minus that of the reference. With
    label smoothing s it is -(1 - s) log sigmoid(m) - s log sigmoid(-m): conservative DPO (E. Mitchell, A note on DPO
    with noisy preferences, 2023).
    """
    return -(1 - label_smoothing) * functional.logsigmoid(margins) - label_smoothing * functional.logsigmoid(-margins)


def margins_of(model: Any, batch: Pass) -> torch.Tensor:
    """Log likelihood of chosen minus rejected in nats, for each pair of a pass: [pairs], float32."""
    chosen, rejected = likelihoods_of(model, batch).unbind()
    return chosen - rejected


def likelihoods_of(model: Any, batch: Pass) -> torch.Tensor:
    """Log likelihoods of chosen and rejected in nats: [2, pairs], float32."""
    return document_log_likelihoods(model, batch, 2 * len(batch["reference"])).view(-1, 2).T


def pair_passes(store: PairStore, rows: list[int], cut: Cut) -> list[Pass]:
    """Rows with two answers as forward passes: both documents of a row are in the same pass, chosen first."""
    return [pair_pass(store, group, cut) for group in pair_groups(store, rows, cut)]


def pair_groups(store: PairStore, rows: list[int], cut: Cut) -> list[list[int]]:
    """Rows with two answers, grouped by forward pass."""
    return groups(rows, cut, store.lengths[rows].tolist(), store.widths[rows].tolist(), texts=2)


def pair_pass(store: PairStore, rows: list[int], cut: Cut) -> Pass:
    """One forward pass of these rows."""
    made = one_pass(store.documents, [2 * row + side for row in rows for side in (0, 1)], cut)
    return made | {"reference": torch.from_numpy(store.reference[rows])}
