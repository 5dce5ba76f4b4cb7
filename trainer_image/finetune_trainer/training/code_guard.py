"""Run as a file, beside code of one's own: ends it with all that it has started once the trainer has gone.

The trainer holds the other end of this process's input. What launchers such as torchrun start has a session of its own
and is in no group with the code: it is found by whose child it is. Nothing of the package is imported: it begins at
once.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path


def end_with_the_input(leader: int) -> None:
    """Wait for the input's end, and end the process with its group and its descendants."""
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
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found[int(path.parent.name)] = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
    return found


def _below(leader: int, parents: dict[int, int]) -> Iterator[int]:
    for pid in [pid for pid, parent in parents.items() if parent == leader]:
        yield pid
        yield from _below(pid, parents)


if __name__ == "__main__":
    end_with_the_input(int(sys.argv[1]))
