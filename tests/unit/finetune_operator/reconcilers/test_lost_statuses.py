"""A status that somebody has emptied, or brought back from an old backup: what is known elsewhere comes back."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_api.crds import initial_status
from finetune_api.model import FineTunedModelStatus
from finetune_operator.runtime.errors import NotFound
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOB_SETS,
    JOBS,
    MODEL_DEPLOYMENTS,
    PODS,
)
from finetune_operator.runtime.queue import Key
from tests.unit.finetune_operator.decide.given import job_spec
from tests.unit.finetune_operator.reconcilers.fake_cluster import (
    DEPLOYMENT,
    JOB,
    MODEL,
    Cluster,
    with_job,
    with_running_job,
)
from tests.unit.finetune_operator.reconcilers.test_reconcile_nodes import make_job


async def with_versions(count: int = 3, **spec: Any) -> Cluster:
    """A model with versions, the newest of which answers."""
    cluster = await with_running_job()
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    for number in range(2, count + 1):
        await add_version(cluster, f"sentiment-{number}")
    if (DEPLOYMENTS, "team-a", "sentiment") in cluster.kube.objects:
        cluster.roll_out()
        await cluster.settle()
    return cluster


async def add_version(cluster: Cluster, job: str) -> None:
    cluster.add_job(job)
    await cluster.settle()
    cluster.run_pod(job=job)
    cluster.end_pod(0, cluster.result(job=job), job=job)
    await cluster.settle()


def without(status: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name not in fields}


async def test_a_model_whose_status_was_emptied_has_its_versions_back_from_its_jobs() -> None:
    cluster = await with_versions()
    before, server = cluster.status(MODEL), cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status={})
    await cluster.settle()
    assert without(cluster.status(MODEL), "conditions") == without(before, "conditions")
    assert cluster.condition("Ready", MODEL)["status"] == "True"
    assert cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"] == server, "what answers keeps answering"
    assert ("FineTunedModel", "Warning", "Recovered") in cluster.told


async def test_versions_that_somebody_patches_into_what_the_definition_says_count() -> None:
    """Of an object without a status the API server shows the definition's default, and patches that."""
    cluster = await with_versions(2)
    versions = cluster.status(MODEL)["versions"]
    for job in ("sentiment-1", "sentiment-2"):
        await cluster.kube.delete(FINE_TUNE_JOBS, job, "team-a")
    brought_back = initial_status(FineTunedModelStatus) | {"versions": versions, "latestVersion": 2}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status=brought_back)
    await cluster.settle()
    assert (cluster.status(MODEL)["activeVersion"], cluster.status(MODEL)["versions"]) == (2, versions)


async def test_versions_that_came_after_a_backup_are_found_and_their_numbers_not_given_again() -> None:
    cluster = await with_versions(2)
    backup = cluster.status(MODEL)
    await add_version(cluster, "sentiment-3")
    await add_version(cluster, "sentiment-4")
    before = cluster.status(MODEL)
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status=backup)
    await add_version(cluster, "sentiment-5")
    after = {version["job"]: version["version"] for version in cluster.status(MODEL)["versions"]}
    assert after == {f"sentiment-{number}": number for number in range(1, 6)}
    recorded = [without(one, "deployment") for one in cluster.status(MODEL)["versions"][:4]]
    assert recorded == [without(one, "deployment") for one in before["versions"]]


async def test_what_history_has_let_go_does_not_come_back() -> None:
    cluster = await with_newest(deployment={"mode": "Manual"})
    cluster.restart()
    await cluster.settle()
    assert [version["version"] for version in cluster.status(MODEL)["versions"]] == [3]


async def test_a_pin_on_what_history_has_let_go_does_not_activate_it_when_status_is_lost() -> None:
    cluster = await with_newest()
    pinned = {"historyLimit": 1, "activeVersion": 1}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=pinned, status={})
    await cluster.settle()
    assert cluster.status(MODEL)["activeVersion"] == 3, "its weights are gone, though its job tells of it"


