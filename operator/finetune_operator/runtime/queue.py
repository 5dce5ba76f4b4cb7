"""The work queue: keys in, `reconcile` called, one run per key at a time, bounded workers, backoff, resync.

`Schedule` holds the rules; this adds tasks, the loop's clock, logs and metrics. Not thread-safe: one event loop.
Independent of what a reconcile does.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from finetune_operator.runtime import logs, metrics
from finetune_operator.runtime.errors import REFUSALS, Conflict, Contested, KubeError, LeadershipLost, Transient
from finetune_operator.runtime.schedule import Key, Lane, Schedule

__all__ = ["Backoff", "Key", "Lane", "QueueHealth", "Requeue", "WorkQueue"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Requeue:
    """Returned by a reconcile that must run again without an event, in `after_seconds`."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between failing runs of one key: doubling from `first` to `longest` seconds, minus jitter."""

    first: float = 1.0
    longest: float = 300.0
    refused: float = 60.0
    """Upper limit if RBAC, a policy or another writer is in the way: the person who fixes that waits for the retry."""

    def delay(self, failures: int, jitter: float, *, refused: bool = False) -> float:
        """Seconds to wait after the n-th failure in a row (from 1); `jitter` in 0..1 takes off up to half of it."""
        longest = min(self.longest, self.refused) if refused else self.longest
        full = min(longest, self.first * 2.0 ** min(failures - 1, 32))
        return max(self.first, full * (1 - jitter / 2))


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """A snapshot for probes and metrics. Ages are in seconds; 0.0 if there is nothing to measure."""

    ready: int
    delayed: int
    in_work: int
    oldest_waiting_seconds: float
    seconds_without_progress: float
    longest_running_seconds: float


