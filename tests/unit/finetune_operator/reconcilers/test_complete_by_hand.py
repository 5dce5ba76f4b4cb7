"""`kubectl edit --subresource=status` that has a job ended while its attempt is at work: nothing goes on unseen."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_api.names import BEGUN_ANNOTATION
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS, PODS
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import At, at, at_work
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, Cluster, with_running_job
from tests.unit.finetune_operator.reconcilers.test_reconcile_cloud_release import finalizers

__all__ = ["at", "at_work", "s3_endpoint", "start"]

MOMENT = "2026-11-21T10:00:00Z"


def call_it_complete(cluster: Cluster, **fields: Any) -> None:
    said = [
        {"type": kind, "status": "True", "reason": "Succeeded", "message": "by hand", "lastTransitionTime": MOMENT}
        for kind in ("Complete", "Ready")
    ]
    status = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["status"]
    written = {**status, "phase": "Succeeded", "conditions": said, **fields}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=written)


def call_it_failed(cluster: Cluster, provider: dict[str, Any] | None) -> None:
    failed = {"type": "Failed", "status": "True", "reason": "Interrupted", "message": "", "lastTransitionTime": MOMENT}
    written = {"phase": "Failed", "conditions": [failed], "completionTime": MOMENT}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=written | ({"provider": provider} if provider else {}))


@pytest.mark.parametrize(
    "ended",
    [{}, {"completionTime": MOMENT}, {"completionTime": MOMENT, "modelVersion": 3}],
    ids=["", "and ended", "and a version"],
)
async def test_the_trainer_goes_on_and_its_version_completes_the_job(ended: dict[str, Any]) -> None:
    cluster = await with_running_job()
    call_it_complete(cluster, **ended)
    await cluster.settle()
    assert (JOBS, "team-a", "sentiment-1-1") in cluster.kube.objects
    assert cluster.condition("Complete")["status"] == "False"
    assert cluster.status(JOB)["phase"] not in {"Succeeded", "Failed"}
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    status = cluster.status(JOB)
    assert (status["phase"], status["modelVersion"]) == ("Succeeded", 1)
    assert cluster.condition("Complete")["message"] != "by hand"


async def test_a_result_that_waits_is_registered() -> None:
    cluster = await with_running_job()
    call_it_complete(cluster)
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert cluster.status(JOB)["modelVersion"] == 1


async def test_one_of_which_nothing_is_there_is_believed_and_not_begun_again() -> None:
    cluster = await with_running_job()
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    cluster.kube.drop(JOBS, "sentiment-1-1")
    call_it_complete(cluster, completionTime=MOMENT)
    await cluster.settle()
    assert cluster.status(JOB)["phase"] == "Succeeded"
    assert [name for kind, _, name in cluster.kube.objects if kind is JOBS] == []


async def test_a_version_that_its_model_has_lost_is_believed_by_what_was_made() -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    before = cluster.status(JOB)
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    assert cluster.status(JOB) == before


@pytest.mark.alike
@pytest.mark.parametrize(
    "fields", [{}, {"completionTime": MOMENT, "modelVersion": 3}], ids=["", "and ended with a version"]
)
async def test_a_job_at_a_provider_goes_on_there(at: At, at_work: CloudCluster, fields: dict[str, Any]) -> None:
    cluster = at_work
    call_it_complete(cluster, **fields)
    await cluster.settle()
    await go_on(cluster, 7200, 600)
    assert cluster.status(JOB)["modelVersion"] == 1
    assert len(at.states(cluster.provider)) == 1


@pytest.mark.alike
@pytest.mark.parametrize("known", [True, False], ids=["", "and it has lost all else"])
async def test_what_a_failed_job_has_at_a_provider_is_cancelled(at: At, at_work: CloudCluster, known: bool) -> None:
    """It is billed, and nobody would follow it; pods of a failed job are ended, too."""
    cluster = at_work
    call_it_failed(cluster, cluster.status(JOB)["provider"] if known else None)
    await cluster.settle()
    await go_on(cluster, 1800, 60)
    assert at.states(cluster.provider) == [at.stopped]
    assert (cluster.status(JOB)["phase"], finalizers(cluster)) == ("Failed", [])
    assert cluster.told.count(("FineTuneJob", "Warning", "CancelledAtProvider")) == 1


def take_off_finalizers(cluster: Cluster) -> None:
    metadata = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]
    bare = {key: value for key, value in metadata.items() if key != "finalizers"}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=bare)


RESULT = {"artifact": {"providerModelID": "ft:forged"}, "steps": 1}
FORGED: dict[str, Callable[[Cluster], None]] = {
    "failed": lambda cluster: call_it_failed(cluster, cluster.status(JOB)["provider"]),
    "complete": lambda cluster: call_it_complete(cluster, completionTime=MOMENT, modelVersion=3, result=RESULT),
}


@pytest.mark.alike
@pytest.mark.parametrize("forged", FORGED)
async def test_so_is_what_one_has_there_whose_finalizer_goes_at_the_same_moment(
    at: At, at_work: CloudCluster, forged: str
) -> None:
    cluster = at_work
    FORGED[forged](cluster)
    take_off_finalizers(cluster)
    await cluster.settle()
    await go_on(cluster, 1800, 60)
    assert at.states(cluster.provider) == [at.stopped]
    assert [one for one in cluster.provider.left() if one.kind == "file"] == []
    assert finalizers(cluster) == []
    assert BEGUN_ANNOTATION not in cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"].get(
        "annotations", {}
    )
    before = cluster.kube.requests.copy()
    await go_on(cluster, 600)
    assert [verb for verb, _ in cluster.kube.requests[len(before) :] if verb.startswith("patch")] == []


@pytest.mark.alike
async def test_a_failed_job_is_looked_for_once_and_no_other_one_is_ended(at: At, at_work: CloudCluster) -> None:
    cluster = at_work
    (name,) = at.jobs(cluster.provider)
    await at.stop(cluster, name)
    await go_on(cluster, 1800, 60)
    assert cluster.status(JOB)["phase"] == "Failed"
    assert ("FineTuneJob", "Warning", "CancelledAtProvider") in cluster.told, "as its provider has it"
    assert not any("went on, and by status" in note for note in cluster.notes)
