"""The times of a Lease: how long it is valid, and when its holder and its followers act. Pure."""

from dataclasses import dataclass

JITTER = 1.2
"""A follower waits up to this many times `retry`, so that followers do not act in step."""


def are_ascending(retry: float, renew_deadline: float, duration: float) -> bool:
    """Whether a leader has time to renew, and stops writing before others may take over."""
    return JITTER * retry < renew_deadline < duration


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """The times of one Lease, all in seconds.

    Args:
        duration: whole seconds after which others take over a Lease that is not renewed.
        renew_deadline: without a successful renewal for this long, the leader stops; less than `duration`.
        retry: between attempts.

    Raises:
        ValueError: they are not in ascending order.
    """

    duration: int = 15
    renew_deadline: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not are_ascending(self.retry, self.renew_deadline, self.duration):
            raise ValueError(f"lease times must rise: {JITTER:g} x retry < renew_deadline < duration")
