"""A create that a provider has not answered yet: its job is deleted, the answer is late, or the operator is frozen."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS
from tests.chaos import operators
from tests.chaos.cloud_lives import CloudLife, is_served
from tests.chaos.cloud_site import MINUTE, CloudSite
from tests.chaos.cloud_walk import CloudTold, walk
from tests.chaos.conftest import Outcome
from tests.chaos.operators import Operator
from tests.chaos.site import Site
from tests.chaos.stage import Play, Plays, Stage
from tests.chaos.walk import Fault, Killer, Position
from tests.lives.clouds import Cloud
from tests.simulators.http import Reply
from tests.simulators.simulator import Simulator

T = TypeVar("T")

CREATES = {
    "openai": "fine_tuning.jobs.create",
    "azure": "fine_tuning.jobs.create",
    "bedrock": "CreateModelCustomizationJob",
    "sagemaker": "CreateTrainingJob",
}
LATE_SECONDS = 90
"""Longer than the operator waits for an answer, and shorter than it waits for what may have come of the call."""
FAILED = 1


@contextmanager
def held_back(simulator: Simulator, operation: str) -> Iterator[None]:
    """The provider does what it is asked, and answers when this is over."""
    answered, passed_on = threading.Event(), simulator.meddle

    async def meddle(asked: str, carry_out: Callable[[], Reply]) -> Reply:
        reply = await passed_on(asked, carry_out)
        if asked == operation:
            await asyncio.to_thread(answered.wait)
        return reply

    simulator.meddle = meddle
    try:
        yield
    finally:
        answered.set()
        simulator.meddle = passed_on


async def is_deleted_meanwhile(site: CloudSite) -> None:
    """The job is deleted before it is known whether there is one at the provider."""
    await site.connects()
    await site.model(deployment={"mode": "Manual"})
    await site.asks_for()
    check = await site.check()
    with held_back(site.cloud.simulator, site.cloud.creates):
        file = await site.until(check.send, "an upload")
        await site.ends(await site.pod_of("sentiment-1"), message=check.checked(file))
        await site.until(lambda: _is_asked(site), "the call that makes the job")
        await site.kube.delete(FINE_TUNE_JOBS, "sentiment-1", site.name)

    async def is_gone() -> bool:
        if site.cloud.simulator.count(site.cloud.cancels):
            site.cloud.simulator.advance(MINUTE)  # it takes a while to end
        return await site.kube.get(FINE_TUNE_JOBS, "sentiment-1", site.name) is None

    await site.until(is_gone, "the job's end")


async def _is_asked(site: CloudSite) -> bool:
    return site.cloud.creates in site.asked


def are_late(cloud: Cloud) -> None:
    """The first job and the first deployment are made when nobody waits for the answer any more."""
    simulator, passed_on = cloud.simulator, cloud.simulator.meddle
    left = {cloud.creates, cloud.deploys}

    async def meddle(operation: str, carry_out: Callable[[], Reply]) -> Reply:
        if operation in left:
            left.remove(operation)
            await asyncio.sleep(LATE_SECONDS)
        return await passed_on(operation, carry_out)

    simulator.meddle = meddle


class Freezer(Killer):
    """Freezes an operator that is about to have something made; when another one has had that made, it goes on."""

    after = ""
    """How the point begins that comes first; only then is it frozen at the fault's."""
    creates = frozenset(CREATES.values())

    def __init__(self, site: Site, settings: dict[str, str], log: Path, fault: Fault | None) -> None:
        times = {"LEASE_DURATION": 10, "LEASE_RENEW": 8, "LEASE_RETRY": 1}
        short = settings | {f"FINETUNE_{name}_SECONDS": str(value) for name, value in times.items()}
        super().__init__(site, short, log, fault)
        self.frozen: Operator | None = None
        self.code: int | None = None
        self._written = False

    async def at(self, point: str, forward: Callable[[], Awaitable[T]]) -> T:
        """See Killer."""
        assert self._fault is not None
        answer = await forward()
        self._written = self._written or point.startswith(self.after)
        if self.frozen is None and self._written and point == self._fault.point:
            self.frozen = self.operator
            self.frozen.send(signal.SIGSTOP)
            other = self._settings | {"FINETUNE_POD_NAME": "other", "FINETUNE_REPORT_PORT": "0"}
            self.operator = operators.fork(other, self._log)
        elif self.frozen is not None and self.code is None and point in self.creates:
            self.frozen.send(signal.SIGCONT)
            self.code = await self.frozen.ended()
        return answer

    async def end(self) -> None:
        """End both."""
        if self.frozen is not None and self.code is None:
            await self.frozen.kill()
        await super().end()
        assert self.code == FAILED


class FreezerAtEntra(Freezer):
    """Freezes it while Entra gives the token for the call that makes the deployment."""

    after = "patch_status modeldeployments"
    creates = frozenset({"deployments.create_or_update"})


def gives_tokens_for_a_moment(cloud: Cloud) -> None:
    """Each call needs another one."""
    cloud.simulator.set(token_seconds=0)


@dataclass(frozen=True)
class Unanswered:
    """What happens while a create is unanswered, and where the operator is killed meanwhile."""

    live: CloudLife
    provider: str
    position: Position | None = None
    trouble: Callable[[Cloud], None] | None = None
    killer_of: type[Killer] = Killer
    point: str = ""
    """Where it is killed, or frozen, if that is not the create."""

    def __str__(self) -> str:
        happens = self.killer_of.__name__ if self.freezes else self.trouble.__name__ if self.trouble else "deleted"
        killed = f", killed {self.position} it" if self.position and not self.freezes else ""
        return f"{happens} at {self.provider}{killed}"

    @property
    def freezes(self) -> bool:
        """Whether another operator goes on."""
        return issubclass(self.killer_of, Freezer)

    @property
    def jobs(self) -> int:
        """How many the provider makes."""
        return 0 if self.live is is_deleted_meanwhile and self.position == "before" else 1


def plays(one: Unanswered) -> Play:
    async def play(stage: Stage) -> CloudTold:
        point = one.point or CREATES[one.provider]
        fault = Fault(str(one), point, one.position) if one.position else None
        return await walk(stage, one.live, one.provider, fault, one.trouble, killer_of=one.killer_of)

    return play


AT_ENTRA = Unanswered(is_served, "azure", "after", gives_tokens_for_a_moment, FreezerAtEntra, "entra.token")
POSITIONS: tuple[Position | None, ...] = (None, "before", "after")
ALL = [
    *(Unanswered(is_deleted_meanwhile, provider, position) for provider in CREATES for position in POSITIONS),
    *(Unanswered(is_served, provider, trouble=are_late) for provider in CREATES),
    *(
        Unanswered(is_served, provider, "after", killer_of=Freezer, point="files.retrieve")
        for provider in ("openai", "azure")
    ),
    AT_ENTRA,
]
PLAYS = Plays(beside={one: plays(one) for one in ALL})


@pytest.mark.slow
@pytest.mark.parametrize("one", ALL, ids=str)
def test_nothing_is_made_twice_and_nothing_is_left(outcome: Outcome, one: Unanswered) -> None:
    told = outcome(one).provider
    assert (told.jobs, told.left, told.objects, told.running, told.defects) == (one.jobs, [], [], [], [])


@pytest.mark.slow
@pytest.mark.parametrize("one", [AT_ENTRA], ids=str)
def test_a_replica_that_was_frozen_asks_for_no_deployment_any_more(outcome: Outcome, one: Unanswered) -> None:
    assert outcome(one).points.count("deployments.create_or_update") == 1
