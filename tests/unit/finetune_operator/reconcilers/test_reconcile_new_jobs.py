"""Jobs among many that begin at once: pods first, and no status that says only that they have begun."""

from datetime import timedelta

from finetune_api.crds import unseen
from finetune_api.job_status import FineTuneJobStatus
from finetune_operator.runtime.errors import Invalid
from finetune_operator.runtime.kube import (
    FINE_TUNE_JOBS,
)
from finetune_operator.runtime.queue import Requeue
from tests.unit.finetune_operator.reconcilers.cluster import JOB, MODEL, Cluster, with_job


async def among_new_jobs() -> Cluster:
    """A cluster with a job that nobody has looked at, and with others behind it."""
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection()
    await cluster.settle()
    cluster.new_jobs_wait = True
    cluster.add_job()
    for event in cluster.kube.take_events():
        cluster.observer.seen(*event)
    cluster.kube.requests.clear()
    return cluster


async def test_a_job_among_many_new_ones_gets_its_pod_first_and_its_status_in_a_later_look() -> None:
    cluster, at_once = await among_new_jobs(), await with_job()
    assert await cluster.reconcile(JOB) == Requeue(15)
    assert await cluster.reconcile(JOB) == Requeue(15)
    assert cluster.kube.requests == [("create", "jobs")]
    cluster.now += timedelta(seconds=30)
    await cluster.reconcile(JOB)
    assert [verb for verb, _ in cluster.kube.requests] == ["create", "list", "patch_status"], "why is there no pod?"
    told, told_at_once = cluster.status(), at_once.status()
    uid = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]["uid"]
    assert told["provider"].pop("artifactURI").endswith(uid[:8])
    del told_at_once["provider"]["artifactURI"]
    assert {**told, "conditions": []} == {**told_at_once, "conditions": []}
    assert [c["message"] for c in told["conditions"]] == [c["message"] for c in told_at_once["conditions"]]


async def test_a_job_among_many_new_ones_whose_pod_is_quick_is_written_about_once() -> None:
    cluster = await among_new_jobs()
    await cluster.reconcile(JOB)
    cluster.run_pod()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    of_job = [verb for verb, plural in cluster.kube.requests if plural in {"jobs", "finetunejobs"}]
    assert of_job == ["create", "patch_status"]
    status, uid = cluster.status(), cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]["uid"]
    assert (status["phase"], status["modelVersion"], status["provider"]["jobID"]) == ("Succeeded", 1, "sentiment-1-1")
    (version,) = cluster.status(MODEL)["versions"]
    assert version["jobUID"] == uid
    assert version["artifact"] == status["result"]["artifact"]
    assert uid[:8] in version["artifact"]["uri"]


async def test_what_the_definition_says_of_a_new_job_is_no_status() -> None:
    cluster, without = await among_new_jobs(), await with_job()
    cluster.new_jobs_wait = False
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=unseen(FineTuneJobStatus))
    await cluster.settle()
    assert cluster.status()["conditions"] == without.status()["conditions"]


async def test_a_job_that_is_refused_says_so_at_once_however_many_wait() -> None:
    cluster = await among_new_jobs()
    cluster.kube.refusals["create", "jobs"] = Invalid(422, "Invalid", "no such field")
    await cluster.reconcile(JOB)
    assert cluster.status()["failure"]["reason"] == "PodRejected"
