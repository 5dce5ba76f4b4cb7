"""A simulator in its own process, for tests with the operator in a pod; with the same methods as in this process."""

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Remote:
    """`Simulator`'s methods over its control API. `url` is as seen from this machine."""

    url: str
    authority: Path | None = None

    def state(self) -> dict[str, Any]:
        """The simulator's whole state."""
        return self._ask("GET", "state")

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self._ask("POST", "clock", {"advance": seconds})

    def run(self, rate: float) -> None:
        """Let `rate` simulated seconds pass per real second."""
        self._ask("POST", "clock", {"rate": rate})

    def fault(self, operation: str, **fault: Any) -> None:
        """Plan a fault."""
        self._ask("POST", "faults", {"operation": operation, **fault})

    def set(self, **settings: Any) -> None:
        """Change settings by name."""
        self._ask("POST", "settings", settings)

    def cost(self, resource: str | None = None) -> Decimal:
        """Dollars so far."""
        lines = self.state()["lines"]
        return sum((Decimal(line["amount"]) for line in lines if resource in {None, line["resource"]}), Decimal(0))

    def left(self) -> list[dict[str, str]]:
        """The user's resources at the provider, which would have to be cleaned up."""
        found: list[dict[str, str]] = self.state()["left"]
        return found

    def count(self, operation: str, *, committed: bool = True) -> int:
        """How often an operation was carried out, or only called."""
        calls = self.state()["calls"]
        return sum(call["operation"] == operation and (call["committed"] or not committed) for call in calls)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = Request(f"{self.url}/_simulator/{path}", method=method, headers={"Content-Type": "application/json"})
        request.data = None if body is None else json.dumps(body, default=str).encode()
        trusted = ssl.create_default_context(cafile=self.authority) if self.authority else None
        with urlopen(request, timeout=PATIENCE_SECONDS, context=trusted) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def running(simulator: str, *arguments: str, tls: Path | None = None) -> Iterator[Remote]:
    """Run a simulator as `python -m tests.simulators` does, until the block ends.

    Args:
        simulator: its name.
        arguments: further arguments of the command line, as `--host`, `0.0.0.0`, `--set`, `job_limit=1`.
        tls: a folder: use TLS and write the authority to trust there, `ca.pem`.
    """
    command = [sys.executable, "-m", "tests.simulators", simulator, *arguments]
    command += ["--tls", str(tls)] if tls else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, f"{' '.join(command)} did not start"
            yield Remote(url.replace("//0.0.0.0:", "//127.0.0.1:"), tls / "ca.pem" if tls else None)
        finally:
            process.terminate()
