"""What figures were measured on, in one line: every table of bench/results has it."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path


def described() -> str:
    """Day, processor, cores, memory, system, Python, and how busy the machine was in the last minute."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({model or platform.machine()}), {gib:.0f} GiB, "
        f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}, "
        f"load average {os.getloadavg()[0]:.1f}"
    )
