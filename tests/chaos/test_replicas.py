"""Two replicas: the leader is killed, frozen or cut off, the other one takes over, and nothing is done twice."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS, JOBS, LEASES, PODS
from tests.chaos import operators
from tests.chaos.conftest import Outcome
from tests.chaos.operators import Operator
from tests.chaos.site import Site
from tests.chaos.stage import Play, Plays, Stage
from tests.chaos.walk import made_again, quiet
from tests.chaos.wire import Answer, Call, Forward, HangUp, Lines, Meddle, Wire, open_wire, pass_on, refusal

LEASE_SECONDS = 10
TAKEOVER_SECONDS = LEASE_SECONDS + 6.0
"""The Lease's end, the follower's next look, its first listing, and room for a busy machine."""

FAILED = 1


@dataclass
class Replica:
    """One operator with a wire of its own, so that it is known what it wrote."""

    name: str
    wire: Wire
    settings: dict[str, str]
    log: Path
    operator: Operator

    def writes(self) -> list[str]:
        return [call.point for call in self.wire.seen]

    def cut_off(self) -> None:
        """Nothing reaches the API server any more, and nothing comes back."""
        self.wire.meddle, self.wire.meddle_watch = _no_answer, _no_line
        self.wire.freeze()


async def _no_answer(_: Call, __: Forward) -> Answer:
    raise HangUp


async def _no_line(_: Call, __: Lines) -> Lines:
    raise HangUp
    yield b""


_POD = {"containers": [{"name": "operator", "image": "example/operator:1"}]}


def _deaf_to_labels() -> Meddle:
    """The first two times, the API server does not take the label of a leader."""
    left = iter((True, True))

    async def meddle(call: Call, forward: Forward) -> Answer:
        if call.point == "patch pods" and next(left, False):
            return refusal(500, "InternalError")
        return await forward()

    return meddle


@asynccontextmanager
async def replica(stage: Stage, name: str) -> AsyncIterator[Replica]:
    """A replica that competes for the site's Lease."""
    site, own = stage.site, stage.folder / f"{name}.kubeconfig"
    async with open_wire(stage.cluster.kubeconfig, own, site.name) as wire:
        settings = operators.environment(
            site.name, own, pod_name=name, lease_duration_seconds=LEASE_SECONDS,
            lease_renew_seconds=LEASE_SECONDS - 2, lease_retry_seconds=0.5, kube_timeout_seconds=5,
        )  # fmt: skip
        log = stage.folder / f"{name}.log"
        wire.meddle = _deaf_to_labels()
        await site.kube.create(PODS, {"metadata": {"name": name, "namespace": site.name}, "spec": _POD})
        made = Replica(name, wire, settings, log, operators.fork(settings, log))
        try:
            yield made
        finally:
            await made.operator.kill()


@dataclass
class Pair:
    """A leader with a job at work, and a follower."""

    site: Site
    leader: Replica
    follower: Replica

    async def leads(self, who: Replica, seconds: float = TAKEOVER_SECONDS) -> None:
        """Wait until a replica holds the Lease."""

        async def look() -> bool:
            lease = await self.site.kube.get(LEASES, "finetune-operator", self.site.name)
            return bool(lease and str(lease["spec"].get("holderIdentity")).startswith(f"{who.name}_"))

        await self.site.until(look, f"{who.name} leads", seconds)
        await self.site.until(lambda: self._is_labelled(who), f"{who.name} bears the label by which reports find it")

    async def _is_labelled(self, who: Replica) -> bool:
        pod = await self.site.kube.get(PODS, who.name, self.site.name)
        return bool(pod and (pod["metadata"].get("labels") or {}).get("finetune.dev/leader") == "true")

    async def ends_once(self) -> None:
        """The job succeeds by its only attempt, made by one of the two; the model is served once."""
        await self.site.ends_well()
        await quiet(self.follower.wire)
        status = await self.site.status(FINE_TUNE_JOBS, "sentiment-1")
        assert status["provider"]["attempt"] == 1
        assert [job["metadata"]["name"] for job in await self.site.kube.list(JOBS, self.site.name)] == ["sentiment-1-1"]
        assert not made_again(self.leader.wire.created + self.follower.wire.created)


