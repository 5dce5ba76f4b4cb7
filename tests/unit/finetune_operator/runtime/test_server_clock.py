"""The API server's clock by its answers, however wrong our own is."""

import time
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from typing import Self

import fake_api
import pytest

from finetune_operator.runtime import server_clock
from finetune_operator.runtime.kube import JOBS
from finetune_operator.runtime.server_clock import RESOLUTION, TOLERANCE, ServerClock

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class World:
    """True time, and a clock of ours that is wrong."""

    def __init__(self, wrong: timedelta) -> None:
        self.true, self.wrong = NOON, wrong
        self.clock = ServerClock(lambda: self.true + self.wrong)

    def ask(self, seconds_there: float = 0.01, seconds_back: float = 0.01) -> None:
        """A request and its answer, which the server dates in whole seconds, rounded down."""
        sent = self.clock.local()
        self.true += timedelta(seconds=seconds_there)
        date = format_datetime(self.true.replace(microsecond=0), usegmt=True)
        self.true += timedelta(seconds=seconds_back)
        self.clock.observe(date, sent)

    @property
    def error(self) -> timedelta:
        return abs(self.clock.now() - self.true)


@pytest.mark.parametrize("wrong", [-7200, -61, -5, 5, 61, 7200, 86400 * 400], ids="{} s".format)
def test_one_answer_puts_it_right(wrong: float) -> None:
    world = World(timedelta(seconds=wrong))
    world.ask()
    assert world.error <= RESOLUTION + timedelta(seconds=0.1)


def test_a_clock_that_is_right_is_left_alone() -> None:
    world = World(timedelta(seconds=0.7))
    for _ in range(50):
        world.true += timedelta(seconds=0.37)
        world.ask()
    assert world.clock.now() == world.clock.local()


def test_a_slow_answer_proves_nothing_that_it_cannot() -> None:
    world = World(timedelta())
    world.ask(seconds_there=40, seconds_back=20)
    assert world.clock.now() == world.clock.local()


def test_a_clock_that_somebody_sets_is_followed() -> None:
    world = World(timedelta())
    world.ask()
    world.wrong = timedelta(hours=-3)
    world.true += timedelta(seconds=2)
    world.ask()
    assert world.error <= RESOLUTION + TOLERANCE


class Own(datetime):
    """Our own clock, which somebody sets."""

    set_by = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + cls.set_by


def test_who_sets_our_own_clock_moves_nothing_until_the_next_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline would be over, and what is paid for cancelled, before any answer puts it right."""
    monkeypatch.setattr(server_clock, "datetime", Own)
    clock = ServerClock()
    before = clock.now()
    monkeypatch.setattr(Own, "set_by", timedelta(hours=6))
    assert timedelta() <= clock.now() - before < timedelta(minutes=1)


NO_ZONE = f"{NOON:%a, %d %b %Y %H:%M:%S} -0000"
"""The form of a time whose zone is not known."""


@pytest.mark.parametrize("date", [None, "", "yesterday", "Sat, 99 Nov 2026 12:00:00 GMT", NO_ZONE])
def test_what_is_no_date_says_nothing(date: str | None) -> None:
    clock = ServerClock(lambda: NOON)
    clock.observe(date, NOON)
    assert clock.now() == NOON


def test_a_date_without_a_zone_is_utc_wherever_this_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        clock = ServerClock(lambda: NOON)
        clock.observe(NO_ZONE, NOON)
    time.tzset()
    assert clock.now() == NOON


async def test_every_answer_of_the_api_server_counts_and_a_refusal_of_who_stands_before_it_does_not(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        late = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
        api.refuse(403, "Forbidden", headers={"Date": late}).answer({}, headers={"Date": late})
        with pytest.raises(Exception, match="Forbidden"):
            await client.get(JOBS, "a", "team")
        assert abs(client.now() - datetime.now(UTC)) < timedelta(seconds=5)
        await client.get(JOBS, "a", "team")
        assert timedelta(hours=1.9) < client.now() - datetime.now(UTC) < timedelta(hours=2.1)
