"""One run of a life: an operator behind its own proxy, killed at one fault point and restarted."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from tests.chaos import operators
from tests.chaos.lives import LIVES
from tests.chaos.operators import Operator
from tests.chaos.picture import picture
from tests.chaos.site import POLL_SECONDS, Site
from tests.chaos.stage import Stage
from tests.chaos.wire import Answer, Call, Forward, HangUp, Wire, open_wire

T = TypeVar("T")
Position = Literal["before", "after"]
QUIET_SECONDS = 2.0
"""Longer than the second after which an operator retries after a conflict."""
BUSY_SECONDS, BUSY_AT_MOST_SECONDS = 1.0, 30.0
"""If a pause and an API request take longer than the first, the machine is busy; wait up to the second."""


@dataclass(frozen=True)
class Fault:
    """Where the operator is killed: the first time that `life` reaches `point`, or the second time if `again`.

    Position: before the API server receives the call, or after it was carried out, but before the answer.
    """

    life: str
    point: str
    position: Position
    again: bool = False

    def __str__(self) -> str:
        return f"{self.life}: {self.position} {self.point}{' again' if self.again else ''}"


def faults_at(points: Mapping[str, Sequence[str]], *, again: bool = False) -> tuple[Fault, ...]:
    """Both faults at each of these points, by the life that reaches them."""
    positions: tuple[Position, ...] = ("after", "before")
    return tuple(
        Fault(life, point, position, again)
        for position in positions
        for life, named in points.items()
        for point in named
    )


@dataclass(frozen=True)
class Told:
    """The result of a run."""

    picture: dict[str, Any]
    points: list[str]
    """Fault points in the order in which they were reached, with repetitions."""
    created: Counter[str]
    killed: bool

    @property
    def made_again(self) -> list[str]:
        """Objects that were created again; except Events, which a restarted operator repeats."""
        return made_again(self.created)


def made_again(created: Counter[str]) -> list[str]:
    """Objects, except Events, that were created more than once."""
    return [name for name, times in created.items() if times > 1 and not name.startswith("events/")]


class Killer:
    """A meddler that kills the operator once at a fault point, and has it restarted."""

    def __init__(self, site: Site, settings: dict[str, str], log: Path, fault: Fault | None) -> None:
        self._site = site
        self._settings = settings
        self._log = log
        self._fault = fault
        self._restart: asyncio.Task[None] | None = None
        self._passed = 0
        self.operator: Operator = operators.fork(settings, log)

    @property
    def killed(self) -> bool:
        """Whether the point was reached."""
        return self._restart is not None

    async def end(self) -> None:
        """Kill the operator."""
        await self.operator.kill()

    async def __call__(self, call: Call, forward: Forward) -> Answer:
        """See wire.Meddle."""
        return await self.at(call.point, forward)

    async def at(self, point: str, forward: Callable[[], Awaitable[T]]) -> T:
        """Return `forward`'s result, unless the operator is killed here.

        Raises:
            HangUp: the calling operator was killed.
        """
        if self.killed or self._fault is None or point != self._fault.point:
            return await forward()
        if self._passed < self._fault.again:
            self._passed += 1
            return await forward()
        # In its own task: this request is cancelled when the operator ends.
        self._restart = asyncio.create_task(self._kill_and_restart(self._fault.position, forward))
        await asyncio.shield(self._restart)
        raise HangUp

    async def _kill_and_restart(self, position: Position, forward: Callable[[], Awaitable[object]]) -> None:
        if position == "after":
            await forward()
        await self.operator.kill()
        await self._site.release_lease()
        self.operator = operators.fork(self._settings, self._log)


async def walk(stage: Stage, life: str, fault: Fault | None = None) -> Told:
    """Run a life, with one kill as defined by `fault`.

    Raises:
        TimeoutError: a step of the life did not happen; with what was reached and what is left.
    """
    async with open_wire(stage.cluster.kubeconfig, stage.folder / "kubeconfig", stage.site.name) as wire:
        settings = operators.environment(stage.site.name, stage.folder / "kubeconfig")
        wire.meddle = killer = Killer(stage.site, settings, stage.folder / "log", fault)
        try:
            await LIVES[life](stage.site)
            await quiet(wire)
        except TimeoutError as error:
            left = json.dumps(await picture(stage.kube, stage.site.name), indent=1)
            error.add_note(f"points: {[call.point for call in wire.seen]}; left: {left}")
            raise
        finally:
            await killer.operator.kill()
        found = await picture(stage.kube, stage.site.name)
        return Told(found, [call.point for call in wire.seen], wire.created, killer.killed)


async def quiet(wire: Wire) -> None:
    """Wait until the operator writes nothing but its Lease.

    Silence does not count while it waits for an answer, or while it or the API server waits for the processor.
    """

    def written() -> int:
        return sum(call.resource != "leases" for call in wire.seen)

    loop = asyncio.get_running_loop()
    count, since, began = written(), loop.time(), loop.time()
    while loop.time() - since < QUIET_SECONDS:
        asked = loop.time()
        await asyncio.sleep(POLL_SECONDS)
        busy = not await wire.answers() or wire.unanswered or loop.time() - asked > BUSY_SECONDS
        if written() != count or (busy and loop.time() - began < BUSY_AT_MOST_SECONDS):
            count, since = written(), loop.time()
