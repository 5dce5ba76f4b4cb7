"""Whole lives of a job in a simulated world: pods end in every way, reports get lost, the operator ends anywhere.

Decisions are recomputed from status and world alone. Whatever happens, the job ends, no attempt is started twice, and a
job makes at most one version.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.job_status import FineTuneJobStatus
from finetune_api.reasons import Reason
from finetune_api.trainer import Report
from finetune_operator.decide.job.attempt_pods import is_live
from finetune_operator.decide.job.read_run import read_run
from finetune_operator.decide.job.steps import decide
from finetune_operator.decide.job.view import Decision, JobView
from tests.unit.finetune_operator.decide.given import (
    at,
    connection,
    ended,
    job_spec,
    kstatus,
    progress,
    report,
    stamp,
    succeeded,
    view,
)

MAX_RETRIES = 3

OUTCOMES = ("succeeds", "succeeds untold", "bad data", "crash", "out of memory", "evicted", "node lost", "deleted")

Events = st.lists(
    st.sampled_from(
        [
            "pod runs",
            "report",
            "checkpoint",
            "report lost",
            "operator ends",
            "nothing",
            "suspend",
            "resume",
            "connection",
            *OUTCOMES,
        ]
    ),
    max_size=40,
)


@dataclass
class World:
    """One job, the attempts' Jobs and pods, the model's versions, and the clock."""

    status: FineTuneJobStatus = field(default_factory=FineTuneJobStatus)
    jobs: dict[int, dict[str, Any]] = field(default_factory=dict)
    pods: dict[int, dict[str, Any]] = field(default_factory=dict)
    posted: Report | None = None
    versions: list[int] = field(default_factory=list)
    suspended: bool = False
    connected: bool = True
    seconds: float = 0
    begun: list[int] = field(default_factory=list)
    """Attempts in the order in which they were started."""
    saved: int = 0
    """Step of the newest checkpoint."""
    over: set[int] = field(default_factory=set)
    """Attempts that status has left behind."""

    @property
    def attempt(self) -> int:
        """The attempt that status names."""
        return max(self.status.provider.attempt if self.status.provider else 0, 1)

    def observe(self) -> JobView:
        job, pod = self.jobs.get(self.attempt), self.pods.get(self.attempt)
        posted = self.posted if self.posted and self.posted.attempt == self.attempt else None
        now = at(self.seconds)
        run = read_run(job, [pod] if pod else [], posted, now)
        return view(
            replace(run, job_id=f"sentiment-1-{self.attempt}") if job else run,
            self.status,
            spec=job_spec(suspend=self.suspended),
            connection=connection({"maxRetries": MAX_RETRIES}) if self.connected else None,
            live_pods=any(is_live(p, now) for p in self.pods.values()),
            version=self.versions[0] if self.versions else None,
            now=now,
        )

    def reconcile(self, ends_before: str = "") -> Decision:
        """One look; `ends_before` names the point at which the operator ends."""
        seen = self.observe()
        decision = decide(seen)
        assert decide(seen) == decision
        if decision.register and ends_before != "register":
            self.versions.append(len(self.versions) + 1)
            decision = decide(replace(seen, version=self.versions[0]))
        if decision.stop and ends_before != "act":
            self.stop(self.attempt)
        status = decision.status
        if decision.start and ends_before != "act":
            assert status.provider is not None
            self.start(status.provider.attempt)
            told = {"job_id": f"sentiment-1-{status.provider.attempt}"}
            status = status.model_copy(update={"provider": status.provider.model_copy(update=told)})
        if not ends_before:
            self.write(status)
        return decision

    def write(self, status: FineTuneJobStatus) -> None:
        before = self.attempt
        self.status = status
        if self.attempt != before:
            self.over.add(before)

    def start(self, attempt: int) -> None:
        assert attempt not in self.over, "an attempt that was recorded as ended is started again"
        assert attempt not in self.jobs, "an attempt is started beside itself"
        assert not any(is_live(pod, at(self.seconds)) for pod in self.pods.values()), "two pods write at once"
        name = {"name": f"sentiment-1-{attempt}", "namespace": "team-a", "uid": f"job-{attempt}"}
        self.jobs[attempt] = {"metadata": name, "spec": {}, "status": {"conditions": []}}
        metadata = {"name": f"pod-{attempt}", "uid": f"pod-{attempt}", "creationTimestamp": stamp(self.seconds)}
        self.pods[attempt] = {"metadata": metadata, "status": {"phase": "Pending"}}
        self.begun.append(attempt)

    def stop(self, attempt: int) -> None:
        self.jobs.pop(attempt, None)
        pod = self.pods.get(attempt)
        if pod is not None and pod["status"]["phase"] == "Pending":
            del self.pods[attempt]
        elif pod is not None:
            pod["metadata"]["deletionTimestamp"] = stamp(self.seconds + 120)

    def happen(self, event: str) -> None:
        """What others do: users, kubelet, Job controller, network."""
        if event == "suspend" or event == "resume":
            self.suspended = event == "suspend"
        elif event == "connection":
            self.connected = not self.connected
        elif event == "operator ends":
            self.reconcile(ends_before="write")
        elif event != "nothing":
            self.happen_to_pod(event)

    def happen_to_pod(self, event: str) -> None:
        job, pod = self.jobs.get(self.attempt), self.pods.get(self.attempt)
        if job is None or pod is None or job["status"]["conditions"]:
            return
        if pod["status"]["phase"] == "Pending":
            pod["status"] = {"phase": "Running"}
        if event == "report":
            self.posted = report("Running", self.attempt, progress=progress(10, self.seconds))
        elif event == "checkpoint":
            self.saved += 1
            told = progress(self.saved, self.seconds) | {"savedStep": self.saved}
            self.posted = report("Running", self.attempt, progress=told)
        elif event in OUTCOMES:
            self.end_pod(event, job, pod)

    def end_pod(self, event: str, job: dict[str, Any], pod: dict[str, Any]) -> None:
        disruption = {"type": "DisruptionTarget", "status": "True"}
        if event == "succeeds":
            self.posted = succeeded(self.attempt)
        statuses: dict[str, dict[str, Any]] = {
            "succeeds": {"phase": "Succeeded", **ended(0)},
            "succeeds untold": {"phase": "Succeeded", **ended(0)},
            "bad data": {"phase": "Failed", **ended(65)},
            "crash": {"phase": "Failed", **ended(1)},
            "out of memory": {"phase": "Failed", **ended(137, "OOMKilled")},
            "evicted": {"phase": "Failed", "conditions": [disruption | {"reason": "EvictionByEvictionAPI"}]},
            "node lost": {"phase": "Running"},
            "deleted": {"phase": "Failed", **ended(75)},
        }
        pod["status"] = statuses[event]
        condition = "Complete" if event.startswith("succeeds") else "Failed"
        if event == "node lost":
            pod["metadata"]["deletionTimestamp"] = stamp(self.seconds)
            condition = "FailureTarget"
        if event == "deleted":
            del self.jobs[self.attempt]
        job["status"]["conditions"] = [{"type": condition, "status": "True", "reason": "BackoffLimitExceeded"}]

    def pass_time(self, seconds: float) -> None:
        """Pods that were told to end do so when their time is over, but for those of lost nodes."""
        self.seconds += seconds
        for pod in self.pods.values():
            due = pod["metadata"].get("deletionTimestamp")
            if due and pod["metadata"]["name"] not in self.lost() and due <= stamp(self.seconds):
                pod["status"] = {"phase": "Failed", **ended(75)}

    def lost(self) -> set[str]:
        marked = (self.jobs[number] for number in self.jobs if self.jobs[number]["status"]["conditions"])
        return {
            f"pod-{job['metadata']['uid'].removeprefix('job-')}"
            for job in marked
            if job["status"]["conditions"][0]["type"] == "FailureTarget"
        }

    @property
    def finished(self) -> bool:
        return self.observe().finished


def live_to_the_end(world: World, outcome: str) -> None:
    """From now on nobody disturbs, and each pod ends in the same way."""
    world.suspended, world.connected = False, True
    for _ in range(80):
        if world.finished and not world.reconcile().stop:
            return
        world.reconcile()
        world.happen_to_pod(outcome)
        world.pass_time(30)
    pytest.fail(f"the job does not end: {world.status}")


@settings(max_examples=150, deadline=None)
@given(Events, st.sampled_from(OUTCOMES))
def test_every_life_ends_with_one_version_or_a_failure(events: list[str], outcome: str) -> None:
    world = World()
    for event in events:
        world.happen(event)
        world.reconcile()
        world.pass_time(7)
    live_to_the_end(world, outcome)
    complete = world.status.phase == "Succeeded"
    assert world.status.phase in {"Succeeded", "Failed"}
    assert kstatus(world.status) == ("Current" if complete else "Failed")
    assert len(world.versions) == (1 if complete else 0)
    assert world.begun == sorted(set(world.begun)), "attempts are started once, in order"
    assert (world.status.failure is None) == complete
    settled = world.reconcile()
    assert (settled.start, settled.stop, settled.register, settled.delete) == (False, False, False, False)
    assert settled.status == world.status


@pytest.mark.parametrize("point", ["register", "act", "write"])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_operator_that_ends_at_every_second_look_changes_nothing_of_the_end(point: str, outcome: str) -> None:
    undisturbed, disturbed = World(), World()
    live_to_the_end(undisturbed, outcome)
    for _ in range(40):
        disturbed.reconcile(ends_before=point)
        disturbed.reconcile()
        disturbed.happen_to_pod(outcome)
        disturbed.pass_time(30)
    live_to_the_end(disturbed, outcome)
    assert disturbed.status.phase == undisturbed.status.phase
    assert len(disturbed.versions) == len(undisturbed.versions)
    assert disturbed.begun == undisturbed.begun
    if undisturbed.status.failure is not None:
        assert disturbed.status.failure is not None
        assert disturbed.status.failure.reason == undisturbed.status.failure.reason


@pytest.mark.parametrize("outcome", ["evicted", "node lost", "deleted"])
def test_a_job_that_is_interrupted_after_each_new_checkpoint_is_never_given_up(outcome: str) -> None:
    world = World()
    for attempt in range(1, 12):
        for _ in range(10):
            world.reconcile()
            world.pass_time(30)
        assert attempt in world.jobs, world.status
        world.happen("checkpoint")
        world.happen(outcome)
        world.reconcile()
    live_to_the_end(world, "succeeds")
    assert (world.status.phase, world.begun) == ("Succeeded", list(range(1, 13)))
    assert world.status.provider is not None
    assert (world.status.provider.interruptions, world.status.provider.fruitless_interruptions) == (11, 0)


def test_a_pod_that_always_falls_over_is_tried_as_often_as_the_connection_allows() -> None:
    world = World()
    live_to_the_end(world, "evicted")
    assert world.begun == [1, 2, 3, 4]
    assert world.status.failure is not None
    assert world.status.failure.reason is Reason.EVICTED
