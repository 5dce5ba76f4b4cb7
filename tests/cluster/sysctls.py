"""Kernel settings that kubelets change machine-wide: saved before the first kubelet, restored after the last."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.paths import cache_root, lock

CHANGED_BY_KUBELET = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def note() -> None:
    """Save the machine's values, unless a running cluster has done so."""
    with lock("sysctls"):
        if not _notes().exists():
            _notes().write_text(json.dumps({name: _path(name).read_text().strip() for name in CHANGED_BY_KUBELET}))


def restore() -> None:
    """Restore the machine's values; the caller ensures that no kubelet of ours runs."""
    with lock("sysctls"):
        if _notes().exists():
            for name, value in json.loads(_notes().read_text()).items():
                if _path(name).read_text().strip() != value:
                    _path(name).write_text(value)
            _notes().unlink()


def _path(name: str) -> Path:
    return Path("/proc/sys") / name


def _notes() -> Path:
    return cache_root() / "sysctls.json"
