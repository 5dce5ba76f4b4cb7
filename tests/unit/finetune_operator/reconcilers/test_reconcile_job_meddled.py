"""What hands and policies of the cluster do to a FineTuneJob's children and status: told, and nothing made twice."""

from typing import Any

import pytest

from finetune_api.names import QUEUE_LABEL
from finetune_api.trainer import termination_message
from finetune_operator.runtime.kube import DEPLOYMENTS, FINE_TUNE_JOBS, JOBS, NAMESPACES, PODS, Resource, TokenIdentity
from tests.unit.finetune_operator.decide.given import ended
from tests.unit.finetune_operator.reconcilers.fake_cluster import MODEL, Cluster, with_job, with_running_job
from tests.unit.finetune_operator.reconcilers.versions import with_version


async def test_a_container_beside_the_trainer_that_never_ends_does_not_hold_the_job_up() -> None:
    cluster = await with_running_job()
    trainer = ended(0, message=termination_message(cluster.result()))["containerStatuses"]
    proxy = {"name": "proxy", "state": {"running": {"startedAt": "2026-11-21T12:00:00Z"}}}
    status = {"phase": "Running", "containerStatuses": [*trainer, proxy]}
    cluster.kube.change(PODS, "sentiment-1-1-x", status=status)
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert (JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects, "its pod ends with it"
    assert len(cluster.status(MODEL)["versions"]) == 1


async def test_a_job_of_somebody_else_that_has_the_name_is_told_and_left_alone() -> None:
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection()
    strangers = {"metadata": {"name": "sentiment-1-1", "namespace": "team-a"}, "spec": {}}
    cluster.kube.put(JOBS, strangers)
    cluster.add_job()
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert (failure["reason"], "Job sentiment-1-1 exists already" in failure["message"]) == ("NameConflict", True)
    assert "kubectl delete job sentiment-1-1" in failure["nextStep"]
    assert cluster.condition("Stalled")["status"] == "True"
    cluster.kube.drop(JOBS, "sentiment-1-1")
    await cluster.wait(60)
    assert (cluster.status()["phase"], "failure" in cluster.status()) == ("Queued", False)


async def test_what_a_deletion_that_orphans_has_left_is_told_and_not_waited_for_for_ever() -> None:
    cluster = await with_running_job()
    left = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")
    orphan = {key: value for key, value in left["metadata"].items() if key != "ownerReferences"}
    cluster.kube.change(JOBS, "sentiment-1-1", metadata=orphan)
    await cluster.settle()
    cluster.add_job()
    await cluster.settle()
    assert "waiting for the last attempt's pod to end" in cluster.condition("Reconciling")["message"]
    cluster.end_pod(0)
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "NameConflict"


async def test_a_batch_job_of_an_earlier_job_that_a_strangers_finalizer_keeps_is_told_of() -> None:
    cluster = await with_running_job()
    kept = {"finalizers": ["example.com/audit"], "deletionTimestamp": "2026-11-21T12:00:00Z"}
    metadata = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]["metadata"]
    cluster.kube.change(JOBS, "sentiment-1-1", metadata=metadata | kept)
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")
    cluster.add_job()
    await cluster.settle()
    message = cluster.condition("Reconciling")["message"]
    assert "a Job that an earlier job of this name has left (kubectl get jobs,pods)" in message
    assert "the finalizer that keeps it" in message
    cluster.kube.drop(JOBS, "sentiment-1-1")
    await cluster.wait(10)
    assert cluster.status()["phase"] == "Queued"


async def test_a_job_whose_status_somebody_emptied_is_not_trained_again() -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    created = cluster.kube.asked("create", "jobs")
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    cluster.kube.drop(JOBS, "sentiment-1-1")
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status={})
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert cluster.condition("Complete")["status"] == "True"
    assert cluster.kube.asked("create", "jobs") == created
    assert len(cluster.status(MODEL)["versions"]) == 1


@pytest.mark.parametrize(
    ("held", "said"), [({"suspend": True}, "is suspended"), ({"parallelism": 0}, "spec.parallelism to 0")]
)
async def test_a_job_that_is_held_back_says_so(held: dict[str, Any], said: str) -> None:
    cluster = await with_job()
    spec = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]["spec"]
    cluster.kube.change(JOBS, "sentiment-1-1", spec={**spec, **held})
    await cluster.settle()
    message = cluster.condition("Reconciling")["message"]
    assert message.startswith("Job sentiment-1-1 is ")
    assert said in message


