"""Polls all jobs of one connection's provider together, and wakes the objects whose jobs changed.

Providers send no events, so this replaces a watch; its cache may be lost in a restart. Jobs are read from lists, so
that a thousand jobs cost ten calls a round. Details that lists omit are fetched once a job has ended, and in turns
while it runs.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.job.remote import Metrics, RemoteJob
from finetune_operator.providers.calls.errors import (
    Denied,
    NotThere,
    ProviderError,
    Refused,
    ServerError,
    TryLater,
    Unknown,
    Unreadable,
    parsing_answer,
)
from finetune_operator.providers.calls.gate import is_key_error
from finetune_operator.providers.ports import FineTuningApi
from finetune_operator.runtime.errors import KubeError, LeadershipLost
from finetune_operator.runtime.queue import Key

POLL_SECONDS = 20.0
LONGEST_POLL_SECONDS = 300.0
LONGEST_POLL_WITHOUT_KEY = 60.0
SOON_SECONDS = 1.0
"""Delay before a new job's first poll; jobs that are added meanwhile join the round."""
PAUSE_FOR_EACH_SECOND = 4.0
"""Minimum pause per second that a round took, so that most of a connection's calls are left for creating jobs."""
METRICS_AT_ONCE = 4
METRICS_TRIES = 10
"""Rounds after which a job's unreadable losses are given up."""
LOOKS_FOR_ONE = 3
"""How many requests must miss a job before it counts as gone."""
UNREAD = "it has ended; its losses cannot be read yet"
METRICS_PER_ROUND = 100
"""Of running jobs: half of the calls that a connection may make until the next round."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """What is known of a job at the provider."""

    job: RemoteJob
    metrics: Metrics = field(default_factory=Metrics)
    unread: Failure | None = None
    """Why nothing newer is known of this job: its own answer, or the report of its results, cannot be read."""
    beside: tuple[str, ...] = ()
    """Running duplicates: other jobs in the list that were created for the same object."""


@dataclass(frozen=True)
class _Watched:
    keys: set[Key]
    """Objects to wake: a job created for one object may be adopted by another."""
    created: datetime


class Poller:
    """Watches jobs of one connection.

    Args:
        api: the provider; raises ProviderError if it cannot be used at all.
        wake: called for each job that has changed.
        refused: called for each round that met an invalid or missing key.
        seconds: between two rounds, while the provider answers; None if the owner calls `round`.
    """

    def __init__(
        self,
        api: Callable[[], Awaitable[FineTuningApi]],
        wake: Callable[[Key], None],
        *,
        refused: Callable[[], None] = lambda: None,
        seconds: float | None = POLL_SECONDS,
    ) -> None:
        self._api = api
        self._wake = wake
        self._refused = refused
        self._seconds = seconds
        self._watched: dict[str, _Watched] = {}
        self._seen: dict[str, Seen] = {}
        self._asked: dict[str, int] = {}
        self._unread: dict[str, int] = {}
        """How often reading a job's losses failed."""
        self._rechecked: dict[str, int] = {}
        """The round in which a job was last fetched again by `recheck`."""
        self._rounds = 0
        self._turn = 0
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self.trouble: ProviderError | None = None
        """Why the last round failed."""

    def watch(self, job_id: str, key: Key, created: datetime) -> Seen | None:
        """What is known of the job, which is polled from now on. `created`: it is no older than this."""
        watched = self._watched.setdefault(job_id, _Watched(set(), created))
        if key not in watched.keys:
            watched.keys.add(key)
            self._news.set()
        if self._seconds is not None and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(self._seconds), name=f"poll for {key.name}")
        return self._seen.get(job_id)

    def discard(self, job_id: str) -> None:
        """Forget what is known of the job, as it may be outdated: it is fetched as if for the first time."""
        self._seen.pop(job_id, None)

    def recheck(self, job_id: str) -> bool:
        """Fetch the job again after another source reported news of it; whether to wait for the result.

        The next round's result counts, even if the other source still disagrees by then.
        """
        if self._rounds - self._rechecked.get(job_id, -2) < 2:
            return False
        self._rechecked[job_id] = self._rounds
        self.discard(job_id)
        return True

    def forget(self, key: Key) -> None:
        """Stop polling the jobs of an object that has ended or was deleted."""
        for job_id, watched in list(self._watched.items()):
            watched.keys.discard(key)
            if not watched.keys:
                del self._watched[job_id]
                self._seen.pop(job_id, None)
                self._asked.pop(job_id, None)
                self._unread.pop(job_id, None)
                self._rechecked.pop(job_id, None)

    def watchers(self) -> set[Key]:
        """All objects that wait for news of a job."""
        return {key for watched in self._watched.values() for key in watched.keys}

    async def close(self) -> None:
        """Stop polling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def round(self) -> None:
        """Poll all jobs once. If the provider cannot be asked, `trouble` says why."""
        if not self._watched:
            return
        self._rounds += 1
        try:
            api = await self._api()
            with parsing_answer():
                await self._poll(api)
        except ProviderError as error:
            self._record_trouble(error)
        except KubeError as error:
            said = f"the connection's Secret cannot be read: {error}"
            self._record_trouble(TryLater(Reason.PROVIDER_UNAVAILABLE, said))
        except LeadershipLost as error:
            logger.info("providers are asked no more: %s", error)
        except Exception as error:  # a bug in the operator must not stop the polling of all jobs
            logger.exception("a round of polling broke off")
            self._record_trouble(Unreadable(type(error).__name__))

    async def _run(self, seconds: float) -> None:
        loop, failures = asyncio.get_running_loop(), 0
        while self._watched:
            self._news.clear()
            await asyncio.sleep(SOON_SECONDS)
            began = loop.time()
            await self.round()
            took = loop.time() - began
            failures = failures + 1 if self.trouble else 0
            longest = min(seconds * 2.0**failures, max(seconds, self._max_interval()))
            asked = (self.trouble.retry_after if self.trouble else None) or 0.0
            # Never earlier than the provider asks for, and not all connections at the same moment.
            pause = max(longest * random.uniform(0.8, 1.2), asked * random.uniform(1.0, 1.2))  # noqa: S311 - jitter
            at_least = pause if failures else min(took * PAUSE_FOR_EACH_SECOND, seconds)
            await self._pause(at_least, pause)

    def _max_interval(self) -> float:
        """With a bad key at most a minute: the admin who fixes it waits for the result."""
        of_the_key = self.trouble is not None and is_key_error(self.trouble)
        return LONGEST_POLL_WITHOUT_KEY if of_the_key else LONGEST_POLL_SECONDS

    async def _pause(self, at_least: float, seconds: float) -> None:
        """Wait for the next round; a new job waits no longer than `at_least`."""
        await asyncio.sleep(min(at_least, seconds))
        try:
            async with asyncio.timeout(max(0.0, seconds - at_least)):
                await self._news.wait()
        except TimeoutError:
            return

    async def _poll(self, api: FineTuningApi) -> None:
        """Read the list, then fetch each job that has ended or is missing there, and some of the running ones."""
        wanted = {job_id for job_id in self._watched if not self._is_over(job_id)}
        listed: dict[str, RemoteJob] = {}
        beside: dict[str, tuple[str, ...]] = {}
        if wanted:
            since = min(self._watched[job_id].created for job_id in wanted)
            shown = await api.jobs(since)
            listed = {job.id: job for job in shown if job.id in wanted}
            beside = self._duplicates(wanted, shown)
        again, self.trouble = self.trouble is not None, None
        chosen = self._to_fetch(wanted, listed)
        for job_id in wanted - chosen:
            self._record(Seen(listed[job_id], self._metrics(job_id), beside=beside.get(job_id, ())), again=again)
        limit = asyncio.Semaphore(METRICS_AT_ONCE)

        async def fetch(job_id: str) -> None:
            async with limit:
                if job_id not in self._watched:
                    return  # forgotten meanwhile
                try:
                    with parsing_answer():
                        seen = await self._fetch(api, job_id, listed.get(job_id))
                except (Denied, Refused, Unreadable) as error:  # the list was read: it concerns this job alone
                    seen = self._with_failure(job_id, error)
                self._record(replace(seen, beside=beside.get(job_id, ())), again=again)

        await _run_all(fetch(job_id) for job_id in sorted(chosen, key=lambda job_id: self._asked.get(job_id, 0)))

    def _duplicates(self, wanted: set[str], shown: Iterable[RemoteJob]) -> dict[str, tuple[str, ...]]:
        """By watched job, its running duplicates: created for the same object, and missed by an earlier lookup.

        A job that another object watches belongs to that object. A later attempt is no duplicate of the watched one.
        """
        of: dict[str, list[RemoteJob]] = {}
        for job in shown:
            if not job.ended and _made_for(job):
                of.setdefault(_made_for(job), []).append(job)
        found: dict[str, tuple[str, ...]] = {}
        for jobs in (jobs for jobs in of.values() if len(jobs) > 1):
            for job in (job for job in jobs if job.id in wanted):
                keys = self._watched[job.id].keys
                earlier = (one for one in jobs if one.id != job.id and _attempt(one) <= _attempt(job))
                found[job.id] = tuple(one.id for one in earlier if self._watchers_of(one.id) <= keys)
        return found

    def _watchers_of(self, job_id: str) -> set[Key]:
        watched = self._watched.get(job_id)
        return watched.keys if watched else set()

    def _to_fetch(self, wanted: set[str], listed: Mapping[str, RemoteJob]) -> set[str]:
        """The jobs to fetch one by one. A thousand running jobs take turns, since only their losses are at stake."""
        running = [job_id for job_id in wanted & listed.keys() if listed[job_id].state == "Active"]
        in_turn = sorted(running, key=lambda job_id: self._asked.get(job_id, 0))[:METRICS_PER_ROUND]
        unsure = {job_id for job_id in wanted if job_id not in listed or listed[job_id].ended}
        return unsure.union(in_turn)

    async def _fetch(self, api: FineTuningApi, job_id: str, listed: RemoteJob | None) -> Seen:
        """Fetch one job with its metrics."""
        self._turn += 1
        self._asked[job_id] = self._turn
        complete = listed is not None and not (listed.partial and listed.ended)
        return await self._with_metrics(api, listed if listed and complete else await self._fetch_unlisted(api, job_id))

    def _with_failure(self, job_id: str, error: ProviderError) -> Seen:
        """What is known of a job whose own answer is unreadable or forbidden; it is fetched again."""
        known = self._seen.get(job_id)
        job = known.job if known else RemoteJob(job_id, "Queued", self._watched[job_id].created)
        return Seen(job, self._metrics(job_id), error.failure())

    def _record(self, seen: Seen, *, again: bool) -> None:
        """Wake the job's watchers if it changed, or if the previous round failed."""
        job_id = seen.job.id
        watched = self._watched.get(job_id)
        if watched is not None and (again or self._seen.get(job_id) != seen):
            self._seen[job_id] = seen
            self._wake_all(watched)

    def _metrics(self, job_id: str) -> Metrics:
        before = self._seen.get(job_id)
        return before.metrics if before else Metrics()

    def _is_over(self, job_id: str) -> bool:
        seen = self._seen.get(job_id)
        return seen is not None and seen.job.ended and seen.unread is None

    async def _fetch_unlisted(self, api: FineTuningApi, job_id: str) -> RemoteJob:
        """Fetch a job that the list lacks, since a list may be stale.

        A single answer may miss it too, and the job would run on unwatched: it is gone only if several answers agree.
        """
        created = self._watched[job_id].created
        for _ in range(LOOKS_FOR_ONE):
            with suppress(NotThere):
                return await api.job(job_id)
        return RemoteJob(id=job_id, state="Gone", created=created)

    async def _with_metrics(self, api: FineTuningApi, job: RemoteJob) -> Seen:
        """The job with its losses. Unreadable losses delay no other job, and this one only for METRICS_TRIES rounds."""
        known, tries = self._metrics(job.id), self._unread.get(job.id, 0)
        needed = job.told_by_report and job.state == "Succeeded"
        if job.state in {"Queued", "Gone"} or (tries >= METRICS_TRIES and not needed):
            return Seen(job, known)
        try:
            with parsing_answer():
                new = await api.metrics(job)
        except (Refused, Denied, Unreadable) as error:
            return Seen(job, known, error.failure() if needed else None)
        except Unknown as error:
            self._unread[job.id] = tries + 1
            if not isinstance(error, ServerError):
                raise
            return Seen(replace(job, state="Active", note=UNREAD) if job.ended else job, known)
        self._unread.pop(job.id, None)
        # A complete record does not say how many steps were planned.
        said = new.step or new.report is not None
        return Seen(job, replace(new, total_steps=max(new.total_steps, known.total_steps)) if said else known)

    def _record_trouble(self, error: ProviderError) -> None:
        known = self.trouble
        self.trouble = error
        if is_key_error(error):
            self._refused()
        if known is None or known.reason != error.reason:
            logger.warning("%d jobs cannot be asked about: %s", len(self._watched), error.message)
            for watched in self._watched.values():
                self._wake_all(watched)

    def _wake_all(self, watched: _Watched) -> None:
        for key in watched.keys:
            self._wake(key)


def _made_for(job: RemoteJob) -> str:
    """A key that is equal for jobs of one object: its UID label, or its training file if the provider keeps no labels.

    A file is uploaded for one attempt only.
    """
    return job.labels.get("uid") or job.training_file


def _attempt(job: RemoteJob) -> int:
    number = job.labels.get("attempt", "")
    return int(number) if number.isdecimal() else 0


async def _run_all(looks: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of them; the first error cancels the rest and is raised for all.

    Raises:
        ProviderError: the provider cannot be asked.
    """
    trouble: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for one in looks:
                group.create_task(one)
    except* ProviderError as troubles:
        trouble = troubles.exceptions[0]
    if trouble is not None:
        raise trouble
