"""Which version of a model a job has made, and which come back that status has lost."""

from typing import Any

import orjson
import pytest

from finetune_api.model import FineTunedModelStatus
from finetune_operator.decide import model_size
from finetune_operator.decide.job.status_size import LIMIT_BYTES
from finetune_operator.decide.job.versions import MOST_VERSIONS, find_version, new_version, recovered
from tests.unit.finetune_operator.decide.given import run, succeeded, view
from tests.unit.finetune_operator.decide.given_models import evaluated, version


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


@pytest.mark.parametrize(
    ("had", "records", "served", "back", "active"),
    [
        ([], [2, 3], 2, [2, 3], 2),
        ([], [2, 3], 1, [2, 3], None),
        ([1], [1, 2], None, [1, 2], 1),
        ([3], [1, 2], None, [3], 3),
        ([], [], 1, [], None),
    ],
    ids=["all", "what is served is told by nobody", "the last", "history has let them go", "nobody tells"],
)
def test_versions_that_status_has_lost_come_back_from_their_jobs(
    had: list[int], records: list[int], served: int | None, back: list[int], active: int | None
) -> None:
    latest = max(had, default=None)
    before = FineTunedModelStatus(
        versions=[version(one) for one in had] or None, latest_version=latest, active_version=latest
    )
    after = recovered(before, [version(one) for one in records], served, model_size.room)
    assert [one.version for one in after.versions or ()] == back
    assert (after.latest_version, after.active_version) == (max(back, default=None), active)


def test_a_job_that_has_a_version_gets_no_second_one_by_what_its_own_record_says() -> None:
    """Somebody has written another number into the job's status."""
    before = FineTunedModelStatus(versions=[version(1)], latest_version=1, active_version=1)
    told = version(1).model_copy(update={"version": 7})
    assert recovered(before, [told], None, model_size.room) == before
    let_go = FineTunedModelStatus(latest_version=3)
    assert recovered(let_go, [version(3)], 3, model_size.room) == let_go


@pytest.mark.parametrize("made", [version, evaluated], ids=["short", "long"])
def test_of_more_than_there_is_room_for_the_newest_come_back_and_what_is_served(made: Any) -> None:
    """Nobody deletes jobs whose versions history has let go, and then somebody empties the model's status."""
    records = [made(number) for number in range(1, MOST_VERSIONS + 50)]
    after = recovered(FineTunedModelStatus(), records, 7, model_size.room)
    back = [one.version for one in after.versions or ()]
    assert back == [7, *range(back[1], MOST_VERSIONS + 50)]
    assert (after.active_version, after.latest_version) == (7, MOST_VERSIONS + 49)
    assert len(back) == MOST_VERSIONS if made is version else len(back) > model_size.ALWAYS_FITTING
    assert len(orjson.dumps(model_size.fit(after).wire())) <= LIMIT_BYTES


@pytest.mark.parametrize(("kind", "rank"), [("Adapter", 16), ("Full", None)])
def test_what_was_merged_into_a_whole_model_has_no_rank(kind: str, rank: int | None) -> None:
    told = succeeded()
    assert told.result
    artifact = told.result.artifact.model_copy(update={"kind": kind})
    made = told.model_copy(update={"result": told.result.model_copy(update={"artifact": artifact})})
    assert new_version(view(run("Succeeded", report=made)), 1).lora_rank == rank
