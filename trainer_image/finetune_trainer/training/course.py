"""What a training does: which rows in which order, which loss, and what happens after which step."""

from dataclasses import dataclass

from finetune_trainer.training.batches import Plan
from finetune_trainer.training.intervals import Intervals
from finetune_trainer.training.objective import LIKELIHOOD, Objective
from finetune_trainer.training.steps import Store


@dataclass(frozen=True)
class Course:
    """Independent of the machine; how it is computed is in `gradients.ComputeSettings`."""

    train: Store
    validation: Store | None
    plan: Plan
    """The order of the training rows."""
    intervals: Intervals
    objective: Objective = LIKELIHOOD
