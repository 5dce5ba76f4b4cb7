"""Starts and kills the cluster's processes, which are identified by a mark in their environment.

A recorded process ID may belong to another process after a crash; a mark in /proc/PID/environ cannot. So there is no
PID file: only processes with this cluster's mark are ever signalled.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.cluster.errors import ClusterError

MARK = "FINETUNE_TEST_CLUSTER"
LOG_TAIL_LINES = 15


def start(owner: str, role: str, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> int:
    """Start a daemon marked as `owner`'s `role`, its output appended to `log`; return its process id."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **(env or {}), MARK: f"{owner}\t{role}"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # a Ctrl-C in the terminal goes to `up`, which then stops them in order
        )
    _children[process.pid] = process
    return process.pid


def running(owner: str) -> dict[int, str]:
    """Every running process with `owner`'s mark, with its role."""
    prefix = f"{MARK}={owner}\t".encode()
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (mark := _mark_of(entry, prefix)):
            found[int(entry.name)] = mark.removeprefix(prefix).decode()
    return found


def roles_of_all() -> set[str]:
    """The roles of all marked processes on this machine, whoever owns them."""
    prefix = f"{MARK}=".encode()
    marks = (_mark_of(entry, prefix) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {role for mark in marks if mark and (role := mark.decode().partition("\t")[2])}


def kill(pids: Sequence[int], timeout: float = 20) -> None:
    """Kill processes and return when they are gone.

    Raises:
        ClusterError: one still runs after `timeout` seconds.
    """
    handles = {pid: handle for pid in pids if (handle := _open(pid)) is not None}
    try:
        for handle in handles.values():
            with suppress(ProcessLookupError):  # already gone: one process may end with another
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        deadline = time.monotonic() + timeout
        for pid, handle in handles.items():
            if not select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ClusterError(f"process {pid} does not end; see /proc/{pid}/stack")
            _reap(pid)
    finally:
        for handle in handles.values():
            os.close(handle)


def child_of(pid: int) -> int | None:
    """The first child of a process, or None; for `unshare`, the first process of its namespaces."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return None
    return int(children[0]) if children else None


def alive(pid: int) -> bool:
    """Whether a process that `start` started still runs."""
    _reap(pid)
    return Path(f"/proc/{pid}").exists()


def wait_until(
    condition: Callable[[], bool], what: str, *, timeout: float, pid: int | None = None, log: Path | None = None
) -> None:
    """Poll until `condition` holds, for things without events (a port, an API object).

    Raises:
        ClusterError: it does not hold within `timeout` seconds, or process `pid` ended; with the tail of `log`.
    """
    deadline = time.monotonic() + timeout
    pause = 0.02
    while not condition():
        if pid is not None and not alive(pid):
            raise ClusterError(f"{what}: the process ended{tail(log)}")
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not after {timeout:.0f} s{tail(log)}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


def tail(log: Path | None) -> str:
    """The last lines of a log after its path; empty without a log."""
    if log is None or not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return f"; the end of {log}:\n  " + "\n  ".join(lines)


_children: dict[int, subprocess.Popen[bytes]] = {}


def _reap(pid: int) -> None:
    """Reap a child that has ended: until then it would seem to run."""
    if pid in _children and _children[pid].poll() is not None:
        del _children[pid]


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _mark_of(entry: Path, prefix: bytes) -> bytes | None:
    """The mark in a process' environment, or None, also if the process ends meanwhile."""
    try:
        variables = (entry / "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return next((variable for variable in variables if variable.startswith(prefix)), None)
