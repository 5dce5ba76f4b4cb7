"""One line about the machine of the measurements, for every table in bench/results."""

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def described() -> str:
    """Date, processor, cores, memory, GPUs, system, Python, and the load of the last minute."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({model or platform.machine()}), {gib:.0f} GiB, "
        f"{''.join(f'{gpu}, ' for gpu in _gpus())}Linux {platform.release().partition('-')[0]}, "
        f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f}"
    )


def _gpus() -> list[str]:
    """Their names from the driver's own tool, as most of bench/ imports no torch."""
    if not (tool := shutil.which("nvidia-smi")):
        return []
    asked = [tool, "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
