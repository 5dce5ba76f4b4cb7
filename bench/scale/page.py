"""The results as a page of Markdown: figures, machine, versions, and load."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from bench.machine import described
from bench.scale import figures
from bench.scale.pushes import Pushed

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of jobs, of either operator. Times in seconds."""

    jobs: int
    created_p50: float
    """From a job's POST until the client's watch shows its batch Job; the same for p99."""
    created_p99: float
    all_complete: float
    """From the first POST until the last job is Complete."""
    requests_per_job: float
    """Of the operator, without watches, including its start."""
    peak_mib: float
    cpu_seconds: float
    api_cpu_seconds: float
    """CPU time of the API server: most of the cost of the jobs is there."""
    others: float
    """Processors used by other processes of the machine."""
    failed: int


@dataclass(frozen=True, kw_only=True)
class Row(Run):
    """One run of the operator, including what it does with all jobs in place."""

    restart: float
    """From a start of the process with all jobs in place until each was reconciled and the queue is empty."""
    edit_p50: float
    """From an edit of one of these jobs until its status reflects it; the same for p99."""
    edit_p99: float


def table(rows: list[Row]) -> str:
    """The runs as Markdown."""
    head = (
        "| jobs | apply → Job p50 s | p99 s | all Complete s | requests per job | peak MiB | CPU s "
        "| API server's CPU s | restart s | edit p50 ms | p99 ms | others' CPUs |"
    )
    lines = [head, "|---" * 12 + "|"]
    lines += [
        f"| {row.jobs:,} | {row.created_p50:.1f} | {row.created_p99:.1f} | {row.all_complete:.1f} "
        f"| {row.requests_per_job:.2f} | {row.peak_mib:.0f} | {row.cpu_seconds:.1f} "
        f"| {row.api_cpu_seconds:.1f} | {row.restart:.1f} "
        f"| {1000 * row.edit_p50:.0f} | {1000 * row.edit_p99:.0f} | {row.others:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def peers(rows: list[Run]) -> str:
    """The runs of the peer as Markdown."""
    columns = (
        "TrainJobs | apply → Job p50 s | p99 s | all Complete s | requests per job | peak MiB | CPU s "
        "| API server's CPU s | others' CPUs"
    )
    lines = [f"| {columns} |", "|---" * 9 + "|"]
    lines += [
        f"| {row.jobs:,} | {row.created_p50:.1f} | {row.created_p99:.1f} | {row.all_complete:.1f} "
        f"| {row.requests_per_job:.2f} | {row.peak_mib:.0f} | {row.cpu_seconds:.1f} "
        f"| {row.api_cpu_seconds:.1f} | {row.others:.1f} |"
        for row in rows
    ]
    return "\n".join([f"Kubeflow Trainer {_kubeflow()}, both managers together:\n", *lines])


def pushes(count: int, pushed: Pushed) -> str:
    """The run of reports as Markdown."""
    taken, probes = pushed.taken, pushed.probes
    head = "| trainers | report taken p50 s | p99 s | told to wait | all in status s | probe p50 ms | longest ms |"
    row = (
        f"| {count:,} | {figures.percentile(taken, 0.5):.1f} | {figures.percentile(taken, 0.99):.1f} "
        f"| {pushed.told_to_wait:,} | {pushed.shown:.1f} | {1000 * figures.percentile(probes, 0.5):.0f} "
        f"| {1000 * max(probes):.0f} |"
    )
    return "\n".join([head, "|---" * 7 + "|", row])


def page(parts: list[str]) -> str:
    """The whole page."""
    return "\n\n".join([_HEAD, "\n".join(f"- {fact}" for fact in facts()), *parts, _FOOT]) + "\n"


def facts() -> list[str]:
    """Place, time and versions."""
    return [
        f"{described()}; commit {commit()}",
        f"Kubernetes {kubernetes()} with etcd without fsync, KWOK {_kwok()}; "
        f"kopf {version('kopf')}, aiohttp {version('aiohttp')}, pydantic {version('pydantic')}",
    ]


def _kubeflow() -> str:
    trainer = _required("bench/scale/kubeflow", "github.com/kubeflow/trainer/v2")
    return f"{trainer} with JobSet {_required('bench/scale/kubeflow', 'sigs.k8s.io/jobset')}"


def commit() -> str:
    """The current commit."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _required(folder: str, module: str) -> str:
    """The version of a module that a go.mod requires."""
    words = (ROOT / folder / "go.mod").read_text().split()
    return next(after for word, after in pairwise(words) if word == module and after.startswith("v"))


def kubernetes() -> str:
    """The version of the control plane."""
    return _required("tests/cluster/kube", "k8s.io/kubernetes")


def _kwok() -> str:
    return _required("bench/scale/kwok", "sigs.k8s.io/kwok")


_HEAD = """# The operator at N jobs

Written by `make bench-operator`. Control plane, nodes (played by KWOK: a pod runs after 1 s and succeeds 5 s later),
the operator with its default settings and the client share one machine. Ten jobs make versions of one model; no model
is served."""

_FOOT = """- **apply → Job**: from the POST of a FineTuneJob until the client's watch has its batch Job.
- **requests per job**: all that the operator asked of the API server, watches left out, by the audit log.
- **the peer**: from a TrainJob's POST; requests, memory and CPU are those of both managers. Its webhooks are on. Each
  operator has a fresh control plane to itself, whose own controllers know its kinds by then, one after the other.
  Trainer's client has its rate raised from 20 to 1,000 requests a second, for which it has no setting; JobSet's has
  its default, 500. Bars are those of 1,000 jobs, and from 5,000 on those of 5,000 and 10,000.
- **restart**: from the start of the process, with all objects present, until each job was looked at and nothing waits.
- **edit**: from a PATCH of one job among all until its status speaks of the new generation. Restart and edits begin
  when the Job controller has seen the end of all batch Jobs, which is later than all are Complete.
- **others' CPUs**: processors that other work on the machine took meanwhile. Times grow with it, requests do not."""
