"""Figures from recorded data: percentiles, requests in the audit log, CPU and memory of a process."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson

TICKS = os.sysconf("SC_CLK_TCK")


def percentile(values: Sequence[float], part: float) -> float:
    """Nearest rank: the smallest value that is not exceeded by `part` of all values; nan without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else math.nan


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine_seconds() -> float:
    """CPU seconds of all processors so far, except for idling and waiting."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) / TICKS


def peak_mib(pid: int) -> float:
    """The peak resident memory of a process, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def requests(audit_log: Path, user: str) -> Counter[str]:
    """A user's completed requests in the audit log by verb and resource, without watches."""
    counted: Counter[str] = Counter()
    with audit_log.open("rb") as lines:
        for line in lines:
            event = orjson.loads(line)
            about = event.get("objectRef") or {}
            if event["user"]["username"] != user or event["verb"] == "watch":
                continue
            resource = "/".join(part for part in (about.get("resource"), about.get("subresource")) if part)
            counted[f"{event['verb']} {resource or event['requestURI'].partition('?')[0]}"] += 1
    return counted
