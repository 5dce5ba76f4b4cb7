"""An API server that refuses, delays and forgets, and watches that break: each life ends as if all had been well."""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import operators
from tests.chaos.conftest import Outcome
from tests.chaos.operators import Operator
from tests.chaos.picture import assert_same, picture
from tests.chaos.site import Site
from tests.chaos.stage import Play, Plays, Stage
from tests.chaos.walk import made_again, quiet
from tests.chaos.wire import Answer, Call, Forward, HangUp, Lines, Wire, open_wire, refusal
from tests.cluster.cluster import Cluster

TROUBLED = 0.35
"""Share of the calls that do not go well."""

SILENCE_SECONDS = 3
ANSWER_SECONDS = 2


@dataclass
class Scene:
    """A site with an operator on a wire; the test is the kubelet that starts the operator again when it ends."""

    cluster: Cluster
    site: Site
    wire: Wire
    settings: dict[str, str]
    log: Path
    operator: Operator
    ends: Counter[int] = field(default_factory=Counter)

    async def restart_forever(self) -> None:
        while True:
            self.ends[await self.operator.ended(600)] += 1
            await self.site.release_lease()
            self.operator = operators.fork(self.settings, self.log)


class Dice:
    """Spoils a share of the calls, by lot, in turn in each of the ways that clients of the API meet."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.spoiled: Counter[str] = Counter()
        ways = [self._too_many, self._broken, self._hung_up, self._unheard, self._late]
        self._of_reads, self._of_writes = itertools.cycle(ways), itertools.cycle([self._conflict, *ways])

    async def __call__(self, call: Call, forward: Forward) -> Answer:
        # A lost Lease ends the process, as it should: that is another test's.
        if call.resource == "leases" or self._dice.random() > TROUBLED:
            return await forward()
        way = next(self._of_writes if call.writes else self._of_reads)
        self.spoiled[way.__name__] += 1
        return await way(forward)

    async def _conflict(self, _: Forward) -> Answer:
        return refusal(409, "Conflict")

    async def _too_many(self, _: Forward) -> Answer:
        return refusal(429, "TooManyRequests", {"Retry-After": "1"})

    async def _broken(self, _: Forward) -> Answer:
        return refusal(500, "InternalError")

    async def _hung_up(self, _: Forward) -> Answer:
        raise HangUp

    async def _unheard(self, forward: Forward) -> Answer:
        await forward()
        raise HangUp

    async def _late(self, forward: Forward) -> Answer:
        answer = await forward()
        await asyncio.sleep(ANSWER_SECONDS + 0.5)
        return answer


class Cutter:
    """Ends each watch where it would tell of its first change, which is lost with it; once for each resource."""

    def __init__(self, how: Callable[[], Lines]) -> None:
        self._how = how
        self.cut: set[str] = set()

    async def __call__(self, call: Call, lines: Lines) -> Lines:
        async for line in lines:
            if call.resource not in self.cut and json.loads(line)["type"] != "BOOKMARK":
                self.cut.add(call.resource)
                break
            yield line
        else:
            return
        async for line in self._how():
            yield line


async def too_old() -> Lines:
    status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired",
                              "code": 410, "message": "too old resource version", "metadata": {}}  # fmt: skip
    yield json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


async def silence() -> Lines:
    await asyncio.Event().wait()
    yield b""


async def cable_pulled() -> Lines:
    raise HangUp
    yield b""


async def is_left_alone(scene: Scene) -> None:
    await life(scene.site)
    assert not scene.ends


async def meets_errors(scene: Scene) -> None:
    """409, 429 with Retry-After, 500, cut connections, lost answers and late ones."""
    dice = Dice(20261125)
    scene.wire.meddle = dice
    await life(scene.site)
    assert {"_conflict", "_too_many", "_broken", "_unheard", "_late"} <= set(dice.spoiled), dice.spoiled


async def has_watches_that_are_too_old(scene: Scene) -> None:
    await _cut(scene, too_old)


async def has_watches_that_fall_silent(scene: Scene) -> None:
    await _cut(scene, silence)


async def has_watches_that_are_cut(scene: Scene) -> None:
    await _cut(scene, cable_pulled)


async def _cut(scene: Scene, how: Callable[[], Lines]) -> None:
    cutter = Cutter(how)
    scene.wire.meddle_watch = cutter
    await life(scene.site)
    assert {"pods", "jobs", "finetunejobs"} <= cutter.cut
    assert not scene.ends, "a watch that breaks is not a reason to end"


async def has_half_open_connections(scene: Scene) -> None:
    """Twice, everything that is open at a moment stays open, and nothing comes over it any more."""
    await scene.site.job()
    await scene.site.trainer()
    await scene.site.until(scene.wire.is_watched, "the watches")
    assert scene.wire.freeze() > 3
    await scene.site.phase("Validating")
    assert scene.wire.freeze() > 3
    await scene.site.ends_well()


async def loses_the_api_server(scene: Scene) -> None:
    await _without(scene, "kube-apiserver")


async def loses_etcd(scene: Scene) -> None:
    await _without(scene, "etcd")


async def _without(scene: Scene, role: Any) -> None:
    await scene.site.job()
    await scene.site.trainer()
    await scene.site.phase("Validating")
    await asyncio.to_thread(scene.cluster.kill, role)
    await asyncio.to_thread(scene.cluster.start_again, role)
    await scene.site.ends_well()


async def life(site: Site) -> None:
    await site.job()
    await site.trainer()
    await site.phase("Validating")
    await site.ends_well()


Trouble = Callable[[Scene], Awaitable[None]]
QUICK: tuple[Trouble, ...] = (is_left_alone, meets_errors, has_watches_that_are_too_old, has_half_open_connections)
BESIDE: tuple[Trouble, ...] = (*QUICK, has_watches_that_fall_silent, has_watches_that_are_cut)
ALONE: tuple[Trouble, ...] = (loses_the_api_server, loses_etcd)


@dataclass
class Told:
    """How a life ended."""

    picture: dict[str, Any]
    created: Counter[str]


def plays(trouble: Trouble) -> Play:
    async def play(stage: Stage) -> Told:
        """A life, disturbed by one trouble."""
        async with _scene(stage) as scene:
            try:
                await trouble(scene)
                await quiet(scene.wire)
            except (TimeoutError, AssertionError) as error:
                error.add_note(f"ended {scene.ends}; {[call.point for call in scene.wire.seen]}")
                raise
            return Told(await picture(stage.kube, stage.site.name), scene.wire.created)

    return play


PLAYS = Plays(
    beside={trouble: plays(trouble) for trouble in BESIDE},
    alone={trouble: plays(trouble) for trouble in ALONE},
    always=(is_left_alone,),
)


@asynccontextmanager
async def _scene(stage: Stage) -> AsyncIterator[Scene]:
    own, log = stage.folder / "kubeconfig", stage.folder / "log"
    async with open_wire(stage.cluster.kubeconfig, own, stage.site.name) as wire:
        settings = operators.environment(
            stage.site.name, own, watch_silence_seconds=SILENCE_SECONDS, kube_timeout_seconds=ANSWER_SECONDS
        )
        scene = Scene(stage.cluster, stage.site, wire, settings, log, operators.fork(settings, log))
        kubelet = asyncio.create_task(scene.restart_forever())
        try:
            yield scene
        finally:
            kubelet.cancel()
            await asyncio.wait([kubelet])
            await scene.operator.kill()


@pytest.mark.parametrize(
    "trouble",
    [pytest.param(t, id=t.__name__, marks=() if t in QUICK else pytest.mark.slow) for t in (*BESIDE, *ALONE)],
)
def test_a_life_with_troubles_ends_as_one_without(outcome: Outcome, trouble: Trouble) -> None:
    told = outcome(trouble)
    assert_same(outcome(is_left_alone).picture, told.picture)
    assert not made_again(told.created)
