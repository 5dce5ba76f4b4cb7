"""Clocks hours apart, the operator's own, the API server's and the provider's: every life ends as it does without.

AWS takes signatures for minutes only, so its clock is the operator's own; OpenAI and Azure take keys and tokens.
"""

from dataclasses import dataclass

import pytest

from tests.chaos import cloud_lives
from tests.chaos.cloud_site import HOUR
from tests.chaos.cloud_walk import CloudTold, walk
from tests.chaos.conftest import Outcome
from tests.chaos.picture import assert_same
from tests.chaos.stage import Play, Plays, Stage
from tests.lives.clouds import Cloud

LIVES = ("sleeps at azure", "expires at azure", "is_measured at azure", "is_suspended at azure", "is_served at openai")


@dataclass(frozen=True)
class Apart:
    """A life in which clocks are ahead of the API server's by so many hours."""

    life: str
    own: int
    provider: int

    def __str__(self) -> str:
        return f"{self.life}, the operator's {self.own:+} h, the provider's {self.provider:+} h"


APART = [Apart(life, own, provider) for life in LIVES for own, provider in ((3, 0), (-3, 0), (0, 3), (0, -3), (3, -3))]


def walks(life: str, apart: Apart | None = None) -> Play:
    def turn(cloud: Cloud) -> None:
        cloud.simulator.clock.now += (apart.provider if apart else 0) * HOUR

    async def play(stage: Stage) -> CloudTold:
        return await walk(stage, *cloud_lives.LIVES[life], trouble=turn, own_clock=(apart.own if apart else 0) * HOUR)

    return play


PLAYS = Plays(
    beside={apart: walks(apart.life, apart) for apart in APART} | {life: walks(life) for life in LIVES},
    compared={apart: apart.life for apart in APART},
)


@pytest.mark.slow
@pytest.mark.parametrize("apart", APART, ids=str)
def test_whatever_the_clocks_say_everything_ends_the_same(outcome: Outcome, apart: Apart) -> None:
    calm, told = outcome(apart.life), outcome(apart)
    assert_same(calm.served, told.served, told.warnings)
    assert_same(calm.end, told.end, told.warnings)
    assert told.cost.is_told_right, told.cost
    assert (told.provider.left, told.provider.running, told.provider.jobs) == ([], [], calm.provider.jobs)
    assert told.provider.bill == calm.provider.bill
    assert told.events == calm.events
