"""How much CPU and memory this container may use, from its cgroup (v2 or v1) and the machine.

It sets nothing: callers size thread pools and caches with it.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60  # cgroup v1 writes a huge number where there is no limit


def cpu_threads(root: Path = _CGROUP, environment: Mapping[str, str] = os.environ) -> int:
    """Threads that make sense here: OMP_NUM_THREADS, else the CPU quota rounded up, never more than the usable CPUs.

    More threads than the quota pays for are throttled together, which is slower than having fewer.
    """
    chosen = environment.get("OMP_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    usable = len(os.sched_getaffinity(0))
    quota = _cpu_quota(root)
    return usable if quota is None else max(1, min(usable, math.ceil(quota)))


def free_memory(root: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that may still be taken: what is available, or what the cgroup's limit leaves if that is less."""
    available = _NO_LIMIT
    for line in _text(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit = _number(root / "memory.max") or _number(root / "memory/memory.limit_in_bytes")
    used = _number(root / "memory.current") or _number(root / "memory/memory.usage_in_bytes") or 0
    if limit is None or limit >= _NO_LIMIT:
        return available
    return max(0, min(available, limit - used))


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
        return ""  # no such controller here
