"""The control group of a node's pods, for cgroup v1 (also the hybrid layout) and v2.

Nodes on the same machine must not share `/kubepods`, so each gets its own group.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.cluster import processes

ROOT = Path("/sys/fs/cgroup")


def create(name: str) -> None:
    """Make the group `name`, which may be a path, in every hierarchy."""
    for hierarchy in _hierarchies():
        group = hierarchy
        for part in Path(name).parts:
            _hand_down_controllers(group)
            group /= part
            group.mkdir(exist_ok=True)
            _inherit_cpuset(group)
        _hand_down_controllers(group)
        _weigh(hierarchy / Path(name).parts[0])


def remove(name: str) -> None:
    """Remove the group `name` with all groups below it; its processes must have been killed.

    Raises:
        ClusterError: a group keeps processes for 20 s.
    """
    for hierarchy in _hierarchies():
        top = hierarchy / name
        if top.exists():
            processes.wait_until(partial(_removed, top), f"control group {top} to be empty", timeout=20)


def _hierarchies() -> Iterator[Path]:
    if (ROOT / "cgroup.controllers").exists():
        yield ROOT
        return
    for entry in ROOT.iterdir():
        if (entry / "cgroup.procs").exists() and not entry.is_symlink():
            yield entry


def _inherit_cpuset(group: Path) -> None:
    """cgroup v1 starts a cpuset empty, and refuses processes until it names processors and memory."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        path = group / file
        if not (ROOT / "cgroup.controllers").exists() and path.exists() and not path.read_text().strip():
            path.write_text((group.parent / file).read_text())


def _weigh(group: Path) -> None:
    """Set the weight of all processors, as on a real node; by default all pods together weigh as one process."""
    for file, one, most in (("cpu.shares", 1024, 1 << 18), ("cpu.weight", 100, 10_000)):  # cgroup v1 and v2
        if (group / file).exists():
            (group / file).write_text(str(min(one * (os.cpu_count() or 1), most)))


def _hand_down_controllers(group: Path) -> None:
    """cgroup v2 gives a group only the controllers that its parent lists."""
    offered, handed_down = group / "cgroup.controllers", group / "cgroup.subtree_control"
    for controller in (
        set(offered.read_text().split()) - set(handed_down.read_text().split()) if offered.exists() else ()
    ):
        handed_down.write_text(f"+{controller}")


def _removed(top: Path) -> bool:
    """Remove the groups from the leaves up; a group stays busy until the last of its dead processes is collected."""
    try:
        for group in sorted((path for path in top.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)):
            group.rmdir()
        top.rmdir()
    except OSError:
        return False
    return True
