"""Providers that fail, ask for patience, lose answers and miss things in lists: every life comes to its end."""

from collections.abc import Callable

import pytest

from tests.chaos.cloud_lives import LIVES
from tests.chaos.cloud_points import POINTS, at_providers
from tests.chaos.cloud_walk import CloudTold, walk
from tests.chaos.conftest import Outcome
from tests.chaos.stage import Play, Plays, Stage
from tests.lives.clouds import Cloud
from tests.simulators.flapping import Flapping
from tests.simulators.http import Reply

JOBS = {"is_renewed": 2, "is_suspended": 2}
"""Jobs that a life makes, where that is not one."""


def trouble(cloud: Cloud) -> None:
    """Each call that changes something is done once without an answer; creates are put off, lists fail or are empty."""
    simulator, passed_on = cloud.simulator, cloud.simulator.meddle
    points = [points for life, points in POINTS.items() if life.endswith(f" at {cloud.name}")]
    for operation in sorted(set().union(*map(at_providers, points))):
        simulator.fault(operation, status=500, after_commit=True)
    simulator.fault(cloud.creates, status=429, headers={"Retry-After": "1"})
    for reads in ("*.list", "List*", "*.retrieve", "Get*", "Describe*"):
        simulator.fault(reads, status=503, skip=3)
    flapping = Flapping(simulator, 3, 0, reads=False)

    async def meddle(operation: str, carry_out: Callable[[], Reply]) -> Reply:
        return flapping.changed(operation, await passed_on(operation, carry_out))

    simulator.meddle = meddle


def walks(life: str) -> Play:
    async def play(stage: Stage) -> CloudTold:
        return await walk(stage, life, trouble=trouble)

    return play


PLAYS = Plays(beside={life: walks(life) for life in LIVES})


@pytest.mark.slow  # each waits out the minute that an answer without a word costs, again and again
@pytest.mark.parametrize("life", LIVES)
def test_at_a_bad_provider_nothing_is_made_twice_and_nothing_is_left(outcome: Outcome, life: str) -> None:
    told = outcome(life).provider
    assert (told.left, told.objects, told.running, told.defects) == ([], [], [], [])
    assert told.jobs == JOBS.get(life.partition(" ")[0], 1)
