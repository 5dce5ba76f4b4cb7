"""What a training is connected to: its origin, its record, stop requests, step callbacks, and other ranks."""

from collections.abc import Callable
from dataclasses import dataclass

from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.metrics import Metrics
from finetune_trainer.computing.ranks import ALONE, World
from finetune_trainer.training.origin import Origin


@dataclass(frozen=True)
class Surroundings:
    """What is trained is `course.Course`; how it is computed, `gradients.ComputeSettings`."""

    origin: Origin
    """Which checkpoints it may resume from."""
    metrics: Metrics
    """The record of steps and validations."""
    interruption: Interruption
    """Checked before each pass."""
    on_step: Callable[[int, int], None]
    """Called with the step and its tokens, or with 0 tokens after a validation."""
    world: World = ALONE
    """The ranks that share a step."""
