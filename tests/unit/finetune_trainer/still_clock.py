"""A clock that only advances by sleeps, so that minutes of retries are tested instantly."""

import pytest

from finetune_trainer.storage import patience


class StillClock:
    """The clock and sleep of `patience`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    """The clock of retries."""
    clock = StillClock()
    monkeypatch.setattr(patience, "time", clock)
    return clock
