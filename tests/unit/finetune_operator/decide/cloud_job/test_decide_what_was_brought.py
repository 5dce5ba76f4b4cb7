"""What a pod has to bring to a provider before a job is made there."""

from typing import Any

import pytest

from finetune_operator.decide.cloud_job.steps import decide
from finetune_operator.decide.job.run import Run
from tests.unit.finetune_operator.decide.cloud_job.given_cloud_jobs import checked, checking, given, spec
from tests.unit.finetune_operator.decide.given import openai_connection, sagemaker_connection, stamp

WANTED: dict[str, tuple[Any, tuple[str, ...], str | None]] = {
    "at OpenAI a test set stays here": (openai_connection(), ("test",), None),
    "validation": (openai_connection(), ("validation",), "spec.dataset.validation"),
    "at SageMaker a test set goes along": (sagemaker_connection(), ("test",), "spec.dataset.test"),
    "both": (sagemaker_connection(), ("validation", "test"), "spec.dataset.validation and spec.dataset.test"),
    "code": (sagemaker_connection(), ("code",), "spec.code"),
    "a training set is enough": (sagemaker_connection(), (), None),
}


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("heard", [True, False])
def test_no_job_is_made_without_a_file_that_the_spec_names(name: str, heard: bool) -> None:
    """Whether the pod's report is still there, or only what status has kept of it."""
    connection, parts, told = WANTED[name]
    dataset = {part: {"uri": f"pvc://data/{part}.jsonl"} for part in ("train", *parts) if part != "code"}
    code = {"code": {"configMapRef": {"name": "recipe", "key": "train.py"}}} if "code" in parts else {}
    run = checked() if heard else Run("Checked", job_id="sentiment-1-1")
    fields = {"connection": connection, "spec": spec(dataset=dataset, **code)}
    decision = decide(given(run, checking(name=connection.provider), **fields))
    assert decision.submit == (told is None)
    failure = decision.status.failure
    assert (f"nothing of {told}:" in failure.message if failure else None) == (True if told else None)


def test_a_job_that_may_have_been_made_already_is_not_refused_for_what_was_not_brought() -> None:
    """The refusal says that no job was made: nobody knows once it was asked for."""
    dataset = {part: {"uri": f"pvc://data/{part}.jsonl"} for part in ("train", "validation")}
    decision = decide(given(checked(), checking(asked_at=stamp()), spec=spec(dataset=dataset)))
    assert decision.submit
    assert decision.status.failure is None
