"""Requirements for the operator compared with its peer in the same run, and whether they are met. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.scale.page import Row, Run

MANY = 5000
"""From this many jobs on requirements are stricter."""
MB_PER_MIB = 1.048576
LINEAR = 1.1
"""How much more than linearly a time may grow from one size to the next: runs vary."""


@dataclass(frozen=True)
class Bar:
    """One requirement: a figure that must not exceed `limit`."""

    jobs: int
    what: str
    figure: float
    limit: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether it is met."""
        return self.figure <= self.limit


def judged(rows: Sequence[Row], peers: Sequence[Run]) -> list[Bar]:
    """All requirements; those relative to the peer only if it ran with as many jobs."""
    beside = {peer.jobs: peer for peer in peers}
    found = [bar for row in rows for bar in _of(row, beside.get(row.jobs))]
    ordered = sorted(rows, key=lambda row: row.jobs)
    return found + [bar for smaller, larger in pairwise(ordered) for bar in _growth(smaller, larger)]


def _of(row: Row, peer: Run | None) -> list[Bar]:
    bars = [
        Bar(row.jobs, "requests per job", row.requests_per_job, 4.0),
        Bar(row.jobs, "cold restart", row.restart, 15.0, " s"),
        Bar(row.jobs, "an edit, p99", 1000 * row.edit_p99, 100.0, " ms"),
    ]
    if row.jobs >= MANY:
        bars.append(
            Bar(row.jobs, "peak memory", row.peak_mib * MB_PER_MIB, 200.0 if row.jobs == MANY else 300.0, " MB")
        )
    if peer is None:
        return bars
    part = 0.12 if row.jobs >= MANY else 0.2
    return [
        Bar(row.jobs, "apply → Job p50 / peer's", row.created_p50 / peer.created_p50, part),
        Bar(row.jobs, "apply → Job p99 / peer's", row.created_p99 / peer.created_p99, part),
        Bar(row.jobs, "all Complete / peer's", row.all_complete / peer.all_complete, 0.5),
        Bar(row.jobs, "peak memory / peer's", row.peak_mib / peer.peak_mib, 1.0),
        *bars,
    ]


def _growth(smaller: Row, larger: Row) -> list[Bar]:
    """No growth worse than linear: the time per job must not grow with the number of jobs."""
    times = {
        "apply → Job p50": (smaller.created_p50, larger.created_p50),
        "apply → Job p99": (smaller.created_p99, larger.created_p99),
        "all Complete": (smaller.all_complete, larger.all_complete),
        "cold restart": (smaller.restart, larger.restart),
        "CPU": (smaller.cpu_seconds, larger.cpu_seconds),
    }
    size = larger.jobs / smaller.jobs
    return [
        Bar(larger.jobs, f"{what}, growth from {smaller.jobs:,} / growth of the number", late / early / size, LINEAR)
        for what, (early, late) in times.items()
    ]


def table(bars: Sequence[Bar]) -> str:
    """As Markdown."""
    lines = ["| jobs | what | measured | at most | |", "|---" * 5 + "|"]
    lines += [
        f"| {bar.jobs:,} | {bar.what} | {bar.figure:.2f}{bar.unit} | {bar.limit:g}{bar.unit} "
        f"| {'met' if bar.met else 'missed'} |"
        for bar in bars
    ]
    return "\n".join(lines)
