"""A trouble that lasts is told when it begins, and then every few minutes: not at each try. Knows no kinds."""

from finetune_operator.runtime.uptime import Clock

TOLD_AGAIN_SECONDS = 300.0
"""Whoever looks at the last minutes of a log finds it, and it does not push out the rest."""


class Repeats:
    """Of one thing that is tried again and again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._trouble: str | None = None
        self._told_at = 0.0

    def is_news(self, trouble: str) -> bool:
        """Whether to tell of it now: it is another one than the last, or that was told some time ago."""
        now = self._clock()
        if trouble == self._trouble and now < self._told_at + TOLD_AGAIN_SECONDS:
            return False
        self._trouble, self._told_at = trouble, now
        return True

    def over(self) -> bool:
        """It went well: the next trouble is news. Whether there was one."""
        was, self._trouble = self._trouble is not None, None
        return was
