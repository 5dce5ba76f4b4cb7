"""How an adopted job ends that has come to nothing: at once, and with what can be done about it."""

import pytest

from finetune_api.job_status import Failure
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide.cloud_job.steps import decide
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.transient import RETRIED
from tests.unit.finetune_operator.decide.cloud_job.given_cloud_jobs import given, spec, status

AGAIN = [
    *sorted(RETRIED),
    Reason.CANCELLED_AT_PROVIDER,
    Reason.DATASET_INVALID,
    Reason.DELETED_AT_PROVIDER,
    Reason.PROVIDER_FAILED,
    Reason.QUOTA_EXCEEDED,
]
ADOPTED = spec(adopt={"jobID": "ftjob-1"})


@pytest.mark.parametrize("reason", AGAIN)
def test_it_is_not_tried_again_from_here_but_where_it_was_made(reason: Reason) -> None:
    failed = Run("Failed", failure=Failure.because(reason, "said"), job_id="ftjob-1")
    decision = decide(given(failed, status(), spec=ADOPTED, has_finalizer=False))
    failure = decision.status.failure
    assert failure is not None
    assert (decision.status.phase, failure.reason, decision.stop) == ("Failed", reason, False)
    assert str(failure.next_step).startswith("Start it again where it was made")
    assert "retryNonce" not in str(failure.next_step)


@pytest.mark.parametrize("reason", [Reason.MODEL_UNUSABLE, Reason.SPEC_INVALID, Reason.ACCESS_DENIED])
def test_what_can_be_mended_there_is_looked_at_again(reason: Reason) -> None:
    failed = Run("Failed", failure=Failure.because(reason, "said"), job_id="ftjob-1")
    failure = decide(given(failed, status(), spec=ADOPTED, has_finalizer=False)).status.failure
    assert failure is not None
    assert str(failure.next_step).startswith(NEXT_STEP[reason])
