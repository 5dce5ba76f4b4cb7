"""Whatever is done to a model, its versions and its server: one is active, what answers has its weights, all ends.

Each life is a random course of deeds, the same one each time; MEDDLED_MODELS says of how many, where 12 are not enough.
"""

import os
import re
from collections.abc import Callable

import orjson
import pytest

from finetune_api.manifest import Manifest
from finetune_api.names import COMPONENT_LABEL, SERVED_VERSION_LABEL
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    PODS,
    SERVICES,
    Resource,
)
from finetune_operator.runtime.queue import Key, Requeue
from tests.unit.finetune_operator.decide.given import ended
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL
from tests.unit.finetune_operator.reconcilers.meddled_world import (
    MeddledWorld,
    a_watch_is_late_or_in_time_again,
    nobody_holds_anything,
    nothing_is_refused,
    the_last_operators_last_write_arrives,
    the_operator_is_killed_at_a_write,
    the_operator_is_killed_soon,
)

LIVES = int(os.environ.get("MEDDLED_MODELS", "12"))
DEEDS = 30
KINDS = (FINE_TUNED_MODELS, MODEL_DEPLOYMENTS)
SERVED = (DEPLOYMENTS, "team-a", "sentiment")
FOLDER = re.compile(rb"team-a/sentiment/(sentiment-\d+)")
REFUSED = (
    ("apply", "deployments"),
    ("apply", "services"),
    ("apply", "modeldeployments"),
    ("create", "jobs"),
    ("create", "finetunedmodels"),
    ("patch_status", "finetunedmodels"),
    ("patch_status", "modeldeployments"),
    ("patch_status", "finetunejobs"),
)


