"""Writes that are refused: a few times in a row, and then about every half minute."""

from collections import Counter

import pytest

from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.refused_writes import AT_ONCE, PAUSE_SECONDS, RefusedWrites


@pytest.mark.parametrize(
    ("marks", "at_first", "later"),
    [("as they were", AT_ONCE + 1, 2), ("others each time", 2 * AT_ONCE + 1, 3)],
)
def test_what_is_refused_is_asked_for_a_few_times_and_then_once_or_twice_in_half_a_minute(
    marks: str, at_first: int, later: int
) -> None:
    """By one who tries it every second; whoever labels it anew each time has it asked for once more."""
    now, asked = 0.0, Counter[int]()
    held = RefusedWrites(lambda: now)
    for second in range(int(10 * PAUSE_SECONDS)):
        now = float(second)
        labels = "" if marks == "as they were" else str(second)
        try:
            held.check("write", labels)
        except Forbidden:
            continue
        asked[second // int(PAUSE_SECONDS)] += 1
        held.refused("write", Forbidden(403, "Forbidden", "no"), labels)
    assert list(asked.values()) == [at_first, *[later] * 9]
