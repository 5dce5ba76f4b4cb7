"""`check` of a job that adopts one at a provider: its data are recorded there and here, and nobody reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_trainer.__main__ import main

EXAMPLES = Path(__file__).parents[4] / "examples"
ADOPTED = {"adopt": "openai", "adopt-sagemaker": "sagemaker"}


@pytest.mark.parametrize("job", ADOPTED)
def test_its_data_are_not_looked_for_and_the_verdict_says_so(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = (EXAMPLES / f"jobs/{job}.yaml", EXAMPLES / f"connections/{ADOPTED[job]}.yaml")
    assert main(["check", "-f", *map(str, files)]) == ExitCode.OK
    said = capsys.readouterr().err
    assert "its data were not read: spec.adopt names a job that has them" in said
    assert "gets" not in said, "nothing is sent anywhere"


def test_a_field_that_has_no_meaning_there_is_refused_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES / "jobs/adopt-sagemaker.yaml").read_text()
    (tmp_path / "job.yaml").write_text(text + "    test: {uri: s3://research/sentiment/test.jsonl}\n")
    given = (tmp_path / "job.yaml", EXAMPLES / "connections/sagemaker.yaml")
    assert main(["check", "-f", *map(str, given)]) == ExitCode.SPEC_INVALID
    assert "dataset.test" in capsys.readouterr().err