class WorkQueue:
    """Runs `reconcile(key)` for each key that is added, never twice at once for the same key.

    Args:
        reconcile: may return a Requeue; after an exception it is repeated with backoff.
        workers: maximum number of concurrent runs.
        backoff: delays after failures.
        timeout: seconds after which a run is cancelled and counts as failed.
        jitter: a number in 0..1, drawn for each failure.
    """

    def __init__(
        self,
        reconcile: Callable[[Key], Awaitable[Requeue | None]],
        workers: int,
        *,
        backoff: Backoff | None = None,
        timeout: float = 300.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._reconcile = reconcile
        self._workers = workers
        self._backoff = backoff or Backoff()
        self._timeout = timeout
        self._jitter = jitter
        self._schedule = Schedule()
        self._failures: dict[Key, int] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = False
        self._progress_at = 0.0

    def start(self) -> None:
        """Starts working on what was and will be added. Call it inside the event loop, once."""
        self._loop = asyncio.get_running_loop()
        metrics.QUEUE_READY.set_function(lambda: self.health().ready)
        metrics.QUEUE_DELAYED.set_function(lambda: self.health().delayed)
        metrics.QUEUE_IN_WORK.set_function(lambda: len(self._schedule.in_work))
        metrics.QUEUE_OLDEST_SECONDS.set_function(lambda: self._oldest_waiting(self._now()))
        metrics.QUEUE_LONGEST_RUNNING_SECONDS.set_function(lambda: self._longest_running(self._now()))
        self._dispatch_soon()

    def add(self, key: Key, lane: Lane = Lane.OTHERS) -> None:
        """Reconciles `key` soon: once, however often it is added before its run starts."""
        self.add_after(key, 0.0, lane)

    def add_after(self, key: Key, seconds: float, lane: Lane = Lane.OTHERS) -> None:
        """Reconciles `key` in `seconds`, or earlier if it was already due earlier."""
        self._schedule.add(key, self._now() + seconds, lane)
        self._dispatch_soon()

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109 - the caller's own limit, and not a cancellation
        """Starts nothing more and lets running reconciles finish; after `timeout` seconds they are cancelled.

        Returns:
            Whether all finished in time.
        """
        self._draining = True
        if self._timer is not None:
            self._timer.cancel()
        running = set(self._running.values())
        if not running:
            return True
        _, late = await asyncio.wait(running, timeout=timeout)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return not late

    def health(self) -> QueueHealth:
        """The queue's state now. Walks over all waiting keys."""
        now = self._now()
        ready = self._schedule.due_count(now)
        first = self._schedule.next_due()
        return QueueHealth(
            ready=ready,
            delayed=self._schedule.waiting - ready,
            in_work=len(self._schedule.in_work),
            oldest_waiting_seconds=self._oldest_waiting(now),
            seconds_without_progress=now - max(first, self._progress_at) if first is not None and first < now else 0.0,
            longest_running_seconds=self._longest_running(now),
        )

    def _oldest_waiting(self, now: float) -> float:
        first = self._schedule.next_due()
        return max(0.0, now - first) if first is not None else 0.0

    def _longest_running(self, now: float) -> float:
        in_work = self._schedule.in_work
        return now - min(in_work.values()) if in_work else 0.0

    def _now(self) -> float:
        return (self._loop or asyncio.get_running_loop()).time()

    def _dispatch_soon(self) -> None:
        """Dispatches after the current callbacks, so that a burst of events for one key causes one run."""
        if self._loop is not None and self._soon is None and not self._draining:
            self._soon = self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Gives due keys to free workers; sets the timer for the next key that is not due yet."""
        self._soon = None
        if self._loop is None or self._draining:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self._running) < self._workers:
            key = self._schedule.take(self._loop.time())
            if key is None:
                break
            self._running[key] = self._loop.create_task(self._run(key), name=f"reconcile {'/'.join(key)}")
        next_due = self._schedule.next_due()
        if next_due is not None and len(self._running) < self._workers:
            self._timer = self._loop.call_at(next_due, self._dispatch)

    async def _run(self, key: Key) -> None:
        started = self._now()
        requeue: Requeue | None = None
        failure: BaseException | None = None
        try:
            with logs.about(*key):
                try:
                    async with asyncio.timeout(self._timeout):
                        requeue = await self._reconcile(key)
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - kept, counted, logged and retried
                    failure = error
                self._settle(key, requeue, failure, started)
        finally:
            del self._running[key]
            self._dispatch()

    def _settle(self, key: Key, requeue: Requeue | None, failure: BaseException | None, started: float) -> None:
        """Records how a run ended and when the key runs again."""
        now = self._progress_at = self._now()
        metrics.RECONCILE_SECONDS.labels(key.kind).observe(now - started)
        metrics.RECONCILES.labels(key.kind, _outcome(requeue, failure)).inc()
        if failure is None:
            self._failures.pop(key, None)
            self._schedule.finish(key, None if requeue is None else now + requeue.after_seconds)
            return
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        metrics.RECONCILE_RETRIES.labels(key.kind).inc()
        delay = self._backoff.delay(failures, self._jitter(), refused=isinstance(failure, (*REFUSALS, Contested)))
        if isinstance(failure, Transient) and failure.retry_after is not None:
            delay = min(max(delay, failure.retry_after), self._backoff.longest)
        _log_failure(failure, failures, delay)
        self._schedule.finish(key, now + delay, not_before=now + self._backoff.first)


def _outcome(requeue: Requeue | None, failure: BaseException | None) -> str:
    match failure:
        case None:
            return "success" if requeue is None else "requeued"
        case Conflict():
            return "conflict"
        case Transient() | LeadershipLost():
            return "transient"
        case TimeoutError():
            return "timeout"
        case asyncio.CancelledError():
            return "cancelled"
    return "error"


def _log_failure(failure: BaseException, failures: int, delay: float) -> None:
    """Expected failures of a busy cluster are one line; unexpected ones a traceback."""
    if isinstance(failure, KubeError) and failure.repeated:
        logger.debug("not asked again yet (attempt %d); again in %.1f s: %s", failures, delay, failure)
    elif isinstance(failure, Conflict) and failures == 1:
        logger.info("the object changed meanwhile; again in %.1f s: %s", delay, failure)
    elif isinstance(failure, Conflict | Transient | LeadershipLost | asyncio.CancelledError):
        logger.warning("reconcile did not finish (attempt %d); again in %.1f s: %r", failures, delay, failure)
    elif isinstance(failure, TimeoutError):
        logger.error("reconcile took too long (attempt %d); again in %.1f s", failures, delay, exc_info=failure)
    elif isinstance(failure, KubeError):
        logger.error("the API server refuses it (attempt %d); again in %.1f s: %s", failures, delay, failure)
    else:
        logger.error("reconcile failed (attempt %d); again in %.1f s", failures, delay, exc_info=failure)
