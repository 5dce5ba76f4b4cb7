"""How much CPU and memory this container may use, from its cgroup (v2 or v1) and the machine.

Only reads: callers size thread pools and caches with it.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_NO_LIMIT = 1 << 60  # cgroup v1 has a huge number if there is no limit


def cpu_threads(root: Path = _CGROUP, environment: Mapping[str, str] = os.environ) -> int:
    """Useful number of threads: OMP_NUM_THREADS, else the CPU quota rounded up, but at most the usable CPUs.

    More threads than the quota are throttled together, which is slower than fewer threads.
    """
    chosen = environment.get("OMP_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    usable = len(os.sched_getaffinity(0))
    quota = _cpu_quota(root)
    return usable if quota is None else max(1, min(usable, math.ceil(quota)))


def free_memory(root: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int:
    """Bytes that may still be allocated: the available memory, or what the cgroup's limit leaves if that is less.

    The page cache counts towards the cgroup's usage, but is freed when memory is needed.
    """
    available = _meminfo(meminfo, "MemAvailable") or _NO_LIMIT
    limit = _limit(root)
    used = _number(root / "memory.current") or _number(root / "memory/memory.usage_in_bytes") or 0
    if limit is None:
        return available
    return max(0, min(available, limit - max(0, used - _cached_files(root))))


def memory_limit(root: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Bytes that no process here can exceed, including swap: the cgroup's limit, or the machine's memory.

    None if neither is known.
    """
    swap, own = _meminfo(meminfo, "SwapTotal"), _number(root / "memory.swap.max")
    limit, machine = _limit(root), _meminfo(meminfo, "MemTotal") + swap
    if limit is not None:
        limit += swap if own is None else min(own, swap)
    return min((one for one in (limit, machine) if one), default=None)


def _limit(root: Path) -> int | None:
    limit = _number(root / "memory.max") or _number(root / "memory/memory.limit_in_bytes")
    return limit if limit is not None and limit < _NO_LIMIT else None


def _cached_files(root: Path) -> int:
    lines = (_text(root / "memory.stat") or _text(root / "memory/memory.stat")).splitlines()
    counts = dict(line.rpartition(" ")[::2] for line in lines)
    return sum(int(counts.get(f"total_{name}", counts.get(name, 0))) for name in ("active_file", "inactive_file"))


def _meminfo(path: Path, name: str) -> int:
    return next((int(line.split()[1]) * 1024 for line in _text(path).splitlines() if line.startswith(f"{name}:")), 0)


def _cpu_quota(root: Path) -> float | None:
    quota, _, period = _text(root / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = _text(root / "cpu/cpu.cfs_quota_us").strip(), _text(root / "cpu/cpu.cfs_period_us").strip()
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # the controller does not exist
