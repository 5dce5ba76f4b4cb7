"""Attempts on several nodes: the operator makes a JobSet, follows the Job that comes of it, and ends both."""

from typing import Any

import pytest

from finetune_api.trainer import Report, termination_message
from finetune_operator.runtime.errors import NotFound
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, JOB_SETS, JOBS, PODS, TokenIdentity
from finetune_operator.runtime.queue import Key
from tests.unit.finetune_operator.decide.given import ended
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster, with_job

NODES = {"resources": {"nodes": 2}}
BATCH_JOB = "batch.kubernetes.io/job-name"
INDEX = "batch.kubernetes.io/job-completion-index"


def make_job(cluster: Cluster, attempt: int = 1) -> dict[str, Any]:
    """What JobSet's controller does with a JobSet."""
    job_set = cluster.kube.objects[JOB_SETS, "team-a", f"sentiment-1-{attempt}"]
    (replicated,) = job_set["spec"]["replicatedJobs"]
    metadata = job_set["metadata"]
    owner = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    own = {"name": f"{metadata['name']}-node-0", "namespace": "team-a", "ownerReferences": [owner]}
    template = replicated["template"]
    return cluster.kube.put(JOBS, {"metadata": template["metadata"] | own, "spec": template["spec"], "status": {}})


def make_pods(cluster: Cluster, attempt: int = 1) -> list[dict[str, Any]]:
    """What the Job controller and the kubelets do with that Job."""
    job = cluster.kube.objects[JOBS, "team-a", f"sentiment-1-{attempt}-node-0"]
    metadata = job["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
    labels = job["spec"]["template"]["metadata"]["labels"] | {BATCH_JOB: metadata["name"]}
    pods = [
        {"name": f"{metadata['name']}-{node}", "namespace": "team-a", "labels": labels | {INDEX: str(node)},
         "ownerReferences": [owner]}
        for node in range(2)
    ]  # fmt: skip
    return [cluster.kube.put(PODS, {"metadata": pod, "status": {"phase": "Running"}}) for pod in pods]


def end_pod(cluster: Cluster, node: int, exit_code: int, last: Report | None = None, **status: Any) -> None:
    state = ended(exit_code, message=termination_message(last) if last else "")
    phase = "Failed" if exit_code else "Succeeded"
    cluster.kube.change(PODS, f"sentiment-1-1-node-0-{node}", status={"phase": phase, **state, **status})


def end_job(cluster: Cluster, condition: str) -> None:
    found = {"type": condition, "status": "True", "reason": "BackoffLimitExceeded"}
    cluster.kube.change(JOBS, "sentiment-1-1-node-0", status={"conditions": [found]})


async def with_pods(**fields: Any) -> Cluster:
    cluster = await with_job(**NODES, **fields)
    make_job(cluster)
    make_pods(cluster)
    await cluster.settle()
    return cluster


async def test_a_job_on_several_nodes_is_a_set_from_its_start_to_its_version() -> None:
    cluster = await with_job(**NODES)
    assert cluster.status()["provider"]["jobID"] == "sentiment-1-1"
    assert cluster.kube.asked("create", "jobs") == 0
    await cluster.wait(15)
    assert cluster.status()["phase"] == "Queued"
    assert "JobSet" in cluster.condition("Reconciling")["message"], "it has made no Job yet"
    make_job(cluster)
    await cluster.settle()
    assert cluster.status()["phase"] == "Queued"
    make_pods(cluster)
    await cluster.settle()
    assert cluster.status()["phase"] == "Validating"
    end_pod(cluster, 1, 0)
    end_pod(cluster, 0, 0, cluster.result())
    end_job(cluster, "Complete")
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"
    assert cluster.status()["modelVersion"] == 1
    assert cluster.kube.asked("apply", "jobsets") == 1


async def test_a_cluster_without_job_sets_is_named_and_looked_at_again() -> None:
    cluster = Cluster()
    cluster.kube.refusals["apply", "jobsets"] = NotFound(404, "NotFound", "404 page not found")
    cluster.add_namespace()
    cluster.add_connection()
    cluster.add_job(**NODES)
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert failure["reason"] == "JobSetMissing"
    assert "jobset.x-k8s.io/v1alpha2" in failure["message"]
    assert cluster.condition("Stalled")["status"] == "True"
    assert "provider" not in cluster.status(), "no attempt is used up"
    cluster.kube.refusals.clear()
    await cluster.wait(60)
    assert cluster.status()["phase"] == "Queued"
    assert "failure" not in cluster.status()


async def test_an_operator_that_was_killed_after_the_apply_finds_its_set_again() -> None:
    cluster = await with_job(**NODES)
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status={})
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()
    assert cluster.status()["provider"]["attempt"] == 1
    assert [key for key in cluster.kube.objects if key[0] is JOB_SETS] == [(JOB_SETS, "team-a", "sentiment-1-1")]


