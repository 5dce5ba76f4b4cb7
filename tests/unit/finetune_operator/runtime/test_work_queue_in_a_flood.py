"""The work queue while more new jobs come than the API server lets through. Time is the loop's and jumps."""

import asyncio
import itertools

import fake_time

from finetune_operator.runtime.queue import Key, Lane, Requeue, WorkQueue
from finetune_operator.runtime.settings import Settings

WORKERS = Settings.model_fields["workers"].default


async def longest_wait_in_a_flood(jobs: int) -> float:
    """Of jobs that come ten a second, a little faster than they can be started; each wants another look in its turn."""
    loop, all_started = asyncio.get_running_loop(), asyncio.Event()
    came: dict[Key, float] = {}
    waits: dict[Key, float] = {}

    async def look(key: Key) -> Requeue | None:
        is_new = key in came and key not in waits
        if is_new:
            waits[key] = loop.time() - came[key]
        if len(waits) == jobs:
            all_started.set()
        await asyncio.sleep(0.42)
        return Requeue(0) if is_new else None

    queue = WorkQueue(look, workers=4)
    for number in range(jobs // 10):
        queue.add(Key("FineTunedModel", "team", str(number)))
    queue.start()
    for number in range(jobs):
        key = Key("FineTuneJob", "team", str(number))
        came[key] = loop.time()
        queue.add(key, Lane.NEW)
        await asyncio.sleep(0.1)
    await all_started.wait()
    await queue.drain(10)
    return max(waits.values())


def test_the_last_of_many_new_jobs_wait_in_proportion_to_their_number():
    few, many = (fake_time.run(longest_wait_in_a_flood(jobs)) for jobs in (200, 1000))
    assert many <= 5 * 1.1 * few


class Cluster:
    """Jobs whose pods end, each of which is a look, a write of its model for all that wait, and a write of its job."""

    def __init__(self, workers=WORKERS, end_lane=Lane.ENDED):
        self.end_lane = end_lane
        self.begun = {}
        self.ended = {}
        self.offered = {}
        self.versions = set()
        self.told = {}
        self.queue = WorkQueue(self.look, workers)

    def model_of(self, job):
        raise NotImplementedError

    async def answer(self):
        raise NotImplementedError

    async def look(self, key):
        if key.kind == "FineTunedModel":
            jobs = self.offered.pop(key, [])
            await self.answer()
            self.versions.update(jobs)
            for job in jobs:
                self.queue.add(job, self.end_lane)
            return None
        if key in self.versions:
            await self.answer()
            self.told.setdefault(key, now())
            return None
        if key in self.ended:
            model = Key("FineTunedModel", "team", self.model_of(int(key.name)))
            self.offered.setdefault(model, []).append(key)
            self.queue.add_after(model, 1, self.end_lane)
            return None
        if key in self.begun:
            return Requeue(60)
        await self.answer()
        self.begun[key] = now()
        return Requeue(15)

    async def end_pods(self, per_second):
        for number in itertools.count():
            await asyncio.sleep(1 / per_second)
            job = next(itertools.islice(self.begun, number, None), None)
            if job is not None:
                self.ended[job] = now()
                self.queue.add(job, self.end_lane)


def now():
    return asyncio.get_running_loop().time()


MODELS, NEW_PER_SECOND, PODS_PER_SECOND, ANSWER_SECONDS = 200, 25, 2.5, 1.0


class SlowCluster(Cluster):
    """A second for each write, more new jobs than that lets through, and many looks by time."""

    def model_of(self, job):
        return str(job % MODELS)

    async def answer(self):
        await asyncio.sleep(ANSWER_SECONDS)

    async def flood(self, seconds):
        for number in range(MODELS):
            self.queue.add(Key("FineTunedModel", "team", str(number)))
        self.queue.start()
        ending = asyncio.create_task(self.end_pods(PODS_PER_SECOND))
        for number in range(seconds * NEW_PER_SECOND):
            self.queue.add(Key("FineTuneJob", "team", str(number)), Lane.NEW)
            await asyncio.sleep(1 / NEW_PER_SECOND)
        ending.cancel()
        await self.queue.drain(0)
        return self


def test_ends_are_told_while_jobs_come_faster_than_a_slow_api_server_takes_them():
    without, with_lane = (fake_time.run(SlowCluster(end_lane=lane).flood(120)) for lane in (Lane.OTHERS, Lane.ENDED))
    assert not without.told, "behind first statuses of models, and looks by the time"
    waits = sorted(told - with_lane.ended[job] for job, told in with_lane.told.items())
    assert len(waits) >= 0.9 * len(with_lane.ended)
    assert waits[-1] <= 20
    assert len(with_lane.begun) >= 0.65 * len(without.begun), "each end is two writes, which are not of new jobs then"


AT_ONCE_OF_THE_CLIENT, REQUESTS_PER_SECOND, JOBS_PER_MODEL = 16, 400, 10
FIRST_POD_ENDS_AFTER, QUICK_PODS_PER_SECOND = 8, 25


class SharedCluster(Cluster):
    """All requests have the same share of the API server's time, those of the client that applies jobs, too."""

    def __init__(self, workers=WORKERS):
        super().__init__(workers)
        self.at_once = 0
        self.sent = {}
        self.all_sent_are_begun = asyncio.Event()

    def model_of(self, job):
        return str(job // JOBS_PER_MODEL)

    async def look(self, key):
        again = await super().look(key)
        if len(self.begun) == len(self.sent):
            self.all_sent_are_begun.set()
        return again

    async def answer(self):
        self.at_once += 1
        await asyncio.sleep(0.01 + self.at_once / REQUESTS_PER_SECOND)
        self.at_once -= 1

    async def apply(self, numbers):
        for number in numbers:
            job = Key("FineTuneJob", "team", str(number))
            self.sent[job] = now()
            await self.answer()
            self.queue.add(job, Lane.NEW)

    async def flood(self, jobs):
        """The median and the 99th percentile of the time from a job's POST until its batch Job is there."""
        self.queue.start()
        numbers = iter(range(jobs))
        ending = asyncio.create_task(self._end())
        await asyncio.gather(*(self.apply(numbers) for _ in range(AT_ONCE_OF_THE_CLIENT)))
        await self.all_sent_are_begun.wait()
        ending.cancel()
        await self.queue.drain(0)
        waits = sorted(begun - self.sent[job] for job, begun in self.begun.items())
        return waits[jobs // 2], waits[jobs * 99 // 100]

    async def _end(self):
        await asyncio.sleep(FIRST_POD_ENDS_AFTER)
        await self.end_pods(QUICK_PODS_PER_SECOND)


def test_time_to_the_batch_job_grows_no_faster_than_the_number_though_jobs_end_meanwhile():
    few, many = (fake_time.run(SharedCluster().flood(jobs)) for jobs in (1000, 5000))
    for early, late in zip(few, many, strict=True):
        assert late <= 5 * 1.1 * early
