"""One namespace on a control plane without nodes: the test acts as user and kubelet.

The controller manager is Kubernetes' own: it creates Jobs' pods, notices their ends, and collects garbage.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from finetune_api.manifest import Manifest
from finetune_api.names import ATTEMPT_LABEL, COMPONENT_LABEL, DEPLOYMENT_LABEL, JOB_LABEL, TRAINER_CONTAINER
from finetune_api.trainer import Report, termination_message
from finetune_operator.decide.job.attempt_pods import COMPLETION_INDEX_LABEL
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    LEASES,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    PODS,
    Kube,
    Resource,
)

T = TypeVar("T")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
CONNECTION = "local"
PATIENCE = 120.0
POLL_SECONDS = 0.2
MOMENT = "2026-11-21T10:00:00Z"


class Site:
    """Actions of a team in its namespace, and of nodes.

    Args:
        kube: the administrator's.
        name: of the namespace.
    """

    def __init__(self, kube: Kube, name: str) -> None:
        self.kube = kube
        self.name = name

    async def make(self) -> None:
        """Create the namespace, and wait for what pods need in it."""
        await self.kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}})
        await self.until(lambda: self.kube.get(SERVICE_ACCOUNTS, "default", self.name), "a service account")

    async def until(self, look: Callable[[], Awaitable[T | None]], what: str, seconds: float = PATIENCE) -> T:
        """Call `look` until it returns something, and return that.

        Raises:
            TimeoutError: it did not happen.
        """
        try:
            async with asyncio.timeout(seconds):
                while not (found := await look()):  # noqa: ASYNC110 - the API has no event for what tests ask
                    await asyncio.sleep(POLL_SECONDS)
                return found
        except TimeoutError:
            raise TimeoutError(f"{self.name}: {what} did not happen within {seconds:g} s") from None

    async def apply(self, resource: Resource, name: str, spec: Manifest) -> None:
        """Apply an object as a user does."""
        metadata = {"name": name, **({"namespace": self.name} if resource.namespaced else {})}
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec}
        await self.kube.create(resource, body)

    async def job(self, name: str = "sentiment-1", **spec: Any) -> None:
        """Apply a FineTuneJob."""
        smallest = {
            "connectionRef": {"name": CONNECTION},
            "baseModel": "example/tiny",
            "modelRef": {"name": "sentiment"},
            "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
        }
        await self.apply(FINE_TUNE_JOBS, name, {**smallest, **spec})

    async def edit(self, resource: Resource, name: str, spec: Manifest) -> None:
        """Merge into an object's spec."""
        await self.kube.merge_patch(resource, name, self.name, {"spec": spec})

    async def status(self, resource: Resource, name: str) -> Manifest:
        """An object's status; empty without one."""
        found = await self.kube.get(resource, name, self.name)
        status: Manifest = (found or {}).get("status", {})
        return status

    async def phase(self, phase: str, name: str = "sentiment-1", resource: Resource = FINE_TUNE_JOBS) -> None:
        """Wait until a job or a deployment has this phase."""
        await self.says(lambda status: status.get("phase") == phase, f"phase {phase}", resource, name)

    async def ready(self, resource: Resource, name: str = "sentiment") -> None:
        """Wait until an object is Ready."""
        await self.says(lambda status: ("Ready", "True") in _conditions(status), "Ready", resource, name)

    async def says(self, holds: Callable[[Manifest], bool], what: str, resource: Resource, name: str) -> None:
        """Wait until a status satisfies `holds`."""

        async def look() -> bool:
            return holds(await self.status(resource, name))

        await self.until(look, f"{resource.kind} {name}: {what}")

    async def served(self) -> None:
        """Start the server's pod, and wait until everything is ready."""
        await self.pod_says(await self.pod_with(f"{DEPLOYMENT_LABEL}=sentiment"), "server", _RUNNING)
        await self.ready(MODEL_DEPLOYMENTS)
        await self.ready(FINE_TUNED_MODELS)

    async def serves_with(self, replicas: int) -> None:
        """Start this many pods of the server, and wait until status counts them."""

        async def look() -> list[Manifest] | None:
            found = await self.kube.list(PODS, self.name, f"{DEPLOYMENT_LABEL}=sentiment")
            return found if len(found) == replicas else None

        for pod in await self.until(look, f"{replicas} pods of the server"):
            await self.pod_says(pod, "server", _RUNNING)
        counted = f"{replicas} replicas that answer"
        await self.says(lambda status: status.get("replicas") == replicas, counted, MODEL_DEPLOYMENTS, "sentiment")
        await self.ready(MODEL_DEPLOYMENTS)
        await self.ready(FINE_TUNED_MODELS)

    async def trainer(self, attempt: int = 1, job: str = "sentiment-1") -> Manifest:
        """Wait for the pod of an attempt, and let its container start."""
        pod = await self.pod_of(job, attempt)
        await self.pod_says(pod, TRAINER_CONTAINER, _RUNNING)
        return pod

    async def trainers(self, nodes: int, attempt: int = 1, job: str = "sentiment-1") -> list[Manifest]:
        """Wait for the pods of an attempt on several nodes, and let their containers start; in the nodes' order."""
        selector = f"{JOB_LABEL}={job},{ATTEMPT_LABEL}={attempt}"
        chosen = [f"{selector},{COMPLETION_INDEX_LABEL}={node}" for node in range(nodes)]
        pods = [await self.pod_with(one) for one in chosen]
        for pod in pods:
            await self.pod_says(pod, TRAINER_CONTAINER, _RUNNING)
        return pods

    async def pod_of(self, job: str, attempt: int = 1) -> Manifest:
        """Wait for the pod of an attempt."""
        return await self.pod_with(f"{JOB_LABEL}={job},{ATTEMPT_LABEL}={attempt}")

    async def ends(self, pod: Manifest, code: int = 0, reason: str = "", message: str = "") -> None:
        """End the trainer's container."""
        ended = {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "message": message}
        await self.pod_says(
            pod, TRAINER_CONTAINER, {"terminated": {**ended, "startedAt": MOMENT, "finishedAt": MOMENT}}
        )

    async def succeeds(self, attempt: int = 1, job: str = "sentiment-1") -> None:
        """Run an attempt that writes its artifact."""
        pod = await self.trainer(attempt, job)
        await self.phase("Validating", job)
        await self.ends(pod, message=await self.result(job, attempt))

    async def ends_well(self) -> None:
        """Let a running job succeed, and its model be served."""
        await self.ends(await self.trainer(), message=await self.result("sentiment-1", 1))
        await self.phase("Succeeded")
        await self.served()

    async def suspends(self) -> None:
        """Suspend the job, and wait until nothing of it is left."""
        await self.edit(FINE_TUNE_JOBS, "sentiment-1", {"suspend": True})
        await self.phase("Suspended")
        await self.no_jobs()

    async def no_jobs(self) -> None:
        """Wait until there is no batch Job."""

        async def look() -> bool:
            return not await self.kube.list(JOBS, self.name)

        await self.until(look, "the end of all Jobs")

    async def prunes(self) -> None:
        """Let the pod that deletes weights succeed."""
        pod = await self.pod_with(f"{COMPONENT_LABEL}=prune")
        await self.ends(pod)

    async def pod_says(self, pod: Manifest, container: str, state: Manifest) -> None:
        """Write the status of a pod with one container, as the kubelet does."""
        ended, running = state.get("terminated"), "running" in state
        phase = "Running" if running else "Pending" if ended is None else "Failed" if ended["exitCode"] else "Succeeded"
        conditions = [{"type": kind, "status": str(running)} for kind in ("Ready", "ContainersReady")]
        status = {
            "phase": phase,
            "conditions": [{"type": "PodScheduled", "status": "True"}, *conditions],
            "startTime": MOMENT,
            "containerStatuses": [
                {
                    "name": container, "state": state, "ready": running, "started": running, "restartCount": 0,
                    "image": "i", "imageID": "i",
                }
            ],
        }  # fmt: skip
        await self.kube.patch_status(PODS, pod["metadata"]["name"], self.name, status)

    async def release_lease(self) -> None:
        """Let a dead leader's Lease expire immediately."""
        lease = await self.kube.get(LEASES, "finetune-operator", self.name)
        if lease is not None:
            await self.kube.merge_patch(LEASES, "finetune-operator", self.name, {"spec": {"holderIdentity": ""}})

    async def result(self, job: str, attempt: int) -> str:
        """The termination message of a trainer that has written its artifact."""
        owner = await self.kube.get(FINE_TUNE_JOBS, job, self.name)
        assert owner is not None
        result = {"artifact": {"uri": "pvc://models/x/model", "kind": "Adapter"}, "steps": 10, "trainLoss": 0.4}
        report = {
            "namespace": self.name, "name": job, "uid": owner["metadata"]["uid"], "attempt": attempt,
            "phase": "Succeeded", "result": result, "progress": {"step": 10, "totalSteps": 10, "percent": 100},
        }  # fmt: skip
        return termination_message(Report.model_validate(report))

    async def pod_with(self, selector: str) -> Manifest:
        """Wait for a pod with these labels."""

        async def look() -> Manifest | None:
            found = await self.kube.list(PODS, self.name, selector)
            return found[0] if found else None

        return await self.until(look, f"a pod with {selector}")


_RUNNING: Manifest = {"running": {"startedAt": MOMENT}}


def connection() -> Manifest:
    """The spec of the connection of all sites."""
    return {
        "namespaceSelector": {},
        "huggingFace": {"trainerImage": "example/trainer:1", "artifacts": {"uri": "pvc://models"}},
    }


async def make_connection(kube: Kube, name: str = CONNECTION) -> None:
    """Apply a connection, unless it exists."""
    if await kube.get(CONNECTIONS, name) is None:
        await Site(kube, "").apply(CONNECTIONS, name, connection())


def _conditions(status: Manifest) -> set[tuple[str, str]]:
    return {(condition["type"], condition["status"]) for condition in status.get("conditions") or ()}
