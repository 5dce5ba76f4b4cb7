"""The label by which reports find the leader: on the pod of who leads, and on no other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from finetune_operator import __main__ as process
from finetune_operator.runtime.certificates import Certificates, Source
from finetune_operator.runtime.errors import Forbidden, KubeError, LeadershipLost, NotFound, Transient
from finetune_operator.runtime.kube import Kube, Resource
from finetune_operator.runtime.leadership import leader_label
from finetune_operator.runtime.leadership.lease_thread import LeaseThread
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
        assert body == {"metadata": {"labels": {leader_label.LABEL: None}}}
        self.label_is_off.set()


class Follower:
    """A replica that does not get the Lease."""

    async def acquire(self) -> None:
        await asyncio.Event().wait()

    def is_held(self) -> bool:
        return False

    def assert_held(self) -> None:
        raise AssertionError("it never leads")


class Loaded(Certificates):
    """What there was to wait for has been loaded."""

    def __init__(self) -> None:
        super().__init__(cast("Source", None))

    async def begin(self) -> None:
        pass


@pytest.fixture
async def kube(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BusyAtFirst]:
    """Of a replica that is up, and follows."""
    monkeypatch.setattr(leader_label, "RETRY_SECONDS", 0.001)
    settings = Settings(report_port=0, probe_port=0, report_bind="127.0.0.1", probe_bind="127.0.0.1")
    kube, stop = BusyAtFirst(2), asyncio.Event()
    operator = process.Operator(settings, cast("Kube", kube), cast("LeaseThread", Follower()), Loaded())
    running = asyncio.create_task(operator.run(stop))
    yield kube
    stop.set()
    assert await running == process.OK


async def test_a_replica_that_led_before_it_began_anew_is_not_taken_for_the_leader(kube: BusyAtFirst) -> None:
    async with asyncio.timeout(5):
        await kube.label_is_off.wait()


class Pod:
    """The API server as the leader's pod: it refuses what is next in `refusals`, and `lost` ends the lead."""

    def __init__(self, *refusals: KubeError) -> None:
        self.refusals = list(refusals)
        self.labels: dict[str, str | None] = {}
        self.written = 0
        self.lost = False

    async def merge_patch(self, _: Resource, __: str, ___: str, body: dict[str, Any]) -> None:
        self.written += 1
        if self.lost:
            raise LeadershipLost
        if self.refusals:
            raise self.refusals.pop(0)
        self.labels |= body["metadata"]["labels"]


async def lead(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> "asyncio.Task[None]":
    """Of a replica that leads from the beginning."""
    monkeypatch.setattr(leader_label, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(leader_label, "KEPT_SECONDS", 0.001)
    leads = asyncio.Event()
    leads.set()
    kube = cast("Kube", pod)
    return asyncio.create_task(leader_label.LeaderLabel(kube, kube, "finetune-system", "operator").keep(leads))


async def is_labelled(pod: Pod) -> None:
    async with asyncio.timeout(5):
        while pod.labels.get(leader_label.LABEL) != "true":  # noqa: ASYNC110 - the pod is the test's own
            await asyncio.sleep(0)


@pytest.mark.parametrize("refusal", [BUSY, Forbidden(403, "Forbidden", "denied by a policy")], ids=["busy", "denied"])
async def test_a_leader_that_could_not_be_labelled_is_labelled_as_soon_as_it_can_be(
    refusal: KubeError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A right or a policy that comes back tells nobody, and without the label no report arrives."""
    pod = Pod(*[refusal] * 5)
    keeping = await lead(pod, monkeypatch)
    await is_labelled(pod)
    assert caplog.text.count("cannot be labelled") == 1
    keeping.cancel()


async def test_a_leader_whose_label_somebody_takes_off_has_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = Pod()
    keeping = await lead(pod, monkeypatch)
    await is_labelled(pod)
    pod.labels.clear()
    await is_labelled(pod)
    keeping.cancel()


async def test_who_leads_no_more_labels_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = Pod()
    pod.lost = True
    await (await lead(pod, monkeypatch))
    assert pod.labels == {}


async def test_outside_of_a_cluster_no_pod_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = Pod(NotFound(404, "NotFound", "no such pod"))
    await (await lead(pod, monkeypatch))
    assert pod.written == 1
