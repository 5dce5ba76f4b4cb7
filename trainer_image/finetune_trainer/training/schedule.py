"""The learning rate of each optimizer step, as a fraction of its peak. Pure.

No step has a learning rate of 0, unlike the first one of transformers' own schedules: a job with a single step would
succeed without having learned anything.
"""

import math
from typing import Literal

Schedule = Literal["Cosine", "Linear", "Constant"]


def warmup_steps(ratio: float, total_steps: int) -> int:
    """Number of steps in which the learning rate rises."""
    return round(ratio * total_steps)


def factor(step: int, *, schedule: Schedule, warmup: int, total_steps: int) -> float:
    """Learning rate of `step`, from 0, as a fraction of the peak: above 0 and at most 1 for each step of the run.

    It rises linearly for `warmup` steps; the next step has the peak, and the last step is still above 0.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "Constant":
        return 1.0
    left = (total_steps - step) / max(total_steps - warmup, 1)
    return left if schedule == "Linear" else (1 - math.cos(math.pi * left)) / 2
