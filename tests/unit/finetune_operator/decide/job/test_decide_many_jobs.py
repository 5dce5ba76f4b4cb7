"""Thousands of jobs that are applied at once, played by the decisions alone: writes and looks beside their number.

The rates are those of `make bench-operator` on two processors that did nothing else.
"""

import heapq
from dataclasses import dataclass, field

from finetune_api.job_status import FineTuneJobStatus
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.steps import decide
from tests.unit.finetune_operator.decide.given import at, run, view

APPLIED_PER_SECOND = 500
BEGUN_PER_SECOND = 330
TRAINS_SECONDS = 5


@dataclass
class Job:
    made_at: float
    pod_at: float
    status: FineTuneJobStatus = field(default_factory=FineTuneJobStatus)
    looks: int = 0
    due: float | None = None

    def run(self, now: float) -> Run:
        made = at(self.made_at)
        if not self.looks:
            return Run("Absent")
        if now < self.pod_at:
            return run("Queued", awaiting_pod=True, made_at=made, since=made)
        return run("Active", starting=True, made_at=made)

    @property
    def is_silent(self) -> bool:
        return self.status.phase is None


def play(number: int, pods_per_second: float) -> tuple[float, float]:
    """First writes that say only that a job has begun, and looks before its end, for each job."""
    jobs = [Job(n / BEGUN_PER_SECOND, max(n / BEGUN_PER_SECOND + 1, 2 + n / pods_per_second)) for n in range(number)]
    ends = [job.pod_at + TRAINS_SECONDS for job in jobs]
    events = [(time, n) for n, job in enumerate(jobs) for time in (job.made_at, job.pod_at)]
    heapq.heapify(events)
    ended = said = 0
    while events:
        now, n = heapq.heappop(events)
        job = jobs[n]
        while ended < number and ends[ended] <= now:
            said += jobs[ended].is_silent  # of its end, with all the rest
            ended += 1
        if now >= ends[n] or now not in (job.made_at, job.pod_at, job.due):
            continue
        applied = min(int(now * APPLIED_PER_SECOND) + 1, number)
        decision = decide(view(job.run(now), job.status, uid=f"uid-{n}", now=at(now), unrecorded_jobs=applied - said))
        job.looks += 1
        if not decision.later:
            said += job.is_silent
            recorded = decision.status.provider.model_copy(update={"job_id": "sentiment-1-1"})
            job.status = decision.status.model_copy(update={"provider": recorded})
        job.due = None if decision.requeue_after is None else now + decision.requeue_after
        if job.due is not None:
            heapq.heappush(events, (job.due, n))
    return sum(not job.is_silent for job in jobs) / number, sum(job.looks for job in jobs) / number


def test_of_five_thousand_each_costs_hardly_more_writes_and_looks_than_of_one_thousand() -> None:
    writes, looks = play(1000, 55)
    assert writes <= 0.02
    more_writes, more_looks = play(5000, 37)
    assert more_writes - writes <= 0.1, "0.8 where each is spoken of after half a minute"
    assert more_looks - looks <= 1.0, "1.9 where each is looked at again when it has waited twice as long"
    assert play(10_000, 35)[1] - more_looks <= 0.5, "1.1 where each is looked at once a minute"


def test_where_few_begin_or_pods_take_minutes_each_is_spoken_of_before_its_pod() -> None:
    assert play(4, 0.1)[0] == 1.0
    assert play(50, 0.05)[0] >= 0.9