async def with_newest(**spec: Any) -> Cluster:
    """Three versions, of which history has let the first two go."""
    cluster = await with_versions(3, historyLimit=1, **spec)
    for kind, _, name in list(cluster.kube.objects):
        if kind is JOBS and "prune" in name:
            cluster.kube.change(JOBS, name, status={"conditions": [{"type": "Complete", "status": "True"}]})
    await cluster.settle()
    assert [version["version"] for version in cluster.status(MODEL)["versions"]] == [3]
    return cluster


@pytest.mark.parametrize("left", [True, False], ids=["its batch Job is there", "its batch Job is gone"])
@pytest.mark.parametrize("offered", [False, True], ids=["later", "just then"])
async def test_a_job_that_lost_its_status_makes_no_second_version_of_one_that_history_has_let_go(
    left: bool, offered: bool
) -> None:
    cluster = await with_versions(3, historyLimit=1, deployment={"mode": "Manual"})
    for name in prunes(cluster):
        cluster.kube.change(JOBS, name, status={"conditions": [{"type": "Complete", "status": "True"}]})
    if not offered:
        await cluster.settle()
        assert [one["jobUID"] for one in cluster.status(MODEL)["letGo"]] == [
            cluster.kube.objects[FINE_TUNE_JOBS, "team-a", f"sentiment-{number}"]["metadata"]["uid"]
            for number in (1, 2)
        ]
    if not left:
        cluster.kube.drop(PODS, "sentiment-2-1-x")
        cluster.kube.drop(JOBS, "sentiment-2-1")
    created = cluster.kube.asked("create", "jobs")
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-2", status={})
    await cluster.settle()
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()
    job = cluster.status(Key(FINE_TUNE_JOBS.kind, "team-a", "sentiment-2"))
    assert (job["phase"], job["modelVersion"]) == ("Succeeded", 2)
    model = cluster.status(MODEL)
    assert ([one["version"] for one in model["versions"]], model["latestVersion"]) == ([3], 3)
    assert cluster.kube.asked("create", "jobs") == created
    for number in (1, 2):
        cluster.kube.drop(FINE_TUNE_JOBS, f"sentiment-{number}")
    cluster.hear()
    await cluster.reconcile(MODEL)
    assert "letGo" not in cluster.status(MODEL), "nobody is left to tell of them"


async def test_which_version_was_active_is_known_from_what_is_served() -> None:
    cluster = await with_versions(2, activation="Manual", activeVersion=1)
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"activation": "Manual"})
    cluster.roll_out()
    await cluster.settle()
    assert cluster.status(MODEL)["activeVersion"] == 1
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status={})
    await cluster.settle()
    assert cluster.status(MODEL)["activeVersion"] == 1


async def test_what_serves_another_model_does_not_tell_which_version_was_active() -> None:
    cluster = await with_versions(2, activation="Manual", deployment={"mode": "Manual"})
    namesake = {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {"modelRef": {"name": "another"}}}
    cluster.kube.put(MODEL_DEPLOYMENTS, namesake | {"status": {"servedVersion": 1, "engine": "OpenAI"}})
    await cluster.settle()
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status={})
    await cluster.settle()
    assert [version["version"] for version in cluster.status(MODEL)["versions"]] == [1, 2]
    assert "activeVersion" not in cluster.status(MODEL)


async def test_a_model_that_was_deleted_and_made_anew_begins_anew() -> None:
    cluster = await with_versions(1, deployment={"mode": "Manual"})
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    metadata = {"name": "sentiment", "namespace": "team-a", "creationTimestamp": "2026-11-21T13:00:00Z"}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": metadata, "spec": {"deployment": {"mode": "Manual"}}})
    await cluster.settle()
    assert "versions" not in cluster.status(MODEL)


async def test_jobs_and_model_that_have_both_lost_their_status_come_back_from_the_pods_last_words() -> None:
    cluster = await with_versions(1)
    created = cluster.kube.asked("create", "jobs")
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status={})
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status={})
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert [version["version"] for version in cluster.status(MODEL)["versions"]] == [1]
    assert cluster.kube.asked("create", "jobs") == created


