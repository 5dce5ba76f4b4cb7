"""Whatever people, policies and nodes do to a job on the cluster, in whatever order: it comes to an end that is told.

Each life is a random course of deeds, the same one each time; MEDDLED_LIVES says of how many, where 15 are not enough.
"""

import os
from collections.abc import Callable
from datetime import timedelta

import pytest

from finetune_api.manifest import Manifest
from finetune_operator.runtime.kube import (
    CONNECTIONS,
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
from tests.unit.finetune_operator.decide.given import ended
from tests.unit.finetune_operator.reconcilers.meddled_world import (
    STRANGERS,
    MeddledWorld,
    a_watch_is_late_or_in_time_again,
    nobody_holds_anything,
    nothing_is_refused,
    the_last_operators_last_write_arrives,
    the_operator_is_killed_at_a_write,
    the_operator_is_killed_soon,
)

LIVES = int(os.environ.get("MEDDLED_LIVES", "15"))
DEEDS = 30
OWN = (FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS)
REFUSED = (
    ("create", "jobs"),
    ("delete", "jobs"),
    ("get", "jobs"),
    ("list", "pods"),
    ("patch_status", "finetunejobs"),
    ("patch_status", "finetunedmodels"),
    ("create", "finetunedmodels"),
    ("apply", "modeldeployments"),
    ("apply", "deployments"),
    ("apply", "jobsets"),
    ("list", "jobsets"),
    ("apply", "services"),
)
DRAINED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicting"}

Deed = Callable[[MeddledWorld], None]
DeedTo = Callable[[MeddledWorld, Resource, Manifest], None]


def to_any(
    *resources: Resource, phase: str = ""
) -> Callable[[Callable[[MeddledWorld, Resource, Manifest], None]], Deed]:
    """A deed that is done to one of these objects, if there is any; of pods, to one in this phase."""

    def decorate(do: DeedTo) -> Deed:
        def deed(world: MeddledWorld) -> None:
            found = world.any(*resources)
            if found is not None and (not phase or found[1]["status"]["phase"] == phase):
                do(world, *found)

        deed.__name__ = do.__name__
        return deed

    return decorate


@to_any(PODS, phase="Pending")
def begins(world: MeddledWorld, _: Resource, pod: Manifest) -> None:
    world.begin(pod)


@to_any(PODS, phase="Running")
def succeeds(world: MeddledWorld, _: Resource, pod: Manifest) -> None:
    world.finish(pod)


@to_any(PODS, phase="Running")
def fails(world: MeddledWorld, _: Resource, pod: Manifest) -> None:
    world.pod_says(pod, phase="Failed", **ended(world.chance.choice([1, 2, 75, 137, 139, 143])))


@to_any(PODS)
def is_evicted(world: MeddledWorld, _: Resource, pod: Manifest) -> None:
    if pod["status"]["phase"] in {"Pending", "Running"}:
        world.pod_says(pod, phase="Failed", reason="Evicted", message="The node was low on resource: memory.")


@to_any(PODS)
def is_drained(world: MeddledWorld, resource: Resource, pod: Manifest) -> None:
    world.pod_says(pod, conditions=[DRAINED])
    world.delete(resource, world.kube.objects[PODS, "team-a", pod["metadata"]["name"]])


@to_any(PODS, DEPLOYMENTS, SERVICES)
def vanishes(world: MeddledWorld, resource: Resource, obj: Manifest) -> None:
    world.kube.drop(resource, obj["metadata"]["name"])


@to_any(*OWN, JOBS, JOB_SETS)
def is_deleted(world: MeddledWorld, resource: Resource, obj: Manifest) -> None:
    world.delete(resource, obj)


@to_any(FINE_TUNE_JOBS)
def is_orphaned(world: MeddledWorld, resource: Resource, job: Manifest) -> None:
    for kind, child in world.all(JOBS, JOB_SETS):
        if any(owner["uid"] == job["metadata"]["uid"] for owner in child["metadata"].get("ownerReferences") or ()):
            world.edit(kind, child, "ownerReferences")
    world.delete(resource, job)


@to_any(*OWN, JOBS, JOB_SETS, PODS)
def is_held(world: MeddledWorld, resource: Resource, obj: Manifest) -> None:
    world.edit(resource, obj, finalizers=[*(obj["metadata"].get("finalizers") or ()), STRANGERS])


@to_any(JOBS, PODS, MODEL_DEPLOYMENTS, DEPLOYMENTS, SERVICES)
def loses_its_labels(world: MeddledWorld, resource: Resource, obj: Manifest) -> None:
    world.edit(resource, obj, labels={})


@to_any(JOBS, MODEL_DEPLOYMENTS, DEPLOYMENTS, SERVICES)
def loses_its_owner(world: MeddledWorld, resource: Resource, obj: Manifest) -> None:
    world.edit(resource, obj, "ownerReferences")


@to_any(*OWN, CONNECTIONS)
def loses_its_status(world: MeddledWorld, resource: Resource, obj: Manifest) -> None:
    world.kube.put(resource, {**obj, "status": {}})


def has_an_old_status_again(world: MeddledWorld) -> None:
    kind, old = world.chance.choice(world.backups)
    present = world.kube.objects.get((kind, "team-a", old["metadata"]["name"]))
    if present is not None and present["metadata"]["uid"] == old["metadata"]["uid"]:
        world.kube.put(kind, {**present, "status": old.get("status", {})})


@to_any(FINE_TUNE_JOBS)
def is_suspended_or_not(world: MeddledWorld, resource: Resource, job: Manifest) -> None:
    world.kube.put(resource, {**job, "spec": {**job["spec"], "suspend": not job["spec"].get("suspend")}})


@to_any(FINE_TUNE_JOBS)
def is_asked_for_again(world: MeddledWorld, resource: Resource, job: Manifest) -> None:
    world.kube.put(resource, {**job, "spec": {**job["spec"], "retryNonce": str(world.chance.random())}})


@to_any(DEPLOYMENTS)
def is_scaled(world: MeddledWorld, resource: Resource, obj: Manifest) -> None:
    world.kube.put(resource, {**obj, "spec": {**obj["spec"], "replicas": world.chance.choice([0, 1, 3])}})


def a_job_comes(world: MeddledWorld) -> None:
    name = world.chance.choice(["sentiment-1", "sentiment-2"])
    if (FINE_TUNE_JOBS, "team-a", name) not in world.kube.objects:
        world.add_job(name, resources={"nodes": world.chance.choice([1, 1, 2])})


def the_connection_goes(world: MeddledWorld) -> None:
    if (CONNECTIONS, "", "local") in world.kube.objects:
        world.kube.drop(CONNECTIONS, "local", None)


def the_connection_changes(world: MeddledWorld) -> None:
    world.add_connection(hugging_face={"maxRetries": world.chance.choice([0, 1, 3])})


def the_clock_leaps(world: MeddledWorld) -> None:
    world.now += timedelta(hours=world.chance.choice([-2, 1, 24]))
    world.kube.now = world.stamp()


def the_job_controller_goes_or_comes(world: MeddledWorld) -> None:
    world.absent = not world.absent


def something_is_refused(world: MeddledWorld) -> None:
    world.refuse_one(REFUSED)


ALL: tuple[Deed, ...] = (
    begins, begins, begins, succeeds, succeeds, fails, is_evicted, is_drained, vanishes, is_deleted, is_orphaned,
    is_held, loses_its_labels, loses_its_owner, loses_its_status, loses_its_status,
    has_an_old_status_again, has_an_old_status_again, the_clock_leaps, is_suspended_or_not, is_asked_for_again,
    is_scaled,
    a_job_comes, a_job_comes, the_connection_goes, the_connection_changes, nobody_holds_anything, something_is_refused,
    nothing_is_refused, the_job_controller_goes_or_comes, the_operator_is_killed_soon,
    the_operator_is_killed_at_a_write, the_operator_is_killed_at_a_write,
    the_last_operators_last_write_arrives, the_last_operators_last_write_arrives,
    a_watch_is_late_or_in_time_again, a_watch_is_late_or_in_time_again,
)  # fmt: skip


async def live(world: MeddledWorld) -> list[str]:
    """A life's course; what was done in it."""
    done = []
    world.add_job()
    for _ in range(DEEDS):
        world.back_up()
        deed = world.chance.choice(ALL)
        done.append(deed.__name__)
        deed(world)
        if world.chance.random() < 0.1:
            await world.replace_operator()  # no watch tells it of what was not heard
        if world.chance.random() < 0.8:
            await world.settle()
        await world.wait(world.chance.choice([0, 1, 5, 15, 60, 300]))
    return done


def is_told(job: Manifest) -> bool:
    """Whether a job's status says how it ended, or what somebody has to do, in words that agree with each other."""
    status = job["status"]
    true = {one["type"] for one in status["conditions"] if one["status"] == "True"}
    told = {"Succeeded": {"Ready", "Complete"}, "Failed": {"Stalled", "Failed"}}.get(status["phase"], {"Stalled"})
    at_rest = told <= true and "Reconciling" not in true and ("failure" in status) == (status["phase"] != "Succeeded")
    return at_rest and status["observedGeneration"] == job["metadata"]["generation"]


@pytest.mark.alike
@pytest.mark.parametrize("seed", range(LIVES))
async def test_a_job_that_is_meddled_with_comes_to_an_end_that_is_told(seed: int) -> None:
    world = MeddledWorld(seed)
    done = await live(world)
    await world.calm_down()
    for _, job in world.all(FINE_TUNE_JOBS):
        assert is_told(job), (job["status"], done)
    for _, obj in world.all(*OWN):
        assert "deletionTimestamp" not in obj["metadata"], (obj, done)
    for _, model in world.all(FINE_TUNED_MODELS):
        made_by = [one.get("jobUID") for one in model["status"].get("versions") or ()]
        assert len(set(made_by)) == len(made_by), (made_by, done)
