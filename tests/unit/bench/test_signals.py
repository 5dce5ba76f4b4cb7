"""What a benchmark has started is ended when it is told to end, whoever tells it."""

import signal

import pytest

from bench import signals


@pytest.mark.parametrize("number", signals.TOLD)
def test_whoever_is_told_to_end_clears_up_first_and_only_once(number: signal.Signals) -> None:
    before, cleared = signal.getsignal(number), []
    with pytest.raises(SystemExit) as ended, signals.ended_in_order():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            cleared.append("cluster")
    assert (ended.value.code, cleared, signal.getsignal(number)) == (128 + number, ["cluster"], before)