async def test_a_running_job_that_has_lost_its_status_goes_on_with_the_attempt_that_is_there() -> None:
    cluster = await with_running_job()
    created = cluster.kube.asked("create", "jobs")
    cluster.end_pod(75, cluster.report("Interrupted"))
    await cluster.settle()
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    await cluster.wait(5)
    cluster.run_pod(2)
    await cluster.settle()
    assert cluster.status()["provider"]["attempt"] == 2
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status={})
    await cluster.settle()
    await cluster.wait(5)
    assert (cluster.status()["provider"]["attempt"], cluster.status()["phase"]) == (2, "Validating")
    assert cluster.kube.asked("create", "jobs") == created + 1


async def test_a_deployment_that_has_lost_its_status_says_again_what_it_serves() -> None:
    cluster = await with_versions(1)
    before, server = cluster.status(DEPLOYMENT), cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status={})
    await cluster.settle()
    assert without(cluster.status(DEPLOYMENT), "conditions") == without(before, "conditions")
    assert cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"] == server


async def test_a_connection_that_has_lost_its_status_is_tried_again() -> None:
    cluster = await with_running_job()
    cluster.kube.change(CONNECTIONS, "local", namespace=None, status={})
    await cluster.settle()
    assert cluster.condition("Ready", Key(CONNECTIONS.kind, "", "local"))["status"] == "True"
    assert cluster.status(JOB)["phase"] == "Validating"


async def test_a_job_that_a_backup_has_brought_back_without_its_status_is_not_paid_for_again() -> None:
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection()
    restored = {"velero.io/restore-name": "monday"}
    metadata = {"name": "sentiment-1", "namespace": "team-a", "labels": restored}
    cluster.kube.put(FINE_TUNE_JOBS, {"metadata": metadata, "spec": job_spec().wire()})
    await cluster.settle()
    assert (cluster.status()["failure"]["reason"], cluster.condition("Stalled")["status"]) == ("Restored", "True")
    assert "monday" in cluster.status()["failure"]["message"]
    assert cluster.kube.asked("create", "jobs") == 0
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=metadata | {"labels": {}})
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.kube.asked("create", "jobs")) == ("Queued", 1)


async def test_a_job_that_waits_is_not_held_because_a_restore_came_over_it() -> None:
    """`velero restore --existing-resource-policy=update` puts its labels on what is there, and leaves its status."""
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_job()
    await cluster.settle()
    assert cluster.condition("Reconciling")["reason"] == "ConnectionNotFound"
    metadata = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]
    labels = {"velero.io/restore-name": "monday", "velero.io/backup-name": "sunday"}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=metadata | {"labels": labels})
    await cluster.settle()
    cluster.add_connection()
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.kube.asked("create", "jobs")) == ("Queued", 1)


async def test_a_job_that_waited_when_it_was_backed_up_may_have_run_since_and_is_held() -> None:
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_job()
    await cluster.settle()
    before = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")
    cluster.now += timedelta(hours=1)
    born = {"creationTimestamp": cluster.now.strftime("%Y-%m-%dT%H:%M:%SZ")}
    metadata = {"name": "sentiment-1", "namespace": "team-a", "labels": {"velero.io/restore-name": "monday"}} | born
    cluster.kube.put(FINE_TUNE_JOBS, {"metadata": metadata, "spec": before["spec"], "status": before["status"]})
    cluster.add_connection()
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "Restored"


@pytest.mark.parametrize("suspended", [True, False], ids=["it comes back suspended", "it is suspended later"])
async def test_a_held_job_that_is_suspended_and_goes_on_is_held_as_before(suspended: bool) -> None:
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection()
    metadata = {"name": "sentiment-1", "namespace": "team-a", "labels": {"velero.io/restore-name": "monday"}}
    cluster.kube.put(FINE_TUNE_JOBS, {"metadata": metadata, "spec": job_spec(suspend=suspended).wire()})
    await cluster.settle()
    if not suspended:
        cluster.change_job(suspend=True)
        await cluster.settle()
    assert cluster.status()["phase"] == "Suspended"
    cluster.change_job(suspend=False)
    await cluster.settle()
    assert (cluster.status()["failure"]["reason"], cluster.kube.asked("create", "jobs")) == ("Restored", 0)


