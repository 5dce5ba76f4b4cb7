"""A job that is deleted, or cannot be ended: what status says while others keep it."""

from typing import Any

import pytest

from finetune_api.job_status import Failure, FineTuneJobStatus
from finetune_api.reasons import Reason
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.steps import REJECTED_CHECK_SECONDS, decide, not_done
from tests.unit.finetune_operator.decide.given import ended_as, running, view

FINALIZER = "example.com/keep"


@pytest.mark.parametrize(
    ("more", "phase", "said"),
    [
        ({"live_pods": True}, "Running", "its pod is being stopped"),
        ({"run": Run("Active")}, "Running", "its pod is being stopped"),
        ({}, "Cancelled", FINALIZER),
    ],
    ids=["its pod is there", "it runs", "nothing runs"],
)
def test_a_deleted_job_that_a_strangers_finalizer_keeps_says_what_it_waits_for(
    more: dict[str, Any], phase: str, said: str
) -> None:
    status = running().model_copy(update={"phase": "Running", "failure": Failure.because(Reason.TRAINER_SILENT, "x")})
    decision = decide(view(status=status, deleting=True, kept_by=FINALIZER, **more))
    assert decision.status.phase == phase
    assert any(said in one.message for one in decision.status.conditions or ())
    assert (decision.status.failure is None) is (phase == "Cancelled")
    assert decision.stop is (more.get("run") is not None)


def test_a_deleted_job_that_nothing_keeps_or_that_has_ended_is_left_as_it_is() -> None:
    for status, kept_by in ((running(), ""), (ended_as("Complete"), FINALIZER)):
        assert decide(view(status=status, deleting=True, kept_by=kept_by)).status == status


def test_what_the_cluster_refuses_to_end_is_tried_again_and_a_job_that_has_ended_stays_so() -> None:
    for status in (running(), ended_as("Failed")):
        assert not_done(view(status=status), "denied the request").requeue_after == REJECTED_CHECK_SECONDS
    assert not_done(view(status=ended_as("Failed")), "denied").status == ended_as("Failed")
    assert not_done(view(status=running()), "denied").status.failure is not None


def test_a_new_job_of_which_something_is_refused_has_a_phase() -> None:
    """Its first status may be the refusal of a look: a list that the operator may not read, say."""
    refused = not_done(view(status=FineTuneJobStatus()), "jobsets.jobset.x-k8s.io is forbidden").status
    assert (refused.phase, refused.failure is not None) == ("Pending", True)


def test_a_spec_that_can_be_read_no_more_does_not_end_a_finished_jobs_life() -> None:
    decision = decide(view(spec=None, spec_error="spec.x", status=ended_as("Complete")))
    assert (decision.status.phase, decision.delete) == ("Succeeded", False)
