"""Statuses that somebody else writes as well: put right a few times, then every half minute, and told of once."""

from finetune_operator.runtime.contested_statuses import AT_ONCE, FRESH_SECONDS, PAUSE_SECONDS, ContestedStatuses
from finetune_operator.runtime.errors import Contested


class Rivalry:
    """Each of our writes is overwritten before the next one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.contests = ContestedStatuses(lambda: self.now)
        self.contests.wrote("uid", {"phase": "ours"})

    def refusal(self) -> Contested | None:
        """Why ours is not to be written now, if it is not."""
        try:
            self.contests.check("uid", {"phase": "theirs"})
        except Contested as contested:
            return contested
        self.contests.wrote("uid", {"phase": "ours"})
        return None


def test_a_rivalry_is_told_of_once_until_ours_is_written_again() -> None:
    rivalry = Rivalry()
    assert [rivalry.refusal() for _ in range(AT_ONCE)] == [None] * AT_ONCE
    told = [rivalry.refusal() for _ in range(3)]
    assert [one.repeated for one in told if one] == [False, True, True]
    rivalry.now += PAUSE_SECONDS
    assert rivalry.refusal() is None
    again = rivalry.refusal()
    assert again is not None
    assert not again.repeated, "it goes on, which is news"


def test_what_was_found_as_it_was_written_has_no_rival() -> None:
    rivalry = Rivalry()
    for _ in range(10 * AT_ONCE):
        rivalry.contests.check("uid", {"phase": "ours"})
    rivalry.contests.forget("uid")
    rivalry.contests.check("uid", {"phase": "theirs"})


def test_what_another_tells_counts_for_a_while_for_one_who_cannot_see_it() -> None:
    rivalry = Rivalry()
    contests, theirs = rivalry.contests, {"phase": "theirs"}
    assert contests.seconds_left_to_another("uid", {"phase": "ours"}) == 0
    assert contests.seconds_left_to_another("unknown", theirs) == 0
    assert contests.seconds_left_to_another("uid", theirs) == FRESH_SECONDS
    rivalry.now += FRESH_SECONDS - 1
    assert contests.seconds_left_to_another("uid", theirs) == 1
    assert contests.seconds_left_to_another("uid", {"phase": "news"}) == FRESH_SECONDS
    rivalry.now += FRESH_SECONDS
    assert contests.seconds_left_to_another("uid", {"phase": "news"}) == 0
    contests.wrote("uid", {"phase": "ours"})
    assert contests.seconds_left_to_another("uid", {"phase": "news"}) == FRESH_SECONDS, "it was put right"
    contests.accept("uid", theirs)
    assert not contests.written_by_another("uid", theirs)
    contests.accept("unknown", theirs)
    assert not contests.written_by_another("unknown", {"phase": "ours"}), "never written from here"
