"""How much a provider is asked: the gate of calls, and one poller for all jobs of a connection."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.reasons import Reason
from finetune_operator.decide.job.remote import Metrics, RemoteJob
from finetune_operator.providers.accounts.polling import METRICS_PER_ROUND, Poller
from finetune_operator.providers.calls.errors import (
    Busy,
    Contested,
    Denied,
    NotThere,
    ProviderError,
    Refused,
    TryLater,
    Unknown,
)
from finetune_operator.providers.calls.gate import SILENCE_SECONDS, TRUST_SECONDS, Gate
from finetune_operator.providers.calls.rate_limit import RateLimiter
from finetune_operator.runtime.errors import Transient
from finetune_operator.runtime.queue import Key

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SILENT = Unknown(Reason.PROVIDER_UNAVAILABLE, "no answer")


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def succeed(gate: Gate) -> None:
    async with gate.passing():
        pass


async def fail(gate: Gate, error: ProviderError) -> None:
    with pytest.raises(type(error)):
        async with gate.passing():
            raise error


async def test_who_finds_it_closed_is_told_what_to_do_as_who_has_closed_it() -> None:
    gate, error = Gate(clock=Time()), TryLater(Reason.CREDENTIALS_INVALID, "403")
    error.next_step = "Give it the right."
    await fail(gate, error)
    with pytest.raises(TryLater) as found:
        await succeed(gate)
    assert found.value.failure() == error.failure()


CLOSING = {
    "silence": (SILENT, SILENCE_SECONDS),
    "silence, and when to come back": (Unknown(Reason.PROVIDER_UNAVAILABLE, "503", 900.0), 900.0),
    "silence, and to come back at once": (Unknown(Reason.PROVIDER_UNAVAILABLE, "503", 1.0), SILENCE_SECONDS),
    "a limit": (TryLater(Reason.RATE_LIMITED, "slow", 7.0), 7.0),
    "a limit for long": (TryLater(Reason.RATE_LIMITED, "slow", 3600.0), 3600.0),
    "something of one thing": (Contested(Reason.PROVIDER_BUSY, "409", 900.0), 0.0),
    "a bad key": (TryLater(Reason.CREDENTIALS_INVALID, "key", 600.0), SILENCE_SECONDS),
    "a right that lacks": (Denied(Reason.CREDENTIALS_INVALID, "right", 60.0), 0.0),
    "a quota of one call": (TryLater(Reason.QUOTA_EXCEEDED, "jobs", 300.0), 0.0),
    "a refusal": (Refused(Reason.PROVIDER_REFUSED, "no"), 0.0),
    "nothing there": (NotThere(Reason.PROVIDER_REFUSED, "404"), 0.0),
}


@pytest.mark.parametrize("name", CLOSING)
async def test_what_concerns_every_call_closes_the_gate_for_a_while(name: str) -> None:
    error, seconds = CLOSING[name]
    time = Time()
    gate = Gate(clock=time)
    await fail(gate, error)
    if seconds:
        with pytest.raises(TryLater) as closed:
            async with gate.passing():
                raise AssertionError("it let a call through")
        assert (closed.value.reason, closed.value.retry_after) == (error.reason, seconds)
        time.now += seconds - 0.1
        with pytest.raises(TryLater):
            async with gate.passing():
                raise AssertionError("it let a call through before the provider wanted one")
        time.now += 0.1
    async with gate.passing():
        pass


async def test_no_more_calls_than_may_be_go_out_at_once_and_nobody_waits() -> None:
    gate, release = Gate(at_once=2, clock=Time()), asyncio.Event()
    await succeed(gate)

    async def call() -> None:
        async with gate.passing():
            await release.wait()

    calls = [asyncio.create_task(call()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        async with gate.passing():
            pass
    release.set()
    await asyncio.gather(*calls)
    async with gate.passing():
        pass


async def test_a_task_that_is_inside_is_not_sent_away_between_its_calls() -> None:
    gate, inside = Gate(at_once=1, clock=Time()), asyncio.Event()

    async def look() -> None:
        async with gate.turn():
            for _ in range(3):
                async with gate.passing():
                    inside.set()
                    await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await inside.wait()
    with pytest.raises(Busy):
        async with gate.passing():
            raise AssertionError("there is no place")
    await looking
    async with gate.passing():
        pass


async def test_those_who_are_sent_away_come_back_one_after_the_other_and_no_faster_than_calls_may_go_out() -> None:
    gate, told = Gate(at_once=1, rate=10.0, clock=Time()), []

    async def ask() -> None:
        try:
            async with gate.passing():
                raise AssertionError("there is no place")
        except Busy as busy:
            told.append(busy.retry_after)

    async with gate.turn():
        await asyncio.gather(*(asyncio.create_task(ask()) for _ in range(101)))
    assert max(told) == pytest.approx(10.0)
    assert sum(wait > 5.0 for wait in told) == pytest.approx(50, abs=1)


@pytest.mark.parametrize("before", ["nothing", "silence", "an answer long ago"])
async def test_one_goes_in_until_there_was_an_answer(before: str) -> None:
    time = Time()
    gate, answer = Gate(at_once=4, clock=time), asyncio.Event()
    if before == "silence":
        await fail(gate, SILENT)
        time.now += SILENCE_SECONDS
    elif before != "nothing":
        await succeed(gate)
        time.now += TRUST_SECONDS

    async def call() -> None:
        async with gate.passing():
            await answer.wait()

    first = asyncio.create_task(call())
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        async with gate.passing():
            raise AssertionError("the provider may be dead still")
    answer.set()
    await first
    answer.clear()
    calls = [asyncio.create_task(call()) for _ in range(4)]
    await asyncio.sleep(0)
    answer.set()
    await asyncio.gather(*calls)


async def test_calls_go_out_at_the_pace_of_the_connection_whoever_makes_them() -> None:
    pace, loop = RateLimiter(rate=100.0), asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(pace.wait() for _ in range(24)))
    assert loop.time() - began >= 0.199


class Provider:
    """As many jobs as one likes, and a count of what was asked."""

    def __init__(self, count: int) -> None:
        self.found = {f"j{n}": RemoteJob(id=f"j{n}", state="Queued", created=NOW) for n in range(count)}
        self.hidden: set[str] = set()
        self.asked: list[str] = []
        self.error: ProviderError | None = None

    async def jobs(self, since: datetime) -> list[RemoteJob]:
        self.asked.append("jobs")
        if self.error:
            raise self.error
        return [job for job in self.found.values() if job.id not in self.hidden and job.created >= since]

    async def job(self, job_id: str) -> RemoteJob:
        self.asked.append("job")
        if job_id not in self.found:
            raise NotThere(Reason.PROVIDER_REFUSED, "404")
        return self.found[job_id]

    async def metrics(self, _job: RemoteJob) -> Metrics:
        self.asked.append("metrics")
        return Metrics(step=1, total_steps=10)


def poller(provider: Provider) -> tuple[Poller, list[Key]]:
    woken: list[Key] = []

    async def api() -> Any:
        return provider

    return Poller(api, woken.append, seconds=None), woken


def key(job_id: str) -> Key:
    return Key("FineTuneJob", "team", job_id)


async def test_a_thousand_jobs_are_asked_about_in_one_round_and_only_news_wakes() -> None:
    provider = Provider(1000)
    polling, woken = poller(provider)
    for job_id in provider.found:
        assert polling.watch(job_id, key(job_id), NOW) is None
    await polling.round()
    assert (provider.asked, len(woken)) == (["jobs"], 1000)
    woken.clear()
    await polling.round()
    assert woken == []
    provider.found["j7"] = RemoteJob(id="j7", state="Active", created=NOW)
    await polling.round()
    assert woken == [key("j7")]
    assert polling.watch("j7", key("j7"), NOW).metrics.total_steps == 10


async def test_of_a_thousand_that_run_a_part_is_asked_for_its_loss_in_each_round_and_in_turns() -> None:
    provider = Provider(250)
    for job_id, job in provider.found.items():
        provider.found[job_id] = replace(job, state="Active")
    polling, woken = poller(provider)
    for job_id in provider.found:
        polling.watch(job_id, key(job_id), NOW)
    await polling.round()
    assert len(set(woken)) == 250
    assert provider.asked.count("metrics") == METRICS_PER_ROUND
    for _ in range(2):
        await polling.round()
    seen = [polling.watch(job_id, key(job_id), NOW) for job_id in provider.found]
    assert all(one is not None and one.metrics.total_steps == 10 for one in seen)
    assert provider.asked.count("jobs") == 3


async def test_all_that_have_ended_are_asked_about_and_each_is_told_at_once() -> None:
    provider = Provider(250)
    for job_id, job in provider.found.items():
        provider.found[job_id] = replace(job, state="Succeeded")
    polling, woken = poller(provider)
    asked: list[int] = []

    async def metrics(_: RemoteJob) -> Metrics:
        asked.append(len(woken))
        await asyncio.sleep(0)
        return Metrics(step=1, total_steps=1)

    provider.metrics = metrics  # type: ignore[method-assign]
    for job_id in provider.found:
        polling.watch(job_id, key(job_id), NOW)
    await polling.round()
    assert len(set(woken)) == 250
    assert asked[-1] >= 240, "nobody waits for all others"


async def test_jobs_that_are_forgotten_while_they_wait_for_their_turn_are_not_asked_about() -> None:
    provider = Provider(0)
    polling, woken = poller(provider)
    names = [f"gone-{n}" for n in range(20)]

    async def job(_: str) -> RemoteJob:
        provider.asked.append("job")
        for name in names:
            polling.forget(key(name))
        await asyncio.sleep(0)
        raise NotThere(Reason.PROVIDER_REFUSED, "404")

    provider.job = job  # type: ignore[method-assign]
    for name in names:
        polling.watch(name, key(name), NOW)
    await polling.round()
    assert (provider.asked.count("job") < 20, woken, polling.trouble) == (True, [], None)


async def test_a_provider_that_breaks_off_in_a_round_is_in_trouble() -> None:
    provider = Provider(3)
    for job_id, job in provider.found.items():
        provider.found[job_id] = replace(job, state="Active")
    polling, _ = poller(provider)

    async def metrics(_: RemoteJob) -> Metrics:
        raise SILENT

    provider.metrics = metrics  # type: ignore[method-assign]
    for job_id in provider.found:
        polling.watch(job_id, key(job_id), NOW)
    await polling.round()
    assert polling.trouble is SILENT


async def test_a_job_that_the_list_lacks_is_asked_for_by_name_before_it_counts_as_gone() -> None:
    provider = Provider(1)
    provider.hidden = {"j0"}
    polling, _ = poller(provider)
    for job_id in ("j0", "never"):
        polling.watch(job_id, key(job_id), NOW)
    await polling.round()
    assert polling.watch("j0", key("j0"), NOW).job.state == "Queued"
    assert polling.watch("never", key("never"), NOW).job.state == "Gone"


@pytest.mark.parametrize("kind", [Refused, Denied])
async def test_what_is_refused_of_one_job_is_the_trouble_of_that_job_alone(kind: type[ProviderError]) -> None:
    """As of one that another namespace wants to adopt, by a name that there cannot be, or that nobody may look at."""
    provider = Provider(2)
    polling, woken = poller(provider)

    async def job(_: str) -> RemoteJob:
        raise kind(Reason.PROVIDER_REFUSED, "no")

    provider.job = job  # type: ignore[method-assign]
    for job_id in ("j0", "j1", "odd"):
        polling.watch(job_id, key(job_id), NOW)
    await polling.round()
    assert (polling.trouble, set(woken)) == (None, {key("j0"), key("j1"), key("odd")})
    unread = polling.watch("odd", key("odd"), NOW).unread
    assert unread is not None
    assert unread.message == "no"


async def test_a_job_that_has_ended_is_looked_at_itself_where_the_list_does_not_tell_all() -> None:
    provider = Provider(2)
    whole = {job_id: replace(job, state="Failed", note="whole") for job_id, job in provider.found.items()}
    provider.found["j0"] = replace(whole["j0"], partial=True, note="")
    provider.found["j1"] = replace(provider.found["j1"], partial=True)
    polling, _ = poller(provider)

    async def job(job_id: str) -> RemoteJob:
        return whole[job_id]

    provider.job = job  # type: ignore[method-assign]
    for job_id in whole:
        polling.watch(job_id, key(job_id), NOW)
    await polling.round()
    seen = {job_id: polling.watch(job_id, key(job_id), NOW) for job_id in whole}
    assert {job_id: one.job.note for job_id, one in seen.items() if one} == {"j0": "whole", "j1": ""}


async def test_what_has_ended_is_asked_about_no_more() -> None:
    provider = Provider(1)
    provider.found["j0"] = RemoteJob(id="j0", state="Succeeded", created=NOW)
    polling, _ = poller(provider)
    polling.watch("j0", key("j0"), NOW)
    await polling.round()
    provider.asked.clear()
    await polling.round()
    assert provider.asked == []
    polling.forget(key("j0"))
    assert polling.watch("j0", key("j0"), NOW) is None


async def test_trouble_wakes_every_job_once_and_so_does_its_end() -> None:
    provider = Provider(3)
    polling, woken = poller(provider)
    for job_id in provider.found:
        polling.watch(job_id, key(job_id), NOW - timedelta(days=1))
    await polling.round()
    provider.error = SILENT
    woken.clear()
    await polling.round()
    await polling.round()
    assert (len(woken), polling.trouble) == (3, SILENT)
    provider.error = None
    await polling.round()
    assert (len(woken), polling.trouble) == (6, None)


async def test_it_polls_by_itself_soon_after_a_job_is_watched_and_then_as_often_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finetune_operator.providers.accounts.polling.SOON_SECONDS", 0.01)
    provider, told = Provider(1), asyncio.Event()

    async def api() -> Any:
        return provider

    polling = Poller(api, lambda _: told.set(), seconds=0.01)
    polling.watch("j0", key("j0"), NOW)
    await asyncio.wait_for(told.wait(), 60)
    told.clear()
    provider.found["j0"] = replace(provider.found["j0"], state="Active")
    await asyncio.wait_for(told.wait(), 60)
    await polling.close()


async def test_an_api_server_that_is_away_for_a_while_does_not_end_the_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.providers.accounts.polling.SOON_SECONDS", 0.0)
    provider, troubles, told = Provider(1), [Transient(0, "Timeout", "no answer")], asyncio.Event()

    async def api() -> Any:
        if troubles:
            raise troubles.pop()
        return provider

    polling = Poller(api, lambda _: told.set(), seconds=0.01)
    polling.watch("j0", key("j0"), NOW)
    await asyncio.wait_for(told.wait(), 60)
    assert polling.trouble is not None
    assert polling.trouble.reason is Reason.PROVIDER_UNAVAILABLE
    told.clear()
    await asyncio.wait_for(told.wait(), 60)
    assert polling.watch("j0", key("j0"), NOW) is not None
    await polling.close()


async def test_polling_that_nobody_foresaw_to_end_begins_again_when_a_job_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finetune_operator.providers.accounts.polling.SOON_SECONDS", 0.0)
    provider, ended, told = Provider(1), asyncio.Event(), asyncio.Event()

    async def api() -> Any:
        if not ended.is_set():
            ended.set()
            raise RuntimeError("nobody foresaw this")
        return provider

    polling = Poller(api, lambda _: told.set(), seconds=0.01)
    polling.watch("j0", key("j0"), NOW)
    await asyncio.wait_for(ended.wait(), 60)
    polling.watch("j0", key("j0"), NOW)
    await asyncio.wait_for(told.wait(), 60)
    await polling.close()


async def test_who_waits_for_news_is_known_until_it_is_gone_and_nobody_is_asked_after_the_end() -> None:
    provider, woken = Provider(2), list[Key]()

    async def api() -> Any:
        return provider

    polling = Poller(api, woken.append, seconds=0.01)
    for name in ("j0", "j1"):
        polling.watch(name, key(name), NOW)
    assert polling.watchers() == {key("j0"), key("j1")}
    polling.forget(key("j0"))
    assert polling.watchers() == {key("j1")}
    await polling.close()
    assert "poll for j0" not in {task.get_name() for task in asyncio.all_tasks()}
