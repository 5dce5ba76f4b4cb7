"""The queue's rules hold for any order of wishes, runs and endings."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from finetune_operator.runtime.schedule import TURNS, Key, Lane, Schedule

A, B, C = (Key("FineTuneJob", "team", name) for name in "abc")
KEYS = st.sampled_from([A, B, C])


def taken(schedule: Schedule, now: float) -> list[Key]:
    keys = []
    while (key := schedule.take(now)) is not None:
        keys.append(key)
    return keys


def test_a_waiting_key_is_one_entry_and_the_earliest_wish_wins():
    schedule = Schedule()
    for due in (30.0, 10.0, 20.0):
        schedule.add(A, due)
    assert schedule.waiting == 1
    assert schedule.next_due() == 10.0
    assert schedule.take(9.9) is None
    assert taken(schedule, 10.0) == [A]
    assert schedule.take(1000.0) is None


def test_first_come_first_served_among_equally_due():
    schedule = Schedule()
    for key in (C, A, B):
        schedule.add(key, 5.0)
    assert taken(schedule, 5.0) == [C, A, B]


def numbered(letter: str, count: int) -> list[Key]:
    return [Key("FineTuneJob", "team", f"{letter}{number}") for number in range(count)]


def test_of_eight_turns_four_are_of_what_is_new_three_of_what_has_ended_and_one_of_the_others():
    schedule = Schedule()
    others, ended, new = numbered("o", 3), numbered("e", 7), numbered("n", 10)
    for key in others:
        schedule.add(key, 0.0)
    for key in ended:
        schedule.add(key, 1800.0, Lane.ENDED)
    for key in new:
        schedule.add(key, 3600.0, Lane.NEW)
    first = [*new[:4], *ended[:3], others[0]]
    then = [*new[4:8], *ended[3:6], others[1], *new[8:], ended[6], others[2]]
    assert taken(schedule, 3600.0) == [*first, *then], "however long the others have waited"


def test_an_edit_waits_for_one_look_of_a_sweep_though_it_is_among_those_that_the_sweep_has_still_to_look_at():
    schedule = Schedule()
    swept = numbered("s", 1000)
    for key in swept:
        schedule.add(key, 0.0, Lane.SWEEP)
    schedule.take(1.0)
    schedule.add(swept[900], 1.0)
    assert taken(schedule, 1.0)[:3] == [swept[900], *swept[1:3]]


@pytest.mark.parametrize("lane", [Lane.OTHERS, Lane.SWEEP])
@pytest.mark.parametrize("flood", [{Lane.NEW}, {Lane.ENDED}, {Lane.NEW, Lane.ENDED}])
def test_no_flood_of_what_is_new_or_has_ended_starves_the_others(flood, lane):
    schedule = Schedule()
    schedule.add(A, 0.0, lane)
    for turn in range(8):
        for its in flood:
            schedule.add(Key("FineTuneJob", "team", f"{its}-{turn}"), float(turn), its)
        if schedule.take(float(turn)) == A:
            break
    assert A in schedule.in_work


def test_a_lane_without_anything_due_has_no_turn():
    schedule = Schedule()
    ended, new = numbered("e", 2), numbered("n", 7)
    for key in ended:
        schedule.add(key, 60.0, Lane.ENDED)
    for key in new:
        schedule.add(key, 0.0, Lane.NEW)
    assert taken(schedule, 0.0) == new
    schedule.add(A, 60.0)
    schedule.add(B, 60.0, Lane.NEW)
    assert taken(schedule, 60.0) == [*ended, A, B], "after so many new ones"


def test_what_waits_among_the_others_and_then_ends_has_its_turn_with_the_ends():
    schedule = Schedule()
    for key in (A, B):
        schedule.add(key, 0.0)
    schedule.add(B, 1.0, Lane.ENDED)
    schedule.add(B, 2.0)
    assert taken(schedule, 2.0) == [B, A]


def test_what_ends_while_it_is_looked_at_has_its_turn_with_the_ends():
    schedule = Schedule()
    schedule.add(B, 0.0)
    schedule.take(0.0)
    schedule.add(B, 1.0, Lane.ENDED)
    schedule.add(B, 1.0)
    schedule.add(A, 0.5)
    schedule.finish(B, due=60.0)
    assert taken(schedule, 2.0) == [B, A]


def test_what_comes_first_and_fails_comes_first_again_and_no_more_once_it_has_not():
    schedule = Schedule()
    schedule.add(A, 0.0, Lane.NEW)
    schedule.take(0.0)
    schedule.add(A, 0.5)
    schedule.finish(A, due=2.0, not_before=1.0)
    schedule.add(B, 0.5)
    schedule.add(C, 0.5)
    assert taken(schedule, 1.0) == [A, B, C]
    schedule.finish(A, due=1.5)
    schedule.finish(B, due=1.4)
    assert taken(schedule, 2.0) == [B, A]


def test_to_come_first_makes_nothing_due_before_its_time():
    schedule = Schedule()
    schedule.add(A, 0.0)
    schedule.take(0.0)
    schedule.finish(A, due=60.0, not_before=10.0)
    schedule.add(A, 5.0, Lane.NEW)
    schedule.add(B, 6.0)
    assert taken(schedule, 9.0) == [B], "A is held back"
    assert taken(schedule, 10.0) == [A]


def test_a_key_added_while_in_work_runs_once_more_and_never_beside_itself():
    schedule = Schedule()
    schedule.add(A, 0.0)
    assert schedule.take(0.0) == A
    schedule.add(A, 1.0)
    schedule.add(A, 1.0)
    assert schedule.take(100.0) is None
    schedule.finish(A, None)
    assert taken(schedule, 100.0) == [A]
    schedule.finish(A, None)
    assert schedule.take(1000.0) is None


def test_a_failing_key_is_held_back_from_its_own_events_until_a_run_succeeds():
    schedule = Schedule()
    schedule.add(A, 0.0)
    schedule.take(0.0)
    schedule.finish(A, due=60.0, not_before=1.0)
    schedule.add(A, 0.1)
    assert schedule.take(0.9) is None
    assert schedule.take(1.0) == A
    schedule.finish(A, None)
    schedule.add(A, 1.1)
    assert schedule.take(1.1) == A


def test_superseded_entries_do_not_pile_up():
    schedule = Schedule()
    for round_ in range(5000):
        schedule.add(A, float(round_))
        assert schedule.take(float(round_)) == A
        schedule.finish(A, due=round_ + 100_000.0)
    assert sum(map(len, schedule._lanes.values())) < 200


class ScheduleMachine(RuleBasedStateMachine):
    """Compares the schedule with a model that is as plain as the promise: per key the earliest wish since its run."""

    working = Bundle("working")

    @initialize()
    def begin(self) -> None:
        self.schedule = Schedule()
        self.now = 0.0
        self.waiting: dict[Key, float] = {}
        self.lanes: dict[Key, Lane] = {}
        self.turn, self.in_a_row = Lane.NEW, 0
        self.in_work: dict[Key, Lane] = {}
        self.again: dict[Key, tuple[float, Lane]] = {}
        self.floor: dict[Key, float] = {}

    @rule(key=KEYS, delay=st.sampled_from([0.0, 0.5, 1.0, 30.0]), lane=st.sampled_from(Lane))
    def add(self, key, delay, lane):
        due = self.now + delay
        self.schedule.add(key, due, lane)
        if key in self.in_work:
            wished, its = self.again.get(key, (due, lane))
            self.again[key] = min(due, wished), min(lane, its)
        else:
            self._wish(key, due, lane)

    @rule(seconds=st.sampled_from([0.1, 1.0, 60.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(target=working)
    def take(self):
        key = self.schedule.take(self.now)
        if key is None:
            assert all(due > self.now for due in self.waiting.values())
            return None
        assert key not in self.in_work, "two runs of one key at once"
        assert self.waiting[key] <= self.now, "not due"
        lane = self.lanes.pop(key)
        assert self.waiting[key] == min(self.waiting[k] for k in self.waiting if self.lanes.get(k, lane) is lane)
        due = {self.lanes[k] for k in self.lanes if self.waiting[k] <= self.now}
        if lane is self.turn:
            self.in_a_row += 1
            assert self.in_a_row <= TURNS[lane] or not due - {lane}, "another lane's turn"
        else:
            assert self.turn not in due or self.in_a_row >= TURNS[self.turn], "the turn was not over"
            between = [self.turn + step for step in range(1, (lane - self.turn) % len(Lane))]
            assert not due & {Lane(place % len(Lane)) for place in between}, "a lane was passed over"
            self.turn, self.in_a_row = lane, 1
        del self.waiting[key]
        self.in_work[key] = lane
        return key

    @rule(key=working, after=st.sampled_from([None, 0.0, 5.0]), failed=st.booleans())
    def finish(self, key, after, failed):
        if key not in self.in_work:
            return
        due = None if after is None else self.now + after
        if failed:
            due = self.now + 2.0
            self.floor[key] = self.now + 1.0
        else:
            self.floor.pop(key, None)
        self.schedule.finish(key, due, not_before=self.floor.get(key))
        lane = self.in_work.pop(key)
        lane = lane if failed else Lane.OTHERS
        if due is not None:
            self._wish(key, due, lane)
        if key in self.again:
            wished, its = self.again.pop(key)
            self._wish(key, wished, min(lane, its))

    def _wish(self, key, due, lane):
        held = max(due, self.floor.get(key, due))
        self.lanes[key] = min(lane, self.lanes.get(key, lane))
        self.waiting[key] = min(held, self.waiting.get(key, held))

    @invariant()
    def nothing_is_lost_and_nothing_is_twice(self):
        if not hasattr(self, "schedule"):
            return
        assert set(self.schedule) == set(self.waiting)
        assert set(self.schedule.in_work) == set(self.in_work)
        next_due = self.schedule.next_due()
        assert (next_due is None) == (not self.waiting)
        if next_due is not None and next_due > self.now:
            assert next_due == min(self.waiting.values()), "a timer for it would come too late"
        assert not set(self.in_work) & set(self.waiting)


TestScheduleMachine = ScheduleMachine.TestCase
TestScheduleMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
