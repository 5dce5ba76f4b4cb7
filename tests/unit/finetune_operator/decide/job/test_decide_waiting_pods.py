"""A pod that does not start: what may pass by itself, or come a little later, is no failure at once."""

from datetime import timedelta

import pytest

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.job.steps import decide
from finetune_operator.decide.pods.grace import GRACE
from finetune_operator.decide.pods.refused import refusal_of_pod
from tests.unit.finetune_operator.decide.given import NOW, at, run, running, view


def refused(limit: int) -> Failure:
    return refusal_of_pod(f"exceeded quota: q, requested: pods=1, used: pods={limit}, limited: pods={limit}")


@pytest.mark.parametrize(
    "obstacle",
    [
        Failure.because(Reason.UNSCHEDULABLE, "0/2 nodes"),
        Failure.because(Reason.VOLUME_UNAVAILABLE, "0/2 nodes"),
        Failure.because(Reason.CONTAINER_CONFIG_INVALID, 'secret "late" not found'),
        pytest.param(refused(3), id="a quota that others use"),
    ],
    ids=lambda obstacle: obstacle.reason.value,
)
def test_what_may_pass_by_itself_is_no_failure_before_it_has_lasted_for_a_while(obstacle: Failure) -> None:
    waits = run("Queued", failure=obstacle, since=NOW - GRACE + timedelta(seconds=5))
    early = decide(view(waits, running(phase="Queued")))
    assert (early.status.failure, early.requeue_after) == (None, 5)
    told = next(one for one in early.status.conditions or () if one.type == "Reconciling")
    assert (told.status, told.reason, told.message) == ("True", obstacle.reason.value, obstacle.message)
    late = decide(view(waits, early.status, now=at(5)))
    assert (late.status.failure and late.status.failure.reason, late.requeue_after) == (obstacle.reason, None)


@pytest.mark.parametrize("obstacle", [Failure.because(Reason.IMAGE_PULL_FAILED, "not found"), refused(0)])
def test_what_does_not_pass_by_itself_is_a_failure_at_once(obstacle: Failure) -> None:
    decided = decide(view(run("Queued", failure=obstacle, since=NOW), running(phase="Queued")))
    assert decided.status.failure == obstacle
