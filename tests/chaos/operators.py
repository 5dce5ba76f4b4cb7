"""Operators as separate processes: started, killed, frozen, waited for.

`fork` copies a process that has already imported the operator, which takes a tenth of a start's time; the copy runs
the same `main` with its own environment, process ID and sockets. `start` is the command of the image.
"""

import asyncio
import multiprocessing.process
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aiohttp import connector

from tests.chaos import clocks
from tests.forking import forking

ROOT = Path(__file__).parents[2]


class Process(Protocol):
    """Common interface of subprocess and multiprocessing."""

    pid: Any


@dataclass
class Operator:
    """One process."""

    log: Path
    _process: Process
    _handle: int

    @property
    def pid(self) -> int:
        """Its process id, as long as it runs."""
        return int(self._process.pid)

    async def ended(self, seconds: float = 120) -> int:
        """Wait until the process has ended; returns its exit code, negative for a signal."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._handle, lambda: future.done() or future.set_result(None))
        try:
            async with asyncio.timeout(seconds):
                await future
        finally:
            loop.remove_reader(self._handle)
        return await asyncio.to_thread(_collect, self._process)

    def send(self, number: signal.Signals) -> None:
        """Signal exactly this process, and not another one that reuses its process ID."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.send(signal.SIGKILL)
        await self.ended()


def environment(namespace: str, kubeconfig: Path, **settings: object) -> dict[str, str]:
    """Settings of an operator that manages one namespace, which is also its own."""
    chosen = {
        "namespace": namespace,
        "watch_namespaces": namespace,
        "kubeconfig": kubeconfig,
        "pod_name": "operator",
        "report_port": 0,
        "probe_port": 0,
        "report_bind": "127.0.0.1",
        "probe_bind": "127.0.0.1",
        # Long, for a machine that is busy with dozens of operators; tests of the Lease itself set their own times.
        "lease_duration_seconds": 120,
        "lease_renew_seconds": 100,
        **settings,
    }
    named = {f"FINETUNE_{name.upper()}": str(value) for name, value in chosen.items()}
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator"), "HOME": "/tmp", **named}


WARM = (
    "finetune_operator.__main__",
    "finetune_operator.runtime.kubeconfig",
    *(f"finetune_operator.providers.{provider}.api" for provider in ("azure", "bedrock", "openai", "sagemaker")),
)
"""Modules that are imported before forking."""


def fork(settings: Mapping[str, str], log: Path) -> Operator:
    """Fork an operator from the warm process."""
    child = forking(*WARM).Process(target=_become_the_operator, args=(dict(settings), str(log)), daemon=True)
    child.start()
    return Operator(log, child, os.pidfd_open(child.pid or 0))


def start(settings: Mapping[str, str], log: Path) -> Operator:
    """Start an operator like its image does."""
    command = [sys.executable, "-m", "finetune_operator"]
    with log.open("ab") as output:
        child = subprocess.Popen(command, env=dict(settings), cwd="/", stdout=output, stderr=output)
    return Operator(log, child, os.pidfd_open(child.pid))


def _collect(process: Process) -> int:
    if isinstance(process, subprocess.Popen):
        return process.wait()
    assert isinstance(process, multiprocessing.process.BaseProcess)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _become_the_operator(settings: dict[str, str], log: str) -> None:
    os.environ.clear()
    os.environ.update(settings)
    with Path(log).open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if "SSL_CERT_FILE" in settings:  # aiohttp reads the default certificates at import
        connector._SSL_CONTEXT_VERIFIED.load_default_certs()
    from finetune_operator.__main__ import main

    if clocks.VARIABLE in settings:
        clocks.wear(Path(settings[clocks.VARIABLE]))
    sys.exit(main([]))
