"""A clock on which seconds pass by pauses alone: what is tried again for minutes is tested at once."""

import pytest

from finetune_trainer.storage import patience


class StillClock:
    """What `patience` asks the time, and for pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    """The clock by which something is tried again."""
    clock = StillClock()
    monkeypatch.setattr(patience, "time", clock)
    return clock
