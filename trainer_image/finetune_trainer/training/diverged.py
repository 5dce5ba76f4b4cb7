"""Whether a training that has come to its end has come to anything: a loss may explode and stay a finite number.

Only what is certain is told. A model that is merely worse than before is found by validation and test sets.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError

_END, _LEAST = 10, 5
"""The last tenth of the steps is the end, and no fewer than these: single steps vary."""

_MARGIN = 1.0
"""Nats: so far a loss must lie above what it is held against."""


def require_sense(lines: Sequence[Mapping[str, Any]], tokens: int) -> None:
    """Refuse a model that answers worse than a guess among all of its `tokens`, and worse than it began.

    A guess has a loss of ln(tokens) nats per token. Losses of pairs are not per token, and are passed over.

    Raises:
        TrainerError: TrainingDiverged.
    """
    losses = [line["loss"] for line in lines if "loss" in line and "pairs" not in line]
    if not losses:
        return
    last = losses[-max(len(losses) // _END, _LEAST) :]
    end, guess = sum(last) / len(last), math.log(tokens)
    if end <= max(guess, losses[0]) + _MARGIN:
        return
    said = f"the training loss rose from {losses[0]:.2f} to {end:.2f}; a guess among {tokens:,} tokens has {guess:.2f}"
    raise TrainerError(Reason.TRAINING_DIVERGED, said)
