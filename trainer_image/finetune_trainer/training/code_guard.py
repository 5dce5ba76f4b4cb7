"""Run as a script beside the user's code: kills it and everything it started when the trainer is gone.

The trainer holds the other end of this process's stdin. Launchers such as torchrun start children in their own session
and process group: these are found by their parents. Imports nothing of the package, so that it starts at once.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path


def end_with_the_input(leader: int) -> None:
    """Wait for the end of stdin, then kill the process, its group and its descendants."""
    sys.stdin.read()
    left = [leader, *_below(leader, _parents())]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _parents() -> dict[int, int]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            found[int(path.parent.name)] = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
    return found


def _below(leader: int, parents: dict[int, int]) -> Iterator[int]:
    for pid in [pid for pid, parent in parents.items() if parent == leader]:
        yield pid
        yield from _below(pid, parents)


if __name__ == "__main__":
    end_with_the_input(int(sys.argv[1]))
