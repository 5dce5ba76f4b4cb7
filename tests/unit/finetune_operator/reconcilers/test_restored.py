"""Objects that come back from a backup, or from Git, into another cluster: their UIDs are others by then.

What a status records goes on under the names that it has. What no status records is left alone and named.
"""

from collections.abc import Collection
from copy import deepcopy
from typing import Any

import pytest

from finetune_api.names import NO_BACKUP_LABEL, RESTORE_LABEL
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    PODS,
    SECRETS,
    Resource,
)
from tests.simulators.azure import AzureSimulator
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import (
    CloudCluster,
    azure,
    go_on,
    rows,
    simulator,
    with_azure_job,
    with_submitted_job,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, JOB, MODEL, Cluster, with_running_job

__all__ = ["start"]

OURS = (CONNECTIONS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, FINE_TUNE_JOBS)
ALL = frozenset(OURS)
NONE: frozenset[Resource] = frozenset()
PUT, GONE = "deployments.create_or_update", "deployments.delete"


async def restore(cluster: Cluster, statuses: Collection[Resource] = ALL, **labels: str) -> None:
    """The cluster is lost with its operator; what was in the backup is applied to a new one."""
    backup = {at: deepcopy(obj) for at, obj in cluster.kube.objects.items()}
    cluster.kube.objects.clear()
    cluster.kube.events.clear()
    created = cluster.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    for resource in (NAMESPACES, SECRETS, *OURS):
        for (kind, _, _), obj in backup.items():
            if kind is not resource:
                continue
            kept = ("name", "namespace", "labels", "annotations", "finalizers")
            metadata = {name: value for name, value in obj["metadata"].items() if name in kept}
            metadata |= {"creationTimestamp": created}
            metadata["labels"] = metadata.get("labels", {}) | labels
            body = {"metadata": metadata} | {part: obj[part] for part in ("spec", "data") if part in obj}
            if resource in statuses and "status" in obj:
                body["status"] = obj["status"]
            cluster.kube.put(resource, body)
    await cluster.accounts.close()
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()


@pytest.fixture
def provider() -> AzureSimulator:
    return azure()


@pytest.fixture
async def cluster(provider: AzureSimulator, start: Any) -> CloudCluster:
    """With a model whose first version answers at Azure."""
    made = await with_azure_job(provider, start(provider))
    template = {"deployment": {"template": {"azureOpenAI": {"sku": "Standard"}}}}
    made.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template})
    await made.settle()
    await made.check(b"\xef\xbb\xbf" + rows())
    await made.settle()
    await go_on(made, 7200, step=120)
    assert made.status(DEPLOYMENT)["phase"] == "Ready"
    return made


async def test_what_answers_goes_on_answering_under_its_name_where_statuses_come_back(cluster, provider):
    before, jobs = cluster.status(DEPLOYMENT)["endpoint"], provider.count("fine_tuning.jobs.create")
    await restore(cluster)
    await go_on(cluster, 3600, step=120)
    assert (cluster.status(DEPLOYMENT)["phase"], cluster.status(DEPLOYMENT)["endpoint"]) == ("Ready", before)
    assert (provider.count(PUT), provider.count(GONE), provider.count("fine_tuning.jobs.create")) == (1, 0, jobs)
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [1]


async def test_a_later_version_takes_the_place_of_one_that_came_back(cluster, provider):
    (before,) = provider.deployments.found
    await restore(cluster)
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(b"\xef\xbb\xbf" + rows(), job="sentiment-2")
    await cluster.settle()
    await go_on(cluster, 10800, step=120)
    assert cluster.status(DEPLOYMENT)["servedVersion"] == 2
    assert list(provider.deployments.found) == [f"{before[:-1]}2"], "one family of names, and nothing left standing"


async def test_what_came_back_is_ended_with_its_object(cluster, provider):
    await restore(cluster)
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await go_on(cluster, 1200, step=120)
    assert (dict(provider.deployments.found), (MODEL_DEPLOYMENTS, "team-a", "sentiment") in cluster.kube.objects) == (
        {},
        False,
    )


def snapshot(cluster: CloudCluster) -> dict[Any, Any]:
    """What etcd holds."""
    return {at: deepcopy(obj) for at, obj in cluster.kube.objects.items()}


