"""A process that begins while the API server is away waits for it: one that ends is begun again later and later."""

import asyncio
import logging
from typing import cast

import aiohttp
import pytest

from finetune_operator import __main__ as process
from finetune_operator.runtime import certificates
from finetune_operator.runtime.certificates import Certificates
from finetune_operator.runtime.errors import Forbidden, KubeError, TooManyRequests, Transient
from finetune_operator.runtime.kube import Kube
from finetune_operator.runtime.leadership.lease_thread import LeaseThread
from finetune_operator.runtime.settings import Settings
from tests.unit.finetune_operator.runtime import fake_time
from tests.unit.finetune_operator.test_changed_trust import probe_servers
from tests.unit.finetune_operator.test_leader_label import BusyAtFirst, Follower

AWAY = Transient(0, "Unreachable", "Cannot connect to host 10.96.0.1:443")
REFUSED = Forbidden(403, "Forbidden", "cannot get resource")


class Answers(Certificates):
    """As the API server answers: with each of these in turn, and then with the last one for ever."""

    def __init__(self, *answers: KubeError | None) -> None:
        super().__init__(cast("certificates.Source", None))
        self.answers = list(answers)
        self.asked = 0

    async def load(self) -> None:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


def test_an_api_server_that_is_away_is_waited_for_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    found = Answers(*[AWAY] * 20, TooManyRequests(429, "TooManyRequests", "storage is (re)initializing"), None)
    with caplog.at_level(logging.INFO):
        fake_time.run(found.begin())
    assert found.asked == 22
    away, busy, back = caplog.messages
    assert "it is tried again every 3 s: 0 Unreachable: Cannot connect to host 10.96.0.1:443" in away
    assert "429" in busy
    assert back == "the API server answers"


def test_one_that_does_not_come_back_ends_the_process_long_after_the_kubelet_has_forgotten_the_last_end() -> None:
    async def waited() -> float:
        clock = asyncio.get_running_loop().time
        began = clock()
        with pytest.raises(Transient):
            await Answers(AWAY).begin()
        return clock() - began

    assert 600 < fake_time.run(waited()) < 1000


def test_what_it_refuses_is_not_waited_for() -> None:
    found = Answers(REFUSED)
    with pytest.raises(Forbidden):
        fake_time.run(found.begin())
    assert found.asked == 1


def test_one_that_has_just_come_back_and_knows_no_roles_yet_is_waited_for() -> None:
    found = Answers(AWAY, REFUSED, REFUSED, None)
    fake_time.run(found.begin())
    assert found.asked == 4


def test_one_that_goes_on_refusing_after_it_came_back_is_not_waited_for() -> None:
    found = Answers(AWAY, REFUSED)
    with pytest.raises(Forbidden):
        fake_time.run(found.begin())
    assert found.asked < 7


async def test_meanwhile_the_process_is_alive_and_not_ready_and_ends_when_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = probe_servers(monkeypatch)
    settings = Settings(report_port=0, probe_port=0, report_bind="127.0.0.1", probe_bind="127.0.0.1")
    kube, leadership = cast("Kube", BusyAtFirst(0)), cast("LeaseThread", Follower())
    operator, stop = process.Operator(settings, kube, leadership, Answers(AWAY)), asyncio.Event()
    running = asyncio.create_task(operator.run(stop))
    url = f"http://127.0.0.1:{(await started.get()).port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/healthz") as answer:
            assert answer.status == 200
        async with session.get(f"{url}/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["certificates"] == "the certificates have not been loaded"
    stop.set()
    assert await running == process.OK
