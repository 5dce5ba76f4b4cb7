"""Providers that fail, ask for patience, lose answers and miss things in lists: every life ends as it does without."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chaos.cloud_lives import LIVES
from tests.chaos.cloud_points import POINTS, at_providers
from tests.chaos.cloud_walk import BUSY, CloudTold, walk
from tests.chaos.conftest import Outcome
from tests.chaos.picture import assert_same
from tests.chaos.stage import Play, Plays, Stage
from tests.lives.clouds import Cloud
from tests.simulators.flapping import Flapping
from tests.simulators.http import Reply

PASSING = {"ProviderUnavailable", "RateLimited", "DeploymentNotFound"}
"""What Events may tell of beside those of an undisturbed life; the last where a list lacks what is attached."""


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


def by_turns(cloud: Cloud) -> None:
    """Each call that changes something, and each list, is refused by 429, by 500, and by 429 again, and then done."""
    points = [points for life, points in POINTS.items() if life.endswith(f" at {cloud.name}")]
    for operation in [*sorted(set().union(*map(at_providers, points))), "*.list", "List*"]:
        for status in (429, 500, 429):
            headers = {"Retry-After": "1"} if status == 429 else {}
            cloud.simulator.fault(operation, status=status, headers=headers, skip=3 if "*" in operation else 0)


def walks(life: str, trouble: Callable[[Cloud], None] | None = None) -> Play:
    async def play(stage: Stage) -> CloudTold:
        return await walk(stage, *LIVES[life], trouble=trouble)

    return play


@dataclass(frozen=True)
class AtABadOne:
    """A life where a bad provider is in its way; by its name alone it is the undisturbed one."""

    life: str
    how: Callable[[Cloud], None] = trouble

    def __str__(self) -> str:
        return self.life if self.how is trouble else f"{self.life}, {self.how.__name__}"


OVER = {("Cleaned", "True"), ("Released", "True")}
MENDED = {"is_deployed_in_vain at azure"}
"""A PUT whose answer is lost is repeated, and what failed stands then without anybody's doing."""
BAD = [
    *(AtABadOne(life) for life in LIVES if life not in MENDED),
    *(AtABadOne(f"is_served at {provider}", by_turns) for provider in ("openai", "azure", "bedrock", "sagemaker")),
]
PLAYS = Plays(
    beside={bad: walks(bad.life, bad.how) for bad in BAD} | {life: walks(life) for life in LIVES},
    compared={bad: bad.life for bad in BAD},
)


def without_what_is_over(picture: dict[str, Any]) -> dict[str, Any]:
    """Without the conditions that say of what could not be deleted at first that it is gone, and without since when a
    list lacks what stands: every third one does.
    """

    def left(obj: dict[str, Any]) -> dict[str, Any]:
        status = obj.get("status") or {}
        found = [c for c in status.get("conditions") or () if (c["type"], c["status"]) not in OVER]
        hosted = [
            {key: value for key, value in one.items() if key != "unseenSince"} for one in status.get("hosted") or ()
        ]
        shown = ({"conditions": found} if found else {}) | ({"hosted": hosted} if hosted else {})
        return {**obj, "status": {**status, **shown}} if status else obj

    return {name: [left(obj) for obj in objects] for name, objects in picture.items()}


@pytest.mark.slow  # each waits out the minute that an answer without a word costs, again and again
@pytest.mark.parametrize("bad", BAD, ids=str)
def test_at_a_bad_provider_everything_ends_as_at_a_good_one(outcome: Outcome, bad: AtABadOne) -> None:
    calm, told = outcome(bad.life), outcome(bad)
    provider = told.provider
    assert (provider.left, provider.objects, provider.running, provider.defects) == ([], [], [], [])
    assert (provider.jobs, provider.bill) == (calm.provider.jobs, calm.provider.bill)
    assert_same(calm.served, without_what_is_over(told.served), told.warnings)
    assert_same(calm.end, without_what_is_over(told.end), told.warnings)
    assert told.cost.is_told_right, told.cost
    assert calm.events - BUSY <= told.events
    assert {reason for _, reason in told.events - calm.events - BUSY} <= PASSING
