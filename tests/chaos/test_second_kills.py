"""An operator that is killed where something is made or ended, started again, and killed again at its next write."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from tests.chaos.cloud_lives import LIVES
from tests.chaos.cloud_points import at_providers
from tests.chaos.cloud_walk import CloudTold, walk
from tests.chaos.conftest import Outcome
from tests.chaos.picture import assert_same
from tests.chaos.stage import Play, Plays, Stage
from tests.chaos.test_crashes_at_providers import asked_beside
from tests.chaos.walk import Fault, Killer, faults_at

T = TypeVar("T")

WRITES = frozenset({"create", "apply", "patch", "patch_status", "delete"})
FAULTS = faults_at(
    {
        "is_served at openai": ("fine_tuning.jobs.create", "models.delete"),
        "is_served at azure": ("fine_tuning.jobs.create", "deployments.create_or_update", "deployments.delete"),
        "is_served at bedrock": ("CreateModelCustomizationJob", "CreateCustomModelDeployment"),
        "is_served at sagemaker": ("CreateTrainingJob", "CreateEndpoint", "DeleteEndpoint"),
    }
)


class KillerAgain(Killer):
    """Kills the operator that it has started, too: at whatever that one writes first, here or at the provider."""

    twice = False

    async def at(self, point: str, forward: Callable[[], Awaitable[T]]) -> T:
        """See Killer."""
        started = self._restart is not None and self._restart.done()
        if started and not self.twice and is_write(point) and self._fault is not None:
            self.twice, self._restart, self._fault = True, None, replace(self._fault, point=point, again=False)
        return await super().at(point, forward)

    async def end(self) -> None:
        """See Killer."""
        await super().end()
        assert self.twice, "it was not killed again"


def is_write(point: str) -> bool:
    """Whether something is changed, but for the Lease and what is only told."""
    words = point.split()
    if len(words) == 1:
        return bool(at_providers(words))
    return words[0] in WRITES and words[1] not in {"leases", "events", "tokenreviews"}


def walks(life: str, fault: Fault | None = None) -> Play:
    async def play(stage: Stage) -> CloudTold:
        return await walk(stage, *LIVES[life], fault, killer_of=KillerAgain if fault else Killer)

    return play


PLAYS = Plays(
    beside={fault.life: walks(fault.life) for fault in FAULTS} | {fault: walks(fault.life, fault) for fault in FAULTS},
    compared={fault: fault.life for fault in FAULTS},
)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_an_operator_that_is_killed_twice_in_one_turn_changes_nothing_of_the_end(
    outcome: Outcome, fault: Fault
) -> None:
    calm, told = outcome(fault.life), outcome(fault)
    assert_same(calm.served, told.served, told.warnings)
    assert_same(calm.end, told.end, told.warnings)
    assert told.cost.is_told_right, told.cost
    assert replace(calm.provider, questions=[]) == replace(told.provider, questions=[])
    assert len(asked_beside(calm, told)) <= 2
