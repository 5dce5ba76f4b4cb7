"""The state of an attempt at a provider, from its job there."""

from datetime import timedelta

import pytest

from finetune_api.verdict import DatasetVerdict
from finetune_operator.decide.job.remote import Metrics, run_of
from tests.unit.finetune_operator.decide.cloud_job.given_cloud_jobs import (
    KEY,
    at_provider,
    remote,
    status,
)
from tests.unit.finetune_operator.decide.given import (
    NOW,
    report,
    verdict,
)


@pytest.mark.parametrize("seen", ["a" * 64, None], ids=["checked here", "not recorded"])
def test_the_data_of_a_version_are_those_that_were_checked_here_and_else_what_its_trainer_saw(seen: str | None) -> None:
    told = report("Succeeded", result={"artifact": {"uri": "s3://there/model"}, "steps": 3, "datasetSHA256": "b" * 64})
    train = {"file": "t.jsonl", "format": "JSON Lines", "rows": 1, "sha256": seen}
    before = status().model_copy(
        update={"dataset": DatasetVerdict.model_validate(verdict(train=train))} if seen else {}
    )
    done = run_of(remote("Succeeded", model="s3://here/model"), Metrics(report=told), KEY, before, NOW)
    assert done.report is not None
    assert done.report.result is not None
    assert (done.report.result.dataset_sha256, done.report.result.artifact.uri) == (seen or "b" * 64, "s3://here/model")


def test_what_a_job_had_learnt_when_it_failed_stays_known() -> None:
    ended = at_provider("Failed", Metrics(step=5, total_steps=20))
    assert ended.report is not None
    assert ended.report.progress is not None
    assert ended.report.progress.step == 5


@pytest.mark.parametrize(("seconds", "told"), [(90, 90), (0, 0), (-3600, None), (None, None)])
def test_a_job_that_ended_before_it_was_made_by_its_providers_clocks_took_nobody_knows_how_long(
    seconds: int | None, told: int | None
) -> None:
    ends = NOW + timedelta(seconds=seconds) if seconds is not None else None
    ended = at_provider("Succeeded", model="ft:gpt", ends=ends)
    assert ended.report is not None
    assert ended.report.result is not None
    assert ended.report.result.runtime_seconds == told
