"""Runs commands to their end, with errors that show their output."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.console import say
from tests.cluster.errors import ClusterError

REMINDER_SECONDS = 120.0
"""Interval of progress messages for a long command."""
_SHOWN = 100


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
    """Run a long command with its output in `log`, and print its progress every few minutes.

    Raises:
        ClusterError: it failed, with the log's path and end.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(part) for part in command]
    with (
        log.open("wb") as output,
        subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd) as process,
    ):
        try:
            code = _reminding(process, log)
        finally:
            process.kill()  # does nothing if it has ended
    if code != 0:
        lines = "\n  ".join(log.read_text(errors="replace").splitlines()[-25:])
        raise ClusterError(f"{describe(command)} ended with {code}; the end of {log}:\n  {lines}")


def _reminding(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait for the exit code, printing the log's last line from time to time."""
    started = time.monotonic()
    while True:
        try:
            return process.wait(REMINDER_SECONDS)
        except subprocess.TimeoutExpired:
            said = log.read_text(errors="replace").splitlines()
            last = said[-1].strip()[:_SHOWN] if said else "no output yet"
            say(f"  {log.stem}, for {(time.monotonic() - started) / 60:.0f} min: {last}")


def describe(command: Sequence[str | Path]) -> str:
    """A command for a message: its first words."""
    return " ".join(str(part) for part in command[:6])
