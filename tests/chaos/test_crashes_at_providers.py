"""The operator is killed at every call that changes something at a provider, and everything ends as if it had not."""

import pytest

from tests.chaos.cloud_lives import LIVES
from tests.chaos.cloud_points import FAULTS, POINTS, QUICK
from tests.chaos.cloud_walk import CloudTold, walk
from tests.chaos.conftest import Outcome
from tests.chaos.picture import difference
from tests.chaos.stage import Play, Plays, Stage
from tests.chaos.walk import Fault

slow = pytest.mark.slow


def walks(life: str, fault: Fault | None = None) -> Play:
    async def play(stage: Stage) -> CloudTold:
        return await walk(stage, life, fault)

    return play


PLAYS = Plays(beside={life: walks(life) for life in LIVES} | {fault: walks(fault.life, fault) for fault in FAULTS})


@pytest.mark.parametrize("life", LIVES)
def test_a_life_that_nobody_disturbs_comes_to_every_fault_point(outcome: Outcome, life: str) -> None:
    told = outcome(life)
    assert set(POINTS[life]) <= set(told.points)
    assert (told.provider.left, told.provider.running, told.provider.defects) == ([], [], [])


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=str(fault), marks=() if fault in QUICK else slow) for fault in FAULTS]
)
def test_a_killed_operator_changes_nothing_of_the_end(outcome: Outcome, fault: Fault) -> None:
    calm, told = outcome(fault.life), outcome(fault)
    assert told.killed, f"the walk never came to {fault.point}: {told.points}"
    assert not difference(calm.served, told.served)
    assert not difference(calm.end, told.end)
    assert calm.provider == told.provider
