"""Which objects a change concerns, and how the store is kept as the cluster is."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from finetune_api.names import ATTEMPT_LABEL
from finetune_operator.decide.connection import NO_NAMESPACE
from finetune_operator.desired import names
from finetune_operator.handlers.observer import YIELD_EVERY, Observer
from finetune_operator.reconcilers.object_metrics import register_object_metrics
from finetune_operator.reconcilers.watched.affected import affected
from finetune_operator.reconcilers.watched.observed import make_store
from finetune_operator.runtime.errors import Transient, WentBack
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    PODS,
    SERVICES,
    Resource,
)
from finetune_operator.runtime.metrics import REGISTRY, UNWATCHED
from finetune_operator.runtime.queue import Key, Lane
from finetune_operator.runtime.store import Store
from tests.unit.finetune_operator.desired.given_names import LONG_NAME
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, MODEL, Cluster, with_job, with_running_job

LOCAL = Key(CONNECTIONS.kind, "", "local")


HOSTED = {"name": "d", "connection": "bedrock"}


def known() -> Store:
    """Two jobs of one model and connection, deployments of it, of another model, and of what is elsewhere."""
    store = make_store()
    for name in ("one", LONG_NAME):
        spec = {"connectionRef": {"name": "local"}, "modelRef": {"name": "m"}}
        store.put(FINE_TUNE_JOBS, {"metadata": {"name": name, "namespace": "team-a"}, "spec": spec})
    store.put(FINE_TUNE_JOBS, {"metadata": {"name": "other", "namespace": "team-b"}, "spec": {}})
    for name, model, hosted in (("m", "m", []), ("side", "other", []), ("far", "x", [HOSTED])):
        metadata = {"name": name, "namespace": "team-a"}
        spec, status = {"modelRef": {"name": model}}, {"hosted": hosted}
        store.put(MODEL_DEPLOYMENTS, {"metadata": metadata, "spec": spec, "status": status})
    for name, connection in (("m", "local"), ("other", "azure")):
        status = {"versions": [{"version": 1, "connection": connection}]}
        store.put(FINE_TUNED_MODELS, {"metadata": {"name": name, "namespace": "team-a"}, "status": status})
    nobody = {"type": "Ready", "status": "True", "reason": "Ready", "message": NO_NAMESPACE}
    store.put(CONNECTIONS, {"metadata": {"name": "unused"}, "status": {"conditions": [nobody]}})
    return store


def obj(name: str, namespace: str = "team-a", owner: tuple[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": fields.pop("labels", {})}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "uid": "u"}]
    return {"metadata": metadata, **fields}


JOBS_OF_A = {("FineTuneJob", "team-a", "one"), ("FineTuneJob", "team-a", LONG_NAME)}


@pytest.mark.parametrize(
    ("resource", "changed", "woken"),
    [
        (FINE_TUNE_JOBS, obj("one"), {("FineTuneJob", "team-a", "one")}),
        (NAMESPACES, {"metadata": {"name": "team-a"}}, JOBS_OF_A | {("LLMConnection", "", "unused")}),
        (CONNECTIONS, obj("local", ""), JOBS_OF_A | {LOCAL, ("ModelDeployment", "team-a", "m")}),
        (CONNECTIONS, obj("azure", ""), {("LLMConnection", "", "azure"), ("ModelDeployment", "team-a", "side")}),
        (CONNECTIONS, obj("bedrock", ""), {("LLMConnection", "", "bedrock"), ("ModelDeployment", "team-a", "far")}),
        (FINE_TUNED_MODELS, obj("m"), {("FineTunedModel", "team-a", "m"), ("ModelDeployment", "team-a", "m")}),
        (
            MODEL_DEPLOYMENTS,
            obj("side", spec={"modelRef": {"name": "other"}}),
            {("ModelDeployment", "team-a", "side"), ("FineTunedModel", "team-a", "other")}
            | {("FineTunedModel", "team-a", "side")},
        ),
        (JOBS, obj("one-1", labels={"finetune.dev/job": "one"}), {("FineTuneJob", "team-a", "one")}),
        (JOBS, obj("x-prune", owner=("FineTunedModel", "m")), {("FineTunedModel", "team-a", "m")}),
        (PODS, obj("one-1-x", labels={"finetune.dev/job": "one"}), {("FineTuneJob", "team-a", "one")}),
        (
            PODS,
            obj("x", labels={"finetune.dev/job": names.fit(LONG_NAME)}),
            {("FineTuneJob", "team-a", LONG_NAME)},
        ),
        (
            PODS,
            obj("m-x", labels={"finetune.dev/deployment": "m"}),
            {("ModelDeployment", "team-a", "m"), ("FineTunedModel", "team-a", "m")},
        ),
        (
            DEPLOYMENTS,
            obj("side", labels={"finetune.dev/deployment": "side"}),
            {("ModelDeployment", "team-a", "side"), ("FineTunedModel", "team-a", "other")},
        ),
        (PODS, obj("gone-x", labels={"finetune.dev/deployment": "gone"}), {("ModelDeployment", "team-a", "gone")}),
        (SERVICES, obj("m", owner=("ModelDeployment", "m")), {("ModelDeployment", "team-a", "m")}),
        (PODS, obj("stranger"), set()),
        (PODS, obj("x", owner=("Job", "unknown")), set()),
    ],
)
def test_whom_a_change_concerns(resource: Resource, changed: dict[str, Any], woken: set[tuple[str, str, str]]) -> None:
    assert {tuple(key) for key in affected(resource, changed, known())} == woken


async def test_an_older_state_wakes_nobody_and_is_not_kept() -> None:
    cluster = await with_running_job()
    old = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
    stale = {**old, "metadata": {**old["metadata"], "resourceVersion": "1"}, "status": {}}
    cluster.observer.handle_event(FINE_TUNE_JOBS, "MODIFIED", stale)
    assert cluster.queue == []
    present = cluster.store.get(FINE_TUNE_JOBS, "sentiment-1", "team-a")
    assert present is not None
    assert present["status"]["phase"] == "Validating"


@pytest.mark.parametrize(
    ("change", "wakes"),
    [
        ({"metadata": {"annotations": {"cattle.io/status": "2"}}}, False),
        ({"status": {"phase": "Active", "conditions": [{"type": "X", "status": "True"}]}}, False),
        ({"metadata": {"labels": {"finetune": "no"}}}, True),
        ({"status": {"phase": "Terminating"}}, True),
    ],
    ids=lambda value: "" if isinstance(value, bool) else str(value),
)
async def test_what_nobody_reads_of_a_namespace_wakes_none_of_its_jobs(change: dict[str, Any], wakes: bool) -> None:
    cluster = await with_running_job()
    cluster.kube.change(NAMESPACES, "team-a", None, status={"phase": "Active"})
    await cluster.settle()
    before = cluster.kube.objects[NAMESPACES, "", "team-a"]
    after = {**before, **change, "metadata": {**before["metadata"], **change.get("metadata", {})}}
    cluster.kube.put(NAMESPACES, after)
    cluster.hear()
    assert cluster.queue == ([JOB] if wakes else [])


async def test_annotations_of_others_are_neither_kept_nor_news_and_ours_are_both() -> None:
    """A manifest as it was applied last, or what a tool syncs from Git by: up to 256 KiB of each object."""
    cluster = await with_job()
    metadata = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]
    others = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 200_000}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=metadata | {"annotations": others})
    cluster.hear()
    assert cluster.queue == []
    kept = cluster.store.get(FINE_TUNE_JOBS, "sentiment-1", "team-a")
    assert kept is not None
    assert len(str(kept)) < 10_000
    ours = others | {"finetune.dev/abandon": "true"}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=metadata | {"annotations": ours})
    cluster.hear()
    assert [key.name for key in cluster.queue] == ["sentiment-1"]
    cluster.run_pod()
    await cluster.settle()
    annotations = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]["annotations"]
    assert annotations == ours, "what is not kept is not taken away"


async def test_a_deletion_that_a_watch_missed_is_found_by_the_next_listing() -> None:
    cluster = await with_running_job()
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    cluster.kube.events.clear()
    await cluster.observer.resync()
    await cluster.settle()
    assert cluster.store.addresses(FINE_TUNE_JOBS) == []
    assert cluster.store.addresses(PODS) == []


async def test_a_deletion_that_no_watch_told_is_found_when_kopf_has_listed_again() -> None:
    cluster = await with_running_job()
    listing = cluster.observer.start_listing(PODS, None)
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    cluster.kube.events.clear()
    cluster.observer.end_listing(PODS, None, listing)
    assert cluster.store.addresses(PODS) == []
    assert cluster.queue == [Key("FineTuneJob", "team-a", "sentiment-1")]


async def test_nothing_is_looked_at_before_every_kind_was_listed_and_then_everything_is() -> None:
    cluster = await with_running_job()
    known, queue = make_store(), list[Key]()
    observer = Observer(cluster.kube, known, lambda key, *_: queue.append(key))  # type: ignore[arg-type]
    beginning = asyncio.create_task(observer.wait_until_synced())
    listings = {place: observer.start_listing(*place) for place in observer.places()}
    for (resource, namespace), listing in listings.items():
        assert (queue, beginning.done()) == ([], False)
        for found in await cluster.kube.list(resource):
            observer.handle_event(resource, None, found)
        observer.end_listing(resource, namespace, listing)
    await beginning
    assert {key.kind for key in queue} == {"FineTuneJob", "LLMConnection"}
    assert known.addresses(PODS) == cluster.store.addresses(PODS) != []


async def of_two_namespaces(cluster: Cluster) -> tuple[Observer, Store, list[Key]]:
    """An observer that knows team-a, with a running job, and team-b."""
    store, queue = make_store(), list[Key]()
    enqueue: Any = lambda key, *_: queue.append(key)  # noqa: E731
    observer = Observer(cluster.kube, store, enqueue, ("team-a", "team-b"))  # type: ignore[arg-type]
    for place in observer.places():
        await take_in(observer, cluster, *place)
    return observer, store, queue


async def take_in(observer: Observer, cluster: Cluster, resource: Resource, namespace: str | None) -> None:
    listing = observer.start_listing(resource, namespace)
    for found in await cluster.kube.list(resource, namespace):
        observer.handle_event(resource, None, found)
    observer.end_listing(resource, namespace, listing)


def unwatched() -> set[str]:
    """Namespaces that an alert is raised for."""
    return {sample.labels["object_namespace"] for family in UNWATCHED.collect() for sample in family.samples}


async def test_nothing_is_done_in_a_namespace_that_may_not_be_watched_until_all_of_it_is_known_again() -> None:
    cluster = await with_running_job()
    observer, store, queue = await of_two_namespaces(cluster)
    assert observer.shut("team-a"), "team-b is left"
    queue.clear()
    assert (observer.is_shut("team-a"), store.addresses(FINE_TUNE_JOBS), store.addresses(PODS)) == (True, [], [])
    assert "team-a" in unwatched()
    places = [place for place in observer.places() if place[1] == "team-a"]
    for place in places:
        assert queue == [], "its pods are not known yet"
        await take_in(observer, cluster, *place)
        observer.handle_event(NAMESPACES, "MODIFIED", cluster.kube.objects[NAMESPACES, "", "team-a"])
    assert not observer.is_shut("team-a")
    assert "team-a" not in unwatched()
    assert JOB in queue
    assert store.addresses(PODS) == cluster.store.addresses(PODS)
    assert not (observer.shut("team-b") and observer.shut("team-a")), "none is left"


async def test_a_namespace_that_may_not_be_watched_from_the_beginning_keeps_nobody_from_beginning() -> None:
    cluster = await with_running_job()
    store, queue = make_store(), list[Key]()
    enqueue: Any = lambda key, *_: queue.append(key)  # noqa: E731
    observer = Observer(cluster.kube, store, enqueue, ("team-a", "gone"))  # type: ignore[arg-type]
    observer.shut("gone")
    for place in observer.places():
        if place[1] != "gone":
            await take_in(observer, cluster, *place)
    async with asyncio.timeout(5):
        await observer.wait_until_synced()
    assert JOB in queue


async def test_a_listing_does_not_forget_what_was_made_while_it_was_read() -> None:
    cluster = await with_running_job()
    listing = cluster.kube.list

    async def slow_listing(resource: Resource, *args: Any, **selectors: Any) -> list[dict[str, Any]]:
        found = await listing(resource, *args, **selectors)
        if resource is FINE_TUNE_JOBS:
            cluster.add_job("made-meanwhile")
            for event in cluster.kube.take_events():
                cluster.observer.handle_event(*event)
        return found

    cluster.kube.list = slow_listing  # type: ignore[method-assign]
    await cluster.observer.resync()
    assert cluster.store.get(FINE_TUNE_JOBS, "made-meanwhile", "team-a") is not None


async def turns_during(work: Awaitable[None]) -> int:
    """How often the event loop has gone round until the work is done."""
    working, turns = asyncio.ensure_future(work), 0
    while not working.done():
        await asyncio.sleep(0)
        turns += 1
    await working
    return turns


async def test_other_work_gets_its_turn_while_a_listing_is_taken_in() -> None:
    cluster = Cluster()
    for number in range(20 * YIELD_EVERY):
        cluster.add_job(f"job-{number}")
    assert await turns_during(cluster.observer.resync()) >= 20


async def test_a_resync_looks_at_every_object_of_ours() -> None:
    cluster = await with_running_job()
    await cluster.observer.resync()
    assert cluster.lanes == {JOB: Lane.SWEEP, LOCAL: Lane.SWEEP}


async def test_jobs_of_a_connection_that_changes_are_swept_and_the_connection_itself_is_not() -> None:
    cluster = await with_running_job()
    cluster.add_connection(fine_tuning={"enabled": False})
    cluster.hear()
    assert cluster.lanes == {JOB: Lane.SWEEP, LOCAL: Lane.OTHERS}


async def test_a_job_that_is_new_and_one_that_has_ended_have_lanes_and_one_that_has_changed_has_none() -> None:
    cluster = await with_running_job()
    cluster.add_job("new")
    cluster.change_job(suspend=True)
    cluster.hear()
    assert cluster.lanes == {Key("FineTuneJob", "team-a", "new"): Lane.NEW, JOB: Lane.OTHERS}
    cluster.end_pod(0, cluster.result())
    cluster.hear()
    assert cluster.lanes[JOB] is Lane.ENDED


async def test_an_end_is_told_in_the_lane_of_ends_from_its_pod_to_its_version_and_status() -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    passed = []
    while True:
        cluster.hear()
        if not cluster.queue:
            break
        key = cluster.queue.pop(0)
        passed.append((key, cluster.lanes.pop(key)))
        await cluster.reconcile(key)
    ends = [(JOB, Lane.ENDED), (MODEL, Lane.ENDED), (JOB, Lane.ENDED)]
    assert [step for step in passed if step in ends] == ends
    assert cluster.status()["phase"] == "Succeeded"


async def test_only_the_namespaces_that_are_looked_after_are_listed() -> None:
    cluster = Cluster()
    cluster.add_job()
    cluster.kube.put(FINE_TUNE_JOBS, {"metadata": {"name": "x", "namespace": "team-b"}, "spec": {}})
    cluster.observer._namespaces = ("team-b",)
    await cluster.observer.resync()
    assert cluster.store.addresses(FINE_TUNE_JOBS) == [("team-b", "x")]


SCHEDULED = {"type": "PodScheduled", "status": "True"}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}


@pytest.mark.parametrize(
    ("resource", "name", "status", "woken"),
    [
        (PODS, "sentiment-1-1-x", {"phase": "Pending", "conditions": [SCHEDULED]}, False),
        (PODS, "sentiment-1-1-x", {"phase": "Pending", "podIP": "10.0.0.1", "hostIP": "10.0.0.2"}, False),
        (PODS, "sentiment-1-1-x", {"phase": "Pending", "conditions": [UNSCHEDULABLE]}, True),
        (PODS, "sentiment-1-1-x", {"phase": "Running"}, True),
        (JOBS, "sentiment-1-1", {"active": 1, "ready": 0, "startTime": "2026-11-21T12:00:00Z"}, False),
        (JOBS, "sentiment-1-1", {"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}]}, False),
        (JOBS, "sentiment-1-1", {"conditions": [{"type": "Complete", "status": "True"}]}, True),
        (JOBS, "sentiment-1-1", {"conditions": [{"type": "FailureTarget", "status": "True"}]}, True),
    ],
)
async def test_only_what_a_decision_rests_on_wakes_a_job(
    resource: Resource, name: str, status: dict[str, Any], woken: bool
) -> None:
    cluster = await with_job()
    cluster.run_pod(phase="Pending")
    await cluster.settle()
    cluster.kube.change(resource, name, status=status)
    for event in cluster.kube.take_events():
        cluster.observer.handle_event(*event)
    assert (cluster.queue == [JOB]) is woken


@pytest.mark.parametrize(
    ("status", "woken"),
    [
        ({"phase": "Pending", "qosClass": "Burstable"}, False),
        ({"phase": "Pending", "conditions": [UNSCHEDULABLE]}, True),
        ({"phase": "Pending", "initContainerStatuses": [{"name": "fetch", "state": {"waiting": {}}}]}, True),
    ],
)
async def test_a_new_pod_of_which_nobody_has_heard_wakes_nobody(status: dict[str, Any], woken: bool) -> None:
    cluster = await with_job()
    cluster.run_pod(phase="Pending")
    ((resource, kind, pod),) = cluster.kube.take_events()
    cluster.observer.handle_event(resource, kind, {**pod, "status": status})
    assert (cluster.queue == [JOB]) is woken
    assert cluster.store.get(PODS, "sentiment-1-1-x", "team-a")


@pytest.mark.parametrize(("under_way", "of", "woken"), [(1, 2, True), (2, 1, True), (2, 2, False)])
async def test_a_new_pod_of_an_attempt_that_is_not_under_way_wakes_its_job_at_once(
    under_way: int, of: int, woken: bool
) -> None:
    """What a leader had sent before it was replaced arrives when nobody waits for it, and is not to train."""
    cluster = await with_job()
    job = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
    job["status"]["provider"]["attempt"] = under_way
    cluster.store.put(FINE_TUNE_JOBS, job)
    cluster.run_pod(phase="Pending")
    ((resource, kind, pod),) = cluster.kube.take_events()
    late = {**pod["metadata"], "labels": {**pod["metadata"]["labels"], ATTEMPT_LABEL: str(of)}}
    cluster.observer.handle_event(resource, kind, {**pod, "metadata": late, "status": {"phase": "Pending"}})
    assert (cluster.queue == [JOB]) is woken


async def test_the_end_of_a_batch_job_is_no_news_of_a_job_that_is_complete_and_a_new_one_is() -> None:
    cluster = await with_running_job()
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    late = {"metadata": {**cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]["metadata"], "name": "sentiment-1-9"}}
    for status, woken in ((complete, []), ({}, [JOB])):
        cluster.kube.put(JOBS, {**late, "spec": {}, "status": status})
        for event in cluster.kube.take_events():
            cluster.observer.handle_event(*event)
        assert cluster.queue == woken


async def test_a_jobs_own_write_does_not_make_it_be_looked_at_again() -> None:
    cluster = await with_job()
    cluster.run_pod(phase="Pending")
    await cluster.settle()
    cluster.kube.change(PODS, "sentiment-1-1-x", status={"phase": "Running"})
    for event in cluster.kube.take_events():
        cluster.observer.handle_event(*event)
    await cluster.reconcile(cluster.queue.pop())
    (echo,) = cluster.kube.take_events()
    cluster.observer.handle_event(*echo)
    assert (echo[0], cluster.queue) == (FINE_TUNE_JOBS, [])


async def test_half_a_listing_has_everything_looked_at_too() -> None:
    cluster = await with_running_job()
    cluster.kube.refusals["list", "finetunejobs"] = Transient(503, "Unavailable", "no")
    with pytest.raises(Transient):
        await cluster.observer.resync()
    assert JOB in cluster.queue


async def test_a_listing_of_a_server_that_was_put_back_ends_all() -> None:
    cluster = await with_running_job()
    job = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
    job["metadata"]["resourceVersion"] = "1"
    with pytest.raises(WentBack, match="finetunejobs team-a/sentiment-1 is older than it was"):
        await cluster.observer.resync()


def stuck() -> dict[tuple[str, ...], float]:
    """What the metrics say of objects that do not get on."""
    return {
        tuple(sample.labels[name] for name in ("kind", "object_namespace", "reason")): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "finetune_stuck_objects"
    }


def saying(kind: str, reason: str, *more: str, status: str = "True") -> dict[str, Any]:
    told = [{"type": kind, "status": status, "reason": reason}]
    return {"conditions": [*told, *({"type": one, "status": "True", "reason": reason} for one in more)]}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (saying("Stalled", "ConnectionNotFound"), "ConnectionNotFound"),
        (saying("Stalled", "TrainerSilent"), "TrainerSilent"),
        (saying("Reconciling", "Unschedulable"), "Unschedulable"),
        (saying("Reconciling", "PodRejected"), "Unschedulable"),
        (saying("Stalled", "PodRejected"), "PodRejected"),
        (saying("Reconciling", "Running"), None),
        (saying("Stalled", "Ready", status="False"), None),
        (saying("Stalled", "DatasetInvalid", "Failed"), None),
        (saying("Ready", "Succeeded", "Complete"), None),
        ({}, None),
    ],
)
def test_metrics_count_the_jobs_that_do_not_get_on_by_their_reason(status: dict[str, Any], reason: str | None) -> None:
    store = known()
    register_object_metrics(store)
    store.put(FINE_TUNE_JOBS, obj("one", status=status))
    assert stuck() == ({("FineTuneJob", "team-a", reason): 1} if reason else {})
    store.put(FINE_TUNE_JOBS, obj("one", status=saying("Reconciling", "Running")))
    assert not stuck()


def test_metrics_count_whatever_else_is_stalled() -> None:
    store = known()
    register_object_metrics(store)
    store.put(CONNECTIONS, {"metadata": {"name": "cloud"}, "status": saying("Stalled", "CredentialsInvalid")})
    store.put(FINE_TUNED_MODELS, obj("m", status=saying("Stalled", "VersionNotFound")))
    for name in ("m", "side"):
        store.put(MODEL_DEPLOYMENTS, obj(name, status=saying("Stalled", "DeploymentFailed")))
    assert stuck() == {
        ("LLMConnection", "", "CredentialsInvalid"): 1,
        ("FineTunedModel", "team-a", "VersionNotFound"): 1,
        ("ModelDeployment", "team-a", "DeploymentFailed"): 2,
    }
