"""The file that a manifest is in: its encodings, standard input, and what is no manifest at all."""

import io
from pathlib import Path

import pytest

from finetune_trainer.job.manifest import read_job
from tests.unit.finetune_trainer.job.test_check_manifest import JOB, refusal


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_manifest_is_read_in_the_encodings_that_kubectl_reads(tmp_path, encoding):
    (tmp_path / "job.yaml").write_text(JOB, encoding=encoding)
    assert read_job(tmp_path / "job.yaml").metadata.name == "sentiment-1"


def test_a_manifest_can_come_from_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(JOB.encode())))
    assert read_job(Path("-")).metadata.name == "sentiment-1"


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"", b"- 1\n", b"[" * 5000, b"!!python/object:os.system {}\n", b"#" * 4_000_000]
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path, content):
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    assert refusal(path).message.startswith("job.yaml")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert refusal(tmp_path / "none.yaml").message == "none.yaml cannot be read: No such file or directory"


def test_the_address_of_a_manifest_is_told_to_be_piped():
    assert "curl -fsSL URL | finetune-trainer check -f -" in refusal(Path("https://example.com/job.yaml")).next_step
