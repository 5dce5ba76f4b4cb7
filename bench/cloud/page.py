"""The results as a page of Markdown: two runs side by side, without and with failing providers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version

from bench.cloud.phase import Calls, Job, Phase
from bench.machine import described
from bench.scale import figures
from bench.scale.page import commit, kubernetes

BAR = 1.2
"""Limit of the delay of healthy connections' jobs due to others' providers, as a factor."""
KINDS = ("create", "list", "get", "delete")


@dataclass(frozen=True)
class Result:
    """The run of healthy connections alone, and the run beside failing ones."""

    alone: Phase
    beside: Phase

    def ratio(self, part: float) -> float:
        """How many times longer healthy connections' jobs took to be submitted beside failing ones, at a percentile."""
        return self._submitted(self.beside, part) / self._submitted(self.alone, part)

    def _submitted(self, phase: Phase, part: float) -> float:
        return figures.percentile(waits(job for job in phase.jobs.values() if job.cloud.healthy), part)


def waits(jobs: object) -> list[float]:
    """Seconds from the POST of each job until its status has the provider's job ID."""
    found: list[Job] = list(jobs)  # type: ignore[call-overload]
    return [job.submitted - job.sent for job in found if job.submitted is not None]


def page(result: Result) -> str:
    """The whole page."""
    return "\n\n".join([_HEAD, _facts(result), _runs(result), _late(result), _calls(result.beside), _FOOT]) + "\n"


def _facts(result: Result) -> str:
    count = len(result.beside.jobs)
    return "\n".join([
        f"- {described()}; commit {commit()}",
        f"- Kubernetes {kubernetes()} with etcd without fsync; openai {version('openai')}, boto3 {version('boto3')}, "
        f"azure-identity {version('azure-identity')}, moto {version('moto')}",
        f"- {count:,} jobs at once: {', '.join(_described(result))}",
    ])  # fmt: skip


def _described(result: Result) -> list[str]:
    clouds = {job.cloud.name: job.cloud for job in result.beside.jobs.values()}
    return [
        f"{one.jobs} at {one.name} ({one.kind}{', ' + one.trouble if one.trouble else ''})" for one in clouds.values()
    ]


def _runs(result: Result) -> str:
    columns = (
        "run | jobs | healthy: all submitted s | all Complete s | tidied up s | uploads told to wait "
        "| API requests per job | CPU s | peak MiB"
    )
    lines = [f"| {columns} |", "|---" * 9 + "|"]
    for name, phase in (("healthy alone", result.alone), ("slow and dead beside", result.beside)):
        times = " | ".join(f"{one:.1f}" for one in (phase.submitted_after, phase.finished_after, phase.tidied_after))
        lines.append(
            f"| {name} | {len(phase.jobs):,} | {times} | {phase.waits:,} | {phase.requests / len(phase.jobs):.1f} "
            f"| {phase.cpu_seconds:.1f} | {phase.peak_mib:.0f} |"
        )
    return "\n".join(lines)


def _late(result: Result) -> str:
    """Which jobs were delayed."""
    head = "| connection | submitted p50 s alone | beside | ratio | p99 s alone | beside | ratio |"
    lines = [head, "|---" * 7 + "|"]
    names = {job.cloud.name: job.cloud for job in result.beside.jobs.values()}
    for name, cloud in names.items():
        beside = waits(result.beside.of(name))
        if not cloud.healthy:
            told = f"{len(beside)} of {cloud.jobs} submitted"
            lines.append(f"| {name} ({cloud.trouble}) | | {told} | | | | |")
            continue
        alone = waits(result.alone.of(name))
        cells = []
        for part in (0.5, 0.99):
            one, other = figures.percentile(alone, part), figures.percentile(beside, part)
            cells += [f"{one:.1f}", f"{other:.1f}", f"{other / one:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    p50, p99 = result.ratio(0.5), result.ratio(0.99)
    met = "met" if max(p50, p99) <= BAR else "missed"
    lines.append(f"\nAll healthy connections together: p50 {p50:.2f}, p99 {p99:.2f} times; bar {BAR}: {met}.")
    return "\n".join(lines)


def _calls(phase: Phase) -> str:
    head = (
        f"| connection | {' | '.join(f'{kind} per job' for kind in KINDS)} | others "
        "| most in 1 s | most per second in 10 s | per second while all are trained | 429s |"
    )
    lines = [head, "|---" * (len(KINDS) + 6) + "|"]
    for name, calls in phase.calls.items():
        jobs = len(phase.of(name))
        by_kind = kinds(calls)
        counted = " | ".join(f"{by_kind[kind] / jobs:.1f}" for kind in KINDS)
        training = phase.while_training.get(name)
        lines.append(
            f"| {name} | {counted} | {by_kind['other']} | {calls.in_one_second} | {calls.per_second:.1f} "
            f"| {'' if training is None else f'{training:.1f}'} | {calls.refused} |"
        )
    return "\n".join(lines)


def kinds(calls: Calls) -> Counter[str]:
    """Calls by kind, from the providers' names of operations."""
    found: Counter[str] = Counter()
    for operation, count in calls.counted.items():
        found[_kind(operation)] += count
    return found


def _kind(operation: str) -> str:
    verb = operation.rpartition(".")[2].lower()
    if verb.startswith("create"):
        return "create"
    if verb.startswith("list"):
        return "list"
    if verb.startswith("delete"):
        return "delete"
    return "get" if verb.startswith(("get", "retrieve", "content")) else "other"


_HEAD = """# Jobs at providers outside of the cluster, one of them slow and one dead

Written by `make bench-cloud`. The operator's process with the chart's rights and default settings, the real API server
without controllers, the client and the providers share one machine. Providers are the simulators of the tests, in
processes of their own, over HTTP; pods that check data are played: each sends a small file through the operator and
tries again as the trainer does. The slow provider answers after 2 s. The dead one takes connections and never answers:
it dies after its connection was Ready, and half of its jobs have brought it their data before."""

_FOOT = """- **submitted**: from a job's POST until its status has the provider's name of it; its data are sent before.
- **all Complete**, **tidied up**: from the moment when all jobs have ended at their providers; versions are registered,
  and then files are deleted.
- **calls**: by the providers' own record of the second run, S3 left out; of a job's whole life, its share of polls too.
- The limit of a connection is ten calls a second."""
