"""A webhook that says nothing holds up one write, and not every worker for as long as it is away."""

from collections.abc import Callable

import pytest

from finetune_operator.runtime.circuit_breaker import PAUSE_SECONDS, CircuitBreaker
from finetune_operator.runtime.errors import Conflict, Unadmitted

JOBS, MODELS = "create /apis/batch/v1/namespaces/team-a/jobs", "create /apis/x/namespaces/team-a/models"
ELSEWHERE = "create /apis/batch/v1/namespaces/team-b/jobs"
TOLD = 'failed calling webhook "slow.example.com": context deadline exceeded'


class World:
    """Writes that end as the test says, after so many seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.silences = CircuitBreaker(lambda: self.now)
        self.asked = 0

    def write(self, place: str = JOBS, seconds: float = 30.0, error: Exception | None = None) -> None:
        with self.silences.attempt(place):
            self.asked += 1
            self.now += seconds
            if error is not None:
                raise error

    def is_silent(self, place: str = JOBS, seconds: float = 30.0) -> bool:
        with pytest.raises(Unadmitted) as caught:
            self.write(place, seconds, Unadmitted(500, "InternalError", TOLD))
        assert caught.value.message == TOLD
        return caught.value.repeated


@pytest.fixture
def world() -> World:
    return World()


def test_after_a_silence_others_are_told_of_it_at_once_and_one_asks_after_a_while(world: World) -> None:
    assert not world.is_silent()
    for _ in range(100):
        assert world.is_silent(), "its words, without another 30 s"
    assert world.asked == 1
    world.now += PAUSE_SECONDS
    assert not world.is_silent()
    assert world.is_silent()
    assert world.asked == 2


def test_while_one_asks_nobody_else_waits_beside_it(world: World) -> None:
    world.is_silent()
    world.now += PAUSE_SECONDS
    with world.silences.attempt(JOBS):
        world.now += 20
        assert world.is_silent()
    world.write()
    assert world.asked == 2, "it was answered: all may ask again"


def test_other_places_are_not_concerned(world: World) -> None:
    world.is_silent()
    for place in (MODELS, ELSEWHERE, JOBS.replace("create", "delete")):
        world.write(place)
    assert world.asked == 4


def test_a_webhook_that_refuses_the_connection_holds_nobody_up_and_is_asked_each_time(world: World) -> None:
    for _ in range(3):
        assert not world.is_silent(seconds=0.01)
    assert world.asked == 3


def _write(world: World) -> None:
    world.write()


def _collide(world: World) -> None:
    with pytest.raises(Conflict):
        world.write(error=Conflict(409, "Conflict", "it has changed"))


@pytest.mark.parametrize("end", [_write, _collide])
def test_whatever_else_comes_of_asking_the_next_one_may_ask(world: World, end: Callable[[World], None]) -> None:
    world.is_silent()
    world.now += PAUSE_SECONDS
    end(world)
    world.write()
    assert world.asked == 3
