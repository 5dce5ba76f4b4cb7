"""A Cluster with simulated Kubernetes controllers and a kubelet beside the operator, all of which may fail."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partialmethod
from random import Random
from typing import Any

from finetune_api.manifest import Manifest
from finetune_api.names import ATTEMPT_LABEL, JOB_LABEL, JOB_UID_LABEL, TRAINER_CONTAINER
from finetune_api.trainer import termination_message
from finetune_operator.decide.job.attempt_pods import ENDED
from finetune_operator.desired import names
from finetune_operator.providers.hugging_face.training import BATCH_JOB_LABEL
from finetune_operator.runtime.errors import Conflict, Forbidden, KubeError, Transient, Unadmitted
from finetune_operator.runtime.kube import (
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOB_SETS,
    JOBS,
    MODEL_DEPLOYMENTS,
    OWN_KINDS,
    PODS,
    Resource,
)
from finetune_operator.runtime.queue import Key
from tests.unit.finetune_operator.decide.given import ended
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster
from tests.unit.finetune_operator.reconcilers.fake_kube import Event, FakeKube, Killed

STRANGERS = "example.com/hold"
LOOKS = 150
"""Maximum reconciles while nothing changes; more of them mean an endless loop."""
GRACE = 120
WATCHED = (FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, JOBS, PODS, DEPLOYMENTS)


class SlowLine(FakeKube):
    """Delivers a killed operator's last write late: a server cannot tell it from a timely one."""

    on_its_way: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None
    """Method and arguments of the previous operator's last write."""
    writes_left: int | None = None
    """Number of writes answered before the operator is killed while the next one is in flight."""

    async def _send(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                self.killed_in, self.writes_left = 0, None
        try:
            return await getattr(super(), method)(*args, **kwargs)
        except Killed:
            self.on_its_way = method, args, kwargs
            raise

    create = partialmethod(_send, "create")
    apply = partialmethod(_send, "apply")
    patch_status = partialmethod(_send, "patch_status")
    merge_patch = partialmethod(_send, "merge_patch")
    delete = partialmethod(_send, "delete")

    async def arrive(self) -> None:
        """Carry out the write in flight, if any; nothing waits for its answer."""
        late, self.on_its_way = self.on_its_way, None
        if late is not None:
            (method, args, kwargs), left, self.killed_in = late, self.killed_in, None
            with suppress(KubeError):
                await getattr(super(), method)(*args, **kwargs)
            self.killed_in = left


class MeddledWorld(Cluster):
    """One method per disturbance; `settle` runs operator, controllers and kubelet until none has work."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.kube: SlowLine = SlowLine()
        self.restart()
        self.arrives = False
        """Whether the write in flight arrives now."""
        self.at_once = 1
        """How many attempts of one job may run: one more after a previous operator's write arrived, until it ends."""
        self.chance = Random(seed)
        self.absent = False
        """Whether the Job controller is down."""
        self.late: set[Resource] = set()
        """Kinds whose watch events are held back for now."""
        self._untold: list[Event] = []
        self._pods = 0
        self.backups: list[tuple[Resource, Manifest]] = []
        """Earlier copies of our objects."""
        self.add_namespace()
        self.add_connection()

    def all(self, *resources: Resource) -> list[tuple[Resource, Manifest]]:
        return [(at[0], found) for at, found in self.kube.objects.items() if at[0] in resources]

    def any(self, *resources: Resource) -> tuple[Resource, Manifest] | None:
        found = self.all(*resources)
        return self.chance.choice(found) if found else None

    def edit(self, resource: Resource, obj: Manifest, *without: str, **fields: Any) -> None:
        """Change an object's metadata as another client."""
        kept = {key: value for key, value in obj["metadata"].items() if key not in without}
        self.kube.put(resource, {**obj, "metadata": kept | fields})

    def delete(self, resource: Resource, obj: Manifest) -> None:
        """Delete an object as another client, with grace period and finalizers."""
        metadata, name = obj["metadata"], obj["metadata"]["name"]
        runs = resource is PODS and obj["status"]["phase"] == "Running"
        if not (metadata.get("finalizers") or runs):
            self.kube.drop(resource, name)
        elif "deletionTimestamp" not in metadata:
            self.edit(resource, obj, deletionTimestamp=self.stamp(GRACE if runs else 0))

    def back_up(self) -> None:
        self.backups += self.all(*OWN_KINDS)

    def hear(self) -> None:
        """Deliver watch events, except of late kinds, which are delivered in order later."""
        untold, self._untold = [*self._untold, *self.kube.take_events()], []
        for event in untold:
            if event[0] in self.late:
                self._untold.append(event)
            else:
                self.watched(*event)

    def stamp(self, seconds: float = 0) -> str:
        return (self.now + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def replace_operator(self) -> None:
        """Start a new process with empty memory; it lists what watches had not delivered."""
        self.kube.killed_in = None
        self.kube.events.clear()
        self._untold.clear()
        self.restart()
        try:
            await self.observer.resync()
        except KubeError:
            self.delays |= dict.fromkeys(self.queue, 5.0)

    async def settle(self) -> None:
        """Run like the queue: failures are retried later, and a Conflict immediately for some times."""
        looks, conflicts = 0, 0
        while True:
            await self._take_what_is_late()
            self.hear()
            if not self.queue and not self._controllers_work():
                return
            if not self.queue:
                continue
            key, looks = self.queue.pop(0), looks + 1
            assert looks < LOOKS, f"it does not come to rest: {key}"
            try:
                again = await self.reconcile(key)
            except Killed:
                await self.replace_operator()
                continue
            except KubeError as error:
                conflicts += isinstance(error, Conflict)
                self._put_off(key, 0.0 if isinstance(error, Conflict) and conflicts < LOOKS / 10 else 10.0)
                continue
            self.delays.pop(key, None)
            if again is not None:
                self._put_off(key, again.after_seconds)
            assert self.at_work() <= self.at_once, "two attempts at once"

    async def _take_what_is_late(self) -> None:
        if self.arrives:
            self.arrives = False
            await self.kube.arrive()
            self.at_once = max(self.at_work(), 1)
        elif self.at_work() <= 1:
            self.at_once = 1

    async def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.kube.now = self.stamp()
        self.delays = {key: delay - seconds for key, delay in self.delays.items()}
        for key in [key for key, delay in self.delays.items() if delay <= 0]:
            del self.delays[key]
            self.wake(key)
        await self.settle()

    def _put_off(self, key: Key, seconds: float) -> None:
        if seconds == 0:
            self.wake(key)
        else:
            self.delays[key] = seconds

    def at_work(self) -> int:
        """The maximum number of attempts per job that may have a pod. A JobSet's Job is of the same attempt."""
        attempts = {
            (labels[JOB_UID_LABEL], labels[ATTEMPT_LABEL])
            for _, job in self.all(JOBS, JOB_SETS)
            if not _has_ended(job) and "deletionTimestamp" not in job["metadata"]
            if (labels := job["metadata"].get("labels") or {}).get("app.kubernetes.io/component") == "trainer"
        }
        uids = [uid for uid, _ in attempts]
        return max(map(uids.count, uids), default=0)

    # Kubernetes' controllers.

    def _controllers_work(self) -> bool:
        before = self.kube.revision
        self._collect()
        for _, pod in self.all(PODS):
            if "deletionTimestamp" in pod["metadata"]:
                self._end(pod)
        for _, job_set in self.all(JOB_SETS):
            if not (self.absent or _has_ended(job_set) or "deletionTimestamp" in job_set["metadata"]):
                self._make_job(job_set)
        for _, job in self.all(JOBS):
            if not (self.absent or _has_ended(job) or "deletionTimestamp" in job["metadata"]):
                self._run(job)
        for _, deployment in self.all(DEPLOYMENTS):
            self._roll_out(deployment)
        return self.kube.revision > before

    def _collect(self) -> None:
        """Collect garbage: remove deleted objects without finalizers, and then their children."""
        for at, found in list(self.kube.objects.items()):
            gone = "deletionTimestamp" in found["metadata"] and not found["metadata"].get("finalizers")
            if gone and at[0] is not PODS:
                self.kube.drop(at[0], at[2], at[1])
        there = {found["metadata"]["uid"] for found in self.kube.objects.values()}
        for at, found in list(self.kube.objects.items()):
            owners = found["metadata"].get("ownerReferences") or ()
            if owners and there.isdisjoint(owner["uid"] for owner in owners) and at in self.kube.objects:
                self.delete(at[0], found)

    def _end(self, pod: Manifest) -> None:
        """Act as the kubelet: end a deleted pod, and remove it once its Job has counted it."""
        if pod["status"]["phase"] not in ENDED:
            self.kube.put(PODS, {**pod, "status": {**pod["status"], "phase": "Failed", **ended(75)}})
        elif not pod["metadata"].get("finalizers"):
            uids = {owner["uid"] for owner in pod["metadata"].get("ownerReferences") or ()}
            jobs = [job for _, job in self.all(JOBS) if job["metadata"]["uid"] in uids]
            if all(_has_ended(job) or "deletionTimestamp" in job["metadata"] for job in jobs):
                self.kube.drop(PODS, pod["metadata"]["name"])

    def _make_job(self, job_set: Manifest) -> None:
        """Act as JobSet's controller."""
        name = names.set_job(job_set["metadata"]["name"])
        job = self.kube.objects.get((JOBS, "team-a", name))
        if job is None:
            template = job_set["spec"]["replicatedJobs"][0]["template"]
            owner = {"apiVersion": JOB_SETS.api_version, "kind": JOB_SETS.kind, "name": job_set["metadata"]["name"]}
            metadata = template["metadata"] | {"name": name, "namespace": "team-a", "creationTimestamp": self.stamp()}
            metadata["ownerReferences"] = [owner | {"uid": job_set["metadata"]["uid"]}]
            self.kube.put(JOBS, {"metadata": metadata, "spec": template["spec"], "status": {}})
        elif _has_ended(job):
            ends = [{**one, "type": _ENDS_OF_SETS[one["type"]]} for one in job["status"]["conditions"]]
            self.kube.change(JOB_SETS, job_set["metadata"]["name"], status={"conditions": ends})

    def _run(self, job: Manifest) -> None:
        """Act as the Job controller."""
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        phases = {
            pod["status"]["phase"]
            for _, pod in self.all(PODS)
            if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences") or ())
        }
        if not phases:
            self._pods += 1
            labels = job["spec"]["template"]["metadata"]["labels"] | {BATCH_JOB_LABEL: name}
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}
            metadata = {"name": f"{name}-{self._pods}", "namespace": "team-a", "creationTimestamp": self.stamp()}
            metadata |= {"labels": labels, "ownerReferences": [owner]}
            status = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}
            self.kube.put(PODS, {"metadata": metadata, "spec": {"nodeName": "node"}, "status": status})
        elif phases & ENDED:
            condition = {"type": "Failed" if "Failed" in phases else "Complete", "status": "True"}
            self.kube.change(JOBS, name, status={"conditions": [condition | {"reason": "BackoffLimitExceeded"}]})

    def _roll_out(self, deployment: Manifest) -> None:
        wanted = deployment["spec"]["replicas"]
        status = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), wanted)
        status["observedGeneration"] = deployment["metadata"]["generation"]
        self.kube.change(DEPLOYMENTS, deployment["metadata"]["name"], status=status)

    # The kubelet's updates.

    def begin(self, pod: Manifest) -> None:
        state = {"name": TRAINER_CONTAINER, "state": {"running": {"startedAt": self.stamp()}}}
        self.pod_says(pod, phase="Running", containerStatuses=[state])

    def finish(self, pod: Manifest) -> None:
        """End a pod successfully, with its result if its job exists."""
        labels = pod["metadata"].get("labels") or {}
        job, message = labels.get(JOB_LABEL, ""), ""
        if (FINE_TUNE_JOBS, "team-a", job) in self.kube.objects:
            message = termination_message(self.result(int(labels[ATTEMPT_LABEL]), job))
        self.pod_says(pod, phase="Succeeded", **ended(0, message=message))

    def pod_says(self, pod: Manifest, **status: Any) -> None:
        self.kube.change(PODS, pod["metadata"]["name"], status={**pod["status"], **status})

    # At the end.

    def let_go(self) -> None:
        """Remove all foreign finalizers."""
        for at, found in list(self.kube.objects.items()):
            finalizers = found["metadata"].get("finalizers") or []
            if STRANGERS in finalizers:
                self.edit(at[0], found, finalizers=[one for one in finalizers if one != STRANGERS])

    def refuse_one(self, calls: Sequence[tuple[str, str]]) -> None:
        """Refuse one of these calls, by verb and plural, from now on, in a random way."""
        errors = (
            Forbidden(403, "Forbidden", "no"),
            Transient(503, "", "no"),
            Unadmitted(500, "", "failed calling webhook"),
        )
        self.kube.refusals[self.chance.choice(calls)] = self.chance.choice(errors)

    async def calm_down(self) -> None:
        """End all disturbances and let every trainer succeed; an hour passes, with a resync each ten minutes."""
        self.kube.refusals.clear()
        self.late.clear()
        self.kube.killed_in, self.kube.writes_left, self.absent, self.arrives = None, None, False, True
        self.add_connection()
        self.let_go()
        for _, job in self.all(FINE_TUNE_JOBS):
            self.kube.put(FINE_TUNE_JOBS, {**job, "spec": {**job["spec"], "suspend": False}})
        for minute in range(60):
            await self.settle()
            assert minute < 30 or self.at_once == 1, "what was late has not been ended"
            for _, pod in self.all(PODS):
                phase = pod["status"]["phase"]
                if phase == "Pending":
                    self.begin(pod)
                elif phase == "Running" and "deletionTimestamp" not in pod["metadata"]:
                    self.finish(pod)
            if minute % 10 == 9:
                await self.observer.resync()
            await self.wait(60)


_ENDS_OF_SETS = {"Failed": "Failed", "Complete": "Completed"}


def _has_ended(job: Manifest) -> bool:
    return bool((job.get("status") or {}).get("conditions"))


def nobody_holds_anything(world: MeddledWorld) -> None:
    """A deed."""
    world.let_go()


def nothing_is_refused(world: MeddledWorld) -> None:
    """A deed."""
    world.kube.refusals.clear()


def a_watch_is_late_or_in_time_again(world: MeddledWorld) -> None:
    """A deed."""
    world.late ^= {world.chance.choice(WATCHED)}


def the_operator_is_killed_at_a_write(world: MeddledWorld) -> None:
    """A deed."""
    world.kube.writes_left = world.chance.randint(0, 2)


def the_last_operators_last_write_arrives(world: MeddledWorld) -> None:
    """A deed."""
    world.arrives = True


def the_operator_is_killed_soon(world: MeddledWorld) -> None:
    """A deed."""
    world.kube.killed_in = world.chance.randint(0, 4)
