"""How often an attempt is followed by another one: what uses up a retry, and how long the pause is.

A failure of the job's own uses one up for good. An interruption by the cluster does so only until a newer checkpoint is
reached: a job on spot nodes that gets on may be interrupted as often as it has steps, and one that never gets on is
given up after maxRetries interruptions in a row (docs/decisions/2026-11-26-interruptions.md).
"""

from dataclasses import dataclass

from finetune_api.job_status import Failure, Progress, ProviderStatus
from finetune_api.words import counted

RETRY_DELAYS = (5, 20, 60, 180, 300)
"""Seconds before the next attempt, by the retries that are used up; the last one repeats."""


@dataclass(frozen=True)
class Tally:
    """The retries of a job so far; fields of its status."""

    retries: int = 0
    interruptions: int = 0
    """Those that followed an interruption."""
    fruitless_interruptions: int = 0
    """The last ones of these, before each of which nothing new was saved."""
    saved_work: int = 0
    """What the newest attempt found done, by `saved`."""

    @classmethod
    def of(cls, provider: ProviderStatus) -> "Tally":
        """As status has it."""
        return cls(provider.retries, provider.interruptions, provider.fruitless_interruptions, provider.saved_work)

    @property
    def used(self) -> int:
        """Retries that count against the limit."""
        return self.retries - self.interruptions + self.fruitless_interruptions

    @property
    def delay(self) -> int:
        """Seconds before the attempt that the last retry stands for."""
        return RETRY_DELAYS[min(max(self.used - 1, 0), len(RETRY_DELAYS) - 1)]

    def after(self, saved_work: int, interrupted: bool) -> "Tally":
        """With one retry more, of an attempt that ended with so much of the work saved."""
        in_vain = 0 if saved_work > self.saved_work else self.fruitless_interruptions + interrupted
        return Tally(
            self.retries + 1,
            self.interruptions + interrupted,
            in_vain,
            max(saved_work, self.saved_work),
        )


def saved(*told: Progress | None) -> int:
    """The work that a next attempt would not do again: steps by the newest checkpoint, and answers to the test set."""
    return max(((one.saved_step or 0) + (one.answers or 0) for one in told if one is not None), default=0)


def ended_alike(failure: Failure, last: Failure | None, before: Tally, after: Tally) -> bool:
    """Whether two attempts in a row have failed for one reason, and the second has saved no more."""
    return last is not None and last.reason is failure.reason and after.saved_work <= before.saved_work


def given_up(before: Tally, after: Tally, interrupted: bool, *, alike: bool = False) -> str:
    """Why there is no further attempt, in words that follow the last failure's.

    `alike`: it ended as the attempt before did, and nothing lets the next one end otherwise.
    """
    if not before.retries:
        return ""
    retries = _retries(before.retries)
    if alike:
        return f"; given up after {retries}, as the previous attempt ended in the same way at the same point"
    if before.used == before.retries:
        return f"; given up after {retries}"
    if interrupted:
        return (
            f"; given up after {retries}, as no newer checkpoint was reached in the last "
            f"{after.fruitless_interruptions} attempts"
        )
    return f"; given up after {_retries(before.used)}, not counting {before.retries - before.used} after interruptions"


def _retries(number: int) -> str:
    return counted(number, "retry", "retries")
