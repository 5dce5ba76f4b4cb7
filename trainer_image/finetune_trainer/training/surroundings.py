"""What a training is surrounded by: where it goes on from, who may stop it, who is told of it, and who shares it."""

from collections.abc import Callable
from dataclasses import dataclass

from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.metrics import Metrics
from finetune_trainer.computing.ranks import ALONE, World
from finetune_trainer.training.origin import Origin


@dataclass(frozen=True)
class Surroundings:
    """What is learnt is `course.Course`; how it is computed, `gradients.ComputeSettings`."""

    origin: Origin
    """Of which checkpoints it goes on."""
    metrics: Metrics
    """The record of steps and validations."""
    interruption: Interruption
    """Looked at before each pass."""
    on_step: Callable[[int, int], None]
    """Told the step, and its tokens, or 0 after a validation."""
    world: World = ALONE
    """The ranks that share a step."""
