"""The work queue: one run per key, bounded workers, backoff, resync, clean end. Time is the loop's and jumps."""

import asyncio
import logging
from itertools import pairwise

import fake_time
import pytest

from finetune_operator.runtime import metrics
from finetune_operator.runtime.errors import Conflict, Forbidden, Invalid, Transient
from finetune_operator.runtime.queue import Backoff, Key, Lane, Requeue, WorkQueue

A, B = Key("FineTuneJob", "team", "a"), Key("FineTuneJob", "team", "b")


class Recorded:
    """A reconcile that notes when it ran, and does what the test says for the n-th run."""

    def __init__(self, *outcomes, seconds=0.0):
        self.outcomes = list(outcomes)
        self.seconds = seconds
        self.runs = []
        self.at_once = 0
        self.most_at_once = 0

    async def __call__(self, key):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.runs.append((key, asyncio.get_running_loop().time() - 1000.0))
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.at_once -= 1
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @property
    def times(self):
        return [round(at, 6) for _, at in self.runs]


def queue_of(reconcile, workers=16, **options):
    queue = WorkQueue(reconcile, workers, jitter=lambda: 0.0, **options)
    queue.start()
    return queue


def test_many_adds_before_a_run_are_one_run():
    async def main():
        reconcile = Recorded()
        queue = queue_of(reconcile)
        for _ in range(50):
            queue.add(A)
        await asyncio.sleep(10)
        return reconcile.runs

    assert len(fake_time.run(main())) == 1


def test_a_key_added_during_its_run_runs_again_afterwards_and_never_beside_itself():
    async def main():
        reconcile = Recorded(seconds=5)
        queue = queue_of(reconcile)
        queue.add(A)
        for _ in range(4):
            await asyncio.sleep(1)
            queue.add(A)
        await asyncio.sleep(60)
        return reconcile.times, reconcile.most_at_once

    assert fake_time.run(main()) == ([0.0, 5.0], 1)


def test_no_more_runs_at_once_than_workers_and_all_keys_get_their_turn():
    async def main():
        reconcile = Recorded(seconds=1)
        queue = queue_of(reconcile, workers=4)
        for number in range(20):
            queue.add(Key("FineTuneJob", "team", str(number)))
        await asyncio.sleep(0.5)
        health = queue.health()
        await asyncio.sleep(60)
        return reconcile.most_at_once, len(reconcile.runs), max(reconcile.times), health.in_work, health.ready

    assert fake_time.run(main()) == (4, 20, 4.0, 4, 16)


def test_failures_back_off_exponentially_to_the_limit_and_success_resets():
    async def main():
        reconcile = Recorded(*[ValueError("no")] * 6, None, ValueError("no"))
        queue = queue_of(reconcile, backoff=Backoff(1.0, 10.0))
        queue.add(A)
        await asyncio.sleep(100)
        queue.add(A)
        await asyncio.sleep(100)
        return reconcile.times

    assert fake_time.run(main()) == [0, 1, 3, 7, 15, 25, 35, 100, 101]


@pytest.mark.parametrize(
    ("failures", "jitter", "delay"),
    [(1, 0.0, 1.0), (1, 1.0, 1.0), (2, 1.0, 1.0), (3, 0.0, 4.0), (3, 1.0, 2.0), (9, 0.0, 256.0), (10, 0.0, 300.0),
     (10, 1.0, 150.0), (10_000, 0.0, 300.0)],
)  # fmt: skip
def test_backoff_delays(failures, jitter, delay):
    assert Backoff().delay(failures, jitter) == delay


@pytest.mark.parametrize("refusal", [Forbidden(403, "Forbidden", "no"), Invalid(422, "Invalid", "no")])
def test_what_a_right_or_a_policy_refuses_is_tried_again_within_a_minute_however_long_it_was_refused(refusal):
    """Nothing tells when a right is back."""

    async def main():
        reconcile = Recorded(*[refusal] * 20, None)
        queue = queue_of(reconcile)
        queue.add(A)
        await asyncio.sleep(3600)
        return reconcile.times

    times = fake_time.run(main())
    assert len(times) == 21
    assert max(later - earlier for earlier, later in pairwise(times)) == 60


def test_events_of_its_own_failing_do_not_make_a_key_fail_in_a_tight_loop():
    async def main():
        queue = None
        runs = []

        async def reconcile(key):
            runs.append(asyncio.get_running_loop().time())
            queue.add(key)  # what a status write does: it comes back as an event
            raise ValueError("no")

        queue = queue_of(reconcile)
        queue.add(A)
        await asyncio.sleep(9.5)
        return [round(at - 1000.0, 6) for at in runs]

    assert fake_time.run(main()) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_requeue_runs_again_after_its_seconds_and_an_event_comes_first():
    async def main():
        reconcile = Recorded(Requeue(30), Requeue(30), None)
        queue = queue_of(reconcile)
        queue.add(A)
        await asyncio.sleep(31)
        queue.add_after(A, 5)
        queue.add_after(A, 2)
        queue.add_after(A, 9)
        await asyncio.sleep(100)
        return reconcile.times

    assert fake_time.run(main()) == [0, 30, 33]


def test_a_server_that_says_when_is_heeded():
    async def main():
        reconcile = Recorded(Transient(503, "Unavailable", "later", retry_after=20), None)
        queue = queue_of(reconcile)
        queue.add(A)
        await asyncio.sleep(100)
        return reconcile.times

    assert fake_time.run(main()) == [0, 20]


