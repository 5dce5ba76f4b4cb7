"""`make bench-operator`: N FineTuneJobs at once on a control plane whose nodes KWOK plays; prints a Markdown table."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.scale import figures, ours, world
from bench.scale.load import play


@dataclass(frozen=True)
class Row:
    """One run. Times in seconds."""

    jobs: int
    created_p50: float
    """From a job's POST until the client's watch shows its batch Job; the same for p99."""
    created_p99: float
    all_complete: float
    """From the first POST until the last job is Complete."""
    requests_per_job: float
    """Of the operator, watches left out, its start and restart included."""
    peak_mib: float
    cpu_seconds: float
    restart_seconds: float
    """From a start of the process with all jobs present until it is ready."""
    failed: int


def main() -> int:
    """Run for each number of jobs, and print a row each."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1000])
    options = parser.parse_args()
    rows = [measure(count) for count in options.jobs]
    print(table(rows))
    return 1 if any(row.failed for row in rows) else 0


def measure(count: int) -> Row:
    """One run on a cluster of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-scale-") as temporary,
        world.running(f"scale-{os.getpid()}", folder := Path(temporary)) as made,
    ):
        ours.install(made, count)
        with ours.running(made, folder) as pid:
            before = figures.cpu_seconds(pid)
            times = asyncio.run(
                play(
                    made.cluster.kubeconfig,
                    ours.jobs(count),
                    path=ours.PATH,
                    jobs_path=f"/apis/batch/v1/namespaces/{world.NAMESPACE}/jobs",
                    owner_of=ours.owner_of,
                    seconds=60 + count * 0.5,
                )
            )
            spent = figures.cpu_seconds(pid) - before
            peak = figures.peak_mib(pid)
        began = time.monotonic()
        with ours.running(made, folder):
            restart = time.monotonic() - began
        asked = figures.requests(made.audit_log, ours.USER)
    for what, number in asked.most_common(20):
        print(f"  {number / count:7.2f} per job  {what}")
    created = times.until(times.job_created)
    first = min(times.sent.values())
    return Row(
        jobs=count,
        created_p50=figures.percentile(created, 0.50),
        created_p99=figures.percentile(created, 0.99),
        all_complete=max(times.complete.values()) - first,
        requests_per_job=sum(asked.values()) / count,
        peak_mib=peak,
        cpu_seconds=spent,
        restart_seconds=restart,
        failed=len(times.failed),
    )


def table(rows: list[Row]) -> str:
    """As Markdown."""
    head = "| jobs | apply → Job p50 s | p99 s | all Complete s | requests per job | peak MiB | CPU s | restart s |"
    lines = [head, "|---" * 8 + "|"]
    lines += [
        f"| {row.jobs} | {row.created_p50:.1f} | {row.created_p99:.1f} | {row.all_complete:.1f} "
        f"| {row.requests_per_job:.2f} | {row.peak_mib:.0f} | {row.cpu_seconds:.1f} | {row.restart_seconds:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
