"""Asks one connection's provider how its jobs are, for all of them together, and has those that changed looked at.

A provider sends no events, so this stands in for a watch: what it has seen is a cache that a restart may empty. A job
is asked about by the list where the list has it, so that a thousand jobs cost ten calls a round.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from finetune_operator.decide.remote import Metrics, RemoteJob
from finetune_operator.providers.errors import NotThere, ProviderError
from finetune_operator.providers.ports import FineTuningApi
from finetune_operator.runtime.queue import Key

POLL_SECONDS = 20.0
LONGEST_POLL_SECONDS = 300.0
SOON_SECONDS = 1.0
"""A job that was just made is asked about after this; others that come meanwhile go along."""
METRICS_AT_ONCE = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """What is known of a job at the provider."""

    job: RemoteJob
    metrics: Metrics = field(default_factory=Metrics)


@dataclass(frozen=True)
class _Watched:
    keys: set[Key]
    """Who wants to know: a job that was made for one object may be adopted by another."""
    created: datetime


class Poller:
    """Watches jobs of one connection.

    Args:
        api: the provider; raises ProviderError where it cannot be asked at all.
        wake: told of each job that has changed.
        background: whether to poll by itself; without it somebody calls `round`.
        seconds: between two rounds, while the provider is well.
    """

    def __init__(
        self,
        api: Callable[[], Awaitable[FineTuningApi]],
        wake: Callable[[Key], None],
        *,
        background: bool = True,
        seconds: float = POLL_SECONDS,
    ) -> None:
        self._api = api
        self._wake = wake
        self._background = background
        self._seconds = seconds
        self._watched: dict[str, _Watched] = {}
        self._seen: dict[str, Seen] = {}
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self.trouble: ProviderError | None = None
        """Why the last round saw nothing."""

    def watch(self, job_id: str, key: Key, created: datetime) -> Seen | None:
        """What is known of the job; from now on it is asked about. `created`: it is no older than this."""
        watched = self._watched.setdefault(job_id, _Watched(set(), created))
        if key not in watched.keys:
            watched.keys.add(key)
            self._news.set()
            if self._background and (self._task is None or self._task.done()):
                self._task = asyncio.create_task(self._run(), name=f"poll for {key.name}")
        return self._seen.get(job_id)

    def forget(self, key: Key) -> None:
        """An object has ended or is gone: its jobs are asked about no more."""
        for job_id, watched in list(self._watched.items()):
            watched.keys.discard(key)
            if not watched.keys:
                del self._watched[job_id]
                self._seen.pop(job_id, None)

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def round(self) -> None:
        """Ask about all jobs once. Never raises for the provider's sake: `trouble` says what was wrong."""
        if not self._watched:
            return
        try:
            api = await self._api()
            found = await self._ask(api)
        except ProviderError as error:
            self._tell_trouble(error)
            return
        was_troubled, self.trouble = self.trouble is not None, None
        for job_id, seen in found.items():
            watched = self._watched.get(job_id)
            if watched is not None and (was_troubled or self._seen.get(job_id) != seen):
                self._seen[job_id] = seen
                self._wake_all(watched)

    async def _run(self) -> None:
        failures = 0
        while self._watched:
            self._news.clear()
            await asyncio.sleep(SOON_SECONDS)
            await self.round()
            failures = failures + 1 if self.trouble else 0
            longest = min(self._seconds * 2.0**failures, max(self._seconds, LONGEST_POLL_SECONDS))
            pause = max(longest, (self.trouble.retry_after if self.trouble else None) or 0.0)
            await self._rest(pause * random.uniform(0.8, 1.2), wakeful=not failures)  # noqa: S311 - jitter

    async def _rest(self, seconds: float, *, wakeful: bool) -> None:
        """Until the next round; a new job is not made to wait, unless the provider is in trouble."""
        try:
            async with asyncio.timeout(seconds):
                await (self._news.wait() if wakeful else asyncio.Event().wait())
        except TimeoutError:
            return

    async def _ask(self, api: FineTuningApi) -> dict[str, Seen]:
        wanted = {job_id for job_id in self._watched if not self._is_over(job_id)}
        if not wanted:
            return {}
        since = min(self._watched[job_id].created for job_id in wanted)
        listed = {job.id: job for job in await api.jobs(since) if job.id in wanted}
        jobs = {job_id: job for job_id, job in listed.items() if not (job.partial and job.ended)}
        for job_id in wanted - jobs.keys():
            jobs[job_id] = await self._one(api, job_id)
        limit = asyncio.Semaphore(METRICS_AT_ONCE)

        async def with_metrics(job: RemoteJob) -> Seen:
            async with limit:
                return await self._with_metrics(api, job)

        found = await asyncio.gather(*(with_metrics(job) for job in jobs.values()))
        return {seen.job.id: seen for seen in found}

    def _is_over(self, job_id: str) -> bool:
        seen = self._seen.get(job_id)
        return seen is not None and seen.job.ended

    async def _one(self, api: FineTuningApi, job_id: str) -> RemoteJob:
        """A job that the list lacks: a list may lag behind, so it is asked for by its name."""
        try:
            return await api.job(job_id)
        except NotThere:
            return RemoteJob(id=job_id, state="Gone", created=self._watched[job_id].created)

    async def _with_metrics(self, api: FineTuningApi, job: RemoteJob) -> Seen:
        before = self._seen.get(job.id)
        known = before.metrics if before else Metrics()
        if job.state in {"Queued", "Gone"}:
            return Seen(job, known)
        try:
            new = await api.metrics(job)
        except NotThere:
            return Seen(job, known)
        # A record that ends does not say how many steps there should have been.
        said = new.step or new.report is not None
        return Seen(job, replace(new, total_steps=max(new.total_steps, known.total_steps)) if said else known)

    def _tell_trouble(self, error: ProviderError) -> None:
        known = self.trouble
        self.trouble = error
        if known is None or known.reason != error.reason:
            logger.warning("%d jobs cannot be asked about: %s", len(self._watched), error.message)
            for watched in self._watched.values():
                self._wake_all(watched)

    def _wake_all(self, watched: _Watched) -> None:
        for key in watched.keys:
            self._wake(key)
