"""Policies and webhooks of the cluster that stand in the way of a write: said, tried again, and nothing made twice."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.job_status import Progress
from finetune_api.names import ABANDON_ANNOTATION
from finetune_operator.decide.conditions import timestamp
from finetune_operator.desired import prune_job
from finetune_operator.runtime.errors import Forbidden, Invalid, KubeError, Transient, Unadmitted, error_for
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    SERVICES,
    Resource,
)
from finetune_operator.runtime.queue import Key
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import simulator, with_submitted_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import (
    DEPLOYMENT,
    JOB,
    MODEL,
    Cluster,
    with_job,
    with_running_job,
)
from tests.unit.finetune_operator.reconcilers.versions import with_version

__all__ = ["start"]

DOWN = (
    'Internal error occurred: failed calling webhook "mutate.example.com": failed to call webhook: Post '
    '"https://policy.kyverno.svc:443/mutate?timeout=10s": context deadline exceeded'
)
DENIED = 'admission webhook "validate.kyverno.svc-fail" denied the request: jobs need a cost centre'
POLICY = (
    "jobs.batch \"sentiment-1-1\" is forbidden: ValidatingAdmissionPolicy 'cost-centres' with binding 'team-a' denied "
    "request: failed expression: 'cost-centre' in object.metadata.labels"
)
BOTH = pytest.mark.parametrize("refusal", [error_for(500, "InternalError", DOWN), error_for(409, "Conflict", DENIED)])
LOCAL = Key(CONNECTIONS.kind, "", "local")


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (500, DOWN, Unadmitted),
        (403, DENIED, Forbidden),
        (404, DENIED, Forbidden),
        (409, DENIED, Forbidden),
        (500, DENIED, Forbidden),
        (418, DENIED, Forbidden),
        (413, POLICY, Forbidden),
        (422, POLICY, Forbidden),
        (413, "Request entity too large: limit is 3145728", Invalid),
        (500, "etcdserver: leader changed", Transient),
    ],
)
def test_what_a_webhook_or_a_policy_says_is_known_whatever_status_it_chooses(
    status: int, message: str, kind: type
) -> None:
    assert type(error_for(status, "", message)) is kind


def refuse(cluster: Cluster, verb: str, plural: str, refusal: KubeError) -> None:
    cluster.kube.refusals[verb, plural] = refusal


async def relent(cluster: Cluster) -> None:
    cluster.kube.refusals.clear()
    await cluster.wait(60)


def said(cluster: Cluster, key: Key = JOB) -> tuple[str, str]:
    stalled = cluster.condition("Stalled", key)
    assert stalled["status"] == "True", cluster.status(key)
    return stalled["reason"], stalled["message"]


@BOTH
async def test_a_jobs_pods_that_a_webhook_stops(refusal: KubeError) -> None:
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection()
    refuse(cluster, "create", "jobs", refusal)
    cluster.add_job()
    await cluster.settle()
    assert said(cluster) == ("PodRejected", refusal.message)
    assert ("does not answer" in cluster.status()["failure"]["nextStep"]) == (refusal.message == DOWN)
    assert ("FineTuneJob", "Warning", "PodRejected") in cluster.told
    await relent(cluster)
    assert cluster.status()["phase"] == "Queued"
    assert cluster.condition("Stalled")["status"] == "False"


@BOTH
async def test_an_attempt_that_may_not_be_ended(refusal: KubeError) -> None:
    cluster = await with_running_job()
    refuse(cluster, "delete", "jobs", refusal)
    cluster.change_job(suspend=True)
    await cluster.settle()
    assert said(cluster) == ("WriteRefused", refusal.message)
    await relent(cluster)
    assert (JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects


async def test_an_attempt_that_may_not_be_ended_is_not_told_to_end_at_each_word_of_its_trainer() -> None:
    cluster = await with_running_job()
    refuse(cluster, "delete", "jobs", Forbidden(403, "Forbidden", "frozen"))
    cluster.change_job(suspend=True)
    await cluster.settle()
    for step in range(10):
        progress = {"step": step, "totalSteps": 100, "updatedAt": timestamp(cluster.now)}
        cluster.reports.accept(cluster.report("Running", progress=progress))
        await cluster.wait(2)
    asked = cluster.kube.asked("delete", "jobs")
    assert asked <= 4, "a few times at once, and then every half minute"
    assert said(cluster) == ("WriteRefused", "frozen")
    assert cluster.status()["progress"]["step"] >= 7, "what could not be ended goes on, and status says how far it is"
    assert cluster.kube.asked("patch_status", "finetunejobs") <= 8, "every five seconds at most"
    await cluster.wait(30)
    cluster.reports.accept(cluster.report("Running", progress=progress))
    await cluster.settle()
    assert cluster.kube.asked("delete", "jobs") == asked + 1


@BOTH
async def test_a_model_that_may_not_be_made_is_told_by_the_job_that_has_its_version(refusal: KubeError) -> None:
    cluster = await with_running_job()
    refuse(cluster, "create", "finetunedmodels", refusal)
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert said(cluster) == ("WriteRefused", f"FineTunedModel sentiment cannot be made: {refusal.message}")
    asked = cluster.kube.asked("create", "finetunedmodels")
    await cluster.settle()
    assert cluster.kube.asked("create", "finetunedmodels") == asked, "it waits between two tries"
    await relent(cluster)
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert len(cluster.status(MODEL)["versions"]) == 1


async def test_a_job_whose_result_its_model_cannot_take_says_how_far_its_trainer_came() -> None:
    cluster = await with_running_job()
    refuse(cluster, "create", "finetunedmodels", Forbidden(403, "Forbidden", "no"))
    done = {"step": 100, "totalSteps": 100, "percent": 100}
    cluster.end_pod(0, cluster.result().model_copy(update={"progress": Progress.model_validate(done)}))
    await cluster.settle()
    assert said(cluster)[0] == "WriteRefused"
    assert cluster.status()["progress"]["percent"] == 100


async def test_a_model_that_may_not_be_made_is_not_made_later_for_a_job_that_was_deleted_meanwhile() -> None:
    cluster = await with_running_job()
    refuse(cluster, "create", "finetunedmodels", Forbidden(403, "Forbidden", "no"))
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await relent(cluster)
    assert (FINE_TUNED_MODELS, "team-a", "sentiment") not in cluster.kube.objects


@BOTH
async def test_a_models_deployment_that_may_not_be_made(refusal: KubeError) -> None:
    cluster = await with_running_job()
    refuse(cluster, "apply", "modeldeployments", refusal)
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded", "the job has done its part"
    reason, message = said(cluster, MODEL)
    assert reason == "WriteRefused"
    assert f"ModelDeployment sentiment cannot be made: {refusal.message}" in message
    writes = cluster.kube.asked("patch_status", "finetunedmodels")
    await cluster.wait(60)
    assert cluster.kube.asked("patch_status", "finetunedmodels") == writes, "it says the same once"
    await relent(cluster)
    assert cluster.status(DEPLOYMENT)["phase"] == "Deploying"
    assert cluster.condition("Stalled", MODEL)["status"] == "False"


@BOTH
async def test_a_models_deployment_that_may_not_be_deleted_keeps_the_model(refusal: KubeError) -> None:
    cluster = await with_version(deletionPolicy="Delete")
    refuse(cluster, "delete", "modeldeployments", refusal)
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    reason, message = said(cluster, MODEL)
    assert reason == "WriteRefused"
    assert f"ModelDeployment sentiment cannot be deleted: {refusal.message}. Ask an admin" in message
    assert message.endswith("or annotate the model with finetune.dev/abandon=true to release it and leave the weights")
    await relent(cluster)
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") not in cluster.kube.objects


@BOTH
async def test_a_finalizer_that_may_not_be_taken_off_is_told_by_an_event(refusal: KubeError) -> None:
    cluster = await with_version(deletionPolicy="Delete")
    metadata = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["metadata"]
    cluster.kube.change(
        FINE_TUNED_MODELS, "sentiment", metadata=metadata | {"annotations": {ABANDON_ANNOTATION: "true"}}
    )
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    refuse(cluster, "patch", "finetunedmodels", refusal)
    with pytest.raises(type(refusal)):
        await cluster.settle()
    assert ("FineTunedModel", "Warning", "WriteRefused") in cluster.told


SERVER = pytest.mark.parametrize(
    ("plural", "reason", "begins"),
    [
        ("services", "WriteRefused", "Service sentiment cannot be made, or changed: "),
        ("deployments", "PodRejected", ""),
    ],
)


@BOTH
@SERVER
async def test_a_server_that_may_not_be_made(refusal: KubeError, plural: str, reason: str, begins: str) -> None:
    """A pod that is refused is looked for in other places than a Service that is."""
    cluster = await with_running_job()
    refuse(cluster, "apply", plural, refusal)
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert said(cluster, DEPLOYMENT)[0] == reason
    assert said(cluster, DEPLOYMENT)[1].startswith(begins + refusal.message)
    await relent(cluster)
    assert (DEPLOYMENTS, "team-a", "sentiment") in cluster.kube.objects
    assert cluster.condition("Stalled", DEPLOYMENT)["status"] == "False"


async def with_surplus(**kept: Any) -> Cluster:
    """A cluster whose second version has pushed the first one out of history."""
    cluster = await with_running_job()
    spec = {"historyLimit": 1, "deployment": {"mode": "Manual"}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec | kept})
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    cluster.add_job("sentiment-2")
    await cluster.settle()
    cluster.run_pod(job="sentiment-2")
    await cluster.settle()
    return cluster


@pytest.mark.parametrize("resource", [DEPLOYMENTS, SERVICES], ids=lambda r: r.plural)
async def test_a_servers_object_that_may_not_be_made_again_is_not_called_deleted_by_somebody(
    resource: Resource,
) -> None:
    """However often it is looked at: it is not asked for each time, and what keeps it out is still the same."""
    cluster = await with_version()
    cluster.roll_out()
    await cluster.settle()
    refused = f'{resource.plural} "sentiment" is forbidden: exceeded quota: rq'
    cluster.kube.refusals["apply", resource.plural] = Forbidden(403, "Forbidden", refused)
    cluster.kube.drop(resource, "sentiment")
    for _ in range(8):
        cluster.wake(DEPLOYMENT)
        await cluster.settle()
        assert "exceeded quota: rq" in cluster.condition("Ready", DEPLOYMENT)["message"]
    assert cluster.kube.asked("apply", resource.plural) <= 5
    cluster.kube.refusals.clear()
    await cluster.wait(60)
    assert (resource, "team-a", "sentiment") in cluster.kube.objects
    cluster.roll_out()
    await cluster.settle()
    assert cluster.condition("Ready", DEPLOYMENT)["status"] == "True"


@BOTH
async def test_weights_that_may_not_be_deleted_keep_no_new_version_from_becoming_active(refusal: KubeError) -> None:
    cluster = await with_surplus()
    refuse(cluster, "create", "jobs", refusal)
    cluster.end_pod(0, cluster.result(job="sentiment-2"), job="sentiment-2")
    await cluster.settle()
    assert cluster.status(MODEL)["activeVersion"] == 2
    cleaned = cluster.condition("Cleaned", MODEL)
    assert (cleaned["status"], cleaned["reason"]) == ("False", "PodRejected")
    assert refusal.message in cleaned["message"]
    await relent(cluster)
    assert any("prune" in name for kind, _, name in cluster.kube.objects if kind is JOBS)


@BOTH
async def test_an_ended_job_that_may_not_be_deleted_stays_and_is_asked_about_again(refusal: KubeError) -> None:
    cluster = await with_running_job(ttlSecondsAfterFinished=100)
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    refuse(cluster, "delete", "finetunejobs", refusal)
    await cluster.wait(100)
    assert ("FineTuneJob", "Warning", "WriteRefused") in cluster.told
    assert cluster.status()["phase"] == "Succeeded"
    await relent(cluster)
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in cluster.kube.objects


@pytest.mark.parametrize(
    "refusal",
    [
        error_for(500, "InternalError", DOWN),
        error_for(409, "Conflict", DENIED),
        error_for(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"),
    ],
)
async def test_a_status_that_may_not_be_written_is_told_by_an_event(refusal: KubeError) -> None:
    cluster = await with_job()
    refuse(cluster, "patch_status", "finetunejobs", refusal)
    cluster.run_pod()
    cluster.reports.accept(cluster.report("Running"))
    with pytest.raises(type(refusal)):
        await cluster.settle()
    assert ("FineTuneJob", "Warning", "WriteRefused") in cluster.told
    cluster.kube.refusals.clear()
    cluster.wake(JOB)
    await cluster.settle()
    assert cluster.status()["phase"] == "Running"


async def test_a_status_that_may_not_be_written_is_not_written_at_each_word_of_the_trainer() -> None:
    """Nor is the Event about it, which may be refused as well."""
    cluster = await with_running_job()
    refuse(cluster, "patch_status", "finetunejobs", Forbidden(403, "Forbidden", "no"))

    async def hear(step: int) -> None:
        progress = {"step": step, "totalSteps": 100, "updatedAt": timestamp(cluster.now)}
        cluster.reports.accept(cluster.report("Running", progress=progress))
        await cluster.wait(5)

    before = cluster.kube.asked("patch_status", "finetunejobs")
    for step in range(5):
        with pytest.raises(Forbidden):
            await hear(step)
    asked, told = cluster.kube.asked("patch_status", "finetunejobs"), len(cluster.told)
    assert asked - before <= 4
    with pytest.raises(Forbidden):
        await hear(5)
    assert (cluster.kube.asked("patch_status", "finetunejobs"), len(cluster.told)) == (asked, told)
    cluster.kube.refusals.clear()
    with suppress(Forbidden):
        await hear(6)
    await cluster.wait(30)
    await hear(7)
    assert cluster.status()["progress"]["step"] == 7


async def test_a_status_that_was_refused_is_tried_at_once_when_its_object_is_edited() -> None:
    cluster = await with_running_job()
    refuse(cluster, "patch_status", "finetunejobs", Forbidden(403, "Forbidden", "no"))
    for _ in range(5):
        cluster.reports.accept(cluster.report("Running"))
        with pytest.raises(Forbidden):
            await cluster.settle()
    cluster.kube.refusals.clear()
    cluster.change_job(suspend=True)
    await cluster.settle()
    assert cluster.status()["observedGeneration"] == 2


async def test_a_status_that_was_refused_is_tried_at_once_when_its_object_is_labelled() -> None:
    """A policy that asks for a label is satisfied without an edit of the spec."""
    cluster = await with_running_job()
    refuse(cluster, "patch_status", "finetunejobs", Forbidden(403, "Forbidden", "no cost centre"))
    for step in range(5):
        cluster.reports.accept(cluster.report("Running", progress={"step": step, "totalSteps": 100}))
        with pytest.raises(Forbidden):
            await cluster.settle()
    cluster.kube.refusals.clear()
    job = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=job["metadata"] | {"labels": {"cost-centre": "7"}})
    await cluster.settle()
    assert cluster.status()["phase"] == "Running"
    assert cluster.status()["progress"]["step"] == 4


OLDER = (
    '"" is invalid: patch: Invalid value: "{\\"apiVersion\\":\\"finetune.dev/v1alpha1\\",\\"spec\\":{}}": '
    'strict decoding error: unknown field "status.provider.savedWork"'
)


async def test_definitions_of_an_older_release_are_told_of_without_the_whole_object() -> None:
    cluster, told = await with_job(), []
    refuse(cluster, "patch_status", "finetunejobs", error_for(422, "Invalid", OLDER))

    async def announce(_: Any, event_type: str, reason: str, note: str) -> None:
        told.append((event_type, reason, note))

    cluster.announce = announce  # type: ignore[method-assign]
    cluster.restart()
    await cluster.observer.resync()
    cluster.run_pod()
    cluster.reports.accept(cluster.report("Running"))
    with pytest.raises(Invalid):
        await cluster.settle()
    (_, reason, note) = told[0]
    assert reason == "WriteRefused"
    assert note.startswith(
        'its status cannot be written: strict decoding error: unknown field "status.provider.savedWork"'
    )
    assert "apply those of its release" in note


@pytest.mark.parametrize("error", [error_for(500, "InternalError", DOWN), Transient(504, "Timeout", "no answer")])
async def test_a_connection_whose_pods_cannot_be_tried_has_a_status_all_the_same(error: KubeError) -> None:
    cluster = Cluster()
    refuse(cluster, "would_create", "jobs", error)
    cluster.add_namespace()
    cluster.add_connection()
    await cluster.settle()
    assert cluster.condition("Ready", LOCAL)["status"] == "True"
    cluster.kube.refusals.clear()
    cluster.now += timedelta(hours=1)
    cluster.wake(LOCAL)
    await cluster.settle()
    assert cluster.status(LOCAL)["lastChecked"]


async def test_a_strangers_job_with_a_prune_jobs_name_is_told_and_keeps_no_new_version_from_becoming_active() -> None:
    cluster = await with_surplus()
    taken = prune_job.name("sentiment", 1)
    cluster.kube.put(JOBS, {"metadata": {"name": taken, "namespace": "team-a"}, "spec": {"theirs": True}})
    cluster.end_pod(0, cluster.result(job="sentiment-2"), job="sentiment-2")
    await cluster.settle()
    assert cluster.status(MODEL)["activeVersion"] == 2
    assert cluster.condition("Cleaned", MODEL)["reason"] == "NameConflict"
    assert cluster.kube.objects[JOBS, "team-a", taken]["spec"] == {"theirs": True}


@pytest.mark.parametrize("resource", [SERVICES, DEPLOYMENTS], ids=lambda resource: str(resource.kind))
async def test_a_servers_object_whose_labels_and_owner_were_taken_off_is_put_right(resource: Resource) -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    before = cluster.kube.objects[resource, "team-a", "sentiment"]
    bare = {"name": "sentiment", "namespace": "team-a", "managedFields": before["metadata"]["managedFields"]}
    cluster.kube.change(resource, "sentiment", metadata=bare)
    cluster.kube.events.clear()  # its label is what the watch goes by: for that it is gone
    cluster.observer.handle_event(resource, "DELETED", before)
    await cluster.settle()
    after = cluster.kube.objects[resource, "team-a", "sentiment"]["metadata"]
    assert (after["labels"], after["ownerReferences"]) == (
        before["metadata"]["labels"],
        before["metadata"]["ownerReferences"],
    )


async def test_a_connections_secret_that_may_not_be_read_is_told_by_all_who_need_it(start: Any) -> None:
    provider = simulator()
    cluster = await with_submitted_job(provider, start(provider))
    deletes = {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {"deletionPolicy": "Delete"}}
    cluster.kube.put(FINE_TUNED_MODELS, deletes)
    await cluster.pass_time(7200)
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await cluster.settle()
    second, connection = JOB._replace(name="sentiment-2"), Key(CONNECTIONS.kind, "", "openai")
    assert (cluster.status()["phase"], cluster.status(second)["phase"]) == ("Succeeded", "Queued")
    refuse(cluster, "get", "secrets", Forbidden(403, "Forbidden", "secrets is forbidden"))
    await cluster.accounts.close()
    cluster.restart()
    await cluster.observer.resync()
    await cluster.kube.delete(FINE_TUNED_MODELS, "sentiment", "team-a")
    await cluster.wait(7200)
    await cluster.poll()
    for key in (second, connection, MODEL):
        reason, message = said(cluster, key)
        assert (reason, "finetune/openai cannot be read: secrets is forbidden" in message) == ("WriteRefused", True)
    await relent(cluster)
    assert cluster.condition("Ready", connection)["status"] == "True"
