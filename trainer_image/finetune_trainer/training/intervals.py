"""After which optimizer steps something happens besides learning."""

import math
from dataclasses import dataclass

from finetune_trainer.training.batches import Plan


@dataclass(frozen=True)
class Intervals:
    """After which steps something happens besides learning."""

    total_steps: int
    checkpoint_steps: int
    validation_steps: int

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows: every `checkpoint_steps`, and at the end, so that measuring can be resumed."""
        return step % self.checkpoint_steps == 0 or step == self.total_steps

    def validates(self, step: int) -> bool:
        """Whether the validation loss is measured: every `validation_steps`, and at the end."""
        return step % self.validation_steps == 0 or step == self.total_steps


def intervals_of(
    plan: Plan, wanted_checkpoint_steps: int | None, *, train_tokens: int, validation_tokens: int
) -> Intervals:
    """About ten checkpoints, and as many validations, fewer where they would take over a sixth of the time.

    Tokens are those of one pass over a set. A validation's token costs about half of a training token.
    """
    epochs = plan.epochs_after(plan.total_steps)
    affordable = int(0.4 * epochs * train_tokens / max(validation_tokens, 1))
    return Intervals(
        total_steps=plan.total_steps,
        checkpoint_steps=wanted_checkpoint_steps or math.ceil(plan.total_steps / 10),
        validation_steps=math.ceil(plan.total_steps / min(10, max(1, affordable))),
    )