async def test_a_job_whose_pod_another_controller_is_to_make_says_which() -> None:
    cluster = await with_job()
    spec = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]["spec"]
    cluster.kube.change(JOBS, "sentiment-1-1", spec={**spec, "managedBy": "kubernetes.io/job-controller"})
    await cluster.wait(20)
    assert cluster.condition("Reconciling")["message"] == "waiting for its pod to start"
    cluster.kube.change(JOBS, "sentiment-1-1", spec={**spec, "managedBy": "example.com/other"})
    await cluster.settle()
    assert cluster.condition("Reconciling")["message"] == (
        "its pod is to be made by example.com/other, as spec.managedBy of its Job says, and is not there: ask an admin "
        "whether it runs, and who has set this field (kubectl describe job sentiment-1-1)"
    )


async def test_a_job_whose_pod_nobody_makes_says_so_after_ten_minutes() -> None:
    cluster = await with_job()
    for _ in range(8):
        await cluster.wait(70)
    assert cluster.condition("Reconciling")["message"] == "waiting for its pod to start"
    await cluster.wait(70)
    told = cluster.condition("Reconciling")["message"]
    assert "whether the Job controller (kube-controller-manager) runs" in told
    assert "which policy has changed its labels, first of all app.kubernetes.io/managed-by" in told
    written = cluster.kube.asked("patch_status", "finetunejobs")
    await cluster.wait(70)
    assert cluster.kube.asked("patch_status", "finetunejobs") == written, "it says so once"
    cluster.run_pod()
    await cluster.settle()
    assert "kube-controller-manager" not in cluster.condition("Reconciling")["message"]


async def test_a_job_that_waits_in_a_queue_says_where_that_tells_why() -> None:
    cluster = await with_job()
    made = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]
    labels = {**made["metadata"]["labels"], QUEUE_LABEL: "gpus"}
    metadata, spec = {**made["metadata"], "labels": labels}, {**made["spec"], "suspend": True}
    cluster.kube.change(JOBS, "sentiment-1-1", metadata=metadata, spec=spec)
    await cluster.settle()
    assert cluster.condition("Reconciling")["message"] == (
        "Job sentiment-1-1 is suspended: by queue gpus until it is admitted (kubectl describe workloads says why "
        "not yet), or by hand"
    )


async def test_a_job_that_somebody_deleted_is_followed_by_the_next_attempt_once_its_pod_is_gone() -> None:
    cluster = await with_running_job()
    cluster.kube.drop(JOBS, "sentiment-1-1")
    await cluster.settle()
    assert cluster.status()["provider"]["lastFailure"]["reason"] == "Interrupted"
    await cluster.wait(5)
    assert (JOBS, "team-a", "sentiment-1-2") not in cluster.kube.objects, "the first pod may still write"
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    await cluster.settle()
    assert (JOBS, "team-a", "sentiment-1-2") in cluster.kube.objects


async def test_an_attempt_whose_owner_reference_was_taken_off_goes_on_and_is_heard() -> None:
    cluster = await with_running_job()
    created = cluster.kube.asked("create", "jobs")
    metadata = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]["metadata"]
    bare = {key: value for key, value in metadata.items() if key != "ownerReferences"}
    cluster.kube.change(JOBS, "sentiment-1-1", metadata=bare)
    await cluster.settle()
    pod = cluster.kube.objects[PODS, "team-a", "sentiment-1-1-x"]["metadata"]
    who = TokenIdentity("pod", "sa", namespace="team-a", pod_name=pod["name"], pod_uid=pod["uid"])
    assert cluster.reports.authorise(who, cluster.report("Running")) is None
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["provider"]["attempt"]) == ("Succeeded", 1)
    assert cluster.kube.asked("create", "jobs") == created


