"""The queue's rules hold for any order of wishes, runs and endings."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from finetune_operator.runtime.schedule import IN_A_ROW, Key, Schedule

A, B, C = (Key("FineTuneJob", "team", name) for name in "abc")


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


def test_of_eight_turns_seven_are_of_those_that_come_first_however_long_the_others_have_waited():
    schedule = Schedule()
    others, new = numbered("o", 3), numbered("n", 16)
    for key in others:
        schedule.add(key, 0.0)
    for key in new:
        schedule.add(key, 3600.0, first=True)
    assert taken(schedule, 3600.0) == [*new[:7], others[0], *new[7:14], others[1], *new[14:], others[2]]


def test_a_flood_of_what_comes_first_does_not_starve_the_others():
    schedule = Schedule()
    schedule.add(A, 0.0)
    for turn, key in enumerate(numbered("n", 8)):
        schedule.add(key, float(turn), first=True)
        if schedule.take(float(turn)) == A:
            break
    assert A in schedule.in_work


def test_what_waits_in_its_turn_and_is_then_to_come_first_does():
    schedule = Schedule()
    for key in (A, B):
        schedule.add(key, 0.0)
    schedule.add(B, 1.0, first=True)
    schedule.add(B, 2.0)
    assert taken(schedule, 2.0) == [B, A]


def test_what_comes_first_and_fails_comes_first_again_and_no_more_once_it_has_not():
    schedule = Schedule()
    schedule.add(A, 0.0, first=True)
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
    schedule.add(A, 5.0, first=True)
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
    assert len(schedule._first) + len(schedule._others) < 200


class ScheduleMachine(RuleBasedStateMachine):
    """Compares the schedule with a model that is as plain as the promise: per key the earliest wish since its run."""

    working = Bundle("working")

    @initialize()
    def begin(self) -> None:
        self.schedule = Schedule()
        self.now = 0.0
        self.waiting: dict[Key, float] = {}
        self.first: set[Key] = set()
        self.began_first: set[Key] = set()
        self.in_a_row = 0
        self.in_work: set[Key] = set()
        self.again: dict[Key, float] = {}
        self.floor: dict[Key, float] = {}

    @rule(key=st.sampled_from([A, B, C]), delay=st.sampled_from([0.0, 0.5, 1.0, 30.0]))
    def add(self, key, delay):
        due = self.now + delay
        self.schedule.add(key, due)
        if key in self.in_work:
            self.again[key] = min(due, self.again.get(key, due))
        else:
            self._wish(key, due)

    @rule(key=st.sampled_from([A, B, C]))
    def add_first(self, key):
        self.schedule.add(key, self.now, first=True)
        if key in self.in_work:
            self.again[key] = min(self.now, self.again.get(key, self.now))
        else:
            self._wish(key, self.now, first=True)

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
        lane = {k for k in self.waiting if (k in self.first) == (key in self.first)}
        assert self.waiting[key] == min(self.waiting[k] for k in lane), "not its turn"
        due = {k for k, at in self.waiting.items() if at <= self.now}
        if due & self.first and due - self.first:
            assert (key in self.first) == (self.in_a_row < IN_A_ROW), "the other lane's turn"
        self.in_a_row = self.in_a_row + 1 if key in self.first else 0
        del self.waiting[key]
        (self.began_first.add if key in self.first else self.began_first.discard)(key)
        self.first.discard(key)
        self.in_work.add(key)
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
        self.in_work.discard(key)
        for wish in (due, self.again.pop(key, None)):
            if wish is not None:
                self._wish(key, wish, first=failed and key in self.began_first)

    def _wish(self, key, due, first=False):
        held = max(due, self.floor.get(key, due))
        if first:
            self.first.add(key)
        self.waiting[key] = min(held, self.waiting.get(key, held))

    @invariant()
    def nothing_is_lost_and_nothing_is_twice(self):
        if not hasattr(self, "schedule"):
            return
        assert set(self.schedule) == set(self.waiting)
        assert set(self.schedule.in_work) == self.in_work
        next_due = self.schedule.next_due()
        assert (next_due is None) == (not self.waiting)
        if next_due is not None and next_due > self.now:
            assert next_due == min(self.waiting.values()), "a timer for it would come too late"
        assert not self.in_work & set(self.waiting)


TestScheduleMachine = ScheduleMachine.TestCase
TestScheduleMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
