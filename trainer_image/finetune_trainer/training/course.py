"""What a training goes through: which rows in which order, what is minimised on them, and what happens on the way."""

from dataclasses import dataclass

from finetune_trainer.training.batches import Plan
from finetune_trainer.training.intervals import Intervals
from finetune_trainer.training.objective import LIKELIHOOD, Objective
from finetune_trainer.training.steps import Store


@dataclass(frozen=True)
class Course:
    """The same wherever it is computed; how, is `gradients.ComputeSettings`."""

    train: Store
    validation: Store | None
    plan: Plan
    """The order of the training rows."""
    intervals: Intervals
    objective: Objective = LIKELIHOOD
