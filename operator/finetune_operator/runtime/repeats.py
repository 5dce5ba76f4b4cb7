"""Logs a lasting failure when it begins and then every few minutes, not at each try. Knows no kinds."""

from finetune_operator.runtime.uptime import Clock

REPEAT_SECONDS = 300.0
"""So that the last minutes of a log show it, without filling the log."""


class Repeats:
    """For one operation that is retried again and again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failure: str | None = None
        self._reported_at = 0.0

    def is_news(self, failure: str) -> bool:
        """Whether to report it now: it differs from the last failure, or that was reported some time ago."""
        now = self._clock()
        if failure == self._failure and now < self._reported_at + REPEAT_SECONDS:
            return False
        self._failure, self._reported_at = failure, now
        return True

    def over(self) -> bool:
        """The operation succeeded: the next failure is news. Returns whether it had failed before."""
        was, self._failure = self._failure is not None, None
        return was
