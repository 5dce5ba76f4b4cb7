"""`make bench-operator`: N FineTuneJobs at once on a control plane whose nodes KWOK simulates. Writes Markdown."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench import signals
from bench.scale import bars, edits, figures, ours, page, peer, pushes, world
from bench.scale.load import Times, play
from bench.scale.page import Row, Run
from finetune_api.manifest import Manifest
from tests.cluster import processes

EDITS = 200
RESTART_SECONDS = 300
PEER_AT_MOST = 5000
"""The peer takes nine minutes for this many, and its time grows faster than their number, so it runs no more."""


def main() -> int:
    """Run for each number of jobs, then the reports, and write the page; the exit code says whether all bars are
    met."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="*", default=[1000], help="a run for each")
    parser.add_argument(
        "--peer", action="store_true", help=f"run Kubeflow Trainer with JobSet beside each, up to {PEER_AT_MOST:,}"
    )
    parser.add_argument("--reports", type=int, default=0, help="so many trainers report at once, in a run of its own")
    parser.add_argument("--write", type=Path, help="where the page is written; default: printed")
    options = parser.parse_args()
    rows: list[Row] = []
    others: list[Run] = []
    for count in options.jobs:
        rows.append(measure(count))
        _tell(_parts(rows, others), options.write)
        if options.peer and count <= PEER_AT_MOST:
            others.append(measure_peer(count))
            _tell(_parts(rows, others), options.write)
    if options.reports:
        pushed = page.pushes(options.reports, measure_reports(options.reports))
        _tell([*_parts(rows, others), pushed], options.write)
    return 1 if any(row.failed for row in rows) or any(row.failed for row in others) else 0


def _parts(rows: list[Row], others: list[Run]) -> list[str]:
    beside = [page.peers(others), bars.table(bars.judged(rows, others))] if others else []
    return [page.table(rows), *beside]


def _tell(parts: list[str], file: Path | None) -> None:
    """Write after each run, since the next one may fail."""
    text = page.page(parts)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    print(text)


@contextmanager
def fresh_world() -> Iterator[tuple[world.World, Path]]:
    """A new cluster, and a folder."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-scale-") as folder,
        world.running(f"scale-{os.getpid()}", Path(folder)) as made,
    ):
        yield made, Path(folder)


def measure(count: int) -> Row:
    """One run of jobs, from their POST to their end; then a restart and edits with all of them in place."""
    with fresh_world() as (made, folder):
        ours.install(made, count)
        with ours.running(made, folder) as operator:
            run = _play(made, count, ours, (operator.pid,), operator.check)
        asked = figures.requests(made.audit_log, ours.USER)
        # The operator trusts a pod that has succeeded; on a busy machine Kubernetes is half a minute behind.
        processes.wait_until(lambda: world.is_at_rest(made), "every batch Job ended", timeout=120 + count / 10)
        began = time.monotonic()
        with ours.running(made, folder) as operator:
            processes.wait_until(
                lambda: operator.caught_up(count), "every job looked at", timeout=RESTART_SECONDS, pid=operator.pid
            )
            restart = time.monotonic() - began
            names = [f"job-{number}" for number in range(count)]
            chosen = random.Random(count).sample(names, min(EDITS, count))
            edited = asyncio.run(edits.play(made.cluster.kubeconfig, ours.PATH, chosen))
    return Row(
        **_figures(count, run, asked),
        restart=restart,
        edit_p50=figures.percentile(edited, 0.50),
        edit_p99=figures.percentile(edited, 0.99),
    )


def measure_peer(count: int) -> Run:
    """One run of the peer's jobs, from their POST to their end; figures of its two managers together."""
    with fresh_world() as (made, folder):
        peer.install(made)
        with peer.running(made, folder) as managers:
            run = _play(made, count, peer, managers.pids, managers.check)
        asked = sum((figures.requests(made.audit_log, manager.user) for manager in peer.MANAGERS), Counter())
    return Run(**_figures(count, run, asked))


@dataclass(frozen=True)
class _Played:
    """What a run took; figures of the operator's processes unless said otherwise."""

    times: Times
    peak_mib: float
    cpu_seconds: float
    api_cpu_seconds: float
    others: float


def _figures(count: int, run: _Played, asked: Counter[str]) -> dict[str, Any]:
    """The fields of a `Run`; prints the most frequent API requests."""
    for what, number in asked.most_common(12):
        print(f"  {number / count:7.2f} per job  {what}")
    times, created = run.times, run.times.until(run.times.job_created)
    return {
        "jobs": count,
        "created_p50": figures.percentile(created, 0.50),
        "created_p99": figures.percentile(created, 0.99),
        "all_complete": max(times.complete.values()) - min(times.sent.values()),
        "requests_per_job": sum(asked.values()) / count,
        "peak_mib": run.peak_mib,
        "cpu_seconds": run.cpu_seconds,
        "api_cpu_seconds": run.api_cpu_seconds,
        "others": run.others,
        "failed": len(times.failed),
    }


class _Contender(Protocol):
    """A module with the jobs of an operator."""

    PATH: str

    def jobs(self, count: int) -> Iterator[Manifest]: ...

    def owner_of(self, batch_job: Manifest) -> str | None: ...


def _play(
    made: world.World, count: int, contender: _Contender, pids: Sequence[int], check: Callable[[], None]
) -> _Played:
    began, others = time.monotonic(), _others(made, *pids)
    spent, api = sum(map(figures.cpu_seconds, pids)), figures.cpu_seconds(made.api_server())
    times = asyncio.run(
        play(
            made.cluster.kubeconfig,
            contender.jobs(count),
            path=contender.PATH,
            jobs_path=f"/apis/batch/v1/namespaces/{world.NAMESPACE}/jobs",
            owner_of=contender.owner_of,
            check=check,
            seconds=120 + count,
        )
    )
    return _Played(
        times,
        peak_mib=sum(map(figures.peak_mib, pids)),
        cpu_seconds=sum(map(figures.cpu_seconds, pids)) - spent,
        api_cpu_seconds=figures.cpu_seconds(made.api_server()) - api,
        others=(_others(made, *pids) - others) / (time.monotonic() - began),
    )


def _others(made: world.World, *operators: int) -> float:
    """CPU seconds so far of all processes of the machine that do not belong to the run."""
    own = sum(figures.cpu_seconds(pid) for pid in {*made.pids(), *operators, os.getpid()})
    return figures.machine_seconds() - own


def measure_reports(count: int) -> pushes.Pushed:
    """One run of simultaneous reports."""
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
    with signals.ended_in_order():
        raise SystemExit(main())
