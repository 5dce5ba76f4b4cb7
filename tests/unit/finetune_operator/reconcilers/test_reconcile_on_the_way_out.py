"""Objects that are deleted and do not go: a finalizer of somebody else keeps them, or a deletion in the foreground."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from finetune_api.names import ABANDON_ANNOTATION, PROVIDER_FINALIZER
from finetune_operator.runtime.kube import (
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOB_SETS,
    JOBS,
    MODEL_DEPLOYMENTS,
    PODS,
    SERVICES,
    Resource,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL, Cluster, with_job, with_running_job
from tests.unit.finetune_operator.reconcilers.test_reconcile_nodes import with_pods
from tests.unit.finetune_operator.reconcilers.versions import with_version

FOREIGN = "example.com/audit"


async def delete(cluster: Cluster, resource: Resource, name: str, *finalizers: str) -> None:
    """Somebody deletes what these finalizers keep."""
    found = cluster.kube.objects[resource, "team-a", name]
    cluster.kube.change(resource, name, metadata=found["metadata"] | {"finalizers": list(finalizers)})
    await cluster.kube.delete(resource, name, "team-a")
    await cluster.settle()


async def test_a_job_that_is_deleted_and_kept_does_not_go_on_running_in_its_status() -> None:
    cluster = await with_running_job()
    await delete(cluster, FINE_TUNE_JOBS, "sentiment-1", FOREIGN)
    assert cluster.condition("Ready")["message"] == (
        f"it is being deleted: its pod is being stopped, and then the finalizers {FOREIGN} are to go"
    )
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    await cluster.settle()
    assert cluster.status()["phase"] == "Cancelled"
    ready, reconciling = cluster.condition("Ready"), cluster.condition("Reconciling")
    assert (ready["status"], reconciling["status"], reconciling["reason"]) == ("False", "True", "Pending")
    assert ready["message"] == f"it is being deleted, and kept by its finalizers {FOREIGN}"


async def test_what_a_job_has_made_goes_on_where_it_is_deleted_without_that() -> None:
    """`kubectl delete --cascade=orphan`: the job stays until Kubernetes has taken the owner off its children."""
    cluster = await with_running_job()
    await delete(cluster, FINE_TUNE_JOBS, "sentiment-1", "orphan")
    assert cluster.kube.asked("delete", "jobs") == 0
    assert (JOBS, "team-a", "sentiment-1-1") in cluster.kube.objects


@pytest.mark.parametrize(
    ("begun", "made"), [(with_running_job, JOBS), (with_pods, JOB_SETS)], ids=["a Job", "a JobSet"]
)
async def test_what_a_job_was_deleted_without_goes_on_while_a_strangers_finalizer_keeps_the_job(
    begun: Callable[[], Awaitable[Cluster]], made: Resource
) -> None:
    """Kubernetes takes the owner off its children, then its finalizer off the job: their watches are not in step."""
    cluster = await begun()
    before = cluster.status()
    await delete(cluster, FINE_TUNE_JOBS, "sentiment-1", "orphan", FOREIGN)
    del cluster.kube.objects[made, "team-a", "sentiment-1-1"]["metadata"]["ownerReferences"]  # and no watch tells yet
    found = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=found | {"finalizers": [FOREIGN]})
    await cluster.settle()
    assert cluster.kube.asked("delete", "jobs") + cluster.kube.asked("delete", "jobsets") == 0
    assert cluster.status() == before


async def test_a_job_of_the_cluster_that_has_our_finalizer_says_how_it_is_let_go() -> None:
    """It was copied, with its metadata, from one at a provider."""
    cluster = await with_running_job()
    await delete(cluster, FINE_TUNE_JOBS, "sentiment-1", PROVIDER_FINALIZER)
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    await cluster.settle()
    assert "annotate it with finetune.dev/abandon=true" in cluster.condition("Ready")["message"]
    found = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]
    metadata = found | {"annotations": {ABANDON_ANNOTATION: "true"}}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=metadata)
    await cluster.settle()
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in cluster.kube.objects
    assert ("FineTuneJob", "Warning", "Abandoned") in cluster.told


async def test_a_job_that_has_ended_stays_what_it_is_while_it_is_deleted() -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    before = cluster.status()
    await delete(cluster, FINE_TUNE_JOBS, "sentiment-1", FOREIGN)
    assert cluster.status() == before


@pytest.mark.parametrize("resource", [DEPLOYMENTS, SERVICES], ids=lambda r: r.plural)
async def test_a_server_that_is_deleted_and_kept_is_told_of_and_made_again_once_it_is_gone(resource: Resource) -> None:
    cluster = await with_version()
    cluster.roll_out()
    await cluster.settle()
    await delete(cluster, resource, "sentiment", FOREIGN)
    applied = cluster.kube.asked("apply", resource.plural)
    spec = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "huggingFace": {"replicas": 2}})
    await cluster.settle()
    assert cluster.kube.asked("apply", resource.plural) == applied, "what is being deleted takes no changes"
    said = f"{resource.kind} sentiment is being deleted, and kept by its finalizers {FOREIGN}"
    assert said in cluster.condition("Ready", DEPLOYMENT)["message"]
    cluster.kube.drop(resource, "sentiment")
    await cluster.settle()
    assert "deletionTimestamp" not in cluster.kube.objects[resource, "team-a", "sentiment"]["metadata"]
    assert "being deleted" not in cluster.condition("Ready", DEPLOYMENT)["message"]


async def test_a_models_deployment_that_is_deleted_and_kept_is_told_of() -> None:
    cluster = await with_version()
    cluster.roll_out()
    await cluster.settle()
    await delete(cluster, MODEL_DEPLOYMENTS, "sentiment", FOREIGN)
    message = cluster.condition("Ready", MODEL)["message"]
    assert message == f"ModelDeployment sentiment: it is being deleted, and kept by its finalizers {FOREIGN}"
    cluster.kube.drop(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    cluster.roll_out()
    await cluster.settle()
    assert cluster.condition("Ready", MODEL)["status"] == "True"


async def test_a_batch_job_that_is_deleted_and_kept_is_followed_by_the_next_attempt() -> None:
    cluster = await with_running_job()
    await delete(cluster, JOBS, "sentiment-1-1", FOREIGN)
    assert cluster.status()["provider"]["attempt"] == 1, "its pod has yet to end"
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    await cluster.settle()
    assert cluster.status()["provider"]["lastFailure"]["reason"] == "Interrupted"
    await cluster.wait(5)
    assert (JOBS, "team-a", "sentiment-1-2") in cluster.kube.objects


@pytest.mark.parametrize("code", [0, 75, 65])
async def test_a_batch_job_that_is_kept_gives_no_verdict_and_its_pod_tells_the_end(code: int) -> None:
    """Its pods go on until it is really gone; its controller leaves it alone."""
    cluster = await with_running_job()
    await delete(cluster, JOBS, "sentiment-1-1", FOREIGN)
    job = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]
    last = {0: cluster.result(), 75: cluster.report("Interrupted")}.get(code)
    cluster.end_pod(code, last)
    cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"] = job
    cluster.kube.events = [event for event in cluster.kube.events if event[0] is not JOBS]
    await cluster.settle()
    if code == 75:
        assert cluster.status()["provider"]["lastFailure"]["reason"] == "Interrupted"
        await cluster.wait(5)
        assert (JOBS, "team-a", "sentiment-1-2") in cluster.kube.objects
    else:
        assert cluster.status()["phase"] == ("Failed" if code else "Succeeded")


async def test_a_batch_job_that_is_kept_and_ended_without_a_word_is_followed_by_the_next_attempt() -> None:
    cluster = await with_running_job()
    await delete(cluster, JOBS, "sentiment-1-1", FOREIGN)
    cluster.kube.change(PODS, "sentiment-1-1-x", status={"phase": "Succeeded"})
    await cluster.settle()
    assert cluster.status()["provider"]["lastFailure"]["reason"] == "Interrupted"


async def test_a_batch_job_that_never_had_a_pod_and_is_kept_is_followed_by_the_next_attempt() -> None:
    cluster = await with_job()
    await delete(cluster, JOBS, "sentiment-1-1", FOREIGN)
    await cluster.wait(15)
    assert (JOBS, "team-a", "sentiment-1-2") in cluster.kube.objects


async def test_a_batch_job_without_its_owner_that_is_deleted_and_kept_is_known_though_status_is_lost() -> None:
    cluster = await with_running_job()
    metadata = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]["metadata"]
    orphan = {key: value for key, value in metadata.items() if key != "ownerReferences"}
    cluster.kube.change(JOBS, "sentiment-1-1", metadata=orphan)
    await delete(cluster, JOBS, "sentiment-1-1", FOREIGN)
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status={})
    await cluster.settle()
    await cluster.wait(15)
    await cluster.wait(5)
    assert (JOBS, "team-a", "sentiment-1-2") in cluster.kube.objects


async def test_a_batch_job_that_nothing_tells_whose_it_is_and_that_is_kept_is_named_with_what_keeps_it() -> None:
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection()
    cluster.kube.put(JOBS, going("sentiment-1-1", "foregroundDeletion", FOREIGN))
    cluster.kube.mark_deleted(JOBS, "sentiment-1-1")
    cluster.add_job()
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert failure["reason"] == "NameConflict"
    assert failure["message"] == (
        f"Job sentiment-1-1 does not belong to this object; it is being deleted, and kept by its finalizers {FOREIGN}"
    )
    assert "taken off job sentiment-1-1" in failure["nextStep"]
    cluster.kube.drop(JOBS, "sentiment-1-1")
    await cluster.wait(60)
    assert (cluster.status()["phase"], "failure" in cluster.status()) == ("Queued", False)


def going(name: str, *finalizers: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "team-a", "finalizers": list(finalizers)}, "spec": {}}


async def test_a_result_that_waits_for_a_model_on_its_way_out_says_so() -> None:
    cluster = await with_running_job()
    cluster.kube.put(FINE_TUNED_MODELS, going("sentiment", FOREIGN))
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    reconciling = cluster.condition("Reconciling")
    assert (reconciling["status"], reconciling["reason"]) == ("True", "Pending")
    assert reconciling["message"] == (
        f"its result waits: FineTunedModel sentiment is being deleted, and kept by its finalizers {FOREIGN}; once it "
        "is gone it is made again, with this job's version"
    )
    asked = len(cluster.kube.requests)
    await cluster.settle()
    await cluster.wait(60)
    assert len(cluster.kube.requests) - asked <= 2, "it waits between two looks"
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
