"""What the demo prints: steps with the time since the start, and one line that is rewritten on a terminal."""

from __future__ import annotations

import shutil
import sys
import time


class DemoError(Exception):
    """Something that ends the demo: what went wrong, and what to do next."""

    def __init__(self, message: str, next_step: str = "") -> None:
        """Keep both parts apart, so that they are printed as two lines."""
        super().__init__(message)
        self.next_step = next_step


class Console:
    """Steps on lines of their own; between them at most one live line."""

    def __init__(self) -> None:
        """Live lines only where they can be rewritten."""
        self._started = time.monotonic()
        self._live = ""
        self.is_terminal = sys.stdout.isatty()

    def step(self, text: str) -> None:
        """One step of the story, with the time since the start."""
        self._clear()
        print(f"[{self.clock()}] {text}", flush=True)

    def line(self, text: str = "") -> None:
        """A line as it is."""
        self._clear()
        print(text, flush=True)

    def live(self, text: str) -> None:
        """Replace the live line; nothing happens where the output is no terminal."""
        if self.is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self._clear()
            self._live = f"[{self.clock()}] {text}"[:width]
            print(self._live, end="", flush=True)

    def clock(self) -> str:
        """Seconds since the start, as the throw-away cluster's steps show them."""
        return f"{time.monotonic() - self._started:6.1f}s"

    def _clear(self) -> None:
        if self._live:
            print("\r\033[K", end="")
            self._live = ""
