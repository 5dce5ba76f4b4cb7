"""The phase of a job never says another end, or another rest, than its conditions do."""

from dataclasses import replace

import pytest

from finetune_api.job_status import Failure, FineTuneJobStatus
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, is_true
from finetune_operator.decide.job.change import trouble, with_status
from finetune_operator.decide.job.steps import status_while_deleted
from finetune_operator.decide.job.view import Change
from tests.unit.finetune_operator.decide.given import job_spec, view


@pytest.mark.parametrize(
    ("kind", "state", "said", "phase"),
    [
        ("Complete", "True", "Running", "Succeeded"),
        ("Complete", "False", "Succeeded", "Pending"),
        ("Failed", "True", None, "Failed"),
        ("Failed", "False", "Failed", "Pending"),
        ("Suspended", "True", "Evaluating", "Suspended"),
        ("Suspended", "False", "Running", "Running"),
        ("Suspended", "False", None, "Pending"),
    ],
)
def test_the_phase_of_an_end_or_a_rest_is_that_of_its_condition(kind, state, said, phase):
    before = replace(view(), status=FineTuneJobStatus(phase=said))
    assert with_status(before, Change([Fact(kind, state, Reason.RUNNING, "so")])).phase == phase


@pytest.mark.parametrize(("rests", "phase"), [(True, "Suspended"), (False, "Pending")])
def test_a_job_is_suspended_as_long_as_it_is_to_be_also_while_its_provider_does_not_answer(rests, phase):
    suspended = with_status(view(), Change([Fact("Suspended", "True", Reason.SUSPENDED, "so")]))
    away = Failure.because(Reason.PROVIDER_UNAVAILABLE, "it does not answer")
    status = trouble(view(status=suspended, spec=job_spec(suspend=rests)), away, 60).status
    assert (status.phase, is_true(status.conditions, "Suspended")) == (phase, rests)


def test_a_suspended_job_that_is_deleted_and_kept_is_cancelled():
    suspended = with_status(view(), Change([Fact("Suspended", "True", Reason.SUSPENDED, "so")]))
    status = status_while_deleted(
        view(status=suspended, spec=job_spec(suspend=True), deleting=True, kept_by="example.com/hold")
    )
    assert (status.phase, is_true(status.conditions, "Suspended")) == ("Cancelled", False)
