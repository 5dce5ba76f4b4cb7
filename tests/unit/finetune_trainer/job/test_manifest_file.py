"""The file that a manifest is in: its encodings, standard input, and what is no manifest at all."""

import io
import json
from pathlib import Path

import pytest
import yaml

from finetune_trainer.errors import TrainerError
from finetune_trainer.job.manifest import read_all, read_job
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


def test_characters_that_json_escapes_as_two_halves_are_read_as_kubectl_reads_them(tmp_path):
    """As json.dumps writes an emoji; what is half of one stands for no character."""
    job = yaml.safe_load(JOB)
    job["metadata"]["annotations"] = {"team": "\N{ROCKET}", "cut": "\ud83d"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    annotations = read_job(tmp_path / "job.json").metadata.annotations
    assert annotations == {"team": "\N{ROCKET}", "cut": "\N{REPLACEMENT CHARACTER}"}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("name: sentiment-1", r'name: "\ud83d\ude80"', "line 3: a \\u escape is half of a character"),
        ("name: sentiment-1", r'name: a, labels: {"\ud83d\ude80": x}', "line 3: a \\u escape is half of a character"),
        ("apiVersion", "--- {kind: List}\napiVersion", "line 1: there is text beside ---"),
        ("a: b", f"a: {'x' * 262_144}", "they are 262,145 bytes together"),
        ("spec:", f"spec:\n  activeDeadlineSeconds: {2**63}", "write a smaller number"),
    ],
)
def test_what_kubectl_or_the_api_server_cannot_read_is_refused(tmp_path, before, after, said):
    (tmp_path / "job.yaml").write_text(JOB.replace(before, after, 1))
    assert said in refusal(tmp_path / "job.yaml").message


def test_a_number_without_a_bound_has_64_bits(tmp_path):
    """JSON has no more: the API server gets a fraction."""
    model = "apiVersion: finetune.dev/v1alpha1\nkind: FineTunedModel\nmetadata: {name: a}\nspec: {activeVersion: %d}\n"
    (tmp_path / "a.yaml").write_text(model % (2**63 - 1))
    read_all(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text(model % 2**63)
    with pytest.raises(TrainerError, match=r"spec\.activeVersion: .*: write a smaller number"):
        read_all(tmp_path / "a.yaml")
