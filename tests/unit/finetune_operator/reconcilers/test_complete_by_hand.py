"""`kubectl edit --subresource=status` that has a job Complete while its attempt is at work: it goes on, and says so."""

from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS, JOBS, PODS
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import At, at, at_work
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, Cluster, with_running_job

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


@pytest.mark.parametrize("ended", [{}, {"completionTime": MOMENT}], ids=["", "and ended"])
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


async def test_a_job_at_a_provider_goes_on_there(at: At, at_work: CloudCluster) -> None:
    cluster = at_work
    call_it_complete(cluster)
    await cluster.settle()
    await go_on(cluster, 7200, 600)
    assert cluster.status(JOB)["modelVersion"] == 1
    assert len(at.states(cluster.provider)) == 1