async def test_a_set_that_somebody_deletes_is_an_attempt_that_is_gone() -> None:
    cluster = await with_pods()
    cluster.kube.drop(JOB_SETS, "sentiment-1-1")
    cluster.kube.drop(JOBS, "sentiment-1-1-node-0")
    for node in range(2):
        cluster.kube.drop(PODS, f"sentiment-1-1-node-0-{node}")
    await cluster.settle()
    assert cluster.status()["provider"]["lastFailure"]["reason"] == "Interrupted"
    await cluster.wait(5)
    assert (JOB_SETS, "team-a", "sentiment-1-2") in cluster.kube.objects


async def test_one_pods_end_is_the_attempts_end_and_the_next_one_is_a_set_of_its_own() -> None:
    cluster = await with_pods()
    end_pod(cluster, 1, 137)
    end_job(cluster, "FailureTarget")
    await cluster.settle()
    assert cluster.status()["phase"] == "Validating", "the other pod may still be writing its checkpoint"
    end_pod(cluster, 0, 75, cluster.report("Failed", failure={"reason": "Interrupted", "message": "a peer is gone"}))
    await cluster.settle()
    last = cluster.status()["provider"]["lastFailure"]
    assert (last["reason"], last["exitCode"]) == ("Interrupted", 137)
    assert "SIGKILL" in last["message"]
    await cluster.wait(5)
    assert (JOB_SETS, "team-a", "sentiment-1-2") in cluster.kube.objects


async def test_the_log_of_a_failure_is_that_of_the_pod_that_explains_it() -> None:
    cluster = await with_pods()
    cluster.kube.log = "Segmentation fault"
    cluster.kube.drop(PODS, "sentiment-1-1-node-0-0")
    end_pod(cluster, 1, 139)
    end_job(cluster, "Failed")
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert (failure["reason"], failure["exitCode"]) == ("TrainerCrashed", 139)
    assert "Segmentation fault" in failure["logTail"]
    assert (JOB_SETS, "team-a", "sentiment-1-1") not in cluster.kube.objects, "a failed job keeps no pods"


@pytest.mark.parametrize("has_job", [True, False])
async def test_a_suspended_job_loses_its_set_and_gets_another(has_job: bool) -> None:
    cluster = await (with_pods() if has_job else with_job(**NODES))
    cluster.change_job(suspend=True)
    await cluster.settle()
    assert (JOB_SETS, "team-a", "sentiment-1-1") not in cluster.kube.objects
    assert cluster.kube.asked("delete", "jobs") == 0, "JobSet would make it again"
    for key in [key for key in cluster.kube.objects if key[0] in {JOBS, PODS}]:
        cluster.kube.drop(key[0], key[2])  # as the garbage collector does
    await cluster.settle()
    assert cluster.status()["phase"] == "Suspended"
    cluster.change_job(suspend=False)
    await cluster.settle()
    assert (JOB_SETS, "team-a", "sentiment-1-2") in cluster.kube.objects


async def test_pods_of_a_set_may_report_for_its_job_and_for_no_other() -> None:
    cluster = await with_pods()
    pod = cluster.kube.objects[PODS, "team-a", "sentiment-1-1-node-0-0"]["metadata"]
    who = TokenIdentity("system:serviceaccount:team-a:default", "sa", (), "team-a", "default", pod["name"], pod["uid"])
    told = cluster.report("Running")
    assert cluster.reports.authorise(who, told) is None
    for wrong in ({"uid": "of-an-earlier-job"}, {"name": "sentiment-2"}):
        assert "another job" in str(cluster.reports.authorise(who, told.model_copy(update=wrong)))
    assert "another attempt" in str(cluster.reports.authorise(who, told.model_copy(update={"attempt": 2})))


async def test_the_set_of_an_earlier_job_of_this_name_is_none_of_ours() -> None:
    cluster = await with_pods()
    uid = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]["uid"]
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    cluster.add_job(**NODES)
    await cluster.settle()
    assert cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]["uid"] != uid
    assert cluster.status()["phase"] == "Pending"
    assert "waiting for the last attempt's pod" in cluster.condition("Reconciling")["message"]


