"""How often a job is retried: what uses up a retry, and how long the delay is.

A failure of the job itself uses up a retry for good. An interruption by the cluster does so only until a newer
checkpoint is reached: a job on spot nodes that makes progress may be interrupted as often as it has steps; one that
makes none is given up after maxRetries interruptions in a row (docs/decisions/2026-11-26-interruptions.md).
"""

from dataclasses import dataclass

from finetune_api.job_status import Failure, Progress, ProviderStatus
from finetune_api.words import counted

RETRY_DELAYS = (5, 20, 60, 180, 300)
"""Seconds before the next attempt, by the number of retries used. The last value repeats."""


@dataclass(frozen=True)
class Tally:
    """The retries of a job so far, as its status counts them."""

    retries: int = 0
    interruptions: int = 0
    """Retries after an interruption."""
    fruitless_interruptions: int = 0
    """The latest of these in a row without any newly saved work."""
    saved_work: int = 0
    """The work that was saved when the newest attempt started, as `saved` counts it."""

    @classmethod
    def of(cls, provider: ProviderStatus) -> "Tally":
        """From status."""
        return cls(provider.retries, provider.interruptions, provider.fruitless_interruptions, provider.saved_work)

    @property
    def used(self) -> int:
        """Retries that count against the limit."""
        return self.retries - self.interruptions + self.fruitless_interruptions

    @property
    def delay(self) -> int:
        """Seconds before the next attempt."""
        return RETRY_DELAYS[min(max(self.used - 1, 0), len(RETRY_DELAYS) - 1)]

    def after(self, saved_work: int, interrupted: bool) -> "Tally":
        """The tally with one more retry, after an attempt that ended with this much work saved."""
        in_vain = 0 if saved_work > self.saved_work else self.fruitless_interruptions + interrupted
        return Tally(
            self.retries + 1,
            self.interruptions + interrupted,
            in_vain,
            max(saved_work, self.saved_work),
        )


def saved(*told: Progress | None) -> int:
    """The work that the next attempt need not repeat: steps up to the newest checkpoint, and test rows answered."""
    return max(((one.saved_step or 0) + (one.answers or 0) for one in told if one is not None), default=0)


def ended_alike(failure: Failure, last: Failure | None, before: Tally, after: Tally) -> bool:
    """Whether two attempts in a row failed for the same reason and the second saved no more work than the first."""
    return last is not None and last.reason is failure.reason and after.saved_work <= before.saved_work


def given_up(before: Tally, after: Tally, interrupted: bool, *, alike: bool = False) -> str:
    """Why there is no further attempt, to append to the last failure's message.

    `alike`: it ended as the previous attempt did, and the next one would do the same.
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