async def put_back(cluster: CloudCluster, before: dict[Any, Any]) -> None:
    """The operator was away while etcd went back to what it held before."""
    await cluster.accounts.close()
    cluster.kube.objects.clear()
    cluster.kube.objects.update(before)
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()
    await go_on(cluster, 7200, step=120)


async def with_terms(cluster: CloudCluster, terms: dict[str, str]) -> None:
    """The model says on which terms it is deployed; a job may have made it without any."""
    spec = {"deployment": {"template": {"azureOpenAI": terms}}}
    if (FINE_TUNED_MODELS, "team-a", "sentiment") in cluster.kube.objects:
        cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=spec)
    else:
        cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await go_on(cluster, 3600, step=120)


@pytest.mark.alike
@pytest.mark.parametrize("terms", [{"sku": "Standard"}, {"sku": "Standard", "name": "prod"}], ids=["ours", "chosen"])
@pytest.mark.parametrize("made_by", ["people", "its job"])
@pytest.mark.parametrize("when", ["before its model", "before its deployment"])
async def test_what_was_deployed_is_found_where_etcd_was_put_back_to_before_it(
    start: Any, when: str, made_by: str, terms: dict[str, str]
) -> None:
    provider = azure()
    cluster = await with_azure_job(provider, start(provider))
    if made_by == "people":
        await with_terms(cluster, terms)
    await cluster.settle()
    await cluster.check(b"\xef\xbb\xbf" + rows())
    await cluster.settle()
    before = snapshot(cluster)
    await go_on(cluster, 3600, step=120)
    await with_terms(cluster, terms)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    if when == "before its deployment":
        before = snapshot(cluster)
        del before[MODEL_DEPLOYMENTS, "team-a", "sentiment"]
    stood, made = list(provider.deployments.found), provider.count(PUT)
    await put_back(cluster, before)
    await with_terms(cluster, terms)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    assert (provider.count(PUT), list(provider.deployments.found)) == (made, stood), "the same, and nothing beside it"
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await go_on(cluster, 1200, step=120)
    assert not provider.deployments.found, "it is the object's, and ends with it"


async def test_a_deployment_that_no_status_records_is_left_alone_and_named(cluster, provider):
    (before,) = provider.deployments.found
    await restore(cluster, {FINE_TUNED_MODELS, FINE_TUNE_JOBS, CONNECTIONS})
    await go_on(cluster, 3600, step=120)
    assert provider.count(GONE) == 0
    assert before in provider.deployments.found
    message = cluster.condition("Ready", DEPLOYMENT)["message"]
    assert f"{before} at the provider may be billed" in message
    assert "spec.attach.id" in message
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await go_on(cluster, 1200, step=120)
    assert list(provider.deployments.found) == [before], "it may be another cluster's"


async def test_a_model_is_not_tuned_again_where_its_status_came_back_and_its_jobs_did_not(cluster, provider):
    jobs = provider.count("fine_tuning.jobs.create")
    await restore(cluster, {FINE_TUNED_MODELS, MODEL_DEPLOYMENTS})
    await go_on(cluster, 3600, step=120)
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert provider.count("fine_tuning.jobs.create") == jobs
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [1]


async def test_jobs_that_velero_brings_back_alone_are_held(cluster, provider):
    jobs = provider.count("fine_tuning.jobs.create")
    await restore(cluster, NONE, **{RESTORE_LABEL: "monday"})
    await go_on(cluster, 3600, step=120)
    assert cluster.condition("Stalled")["reason"] == "Restored"
    assert (provider.count("fine_tuning.jobs.create"), provider.count(GONE)) == (jobs, 0)


async def test_a_job_at_its_provider_is_followed_to_its_end_and_leaves_nothing_there(start: Any) -> None:
    provider = simulator()
    cluster = await with_submitted_job(provider, start(provider))
    await restore(cluster)
    await go_on(cluster, 7200, step=120)
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert provider.count("fine_tuning.jobs.create") == 1
    assert [file.filename for file in provider.files.all() if file.purpose == "fine-tune"] == []


