"""What a benchmark has started is ended when it is told to end, whoever tells it."""

import signal

import pytest

from bench import signals


def run(number: signal.Signals, cleared: list[str]) -> None:
    with signals.ended_in_order():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            cleared.append("cluster")


@pytest.mark.parametrize("number", signals.TOLD)
def test_whoever_is_told_to_end_clears_up_first_and_only_once(number: signal.Signals) -> None:
    before, cleared = signal.getsignal(number), list[str]()
    with pytest.raises(SystemExit) as ended:
        run(number, cleared)
    assert (ended.value.code, cleared, signal.getsignal(number)) == (128 + number, ["cluster"], before)
