"""Jobs among many that begin at once: pods first, and no status that says only that they have begun."""

from datetime import timedelta

from finetune_api.crds import initial_status
from finetune_api.job_status import FineTuneJobStatus
from finetune_operator.runtime.errors import Invalid
from finetune_operator.runtime.kube import EVENTS, FINE_TUNE_JOBS, JOBS
from finetune_operator.runtime.queue import Key, Requeue
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, MODEL, Cluster, with_job

OTHERS = 150
"""For so many half a minute may go by in silence."""


async def among_new_jobs() -> Cluster:
    """A cluster with a job that nobody has looked at, and with others beside it."""
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection()
    await cluster.settle()
    for number in range(OTHERS):
        cluster.add_job(f"other-{number}")
        cluster.kube.change(FINE_TUNE_JOBS, f"other-{number}", status=initial_status(FineTuneJobStatus))
    cluster.add_job()
    for event in cluster.kube.take_events():
        cluster.observer.handle_event(*event)
    cluster.queue.clear()  # it is their number that counts
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


async def test_a_job_whose_pod_cannot_be_made_is_looked_at_when_another_ones_look_has_found_it_among_the_events() -> (
    None
):
    cluster = await among_new_jobs()
    other = Key(FINE_TUNE_JOBS.kind, "team-a", "other-1")
    await cluster.reconcile(JOB)
    await cluster.reconcile(other)
    cluster.hear()
    cluster.queue.clear()
    uid = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]["metadata"]["uid"]
    regarding = {"kind": "Job", "namespace": "team-a", "name": "sentiment-1-1", "uid": uid}
    body = {"metadata": {"name": "a", "namespace": "team-a"}, "reason": "FailedCreate", "regarding": regarding}
    cluster.kube.put(EVENTS, {**body, "note": "failed quota: gpus"})
    cluster.now += timedelta(seconds=20)
    await cluster.reconcile(other)
    assert cluster.queue == [JOB]
    await cluster.reconcile(JOB)
    assert cluster.status()["failure"]["message"] == "failed quota: gpus"


async def test_what_the_definition_says_of_a_new_job_is_no_status() -> None:
    cluster, without = Cluster(), await with_job()
    cluster.add_namespace()
    cluster.add_connection()
    cluster.add_job()
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=initial_status(FineTuneJobStatus))
    await cluster.settle()
    assert cluster.status()["conditions"] == without.status()["conditions"]


async def test_once_the_others_are_spoken_of_a_job_that_has_begun_is_too() -> None:
    cluster = await among_new_jobs()
    assert await cluster.reconcile(JOB) == Requeue(15)
    for number in range(OTHERS):
        cluster.kube.change(FINE_TUNE_JOBS, f"other-{number}", status={"observedGeneration": 1, "phase": "Running"})
    for event in cluster.kube.take_events():
        cluster.observer.handle_event(*event)
    await cluster.reconcile(JOB)
    assert cluster.status()["phase"] == "Queued"


async def test_where_the_definition_says_nothing_of_new_jobs_each_is_spoken_of_at_once() -> None:
    cluster = await among_new_jobs()
    for number in range(OTHERS):
        cluster.kube.change(FINE_TUNE_JOBS, f"other-{number}", status={})
    for event in cluster.kube.take_events():
        cluster.observer.handle_event(*event)
    await cluster.reconcile(JOB)
    assert cluster.status()["phase"] == "Queued", "tools take a job without a status for one that is done"


async def test_a_job_that_is_refused_says_so_at_once_however_many_wait() -> None:
    cluster = await among_new_jobs()
    cluster.kube.refusals["create", "jobs"] = Invalid(422, "Invalid", "no such field")
    await cluster.reconcile(JOB)
    assert cluster.status()["failure"]["reason"] == "PodRejected"