async def is_killed(pair: Pair) -> None:
    await pair.leader.operator.kill()
    await pair.leads(pair.follower)
    await pair.ends_once()


async def is_frozen(pair: Pair) -> None:
    pair.leader.operator.send(signal.SIGSTOP)
    await pair.leads(pair.follower)
    before = pair.leader.writes()
    await pair.ends_once()
    pair.leader.operator.send(signal.SIGCONT)
    assert await pair.leader.operator.ended() == FAILED
    assert pair.leader.writes() == before, "it has written after it woke"


async def is_cut_off(pair: Pair) -> None:
    pair.leader.cut_off()
    assert await pair.leader.operator.ended() == FAILED
    await pair.leads(pair.follower)
    await pair.ends_once()


async def is_told_to_end(pair: Pair) -> None:
    """As at a rolling upgrade: the Lease is given up, so nobody waits for its end."""
    pair.leader.operator.send(signal.SIGTERM)
    assert await pair.leader.operator.ended() == 0
    await pair.leads(pair.follower, LEASE_SECONDS - 2.0)
    await pair.ends_once()


async def is_killed_and_heard_later(pair: Pair) -> None:
    """Its last write was on the way. It arrives when the job has been suspended, and would start an attempt again."""
    arrives, sent = asyncio.Event(), asyncio.Event()
    late: list[asyncio.Task[Answer]] = []

    async def hold_back(call: Call, forward: Forward) -> Answer:
        if call.point != "create jobs 2":
            return await forward()
        late.append(asyncio.create_task(_after(arrives, forward)))
        sent.set()
        return await asyncio.shield(late[0])

    site = pair.site
    for one in (pair.leader, pair.follower):
        one.wire.meddle = hold_back
    await site.suspends()
    await site.edit(FINE_TUNE_JOBS, "sentiment-1", {"suspend": False})
    await asyncio.wait_for(sent.wait(), 60)
    leader = pair.leader if "create jobs 2" in pair.leader.writes() else pair.follower
    for one in (pair.leader, pair.follower):
        one.wire.meddle = pass_on
    await leader.operator.kill()
    await site.release_lease()
    await site.trainer(attempt=2)
    await site.suspends()
    arrives.set()
    assert (await late[0]).status == 201, "the API server takes it: nothing tells it that it is late"
    await site.no_jobs()
    await site.edit(FINE_TUNE_JOBS, "sentiment-1", {"suspend": False})
    await site.succeeds(attempt=3)
    await site.phase("Succeeded")
    assert [job["metadata"]["name"] for job in await site.kube.list(JOBS, site.name)] == ["sentiment-1-3"]


async def _after(event: asyncio.Event, forward: Forward) -> Answer:
    await event.wait()
    return await forward()


Fate = Callable[[Pair], Awaitable[None]]
QUICK: tuple[Fate, ...] = (is_killed_and_heard_later, is_frozen)
FATES: tuple[Fate, ...] = (*QUICK, is_killed, is_cut_off, is_told_to_end)


def plays(fate: Fate) -> Play:
    async def play(stage: Stage) -> None:
        """A leader with a job at work meets its fate."""
        site = stage.site
        async with replica(stage, "first") as first, replica(stage, "second") as second:
            holder = await site.until(lambda: _holder(site), "a leader")
            pair = Pair(site, *((first, second) if holder.startswith("first_") else (second, first)))
            await site.job()
            await site.trainer()
            await site.phase("Validating")
            await fate(pair)

    return play


PLAYS = Plays(calm={fate: plays(fate) for fate in FATES})


async def _holder(site: Site) -> str:
    lease = await site.kube.get(LEASES, "finetune-operator", site.name)
    return str((lease or {"spec": {}})["spec"].get("holderIdentity") or "")


@pytest.mark.parametrize(
    "fate", [pytest.param(f, id=f.__name__, marks=() if f in QUICK else pytest.mark.slow) for f in FATES]
)
def test_the_other_replica_takes_over_and_nothing_is_done_twice(outcome: Outcome, fate: Fate) -> None:
    outcome(fate)
