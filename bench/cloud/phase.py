"""One run: the operator's process, providers, and jobs that start at once and end when simulated time advances."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cloud import clouds as providers
from bench.cloud.checks import Checks
from bench.cloud.clouds import MODELS, Cloud, Wanted
from bench.scale import figures, ours
from bench.scale.load import Api, in_turns
from bench.scale.world import NAMESPACE, World
from finetune_api.manifest import Manifest

CONNECTED_SECONDS = 120.0


@dataclass
class Job:
    """What happened to one FineTuneJob. Times of the monotonic clock."""

    cloud: Cloud
    sent: float = 0.0
    submitted: float | None = None
    complete: float | None = None
    released: bool = False
    """Whether everything is done, including the deletion of its files."""
    failure: str = ""


@dataclass
class Calls:
    """Calls of one provider, without its S3."""

    counted: Counter[str]
    in_one_second: int
    """The most calls within any second."""
    per_second: float
    """The most within any ten seconds, per second."""
    refused: int
    """Responses with status 429."""


@dataclass
class Phase:
    """The results of one run."""

    jobs: dict[str, Job]
    calls: dict[str, Calls]
    while_training: dict[str, float]
    """Calls per second at each healthy provider while all of its jobs are in training."""
    requests: int
    cpu_seconds: float
    peak_mib: float
    submitted_after: float
    finished_after: float
    tidied_after: float
    waits: int

    def of(self, cloud: str) -> list[Job]:
        """The jobs of one connection."""
        return [job for job in self.jobs.values() if job.cloud.name == cloud]


@dataclass
class Plan:
    """The parameters of a run."""

    name: str
    wanted: list[Wanted]
    training_seconds: float
    patience: float
    """Timeout of each part in seconds."""


@dataclass
class _Watched:
    """The jobs, updated by a watch."""

    jobs: dict[str, Job]
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self, api: Api) -> None:
        async for kind, obj in api.watch(ours.PATH):
            job = self.jobs.get(obj["metadata"]["name"])
            if job is not None and kind in {"ADDED", "MODIFIED"}:
                self._see(job, obj.get("status") or {})
                job.released = job.complete is not None and not obj["metadata"].get("finalizers")
                self.news.set()

    def _see(self, job: Job, status: Manifest) -> None:
        now, provider = time.monotonic(), status.get("provider") or {}
        if job.submitted is None and provider.get("askedAt") and provider.get("jobID"):
            job.submitted = now
        true = {condition["type"] for condition in status.get("conditions") or () if condition["status"] == "True"}
        if job.complete is None and "Complete" in true:
            job.complete = now
        if "Failed" in true:
            job.failure = str((status.get("failure") or {}).get("message"))

    async def until(self, what: str, seconds: float, done: Any) -> float:
        """Wait until `done` holds for each job of a healthy connection; returns the time.

        Raises:
            RuntimeError: one has failed, or the time limit is exceeded.
        """
        healthy = [job for job in self.jobs.values() if job.cloud.healthy]
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self.news.clear()
                    failed = [job.failure for job in healthy if job.failure]
                    if failed:
                        raise RuntimeError(f"{len(failed)} jobs failed: {failed[0]}")
                    if all(done(job) for job in healthy):
                        return time.monotonic()
                    await self.news.wait()
        except TimeoutError:
            left = Counter(job.cloud.name for job in healthy if not done(job))
            raise RuntimeError(f"after {seconds:g} s not yet {what}: {dict(left)}") from None


def play(world: World, folder: Path, plan: Plan) -> Phase:
    """Run until all jobs of healthy connections have ended."""
    with providers.running(plan.wanted, folder) as (found, environment):
        names = {cloud.name: cloud for cloud in found}
        for cloud in found:
            world.cluster.apply(*cloud.manifests())
        with ours.running(world, folder, environment) as operator:
            spent, asked = figures.cpu_seconds(operator.pid), _requests(world)
            phase = asyncio.run(_play(world, plan, names, operator))
            phase.cpu_seconds = figures.cpu_seconds(operator.pid) - spent
            phase.peak_mib = figures.peak_mib(operator.pid)
            phase.requests = _requests(world) - asked
            phase.calls = {cloud.name: calls_of(cloud.remote.state()["calls"]) for cloud in found}
            return phase


def _requests(world: World) -> int:
    return sum(figures.requests(world.audit_log, ours.USER).values())


async def _play(world: World, plan: Plan, names: dict[str, Cloud], operator: ours.Running) -> Phase:
    manifests = list(_jobs(plan, names))
    watched = _Watched({job["metadata"]["name"]: Job(names[job["spec"]["connectionRef"]["name"]]) for job in manifests})
    async with Api.connect(world.cluster.kubeconfig) as api:
        await _connected(api, set(names))
        for cloud in names.values():
            cloud.fall_ill()
        checks = Checks(api, names, operator.report_port, _is_told)
        tasks = [asyncio.create_task(watched.watch(api)), asyncio.create_task(checks.play())]
        try:
            return await _live(api, plan, manifests, watched, checks)
        finally:
            for task in tasks:
                task.cancel()


async def _live(api: Api, plan: Plan, manifests: list[Manifest], watched: _Watched, checks: Checks) -> Phase:
    """The phases: apply, submitted, in training for a while, ended."""
    began = time.monotonic()

    async def apply(manifest: Manifest) -> None:
        watched.jobs[manifest["metadata"]["name"]].sent = time.monotonic()
        await api.create(ours.PATH, manifest)

    await in_turns(manifests, apply)
    submitted = await watched.until("submitted", plan.patience, lambda job: job.submitted is not None)
    healthy = [cloud for cloud in checks.clouds.values() if cloud.healthy]
    while_training = await _train(healthy, plan.training_seconds)
    for cloud in healthy:
        await asyncio.to_thread(cloud.finish)
    finishing = time.monotonic()
    finished = await watched.until("complete", plan.patience, lambda job: job.complete is not None)
    tidied = await watched.until("tidied up", plan.patience, lambda job: job.released)
    return Phase(
        watched.jobs, {}, while_training, 0, 0.0, 0.0,
        submitted_after=submitted - began, finished_after=finished - finishing, tidied_after=tidied - finishing,
        waits=checks.waits,
    )  # fmt: skip


async def _train(healthy: list[Cloud], seconds: float) -> dict[str, float]:
    """Keep all jobs in training for a while; returns the calls per second at each provider."""

    def calls() -> dict[str, int]:
        return {cloud.name: len(cloud.remote.state()["calls"]) for cloud in healthy}

    for cloud in healthy:
        await asyncio.to_thread(cloud.train)
    before = await asyncio.to_thread(calls)
    await asyncio.sleep(seconds)
    after = await asyncio.to_thread(calls)
    return {name: (after[name] - before[name]) / seconds for name in after if seconds}


async def _connected(api: Api, names: set[str]) -> None:
    """Wait until all connections are Ready, while every provider still works."""
    ready: set[str] = set()
    async with asyncio.timeout(CONNECTED_SECONDS):
        async for _, connection in api.watch(f"/apis/{ours.API}/llmconnections"):
            for condition in (connection.get("status") or {}).get("conditions") or ():
                if (condition["type"], condition["status"]) == ("Ready", "True"):
                    ready.add(connection["metadata"]["name"])
            if names <= ready:
                return


def _is_told(job: str, cloud: Cloud) -> bool:
    """A dead provider dies after it has got the data of every second job."""
    return cloud.trouble == "dead" and int(job.rpartition("-")[2]) % 2 == 0


def _jobs(plan: Plan, names: dict[str, Cloud]) -> Iterator[Manifest]:
    """The connections' jobs, alternating, so that all connections are busy from the start."""
    for number in range(max(cloud.jobs for cloud in names.values())):
        for cloud in names.values():
            if number < cloud.jobs:
                yield _job(plan, cloud, number)


