"""After which optimizer steps a validation or a checkpoint follows."""

import math
from dataclasses import dataclass

from finetune_trainer.training.batches import Plan


@dataclass(frozen=True)
class Intervals:
    """After which steps a validation or a checkpoint follows."""

    total_steps: int
    checkpoint_steps: int
    validation_steps: int

    def saves(self, step: int) -> bool:
        """Whether to save a checkpoint: every `checkpoint_steps`, and at the end, so that evaluation can resume."""
        return step % self.checkpoint_steps == 0 or step == self.total_steps

    def validates(self, step: int) -> bool:
        """Whether to measure the validation loss: every `validation_steps`, and at the end."""
        return step % self.validation_steps == 0 or step == self.total_steps


def intervals_of(
    plan: Plan, wanted_checkpoint_steps: int | None, *, train_tokens: int, validation_tokens: int
) -> Intervals:
    """About ten checkpoints and ten validations, fewer if validations would take more than a sixth of the time.

    Tokens are those of one epoch. A validation token costs about half of a training token.
    """
    epochs = plan.epochs_after(plan.total_steps)
    affordable = int(0.4 * epochs * train_tokens / max(validation_tokens, 1))
    return Intervals(
        total_steps=plan.total_steps,
        checkpoint_steps=wanted_checkpoint_steps or math.ceil(plan.total_steps / 10),
        validation_steps=math.ceil(plan.total_steps / min(10, max(1, affordable))),
    )
