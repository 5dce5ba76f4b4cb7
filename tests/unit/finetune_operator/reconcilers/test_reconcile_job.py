"""A FineTuneJob's whole life over the API port."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.runtime.errors import Conflict, Transient
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    NAMESPACES,
    PODS,
    Resource,
)
from tests.unit.finetune_operator.decide.given import openai_connection
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, MODEL, Cluster, with_job, with_running_job


async def test_a_job_becomes_a_version() -> None:
    cluster = await with_running_job()
    assert cluster.status()["phase"] == "Validating"
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    status = cluster.status()
    assert (status["phase"], status["modelVersion"], status["trainLoss"]) == ("Succeeded", 1, 0.4)
    model = cluster.status(MODEL)
    assert [v["job"] for v in model["versions"]] == ["sentiment-1"]
    assert (model["latestVersion"], model["activeVersion"]) == (1, 1)
    assert model["versions"][0]["loraRank"] == 16
    assert [reason for kind, _, reason in cluster.told if kind == "FineTuneJob"] == ["Succeeded"]


async def test_a_job_asks_little_of_the_api_server() -> None:
    cluster = await with_running_job()
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {}})
    await cluster.settle()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    of_jobs = [verb for verb, plural in cluster.kube.requests if plural in {"jobs", "finetunejobs", "pods"}]
    assert of_jobs.pop(0) == "would_create", "the connection's own check, which is good for an hour"
    assert of_jobs == ["create", "patch_status", "patch_status", "patch_status"], "queued, running, succeeded"


async def test_nothing_is_written_when_nothing_has_changed() -> None:
    cluster = await with_running_job()
    cluster.kube.requests.clear()
    for _ in range(3):
        await cluster.reconcile(JOB)
    await cluster.observer.resync()
    cluster.kube.requests.clear()
    await cluster.settle()
    assert cluster.kube.requests == []


async def test_a_whole_life_with_an_operator_that_is_new_at_every_step() -> None:
    cluster = await with_job()

    async def restart() -> None:
        cluster.restart()
        await cluster.observer.resync()
        await cluster.settle()

    await restart()
    cluster.run_pod()
    await restart()
    cluster.end_pod(0, cluster.result())
    await restart()
    await restart()
    assert cluster.status()["modelVersion"] == 1
    assert len(cluster.status(MODEL)["versions"]) == 1
    assert cluster.kube.asked("create", "jobs") == 1


async def test_a_version_is_registered_once_though_the_operator_ends_before_it_says_so() -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    cluster.kube.refusals["patch_status", "finetunejobs"] = Transient(503, "Unavailable", "no")
    with pytest.raises(Transient):
        await cluster.settle()
    assert len(cluster.status(MODEL)["versions"]) == 1
    cluster.kube.refusals.clear()
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()
    assert cluster.status()["modelVersion"] == 1
    assert [v["version"] for v in cluster.status(MODEL)["versions"]] == [1]


async def test_a_version_is_not_registered_twice_because_a_watch_is_late() -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    version = cluster.status()["modelVersion"]
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status={**cluster.status(), "conditions": []})
    await cluster.settle()
    cluster.store.remove(FINE_TUNED_MODELS, "team-a", "sentiment")
    await cluster.reconcile(JOB)
    assert cluster.status()["modelVersion"] == version
    assert len(cluster.status(MODEL)["versions"]) == 1


async def test_two_jobs_of_one_model_get_a_version_each() -> None:
    cluster = await with_running_job()
    cluster.add_job("sentiment-2")
    await cluster.settle()
    cluster.run_pod(job="sentiment-2")
    for name in ("sentiment-1", "sentiment-2"):
        cluster.end_pod(0, cluster.result(job=name), job=name)
    await cluster.settle()
    versions = cluster.status(MODEL)["versions"]
    assert sorted(v["job"] for v in versions) == ["sentiment-1", "sentiment-2"]
    assert [v["version"] for v in versions] == [1, 2]


async def test_numbers_of_versions_are_never_given_twice() -> None:
    cluster = await with_running_job()
    metadata = {"name": "sentiment", "namespace": "team-a"}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": metadata, "spec": {}, "status": {"latestVersion": 7}})
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert cluster.status()["modelVersion"] == 8


async def test_a_status_that_changed_meanwhile_is_a_conflict_for_the_queue() -> None:
    cluster = await with_running_job()
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status={**cluster.status(), "phase": "Queued"})
    cluster.kube.events.clear()
    cluster.reports.accept(cluster.report("Evaluating"))
    with pytest.raises(Conflict):
        await cluster.reconcile(JOB)


async def annotate_before_each_write(cluster: Cluster, times: int) -> None:
    """Somebody is quicker than each write of a status, so often, and writes beside it."""
    write, left = cluster.kube.patch_status, list(range(times))

    async def late(resource: Resource, name: str, *args: Any) -> dict[str, Any]:
        if left:
            metadata = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", name]["metadata"]
            marks = {"annotations": {"example.com/seen": str(left.pop())}}
            cluster.kube.change(FINE_TUNE_JOBS, name, metadata={**metadata, **marks})
        return await write(resource, name, *args)

    cluster.kube.patch_status = late  # type: ignore[method-assign]


async def test_who_writes_annotations_all_the_time_does_not_keep_a_status_from_being_written() -> None:
    cluster = await with_running_job()
    await annotate_before_each_write(cluster, 4)
    cluster.reports.accept(cluster.report("Evaluating"))
    await cluster.reconcile(JOB)
    assert cluster.status()["phase"] == "Evaluating"


async def test_a_write_that_is_always_late_is_a_conflict_for_the_queue() -> None:
    cluster = await with_running_job()
    await annotate_before_each_write(cluster, 100)
    cluster.reports.accept(cluster.report("Evaluating"))
    with pytest.raises(Conflict):
        await cluster.reconcile(JOB)


async def test_a_job_that_was_deleted_while_it_was_looked_at_is_forgotten() -> None:
    cluster = await with_running_job()
    cluster.reports.accept(cluster.report("Evaluating"))
    uid = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]["uid"]
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.reconcile(JOB)
    assert cluster.store.get(FINE_TUNE_JOBS, "sentiment-1", "team-a") is None
    await cluster.settle()
    assert cluster.reports.last(uid, 1) is None, "reports of deleted jobs are not kept"


# Refusals.


async def test_a_namespace_whose_watch_is_late_is_asked_for_before_a_job_is_refused() -> None:
    cluster = Cluster()
    cluster.add_connection(namespaceSelector={"matchLabels": {"finetune": "yes"}})
    cluster.add_namespace(finetune="yes")
    cluster.add_job()
    late = [event for event in cluster.kube.events if event[0] is NAMESPACES]
    cluster.kube.events = [event for event in cluster.kube.events if event[0] is not NAMESPACES]
    await cluster.settle()
    assert cluster.status()["phase"] == "Queued"
    assert late


async def test_a_connection_whose_watch_is_late_is_asked_for_before_a_job_is_refused() -> None:
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection(fineTuning={"enabled": False})
    await cluster.settle()
    cluster.add_connection()
    cluster.add_job()
    cluster.kube.events = [event for event in cluster.kube.events if event[0] is not CONNECTIONS]
    await cluster.settle()
    assert cluster.status()["phase"] == "Queued"


async def test_a_refused_job_makes_nothing() -> None:
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection(fineTuning={"enabled": False})
    cluster.add_job()
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "FineTuningDisabled"
    assert cluster.kube.asked("create", "jobs") == 0
    assert ("FineTuneJob", "Warning", "FineTuningDisabled") in cluster.told


async def test_a_job_outlives_its_connections_change_to_another_provider() -> None:
    cluster = await with_running_job()
    cluster.kube.drop(CONNECTIONS, "local", "")
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "local"}, "spec": openai_connection().wire()})
    await cluster.settle()
    assert cluster.status()["phase"] == "Validating"
    cluster.end_pod(137)
    await cluster.settle()
    await cluster.wait(60)
    failure = cluster.status()["failure"]
    assert failure["reason"] == "ConnectionNotFound"
    assert "leads to openAI now, and the job was started with huggingFace" in failure["message"]
    cluster.kube.drop(CONNECTIONS, "local", "")
    cluster.add_connection()
    await cluster.settle()
    assert cluster.status()["phase"] == "Queued"


async def test_what_was_made_before_a_connections_change_becomes_a_version() -> None:
    cluster = await with_running_job()
    cluster.kube.drop(CONNECTIONS, "local", "")
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "local"}, "spec": openai_connection().wire()})
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)


async def test_a_missing_connection_is_waited_for() -> None:
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_job()
    await cluster.settle()
    assert cluster.condition("Reconciling")["status"] == "True"
    assert cluster.told == []
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "cloud"}, "spec": openai_connection().wire()})
    others = openai_connection().wire() | {"namespaceSelector": {"matchLabels": {"team": "another"}}}
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "not-ours"}, "spec": others})
    off = openai_connection().wire() | {"fineTuning": {"enabled": False}}
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "serves-only"}, "spec": off})
    await cluster.wait(60)
    assert cluster.condition("Stalled")["reason"] == "ConnectionNotFound"
    assert cluster.condition("Stalled")["message"].endswith("does not exist; this namespace may use cloud")
    cluster.add_connection()
    await cluster.settle()
    assert cluster.status()["phase"] == "Queued"


async def test_a_crash_brings_the_end_of_the_log_without_secrets_and_its_pod_is_deleted() -> None:
    cluster = await with_running_job()
    cluster.kube.log = "Authorization: Bearer abcdefghijklmnop\nZeroDivisionError"
    cluster.end_pod(1)
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert (failure["reason"], failure["exitCode"]) == ("TrainerCrashed", 1)
    assert "ZeroDivisionError" in failure["logTail"]
    assert "abcdefghijklmnop" not in failure["logTail"]
    assert cluster.kube.asked("log", "pods") == 1
    assert (JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects


async def test_a_node_that_gives_no_log_does_not_keep_the_failure_back() -> None:
    cluster = await with_running_job()
    cluster.kube.refusals["log", "pods"] = Transient(502, "BadGateway", "dial tcp: connection refused")
    cluster.end_pod(1)
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "TrainerCrashed"


@pytest.mark.parametrize(
    ("exit_code", "reason"), [(65, "DatasetInvalid"), (67, "ModelNotInCache"), (81, "ModelUnusable")]
)
async def test_no_log_is_read_where_the_reason_says_it_all(exit_code: int, reason: str) -> None:
    cluster = await with_running_job()
    cluster.end_pod(exit_code)
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == reason
    assert cluster.kube.asked("log", "pods") == 0


async def test_a_failed_job_seen_before_its_pods_end_is_not_judged_yet() -> None:
    cluster = await with_running_job()
    cluster.end_pod(137)
    events = list(cluster.kube.take_events())
    pods = [event for event in events if event[0] is PODS]
    for event in events:
        if event[0] is JOBS:
            cluster.observer.handle_event(*event)
    await cluster.settle()
    assert cluster.status()["phase"] == "Validating"
    for event in pods:
        cluster.observer.handle_event(*event)
    await cluster.settle()
    assert cluster.condition("Reconciling")["reason"] == "Retrying"


async def test_an_attempt_is_not_taken_for_lost_because_a_watch_is_late() -> None:
    cluster = await with_running_job()
    cluster.store.remove(JOBS, "team-a", "sentiment-1-1")
    await cluster.reconcile(JOB)
    assert (cluster.status()["phase"], cluster.status()["provider"]["attempt"]) == ("Validating", 1)


async def test_an_evicted_trainer_gets_another_attempt_in_the_same_folder() -> None:
    cluster = await with_running_job()
    folder = cluster.status()["provider"]["artifactURI"]
    cluster.end_pod(75, conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}])
    await cluster.settle()
    assert cluster.status()["provider"]["lastFailure"]["reason"] == "Evicted"
    await cluster.wait(5)
    assert (JOBS, "team-a", "sentiment-1-2") in cluster.kube.objects
    provider_status = cluster.status()["provider"]
    assert (provider_status["attempt"], provider_status["jobID"]) == (2, "sentiment-1-2")
    assert provider_status["artifactURI"] == folder


@pytest.mark.parametrize(("exit_code", "phase"), [(0, "Succeeded"), (1, "Failed")])
async def test_an_end_that_the_watch_of_pods_has_not_told_yet_is_not_taken_for_an_interruption(
    exit_code: int, phase: str
) -> None:
    cluster = await with_job()
    cluster.run_pod()
    cluster.end_pod(exit_code, None if exit_code else cluster.result())
    cluster.kube.events = [event for event in cluster.kube.events if event[0] is not PODS]
    await cluster.settle()
    assert cluster.status()["phase"] == phase
    assert cluster.status()["provider"]["attempt"] == 1


async def test_an_attempt_that_a_former_leader_starts_late_is_ended() -> None:
    cluster = await with_running_job()
    late = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]
    cluster.change_job(suspend=True)
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    await cluster.settle()
    assert (JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects
    cluster.kube.put(JOBS, {"metadata": {**late["metadata"], "uid": ""}, "spec": late["spec"]})
    cluster.run_pod()
    await cluster.settle()
    assert (JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects
    assert cluster.status()["phase"] == "Suspended"


async def test_suspending_ends_the_pod_and_resuming_goes_on() -> None:
    cluster = await with_running_job()
    cluster.change_job(suspend=True)
    await cluster.settle()
    assert (JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects
    assert "stopping" in cluster.condition("Suspended")["message"]
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    await cluster.settle()
    assert "stopping" not in cluster.condition("Suspended")["message"], "the pod's end is heard though its Job is gone"
    cluster.change_job(suspend=False)
    await cluster.settle()
    assert (JOBS, "team-a", "sentiment-1-2") in cluster.kube.objects
    assert cluster.condition("Suspended")["status"] == "False"


async def test_time_to_live_deletes_the_job_and_keeps_the_version() -> None:
    cluster = await with_running_job(ttlSecondsAfterFinished=60)
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    await cluster.wait(60)
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in cluster.kube.objects
    assert len(cluster.status(MODEL)["versions"]) == 1


@pytest.mark.parametrize("edit", [{"ttlSecondsAfterFinished": 600}, {"retryNonce": "again"}])
async def test_a_job_that_was_edited_a_moment_before_the_end_of_its_time_stays(edit: dict[str, Any]) -> None:
    """The watch is late: by what is known the time is over."""
    cluster = await with_running_job(ttlSecondsAfterFinished=60)
    cluster.end_pod(65)
    await cluster.settle()
    assert cluster.status()["phase"] == "Failed"
    cluster.change_job(**edit)
    cluster.now += timedelta(seconds=61)
    with pytest.raises(Conflict):
        await cluster.reconcile(JOB)
    await cluster.settle()
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") in cluster.kube.objects


async def test_a_job_of_the_same_name_does_not_take_its_forerunners_pods_for_its_own() -> None:
    cluster = await with_running_job()
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    cluster.add_job()
    await cluster.settle()
    assert cluster.status()["phase"] == "Pending", "the old Job is still there"
    cluster.kube.drop(JOBS, "sentiment-1-1")
    await cluster.settle()
    assert cluster.status()["phase"] == "Pending", "the old pod may still write"
    cluster.kube.change(PODS, "sentiment-1-1-x", status={"phase": "Succeeded"})
    await cluster.settle()
    assert cluster.status()["phase"] == "Queued", "the old pod says nothing of the new job"


async def test_an_ended_job_whose_status_another_release_wrote_does_not_begin_anew() -> None:
    cluster = await with_running_job()
    cluster.end_pod(65)
    await cluster.settle()
    created = cluster.kube.asked("create", "jobs")
    status = cluster.status()
    newer = {**status, "mood": "good", "failure": {**status["failure"], "reason": "BrandNew"}}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=newer)
    await cluster.settle()
    assert cluster.status()["phase"] == "Failed"
    assert cluster.kube.asked("create", "jobs") == created


async def test_a_models_versions_survive_a_field_of_another_release() -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    model = cluster.status(MODEL)
    newer = {**model, "versions": [{**model["versions"][0], "colour": "red"}]}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status=newer)
    cluster.add_job("sentiment-2")
    await cluster.settle()
    cluster.run_pod(job="sentiment-2")
    cluster.end_pod(0, cluster.result(job="sentiment-2"), job="sentiment-2")
    await cluster.settle()
    assert [v["version"] for v in cluster.status(MODEL)["versions"]] == [1, 2]
