"""The label by which reports find the leader: on the pod of who leads, and on no other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from finetune_operator import __main__ as process
from finetune_operator.runtime.certificates import Certificates, Source
from finetune_operator.runtime.errors import Transient
from finetune_operator.runtime.kube import Kube, Resource
from finetune_operator.runtime.lease_thread import LeaseThread
from finetune_operator.runtime.settings import Settings

BUSY = Transient(503, "ServiceUnavailable", "busy")


class BusyAtFirst:
    """An API server that refuses its first answers; all that is asked of it here is the label."""

    def __init__(self, refusals: int) -> None:
        self._refusals = refusals
        self.label_is_off = asyncio.Event()
        self.now = self.review_token = None

    def guarded(self, _: Callable[[], None]) -> "BusyAtFirst":
        return self

    async def merge_patch(self, _: Resource, __: str, ___: str, body: dict[str, Any]) -> None:
        if self._refusals:
            self._refusals -= 1
            raise BUSY
        assert body == {"metadata": {"labels": {process.LEADER_LABEL: None}}}
        self.label_is_off.set()


class Follower:
    """A replica that does not get the Lease."""

    async def acquire(self) -> None:
        await asyncio.Event().wait()

    def is_held(self) -> bool:
        return False

    def assert_held(self) -> None:
        raise AssertionError("it never leads")


@pytest.fixture
async def kube(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BusyAtFirst]:
    """Of a replica that is up, and follows."""
    monkeypatch.setattr(process, "LABEL_RETRY_SECONDS", 0)
    settings = Settings(report_port=0, probe_port=0, report_bind="127.0.0.1", probe_bind="127.0.0.1")
    kube, stop = BusyAtFirst(2), asyncio.Event()
    operator = process.Operator(
        settings, cast("Kube", kube), cast("LeaseThread", Follower()), Certificates(cast("Source", None))
    )
    running = asyncio.create_task(operator.run(stop))
    yield kube
    stop.set()
    assert await running == process.OK


async def test_a_replica_that_led_before_it_began_anew_is_not_taken_for_the_leader(kube: BusyAtFirst) -> None:
    async with asyncio.timeout(5):
        await kube.label_is_off.wait()
