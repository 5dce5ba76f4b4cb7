"""Progress of the training: speed and time left, from the steps of this attempt. Pure except for its clock."""

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from finetune_api.job_status import Progress
from finetune_trainer.training.batches import Plan

_WINDOW_STEPS = 50  # for the speed


class Pulse:
    """Counts the steps of this attempt."""

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self._plan = plan
        self._clock = clock
        self._seen: deque[tuple[float, int, int]] = deque([(clock(), 0, -1)], maxlen=_WINDOW_STEPS + 1)

    def saw(self, step: int, tokens: int) -> None:
        """Add a step that ended, with its number of tokens without padding."""
        if self._seen[0][2] < 0:  # the clock of the first step started when this was made
            self._seen[0] = (self._seen[0][0], 0, step - 1)
        self._seen.append((self._clock(), tokens, step))

    def progress(self, step: int) -> Progress:
        """The progress after `step`."""
        total = self._plan.total_steps
        seconds = self._seen[-1][0] - self._seen[0][0]
        steps = self._seen[-1][2] - self._seen[0][2]
        tokens = sum(tokens for _, tokens, _ in list(self._seen)[1:])
        return Progress(
            step=step,
            total_steps=total,
            epoch=round(self._plan.epochs_after(step), 3),
            percent=100 * step // total,
            tokens_per_second=round(tokens / seconds, 1) if seconds > 0 and tokens else None,
            eta_seconds=round(seconds / steps * (total - step)) if steps > 0 else None,
            updated_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
