"""The size of a job's status: the largest one fits, and one that fits is left alone."""

from typing import Any

import orjson
import pytest

from finetune_api.job_status import (
    ArtifactRef,
    Failure,
    FineTuneJobStatus,
    Loss,
    LossPoint,
    ProviderEvaluation,
    ProviderStatus,
    TrainingResult,
)
from finetune_api.reasons import Reason
from finetune_api.verdict import DatasetVerdict
from finetune_operator.decide.conditions import Fact, merge
from finetune_operator.decide.job.status_size import LIMIT_BYTES, fit
from tests.contract.statuses import EVALUATION
from tests.unit.finetune_operator.decide.given import NOW


def huge(letter: str) -> FineTuneJobStatus:
    """As much of everything as the fields take, in letters of so many bytes."""
    problem = {"file": letter * 256, "line": 1, "field": letter * 128, "problem": "Missing", "message": letter * 300}
    split: dict[str, Any] = {"file": letter * 256, "format": "CSV", "rows": 10**9, "problems": [problem] * 20}
    shared = {"splits": ["train", "test"], "rows": 5, "examples": [letter * 300] * 5}
    verdict = {
        "valid": False,
        "reason": "DatasetInvalid",
        "message": letter * 4096,
        "nextStep": letter * 1024,
        **dict.fromkeys(("train", "validation", "test"), split),
        "sharedRows": [shared] * 3,
        "warnings": [letter * 512] * 16,
    }
    failure = Failure.because(Reason.TRAINER_CRASHED, letter * 4096).model_copy(
        update={"log_tail": letter * 4096, "next_step": letter * 1024}
    )
    points = [LossPoint(step=10**9 + n, value=1.2345678901234567) for n in range(100)]
    kinds = ("Ready", "Reconciling", "Stalled", "DatasetValid", "Complete", "Failed", "Suspended", "Evaluated")
    facts = [Fact(kind, "True", Reason.TRAINER_CRASHED, letter * 4096) for kind in kinds]
    return FineTuneJobStatus(
        conditions=merge(None, facts, generation=1, now=NOW),
        loss=Loss(train=points, validation=points),
        dataset=DatasetVerdict.model_validate(verdict),
        evaluation=EVALUATION,
        failure=failure,
        result=TrainingResult(artifact=ArtifactRef(), steps=1, warnings=[letter * 300] * 2, evaluation_failure=failure),
        provider=ProviderStatus(
            last_failure=failure, artifact_uri="u" * 1024, evaluation=ProviderEvaluation(failure=failure)
        ),
    )


@pytest.mark.parametrize("letter", ["x", "é", "語", "🦙", '"'])
def test_the_largest_status_fits_and_is_still_valid(letter: str) -> None:
    before = huge(letter)
    assert len(orjson.dumps(before.wire())) > LIMIT_BYTES
    status = fit(before)
    assert len(orjson.dumps(status.wire())) <= LIMIT_BYTES
    assert FineTuneJobStatus.model_validate(status.wire()) == status
    assert fit(status) == status
    assert status.failure is not None
    assert status.failure.reason is Reason.TRAINER_CRASHED
    assert status.dataset is not None
    assert status.dataset.train is not None
    assert status.dataset.train.rows == 10**9


def test_a_status_that_fits_is_left_as_it_is() -> None:
    status = FineTuneJobStatus(phase="Running", failure=Failure.because(Reason.EVICTED, "x" * 4096))
    assert fit(status) is status
