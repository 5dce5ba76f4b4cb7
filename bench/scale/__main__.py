"""`make bench-operator`: N FineTuneJobs at once on a control plane whose nodes KWOK plays. Writes Markdown."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.scale import edits, figures, ours, page, pushes, world
from bench.scale.load import Times, play
from bench.scale.page import Row
from tests.cluster import processes

EDITS = 200
RESTART_SECONDS = 300


def main() -> int:
    """Run for each number of jobs, then for the reports, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="*", default=[1000], help="a run for each")
    parser.add_argument("--reports", type=int, default=0, help="so many trainers report at once, in a run of its own")
    parser.add_argument("--write", type=Path, help="where the page is written; default: printed")
    options = parser.parse_args()
    rows: list[Row] = []
    for count in options.jobs:
        rows.append(measure(count))
        _tell([page.table(rows)], options.write)
    if options.reports:
        _tell([page.table(rows), page.pushes(options.reports, measure_reports(options.reports))], options.write)
    return 1 if any(row.failed for row in rows) else 0


def _tell(parts: list[str], file: Path | None) -> None:
    """After each run: the next one may fail."""
    text = page.page(parts)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    print(text)


@contextmanager
def fresh_world() -> Iterator[tuple[world.World, Path]]:
    """A cluster of its own, and a folder."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-scale-") as folder,
        world.running(f"scale-{os.getpid()}", Path(folder)) as made,
    ):
        yield made, Path(folder)


def measure(count: int) -> Row:
    """One run of jobs, from their POST to their end; then a restart and edits with all of them present."""
    with fresh_world() as (made, folder):
        ours.install(made, count)
        with ours.running(made, folder) as operator:
            before, others = figures.cpu_seconds(operator.pid), _others(made, operator.pid)
            began = time.monotonic()
            times = _play(made, count, operator)
            others = (_others(made, operator.pid) - others) / (time.monotonic() - began)
            spent, peak = figures.cpu_seconds(operator.pid) - before, figures.peak_mib(operator.pid)
        asked = figures.requests(made.audit_log, ours.USER)
        began = time.monotonic()
        with ours.running(made, folder) as operator:
            processes.wait_until(
                lambda: operator.caught_up(count), "every job looked at", timeout=RESTART_SECONDS, pid=operator.pid
            )
            restart = time.monotonic() - began
            names = [f"job-{number}" for number in range(count)]
            chosen = random.Random(count).sample(names, min(EDITS, count))
            edited = asyncio.run(edits.play(made.cluster.kubeconfig, ours.PATH, chosen))
    for what, number in asked.most_common(12):
        print(f"  {number / count:7.2f} per job  {what}")
    created = times.until(times.job_created)
    return Row(
        jobs=count,
        created_p50=figures.percentile(created, 0.50),
        created_p99=figures.percentile(created, 0.99),
        all_complete=max(times.complete.values()) - min(times.sent.values()),
        requests_per_job=sum(asked.values()) / count,
        peak_mib=peak,
        cpu_seconds=spent,
        restart=restart,
        edit_p50=figures.percentile(edited, 0.50),
        edit_p99=figures.percentile(edited, 0.99),
        others=others,
        failed=len(times.failed),
    )


def _play(made: world.World, count: int, operator: ours.Running) -> Times:
    return asyncio.run(
        play(
            made.cluster.kubeconfig,
            ours.jobs(count),
            path=ours.PATH,
            jobs_path=f"/apis/batch/v1/namespaces/{world.NAMESPACE}/jobs",
            owner_of=ours.owner_of,
            check=operator.check,
            seconds=120 + count,
        )
    )


def _others(made: world.World, operator: int) -> float:
    """CPU seconds so far of everything on the machine that does not belong to the run."""
    own = sum(figures.cpu_seconds(pid) for pid in (*made.pids(), operator, os.getpid()))
    return figures.machine_seconds() - own


def measure_reports(count: int) -> pushes.Pushed:
    """One run of reports that come at once."""
    with fresh_world() as (made, folder):
        ours.install(made, count)
        with ours.running(made, folder) as operator:
            return asyncio.run(
                pushes.play(
                    made.cluster.kubeconfig,
                    ours.PATH,
                    list(ours.jobs(count, ours.LASTING)),
                    report_port=operator.report_port,
                    probe_port=operator.probe_port,
                    seconds=240 + count,
                )
            )


if __name__ == "__main__":
    raise SystemExit(main())