async def test_a_job_that_was_asked_for_when_the_cluster_was_lost_is_found_and_not_paid_for_twice(start: Any) -> None:
    provider = simulator()
    cluster = await with_submitted_job(provider, start(provider))
    status = cluster.status()
    asked = {name: value for name, value in status["provider"].items() if name != "jobID"}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=status | {"provider": asked})
    cluster.provider.advance(7 * 86400)
    await restore(cluster)
    await go_on(cluster, 7200, step=120)
    assert cluster.status()["phase"] == "Succeeded"
    assert provider.count("fine_tuning.jobs.create") == 1


async def test_a_model_on_the_cluster_comes_back_with_its_versions_and_trains_none_of_them_again() -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    versions = cluster.status(MODEL)["versions"]
    cluster.now = cluster.now.replace(hour=cluster.now.hour + 1)
    await restore(cluster, {FINE_TUNED_MODELS})
    assert cluster.status()["phase"] == "Succeeded"
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [one["version"] for one in versions]
    cluster.add_job("sentiment-2")
    await cluster.settle()
    assert cluster.status(JOB._replace(name="sentiment-2"))["phase"] == "Queued", "a new one trains"


async def test_a_job_that_is_deleted_and_applied_again_runs_again() -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")
    for at in [at for at in cluster.kube.objects if at[1] == "team-a" and at[2].startswith("sentiment-1-")]:
        cluster.kube.drop(*[at[0], at[2]])
    await cluster.settle()
    cluster.add_job()
    await cluster.settle()
    assert cluster.status()["phase"] == "Queued"


async def test_a_model_whose_status_did_not_come_back_has_its_versions_from_jobs_whose_statuses_did() -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    (version,) = cluster.status(MODEL)["versions"]
    cluster.now = cluster.now.replace(hour=cluster.now.hour + 1)
    await restore(cluster, {FINE_TUNE_JOBS})
    (back,) = cluster.status(MODEL)["versions"]
    assert (back["version"], back["artifact"]) == (version["version"], version["artifact"])


async def test_a_job_at_work_on_the_cluster_goes_on_with_its_next_attempt_in_its_folder() -> None:
    cluster = await with_running_job()
    cluster.reports.accept(cluster.report("Running", progress={"step": 5, "totalSteps": 9, "savedStep": 5}))
    await cluster.settle()
    before = cluster.status()["provider"]
    cluster.now = cluster.now.replace(hour=cluster.now.hour + 1)
    await restore(cluster)
    await cluster.wait(60)
    after = cluster.status()["provider"]
    assert (after["attempt"], after["artifactURI"]) == (before["attempt"] + 1, before["artifactURI"])
    assert cluster.status()["phase"] == "Queued"


async def test_a_backup_leaves_out_what_runs_and_keeps_what_remembers() -> None:
    """An attempt that came back beside its successor would train to its end for nobody, on nodes that cost money."""
    cluster = await with_running_job()
    (work,) = (obj for (kind, _, _), obj in cluster.kube.objects.items() if kind is JOBS)
    (pod,) = (obj for (kind, _, _), obj in cluster.kube.objects.items() if kind is PODS)
    assert work["metadata"]["labels"]["velero.io/exclude-from-backup"] == "true"
    assert pod["metadata"]["labels"]["velero.io/exclude-from-backup"] == "true"
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    remembered = [obj for (kind, _, _), obj in cluster.kube.objects.items() if kind in OURS]
    assert {obj["metadata"]["name"] for obj in remembered} == {"local", "sentiment", "sentiment-1"}
    assert not [obj for obj in remembered if NO_BACKUP_LABEL in obj["metadata"].get("labels", {})]


async def test_who_takes_the_label_off_a_restored_job_while_its_old_pod_runs_is_told_of_that_pod_alone() -> None:
    """A backup of another tool had the pod as well."""
    cluster = await with_running_job()
    pod = deepcopy(cluster.kube.objects[PODS, "team-a", "sentiment-1-1-x"])
    del pod["metadata"]["ownerReferences"], pod["metadata"]["uid"]
    await restore(cluster, NONE, **{RESTORE_LABEL: "monday"})
    cluster.kube.put(PODS, pod)
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "Restored"
    job = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=job["metadata"] | {"labels": {}})
    await cluster.settle()
    assert "the last attempt's pod to end" in cluster.condition("Ready")["message"]
    assert "failure" not in cluster.status()
