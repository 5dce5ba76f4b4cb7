"""Running a command to its end, with an error that shows what it said."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError


def run(
    *command: str | Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run a command and return its stdout.

    Raises:
        ClusterError: it failed, with what it wrote on stderr.
    """
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin, env=env, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ClusterError(f"{describe(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def succeeds(*command: str | Path) -> bool:
    """Whether a command ends with 0; its output is dropped."""
    return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0


def logged(
    command: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run a long command with its output in `log`.

    Raises:
        ClusterError: it failed, with the log's path and end.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        done = subprocess.run(
            [str(part) for part in command], stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd, check=False
        )
    if done.returncode != 0:
        lines = "\n  ".join(log.read_text(errors="replace").splitlines()[-25:])
        raise ClusterError(f"{describe(command)} ended with {done.returncode}; the end of {log}:\n  {lines}")


def describe(command: Sequence[str | Path]) -> str:
    """A command for a message: its first words."""
    return " ".join(str(part) for part in command[:6])