async def test_a_job_that_a_strangers_finalizer_keeps_trains_no_longer_once_it_is_deleted() -> None:
    cluster = await with_running_job()
    job = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=job["metadata"] | {"finalizers": ["example.com/hold"]})
    await cluster.kube.delete(FINE_TUNE_JOBS, "sentiment-1", "team-a")
    await cluster.settle()
    assert (JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") in cluster.kube.objects
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    await cluster.settle()
    assert (JOBS, "team-a", "sentiment-1-2") not in cluster.kube.objects, "nothing is started any more"


def bare(cluster: Cluster, resource: Resource, name: str, *kept: str) -> None:
    """Somebody takes an object's labels off, but for some."""
    metadata = cluster.kube.objects[resource, "team-a", name]["metadata"]
    labels = {key: value for key, value in metadata["labels"].items() if key in kept}
    cluster.kube.change(resource, name, metadata=metadata | {"labels": labels})


@pytest.mark.parametrize("code", [0, 75])
async def test_a_batch_job_whose_labels_were_taken_off_is_followed_to_its_end(code: int) -> None:
    cluster = await with_running_job()
    bare(cluster, JOBS, "sentiment-1-1")
    await cluster.settle()
    assert cluster.status()["phase"] == "Validating"
    job = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]
    cluster.end_pod(code, cluster.result() if code == 0 else cluster.report("Interrupted"))
    told, cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"] = (
        cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"],
        job,
    )
    await cluster.settle()
    cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"] = told  # its own end comes later than its pod's
    await cluster.wait(15)
    if code == 0:
        assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    else:
        assert cluster.status()["provider"]["lastFailure"]["reason"] == "Interrupted"
        assert cluster.status()["provider"]["attempt"] == 2


async def test_a_pod_whose_labels_were_taken_off_is_followed_to_its_end() -> None:
    cluster = await with_running_job()
    cluster.reports.accept(cluster.report("Running"))
    await cluster.settle()
    assert cluster.status()["phase"] == "Running"
    bare(cluster, PODS, "sentiment-1-1-x", "batch.kubernetes.io/job-name")
    await cluster.settle()
    assert cluster.status()["phase"] == "Running"
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert cluster.status()["provider"]["attempt"] == 1


async def test_nothing_is_made_in_a_namespace_that_ends_whatever_of_it_goes_first() -> None:
    cluster = await with_version()
    cluster.roll_out()
    cluster.add_job("sentiment-2")
    await cluster.settle()
    cluster.run_pod(job="sentiment-2")
    await cluster.settle()
    made = cluster.kube.requests.count(("create", "jobs")), cluster.kube.asked("apply", "deployments")
    told = list(cluster.told)
    cluster.kube.change(NAMESPACES, "team-a", None, status={"phase": "Terminating"})
    for resource, name in ((JOBS, "sentiment-2-1"), (PODS, "sentiment-2-1-x"), (DEPLOYMENTS, "sentiment")):
        cluster.kube.drop(resource, name)
    await cluster.settle()
    await cluster.wait(60)
    assert (cluster.kube.requests.count(("create", "jobs")), cluster.kube.asked("apply", "deployments")) == made
    assert cluster.told == told, "nothing went wrong"


async def started_again() -> tuple[Cluster, dict[str, Any]]:
    """A job whose second attempt trains by its retryNonce, and its status from before that."""
    cluster = await with_running_job()
    cluster.end_pod(1)
    await cluster.settle()
    old = cluster.status()
    assert (old["phase"], old["provider"]["attempt"]) == ("Failed", 1)
    cluster.change_job(retryNonce="again")
    await cluster.settle()
    cluster.run_pod(attempt=2)
    await cluster.settle()
    assert cluster.status()["provider"]["attempt"] == 2
    return cluster, old


@pytest.mark.parametrize("nonce", ["again", None])
async def test_a_failed_status_from_before_a_retry_does_not_end_the_attempt_that_trains(nonce: str | None) -> None:
    cluster, old = await started_again()
    cluster.change_job(retryNonce=nonce)
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=old)
    created = cluster.kube.asked("create", "jobs")
    await cluster.settle()
    await cluster.wait(60)
    assert (JOBS, "team-a", "sentiment-1-2") in cluster.kube.objects
    status = cluster.status()
    assert (status["phase"], status["provider"]["attempt"]) == ("Validating", 2)
    assert "failure" not in status
    assert "completionTime" not in status
    assert cluster.condition("Failed")["status"] == "False"
    cluster.end_pod(0, cluster.result(2), attempt=2)
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert cluster.kube.asked("create", "jobs") == created


async def test_a_failed_status_from_before_a_retry_that_has_failed_meanwhile_starts_no_third_attempt() -> None:
    cluster, old = await started_again()
    created = cluster.kube.asked("create", "jobs")
    cluster.end_pod(1, attempt=2)
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=old)
    await cluster.settle()
    await cluster.wait(600)
    assert (cluster.status()["phase"], cluster.status()["failure"]["attempt"]) == ("Failed", 2)
    assert cluster.kube.asked("create", "jobs") == created
