"""A cluster whose CA is renewed: who has read the one before trusts no API server any more, and has to begin anew."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from finetune_operator import __main__ as process
from finetune_operator.runtime.kube import Kube
from finetune_operator.runtime.leadership.lease_thread import LeaseThread
from finetune_operator.runtime.probes import ProbeServer
from finetune_operator.runtime.settings import Settings
from tests.unit.finetune_operator.test_leader_label import BusyAtFirst, Follower, Loaded


def probe_servers(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[ProbeServer]:
    """Those that are started from now on."""
    started: asyncio.Queue[ProbeServer] = asyncio.Queue()

    class Known(ProbeServer):
        async def start(self) -> None:
            await super().start()
            started.put_nowait(self)

    monkeypatch.setattr(process, "ProbeServer", Known)
    return started


@pytest.fixture
async def probes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[ProbeServer]:
    """Of a replica that follows, and has read the CA."""
    (tmp_path / "ca.crt").write_text("first")
    started = probe_servers(monkeypatch)
    local = {"report_bind": "127.0.0.1", "probe_bind": "127.0.0.1"}
    settings = Settings(report_port=0, probe_port=0, service_account=tmp_path, **local)
    kube, leadership = cast("Kube", BusyAtFirst(0)), cast("LeaseThread", Follower())
    operator, stop = process.Operator(settings, kube, leadership, Loaded()), asyncio.Event()
    running = asyncio.create_task(operator.run(stop))
    yield await started.get()
    stop.set()
    await running


async def liveness(probes: ProbeServer) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{probes.port}/healthz") as answer,
    ):
        return answer.status, (await answer.json())["trust"]


async def test_a_replica_that_waits_is_started_again_when_the_cluster_has_another_ca(
    probes: ProbeServer, tmp_path: Path
) -> None:
    assert await liveness(probes) == (200, "ok")
    (tmp_path / "ca.crt").write_text("first, second")
    assert await liveness(probes) == (503, "the cluster has another CA than the one that this process has read")


async def test_a_ca_that_cannot_be_read_for_a_moment_is_no_other_one(probes: ProbeServer, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").unlink()
    assert await liveness(probes) == (200, "ok")
