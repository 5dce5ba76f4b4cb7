"""Logs a lasting failure when it begins and then every few minutes, not at each try. Knows no kinds."""

from finetune_operator.runtime.uptime import Clock

TOLD_AGAIN_SECONDS = 300.0
"""So that the last minutes of a log show it, without filling the log."""


class Repeats:
    """For one operation that is retried again and again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._trouble: str | None = None
        self._told_at = 0.0

    def is_news(self, trouble: str) -> bool:
        """Whether to report it now: it differs from the last failure, or that was reported some time ago."""
        now = self._clock()
        if trouble == self._trouble and now < self._told_at + TOLD_AGAIN_SECONDS:
            return False
        self._trouble, self._told_at = trouble, now
        return True

    def over(self) -> bool:
        """The operation succeeded: the next failure is news. Returns whether it had failed before."""
        was, self._trouble = self._trouble is not None, None
        return was