class ServedWorld(MeddledWorld):
    """Versions come whenever a job does; servers come up, or do not; what the operator does is watched."""

    def __init__(self, seed: int) -> None:
        self.made = 0
        self.slow = False
        """Whether new servers do not come up."""
        self.deleted: set[str] = set()
        """Folders whose weights are, or are being, deleted."""
        super().__init__(seed)

    async def reconcile(self, key: Key) -> Requeue | None:
        """One look, and what came of it."""
        before = self.kube.objects.get(SERVED)
        try:
            return await super().reconcile(key)
        finally:
            self._check_the_server(before)
            self._check_what_goes()

    def _check_the_server(self, before: Manifest | None) -> None:
        """The operator takes no server away, and has none begun without its weights."""
        now = self.kube.objects.get(SERVED)
        if before is None or now == before:
            return
        assert now is not None, "the server is gone"
        assert now["spec"]["replicas"] > 0, "no server is wanted"
        assert now["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, "the old go before the new"
        if now["spec"]["template"] != before["spec"]["template"]:
            assert self.deleted.isdisjoint(folders(now)), "its weights are deleted"

    def _check_what_goes(self) -> None:
        """Weights are deleted of what is neither active nor served nor asked for."""
        for _, job in self.all(JOBS):
            labels = job["metadata"].get("labels") or {}
            if labels.get(COMPONENT_LABEL) != "prune" or folders(job) <= self.deleted:
                continue
            needed = self.kube.objects.get(SERVED)
            assert needed is None or folders(job).isdisjoint(folders(needed)), "weights that are served are deleted"
            assert folders(job).isdisjoint(self._asked_for()), "weights that are active or asked for are deleted"
            self.deleted |= folders(job)

    def _asked_for(self) -> set[str]:
        model = self.kube.objects.get((FINE_TUNED_MODELS, "team-a", "sentiment"), {"spec": {}})
        status, served = model.get("status") or {}, self.kube.objects.get((MODEL_DEPLOYMENTS, "team-a", "sentiment"))
        numbers = {status.get("activeVersion"), model["spec"].get("activeVersion")}
        numbers |= {served["spec"].get("version")} if served else set()
        return {one["job"] for one in status.get("versions") or () if one["version"] in numbers}

    def _roll_out(self, deployment: Manifest) -> None:
        if not self.slow:
            super()._roll_out(deployment)

    async def train(self) -> None:
        """A job from its start to its end."""
        self.made += 1
        self.add_job(f"sentiment-{self.made}")
        await self.settle()
        self.end_pods()

    def end_pods(self) -> None:
        for _, pod in self.all(PODS):
            if "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] == "Pending":
                self.begin(pod)
                self.finish(self.kube.objects[PODS, "team-a", pod["metadata"]["name"]])


def folders(obj: Manifest) -> set[str]:
    """The jobs whose weights a pod template names."""
    return {found.decode() for found in FOLDER.findall(orjson.dumps(obj["spec"]["template"]["spec"]))}


def put_spec(world: ServedWorld, resource: Resource, **fields: object) -> None:
    found = world.kube.objects.get((resource, "team-a", "sentiment"))
    if found is not None:
        kept = {key: value for key, value in {**found["spec"], **fields}.items() if value is not None}
        world.kube.put(resource, {**found, "spec": kept})


def is_pinned(world: ServedWorld) -> None:
    put_spec(world, FINE_TUNED_MODELS, activeVersion=world.chance.choice([None, None, *range(1, world.made + 2)]))


def is_activated_otherwise(world: ServedWorld) -> None:
    put_spec(world, FINE_TUNED_MODELS, activation=world.chance.choice(["Automatic", "Manual", "IfBetter"]))


def keeps_fewer(world: ServedWorld) -> None:
    put_spec(world, FINE_TUNED_MODELS, historyLimit=world.chance.randint(1, 3))


def serves_another(world: ServedWorld) -> None:
    put_spec(world, MODEL_DEPLOYMENTS, version=world.chance.choice(["Active", *range(1, world.made + 2)]))


def is_deployed_by_hand_or_not(world: ServedWorld) -> None:
    put_spec(world, FINE_TUNED_MODELS, deployment={"mode": world.chance.choice(["Automatic", "Manual"])})


def is_deleted(world: ServedWorld) -> None:
    if found := world.any(*KINDS, FINE_TUNE_JOBS, JOBS):
        world.delete(*found)


def vanishes(world: ServedWorld) -> None:
    if found := world.any(DEPLOYMENTS, SERVICES, PODS):
        world.kube.drop(found[0], found[1]["metadata"]["name"])


def is_held(world: ServedWorld) -> None:
    if found := world.any(*KINDS, DEPLOYMENTS, SERVICES):
        world.edit(*found, finalizers=["example.com/hold"])


def loses_labels_or_owner(world: ServedWorld) -> None:
    if found := world.any(MODEL_DEPLOYMENTS, DEPLOYMENTS, SERVICES):
        world.edit(*found, *world.chance.choice([("labels",), ("ownerReferences",)]))


def loses_its_status(world: ServedWorld) -> None:
    found = world.any(*KINDS, CONNECTIONS, FINE_TUNE_JOBS)
    if found and (found[0] is not FINE_TUNE_JOBS or is_known(world, found[1])):
        world.kube.put(found[0], {**found[1], "status": {}})


def is_known(world: ServedWorld, job: Manifest) -> bool:
    """Whether somebody else knows what a job has made; a model that was deleted, and made anew by another, does not."""
    model = world.kube.objects.get((FINE_TUNED_MODELS, "team-a", "sentiment"), {})
    status = model.get("status") or {}
    known = {one["jobUID"] for one in (*status.get("versions", ()), *status.get("letGo", ()))}
    return "modelVersion" not in (job.get("status") or {}) or job["metadata"]["uid"] in known


def has_an_old_status_again(world: ServedWorld) -> None:
    kind, old = world.chance.choice([one for one in world.backups if one[0] is not FINE_TUNE_JOBS])
    present = world.kube.objects.get((kind, "team-a", old["metadata"]["name"]))
    if present is not None and present["metadata"]["uid"] == old["metadata"]["uid"]:
        world.kube.put(kind, {**present, "status": old.get("status", {})})


def is_scaled(world: ServedWorld) -> None:
    if found := world.any(DEPLOYMENTS):
        world.kube.put(DEPLOYMENTS, {**found[1], "spec": {**found[1]["spec"], "replicas": world.chance.choice([1, 3])}})


def servers_come_up_or_do_not(world: ServedWorld) -> None:
    world.slow = not world.slow


def pods_end(world: ServedWorld) -> None:
    world.end_pods()


def a_pod_fails(world: ServedWorld) -> None:
    found = world.any(PODS)
    if found and found[1]["status"]["phase"] == "Pending":
        world.pod_says(found[1], phase="Failed", **ended(1))


def the_connection_goes_or_comes(world: ServedWorld) -> None:
    if (CONNECTIONS, "", "local") in world.kube.objects:
        world.kube.drop(CONNECTIONS, "local", None)
    else:
        world.add_connection()


def something_is_refused(world: ServedWorld) -> None:
    world.refuse_one(REFUSED)


ALL: tuple[Callable[[ServedWorld], None], ...] = (
    is_pinned, is_pinned, is_activated_otherwise, keeps_fewer, keeps_fewer, serves_another, is_deployed_by_hand_or_not,
    is_deleted, vanishes, is_held, loses_labels_or_owner, loses_its_status, has_an_old_status_again, is_scaled,
    servers_come_up_or_do_not, pods_end, pods_end, a_pod_fails, the_connection_goes_or_comes, something_is_refused,
    nothing_is_refused, nobody_holds_anything, the_operator_is_killed_soon,
    the_operator_is_killed_at_a_write, the_operator_is_killed_at_a_write,
    the_last_operators_last_write_arrives, the_last_operators_last_write_arrives,
    a_watch_is_late_or_in_time_again, a_watch_is_late_or_in_time_again,
)  # fmt: skip


async def live(world: ServedWorld) -> list[str]:
    """A life's course; what was done in it."""
    done = []
    for number in range(DEEDS):
        world.back_up()
        if number % 5 == 0:
            done.append("a version comes")
            await world.train()
        deed = world.chance.choice(ALL)
        done.append(deed.__name__)
        deed(world)
        if world.chance.random() < 0.1:
            await world.replace_operator()  # no watch tells it of what was not heard
        if world.chance.random() < 0.8:
            await world.settle()
        await world.wait(world.chance.choice([0, 1, 15, 60, 300]))
    return done


async def rest(world: ServedWorld) -> None:
    """Everybody is well, and wants what is newest."""
    world.slow = False
    wishes = {"activeVersion": None, "activation": "Automatic", "deployment": {"mode": "Automatic"}}
    await world.calm_down()
    for _, job in world.all(JOBS):
        failed = any(one["type"] == "Failed" for one in (job.get("status") or {}).get("conditions") or ())
        if failed and (job["metadata"].get("labels") or {}).get(COMPONENT_LABEL) == "prune":
            world.delete(JOBS, job)  # as the condition Cleaned says
    put_spec(world, FINE_TUNED_MODELS, **wishes)
    put_spec(world, MODEL_DEPLOYMENTS, version="Active")
    await world.train()
    await world.calm_down()


@pytest.mark.alike
@pytest.mark.parametrize("seed", range(LIVES))
async def test_of_a_model_that_is_meddled_with_the_newest_version_answers_in_the_end(seed: int) -> None:
    world = ServedWorld(seed)
    done = await live(world)
    await rest(world)
    model, deployment, server = world.status(MODEL), world.status(DEPLOYMENT), world.kube.objects[SERVED]
    numbers = [one["version"] for one in model["versions"]]
    assert numbers == sorted(set(numbers)), done
    assert model["activeVersion"] == numbers[-1] == deployment["servedVersion"], (model, deployment, done)
    assert model["versions"][-1]["job"] == f"sentiment-{world.made}", done
    assert server["spec"]["template"]["metadata"]["labels"][SERVED_VERSION_LABEL] == str(numbers[-1]), done
    assert folders(server) == {f"sentiment-{world.made}"}, done
    for key in (MODEL, DEPLOYMENT):
        assert world.condition("Ready", key)["status"] == "True", (world.status(key), done)
    limit = world.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["spec"].get("historyLimit", 10)
    assert len(numbers) <= limit, done
    assert [at[2] for at in world.kube.objects if at[0] in {DEPLOYMENTS, SERVICES}] == ["sentiment", "sentiment"], done