async def test_a_job_set_of_somebody_else_that_has_the_name_is_told_and_left_alone() -> None:
    cluster = await with_job(**NODES)
    strangers = {"metadata": {"name": "sentiment-2-1", "namespace": "team-a"}, "spec": {"theirs": True}}
    cluster.kube.put(JOB_SETS, strangers)
    cluster.add_job("sentiment-2", **NODES)
    await cluster.settle()
    failure = cluster.status(Key(FINE_TUNE_JOBS.kind, "team-a", "sentiment-2"))["failure"]
    assert failure["reason"] == "NameConflict"
    assert "kubectl delete jobset sentiment-2-1" in failure["nextStep"]
    assert cluster.kube.objects[JOB_SETS, "team-a", "sentiment-2-1"]["spec"] == {"theirs": True}
    cluster.kube.drop(JOB_SETS, "sentiment-2-1")
    await cluster.wait(60)
    assert "replicatedJobs" in cluster.kube.objects[JOB_SETS, "team-a", "sentiment-2-1"]["spec"]


def hold(cluster: Cluster) -> None:
    """Somebody puts a finalizer on the set, and deletes it."""
    metadata = cluster.kube.objects[JOB_SETS, "team-a", "sentiment-1-1"]["metadata"]
    cluster.kube.change(JOB_SETS, "sentiment-1-1", metadata=metadata | {"finalizers": ["example.com/audit"]})


async def test_a_set_without_a_job_that_is_deleted_and_kept_is_followed_by_the_next_attempt() -> None:
    cluster = await with_job(**NODES)
    hold(cluster)
    cluster.kube.mark_deleted(JOB_SETS, "sentiment-1-1")
    await cluster.wait(15)
    await cluster.wait(5)
    assert (JOB_SETS, "team-a", "sentiment-1-2") in cluster.kube.objects


async def test_the_job_of_a_set_that_is_kept_is_ended_by_itself() -> None:
    cluster = await with_pods()
    hold(cluster)
    cluster.change_job(suspend=True)
    await cluster.settle()
    assert "deletionTimestamp" in cluster.kube.objects[JOB_SETS, "team-a", "sentiment-1-1"]["metadata"]
    assert (JOBS, "team-a", "sentiment-1-1-node-0") not in cluster.kube.objects, "its pods would go on for nobody"


async def test_a_sets_job_that_has_lost_its_labels_is_known_by_its_owner() -> None:
    cluster = await with_pods()
    job = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1-node-0"]
    cluster.kube.change(JOBS, "sentiment-1-1-node-0", metadata=job["metadata"] | {"labels": {}})
    await cluster.settle()
    assert cluster.status()["phase"] == "Validating"
    for node in range(2):
        end_pod(cluster, node, 0, cluster.result() if node == 0 else None)
    end_job(cluster, "Complete")
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"


async def test_a_job_that_has_the_name_of_a_sets_job_is_told() -> None:
    cluster = await with_job(**NODES)
    cluster.kube.put(JOBS, {"metadata": {"name": "sentiment-1-1-node-0", "namespace": "team-a"}, "spec": {}})
    await cluster.wait(15)
    failure = cluster.status()["failure"]
    assert failure["reason"] == "NameConflict"
    assert "Job sentiment-1-1-node-0 exists already" in failure["message"]
    cluster.kube.drop(JOBS, "sentiment-1-1-node-0")
    make_job(cluster)
    await cluster.wait(60)
    assert "failure" not in cluster.status()


@pytest.mark.parametrize("end", ["Failed", "Completed"])
async def test_a_set_that_has_ended_and_whose_job_somebody_deleted_is_followed_by_the_next_attempt(end: str) -> None:
    cluster = await with_job(resources={"nodes": 2})
    make_job(cluster)
    await cluster.settle()
    cluster.kube.change(JOB_SETS, "sentiment-1-1", status={"conditions": [{"type": end, "status": "True"}]})
    cluster.kube.drop(JOBS, "sentiment-1-1-node-0")
    await cluster.settle()
    await cluster.wait(15)
    await cluster.wait(15)
    assert (JOB_SETS, "team-a", "sentiment-1-2") in cluster.kube.objects
    provider = cluster.status()["provider"]
    assert (provider["attempt"], provider["lastFailure"]["reason"]) == (2, "Interrupted")
