"""The operator is killed at every call that changes something at a provider, and everything ends as if it had not."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.chaos.cloud_lives import LIVES
from tests.chaos.cloud_points import FAULTS, POINTS, QUICK, at_providers, calls_in_the_code
from tests.chaos.cloud_walk import CloudTold, walk
from tests.chaos.conftest import Outcome
from tests.chaos.picture import assert_same
from tests.chaos.stage import Play, Plays, Stage
from tests.chaos.walk import Fault

slow = pytest.mark.slow


def walks(life: str, fault: Fault | None = None) -> Play:
    async def play(stage: Stage) -> CloudTold:
        return await walk(stage, *LIVES[life], fault)

    return play


PLAYS = Plays(
    beside={life: walks(life) for life in LIVES} | {fault: walks(fault.life, fault) for fault in FAULTS},
    compared={fault: fault.life for fault in FAULTS},
)


QUICK_LIVES = {fault.life for fault in QUICK} | {"sleeps at azure"}


def marked(place: str | Fault, *, quick: bool) -> Any:
    """Slow ones are for those who ask for them."""
    return pytest.param(place, id=str(place), marks=() if quick else slow)


@pytest.mark.parametrize("life", [marked(life, quick=life in QUICK_LIVES) for life in LIVES])
def test_a_life_that_nobody_disturbs_comes_to_every_fault_point_and_no_other(outcome: Outcome, life: str) -> None:
    told = outcome(life)
    assert set(POINTS.get(life, ())) <= set(told.points)
    assert at_providers(told.points) <= points_at(life.rpartition(" ")[2])
    assert (told.provider.left, told.provider.objects, told.provider.running) == ([], [], [])
    assert told.provider.defects == []
    assert told.cost.is_told_right, told.cost


@pytest.mark.parametrize("fault", [marked(fault, quick=fault in QUICK) for fault in FAULTS])
def test_a_killed_operator_changes_nothing_of_the_end(outcome: Outcome, fault: Fault) -> None:
    calm, told = outcome(fault.life), outcome(fault)
    assert told.killed, f"the walk never came to {fault.point}: {told.points}"
    assert_same(calm.served, told.served, told.warnings)
    assert_same(calm.end, told.end, told.warnings)
    assert told.cost.is_told_right, told.cost
    assert replace(calm.provider, questions=[]) == replace(told.provider, questions=[])
    assert asked_beside(calm, told) in ([], told.provider.questions[:1])


def asked_beside(calm: CloudTold, told: CloudTold) -> list[Decimal]:
    """Questions that a killed operator has asked once more, as nobody can look up whether one was answered."""
    before, after = Counter(calm.provider.questions), Counter(told.provider.questions)
    assert before <= after
    return list((after - before).elements())


def test_the_fault_points_are_the_calls_that_the_code_makes() -> None:
    assert set().union(*map(at_providers, POINTS.values())) == calls_in_the_code()


def points_at(provider: str) -> set[str]:
    """Calls that are points of any life at a provider."""
    return set().union(*(at_providers(points) for life, points in POINTS.items() if life.endswith(f" at {provider}")))