def test_a_run_that_hangs_is_ended_and_repeated():
    async def main():
        reconcile = Recorded(seconds=1000)
        queue = queue_of(reconcile, timeout=30)
        queue.add(A)
        await asyncio.sleep(29)
        longest = queue.health()
        await asyncio.sleep(10)
        await queue.drain(0)
        return reconcile.times, longest.longest_running_seconds

    assert fake_time.run(main()) == ([0, 31], 29.0)


def test_a_reconcile_that_cancels_itself_is_a_failure_and_not_the_end_of_the_key():
    async def main():
        reconcile = Recorded(asyncio.CancelledError(), None)
        queue = queue_of(reconcile)
        queue.add(A)
        await asyncio.sleep(10)
        return reconcile.times

    assert fake_time.run(main()) == [0, 1]


def test_drain_lets_the_running_end_and_starts_nothing_more():
    async def main():
        reconcile = Recorded(seconds=3)
        queue = queue_of(reconcile, workers=1)
        queue.add(A)
        queue.add(B)
        await asyncio.sleep(1)
        clean = await queue.drain(10)
        queue.add(A)
        await asyncio.sleep(100)
        return clean, [key for key, _ in reconcile.runs], reconcile.at_once

    assert fake_time.run(main()) == (True, [A], 0)


def test_drain_cancels_what_outlasts_it():
    async def main():
        reconcile = Recorded(seconds=100)
        queue = queue_of(reconcile)
        queue.add(A)
        await asyncio.sleep(1)
        started = asyncio.get_running_loop().time()
        clean = await queue.drain(5)
        return clean, asyncio.get_running_loop().time() - started, reconcile.at_once

    assert fake_time.run(main()) == (False, 5.0, 0)


def test_keys_added_before_the_start_are_kept():
    async def main():
        reconcile = Recorded()
        queue = WorkQueue(reconcile, workers=16)
        queue.add(A)
        queue.start()
        await asyncio.sleep(1)
        return reconcile.runs

    assert fake_time.run(main()) == [(A, 0.0)]


def test_health_tells_how_long_the_longest_waiting_key_is_overdue():
    async def main():
        queue = queue_of(Recorded(seconds=50), workers=1)
        queue.add(A)
        queue.add(B)
        queue.add_after(Key("FineTuneJob", "team", "later"), 500)
        await asyncio.sleep(20)
        health = queue.health()
        await queue.drain(0)
        return health.oldest_waiting_seconds, health.ready, health.delayed, health.in_work

    assert fake_time.run(main()) == (20.0, 1, 1, 1)


def test_what_is_added_first_comes_before_what_was_only_added():
    new = Key("FineTuneJob", "team", "new")

    async def main():
        reconcile = Recorded(seconds=1)
        queue = queue_of(reconcile, workers=1)
        queue.add(A)
        queue.add(B)
        await asyncio.sleep(0.5)
        queue.add(new, Lane.NEW)
        await asyncio.sleep(5)
        return reconcile.runs

    assert [key for key, _ in fake_time.run(main())] == [A, new, B]


def test_a_long_queue_that_moves_is_no_standstill():
    async def main():
        queue = queue_of(Recorded(seconds=30), workers=1)
        for number in range(10):
            queue.add(Key("FineTuneJob", "team", str(number)))
        await asyncio.sleep(205)
        health = queue.health()
        await queue.drain(0)
        return health.oldest_waiting_seconds, health.seconds_without_progress

    assert fake_time.run(main()) == (205.0, 25.0)


def test_a_queue_whose_workers_hang_stands_still():
    async def main():
        queue = queue_of(Recorded(seconds=1000), workers=1)
        queue.add(A)
        await asyncio.sleep(50)
        queue.add(B)
        await asyncio.sleep(200)
        health = queue.health()
        await queue.drain(0)
        return health.seconds_without_progress

    assert fake_time.run(main()) == 200.0


def told_before(refusal):
    refusal.repeated = True
    return refusal


@pytest.mark.parametrize(
    ("failure", "outcome", "level"),
    [
        (Conflict(409, "Conflict", "changed"), "conflict", logging.INFO),
        (Transient(0, "Timeout", "no answer"), "transient", logging.WARNING),
        (Forbidden(403, "Forbidden", "a policy refuses it"), "error", logging.ERROR),
        (Invalid(422, "Invalid", "status.phase: no such value"), "error", logging.ERROR),
        (told_before(Forbidden(403, "Forbidden", "a policy refuses it")), "error", logging.DEBUG),
        (ValueError("unforeseen"), "error", logging.ERROR),
    ],
)
def test_each_failure_is_counted_and_logged_as_what_it_is(failure, outcome, level, caplog):
    caplog.set_level(logging.DEBUG, "finetune_operator.runtime.queue")
    kind = f"Kind{type(failure).__name__}{level}"

    async def main():
        queue = queue_of(Recorded(failure))
        queue.add(Key(kind, "team", "a"))
        await asyncio.sleep(30)

    fake_time.run(main())
    assert metrics.RECONCILES.labels(kind, outcome)._value.get() == 1
    assert metrics.RECONCILES.labels(kind, "success")._value.get() == 1
    assert metrics.RECONCILE_RETRIES.labels(kind)._value.get() == 1
    (record,) = (r for r in caplog.records if r.name == "finetune_operator.runtime.queue")
    assert record.levelno == level
    assert bool(record.exc_info) == isinstance(failure, ValueError), "a traceback is for what nobody foresaw"
    assert str(failure) in record.getMessage() or record.exc_info
    assert "\n" not in record.getMessage()