def _job(plan: Plan, cloud: Cloud, number: int) -> Manifest:
    spec = {
        "connectionRef": {"name": cloud.name},
        "baseModel": MODELS[cloud.kind],
        "modelRef": {"name": f"{plan.name}-{cloud.name}-{number // ours.JOBS_PER_MODEL}"},
        "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
    }
    metadata = {"name": f"{plan.name}-{cloud.name}-{number}", "namespace": NAMESPACE}
    return {"apiVersion": ours.API, "kind": "FineTuneJob", "metadata": metadata, "spec": spec}


def make_models(world: World, plan: Plan) -> None:
    """The models whose versions the jobs make; none is served."""
    made = [ours.model(number, f"{plan.name}-{one.name}") for one in plan.wanted
            for number in range(-(-one.jobs // ours.JOBS_PER_MODEL))]  # fmt: skip
    world.cluster.apply(*made)


def calls_of(recorded: list[dict[str, Any]]) -> Calls:
    """Figures from a provider's log of its calls."""
    moments = sorted(call["received"] for call in recorded)
    return Calls(
        counted=Counter(call["operation"] for call in recorded),
        in_one_second=busiest(moments, 1.0),
        per_second=busiest(moments, 10.0) / 10.0,
        refused=sum(call["seen"] == "429" for call in recorded),
    )


def busiest(moments: list[float], seconds: float) -> int:
    """The maximum number of these sorted times within so many seconds."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
