"""Progress output of `up`, `down` and the builds: one line per step, with the seconds since the start."""

from __future__ import annotations

import sys
import time

_STARTED = time.monotonic()


def say(text: str) -> None:
    """Print one step on stderr: stdout belongs to the command's result (a kubeconfig path, a list of images)."""
    print(f"[{time.monotonic() - _STARTED:6.1f}s] {text}", file=sys.stderr, flush=True)