async def test_a_job_that_a_backup_has_brought_back_with_its_status_is_what_it_was() -> None:
    cluster = await with_versions(1)
    ended = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
    for kind, name in ((FINE_TUNE_JOBS, "sentiment-1"), (JOBS, "sentiment-1-1"), (PODS, "sentiment-1-1-x")):
        cluster.kube.drop(kind, name)
    created = cluster.kube.asked("create", "jobs")
    metadata = {"name": "sentiment-1", "namespace": "team-a", "labels": {"velero.io/restore-name": "monday"}}
    cluster.kube.put(FINE_TUNE_JOBS, {"metadata": metadata, "spec": ended["spec"], "status": ended["status"]})
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert cluster.kube.asked("create", "jobs") == created


OLD = {"observedGeneration": 1, "phase": "Pending", "provider": {"name": "huggingFace", "attempt": 1}}
"""Of a job whose first attempt has yet to be begun."""


async def with_second_attempt(**fields: Any) -> Cluster:
    """A cluster whose second attempt's pod has yet to be made, and of whose first one nothing is left."""
    cluster = await with_job(**fields)
    cluster.kube.drop(JOB_SETS if fields else JOBS, "sentiment-1-1")
    await cluster.settle()
    await cluster.wait(15)
    await cluster.wait(5)
    return cluster


@pytest.mark.parametrize("status", [{}, OLD])
@pytest.mark.parametrize("fields", [{}, {"resources": {"nodes": 2}}])
async def test_a_job_whose_status_is_lost_begins_no_attempt_beside_a_later_one(
    status: dict[str, Any], fields: dict[str, Any]
) -> None:
    cluster = await with_second_attempt(**fields)
    made = {at for at in cluster.kube.objects if at[0] in {JOBS, JOB_SETS}}
    assert [at[2] for at in made] == ["sentiment-1-2"]
    if fields and status:
        make_job(cluster, 2)
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=status)
    await cluster.settle()
    await cluster.wait(15)
    assert {at for at in cluster.kube.objects if at[0] in {JOBS, JOB_SETS}} >= made
    assert (JOB_SETS if fields else JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects
    provider = cluster.status()["provider"]
    assert (provider["attempt"], provider["jobID"]) == (2, "sentiment-1-2")


async def test_where_there_are_no_job_sets_none_has_been_made() -> None:
    cluster = Cluster()
    cluster.kube.refusals["list", "jobsets"] = NotFound(404, "NotFound", "404 page not found")
    cluster.add_namespace()
    cluster.add_connection()
    cluster.add_job(resources={"nodes": 2})
    await cluster.settle()
    assert cluster.status()["provider"]["jobID"] == "sentiment-1-1"


async def test_a_version_that_the_model_has_is_not_made_again_though_an_old_status_is_put_back() -> None:
    cluster = await with_running_job()
    old = cluster.status()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    created = cluster.kube.asked("create", "jobs")
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    cluster.kube.drop(JOBS, "sentiment-1-1")
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=old)
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()
    await cluster.wait(60)
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert cluster.kube.asked("create", "jobs") == created


async def test_later_versions_come_back_though_the_job_of_the_next_number_is_deleted() -> None:
    cluster = await with_versions(1)
    old = cluster.status(MODEL)
    for number in (2, 3):
        await add_version(cluster, f"sentiment-{number}")
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-2")
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status=old)
    await cluster.settle()
    assert [(one["version"], one["job"]) for one in cluster.status(MODEL)["versions"]] == [
        (1, "sentiment-1"),
        (3, "sentiment-3"),
    ]
    await add_version(cluster, "sentiment-4")
    assert cluster.status(MODEL)["versions"][-1]["version"] == 4


async def test_weights_of_a_server_whose_deployment_was_deleted_stay_until_it_is_gone() -> None:
    cluster = await with_versions(1)
    cluster.roll_out()
    await cluster.settle()
    spec = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["spec"]
    manual = {**spec, "historyLimit": 1, "deployment": {"mode": "Manual"}}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=manual)
    cluster.kube.drop(MODEL_DEPLOYMENTS, "sentiment")
    await add_version(cluster, "sentiment-2")
    assert not prunes(cluster), "its server reads them"
    cluster.kube.drop(DEPLOYMENTS, "sentiment")
    await cluster.settle()
    assert prunes(cluster)


def prunes(cluster: Cluster) -> list[str]:
    return [at[2] for at in cluster.kube.objects if at[0] is JOBS and "prune" in at[2]]
