"""Which version of a model a job has made."""

from typing import Any

from finetune_api.model import FineTunedModelStatus
from finetune_operator.decide.job.versions import find_version


def test_a_version_is_found_by_its_jobs_uid_and_not_by_its_name() -> None:
    artifact = {"uri": "pvc://models/team-a/sentiment/a/model"}
    made = {"job": "a", "connection": "local", "baseModel": "m", "method": "LoRA", "createdAt": "2026-01-01T00:00:00Z"}
    versions = [{**made, "version": n, "jobUID": f"uid-{n}", "artifact": artifact} for n in (1, 2)]
    model: dict[str, Any] = {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}
    model["status"] = FineTunedModelStatus.model_validate({"versions": versions}).wire()
    born = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    assert find_version(model, {"uid": "uid-2", "name": "b", **born}) == 2
    assert find_version(model, {"uid": "a", "name": "a", **born}) is None
    assert find_version({**model, "status": {}}, {"uid": "uid-1", "name": "a", **born}) is None


def test_a_version_that_is_older_than_its_model_is_found_by_its_jobs_name_too() -> None:
    """Both came from a backup: model and job have other UIDs than they had."""
    made = {"job": "a", "connection": "local", "baseModel": "m", "method": "LoRA", "createdAt": "2026-01-01T00:00:00Z"}
    versions = [{**made, "version": n, "jobUID": f"uid-{n}", "artifact": {}} for n in (1, 2)]
    model = {"metadata": {"creationTimestamp": "2026-01-01T00:00:01Z"}, "status": {"versions": versions}}
    with_it = {"uid": "another", "creationTimestamp": "2026-01-01T00:10:00Z"}
    assert find_version(model, {"name": "a", **with_it}) == 2
    assert find_version(model, {"name": "b", **with_it}) is None
    long_after = {"uid": "another", "creationTimestamp": "2026-01-02T00:00:01Z"}
    assert find_version(model, {"name": "a", **long_after}) is None, "a job that somebody makes under the old name"
