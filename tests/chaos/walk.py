"""One walk through a life: an operator behind a wire of its own, killed at one fault point and started again."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from finetune_operator.runtime.kube import Kube
from tests.chaos import operators
from tests.chaos.lives import LIVES
from tests.chaos.operators import Operator
from tests.chaos.picture import picture
from tests.chaos.site import POLL_SECONDS, Site
from tests.chaos.wire import Answer, Call, Forward, HangUp, Wire, open_wire

Position = Literal["before", "after"]
QUIET_SECONDS = 1.0


@dataclass(frozen=True)
class Fault:
    """Where the operator is killed: the first time that `life` comes to `point`.

    Position: before the API server has seen the call, or after it has done it and before its answer is seen.
    """

    life: str
    point: str
    position: Position

    def __str__(self) -> str:
        return f"{self.life}: {self.position} {self.point}"


@dataclass
class Told:
    """What is known of a walk when it is over."""

    picture: dict[str, Any] = field(default_factory=dict)
    points: list[str] = field(default_factory=list)
    """Fault points in the order in which they were reached, each as often as it was."""
    created: Counter[str] = field(default_factory=Counter)
    killed: bool = False
    error: str = ""


class Killer:
    """A meddler that ends the operator at one point, once, and has it started again."""

    def __init__(self, site: Site, settings: dict[str, str], log: Path, fault: Fault | None) -> None:
        self._site = site
        self._settings = settings
        self._log = log
        self._fault = fault
        self._restart: asyncio.Task[None] | None = None
        self.operator: Operator = operators.fork(settings, log)

    @property
    def killed(self) -> bool:
        """Whether the point was reached."""
        return self._restart is not None

    async def __call__(self, call: Call, forward: Forward) -> Answer:
        """See wire.Meddle."""
        if self.killed or self._fault is None or call.point != self._fault.point:
            return await forward()
        # A task of its own: with the operator's end this request is cancelled.
        self._restart = asyncio.create_task(self._kill_and_restart(self._fault.position, forward))
        await asyncio.shield(self._restart)
        raise HangUp

    async def _kill_and_restart(self, position: Position, forward: Forward) -> None:
        if position == "after":
            await forward()
        await self.operator.kill()
        await self._site.release_lease()
        self.operator = operators.fork(self._settings, self._log)


async def walk(kube: Kube, kubeconfig: Path, folder: Path, life: str, fault: Fault | None = None) -> Told:
    """Walk through a life; nothing is raised, what went wrong is told."""
    told = Told()
    site = Site(kube, folder.name)
    await site.make()
    async with open_wire(kubeconfig, folder / "kubeconfig") as wire:
        settings = operators.environment(site.name, folder / "kubeconfig")
        killer = Killer(site, settings, folder / "log", fault)
        wire.meddle = killer
        try:
            await LIVES[life](site)
            await quiet(wire)
            told.picture = await picture(kube, site.name)
        except Exception as error:  # noqa: BLE001 - told of this walk; the others go on
            left = json.dumps(await picture(kube, site.name), indent=1)
            told.error = f"{error!r}; points: {[c.point for c in wire.seen]}; left: {left}; log: {folder / 'log'}"
        finally:
            await killer.operator.kill()
        told.killed = killer.killed
        told.points = [call.point for call in wire.seen]
        told.created = wire.created
    return told


async def quiet(wire: Wire) -> None:
    """Wait until the operator writes nothing any more but its Lease."""

    def written() -> int:
        return sum(call.resource != "leases" for call in wire.seen)

    loop = asyncio.get_running_loop()
    count, since = written(), loop.time()
    while loop.time() - since < QUIET_SECONDS:
        await asyncio.sleep(POLL_SECONDS)
        if written() != count:
            count, since = written(), loop.time()
