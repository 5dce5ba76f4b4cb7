"""A namespace whose jobs run at a provider outside of the cluster: the test acts as user, kubelet and pods."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

from finetune_api.manifest import Manifest
from finetune_api.names import COMPONENT_LABEL, JOB_LABEL, TOKEN_AUDIENCE, TRAINER_CONTAINER
from finetune_api.trainer import Report, termination_message
from finetune_operator.desired.measure_job import COMPONENT
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    PODS,
    SECRETS,
    Resource,
)
from tests.chaos.check_pod import CheckPod
from tests.chaos.clocks import Clocks
from tests.chaos.site import MOMENT, PATIENCE, Site
from tests.cluster.cluster import Cluster
from tests.lives.clouds import Cloud

MINUTE, HOUR = 60, 3600
ROWS = 12
_TEST = {"file": "test.jsonl", "format": "JSON lines", "rows": ROWS}

LONG_PATIENCE = 2 * PATIENCE
"""Longer, as the operator waits two minutes after a create with an unknown outcome."""
PATIENCE_AT_THE_END = 5 * PATIENCE
"""Each refused list or deletion costs a minute, and a bad provider refuses each three times."""


class CloudSite(Site):
    """Actions of a team with a provider, and of its pods.

    Args:
        site: the namespace, which is also the operator's own.
        cluster: the control plane.
        cloud: the provider.
        operator: address of the operator's report server.
        asked: calls to the provider and its object store.
        clocks: the operator's own, and the API server's.
    """

    def __init__(
        self, site: Site, cluster: Cluster, cloud: Cloud, operator: str, asked: Sequence[str], clocks: Clocks
    ) -> None:
        super().__init__(site.kube, site.name)
        self.clocks = clocks
        self._touched = 0
        self.cloud = cloud
        self.asked = asked
        self._cluster = cluster
        self._operator = operator

    async def until(self, look: Callable[[], Awaitable[Any]], what: str, seconds: float = LONG_PATIENCE) -> Any:
        """As in Site, with a longer timeout."""
        return await super().until(look, what, seconds)

    async def connects(self) -> None:
        """Create Secret and LLMConnection with the namespace's name; returns once the credentials are checked."""
        metadata = {"name": self.cloud.name, "namespace": self.name}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": self.cloud.secret}
        await self.kube.create(SECRETS, secret)
        await self.apply(CONNECTIONS, self.name, {"namespaceSelector": {}, **self.cloud.block})
        await self.ready(CONNECTIONS, self.name)

    async def model(self, **spec: Any) -> None:
        """Create a model whose deletion deletes everything."""
        await self.apply(FINE_TUNED_MODELS, "sentiment", {"deletionPolicy": "Delete", **spec})

    async def asks_for(self, job: str = "sentiment-1", **spec: Any) -> None:
        """Apply a FineTuneJob."""
        await self.job(job, connectionRef={"name": self.name}, baseModel=self.cloud.base_model, **spec)

    async def check(self, attempt: int = 1, job: str = "sentiment-1", size: int = 0) -> CheckPod:
        """Wait for the check pod; its data have at least `size` bytes."""
        pod = await self.trainer(attempt, job)
        owner = await self.kube.get(FINE_TUNE_JOBS, job, self.name)
        assert owner is not None
        of = {"namespace": self.name, "name": job, "uid": owner["metadata"]["uid"], "attempt": attempt}
        content = self.cloud.rows(ROWS).ljust(size, b"\n")
        found = (
            {"file": "test.jsonl", "format": "JSON lines", "rows": ROWS} if "test" in owner["spec"]["dataset"] else None
        )
        return CheckPod(self._operator, await self._token(pod["metadata"]["name"]), of, content, found)

    async def is_made(self, check: CheckPod) -> None:
        """Check and upload the data; returns once the provider's job exists and the operator knows it."""
        attempt, job = check.of["attempt"], check.of["name"]
        file = await self.until(check.send, "an upload")
        await self.ends(await self.pod_of(job, attempt), message=check.checked(file))

        def is_known(status: Manifest) -> bool:
            provider = status.get("provider", {})
            return provider.get("attempt") == attempt and "askedAt" in provider and "jobID" in provider

        await self.says(is_known, f"job {attempt} at the provider", FINE_TUNE_JOBS, job)

    async def is_tuned(self, attempt: int = 1, job: str = "sentiment-1") -> None:
        """Run a job to its end, an hour later, and until its uploaded files are deleted."""
        await self.is_made(await self.check(attempt, job))
        await self.succeeds_there(job)

    async def measures(self, job: str = "sentiment-1") -> None:
        """Let the evaluation pod succeed."""
        pod = await self.pod_with(f"{JOB_LABEL}={job},{COMPONENT_LABEL}={COMPONENT}")
        await self.pod_says(pod, TRAINER_CONTAINER, {"running": {"startedAt": MOMENT}})
        owner = await self.kube.get(FINE_TUNE_JOBS, job, self.name)
        assert owner is not None
        measured = {"rows": ROWS, "tuned": {"exactMatch": 1.0}, "baselines": {}, "verdict": "Better"}
        report = {
            "namespace": self.name, "name": job, "uid": owner["metadata"]["uid"], "attempt": 1, "phase": "Measured",
            "evaluation": measured,
        }  # fmt: skip
        await self.ends(pod, message=termination_message(Report.model_validate(report)))

    async def succeeds_there(self, job: str = "sentiment-1") -> None:
        """Let the provider's job succeed; returns once its uploaded files are deleted."""
        self.advance(HOUR)
        await self.is_over(job)

    async def is_over(self, job: str = "sentiment-1", phase: str = "Succeeded") -> None:
        """Wait until the job has ended and has no finalizer."""
        await self.phase(phase, job)
        await self.until(lambda: self._is_released(job), f"{job}'s release", PATIENCE_AT_THE_END)

    async def begins(self, operation: str) -> None:
        """Wait until the provider has started the operation, and let it complete a minute later."""

        async def look() -> bool:
            return self.cloud.simulator.count(operation) > 0

        await self.until(look, operation)
        self.advance(MINUTE)

    async def serves(self, **template: Any) -> None:
        """Tune and register a model, deploy it if needed, and wait until it answers."""
        await self.connects()
        await self.model(deployment={"template": {**self.cloud.template, **template}})
        await self.asks_for()
        await self.is_tuned()
        await self.answers()

    async def serves_nothing(self) -> Manifest:
        """Tune and register a model without deploying it; returns its artifact."""
        await self.connects()
        await self.model(deployment={"mode": "Manual"})
        await self.asks_for()
        await self.is_tuned()
        await self.ready(FINE_TUNED_MODELS)
        artifact: Manifest = (await self.status(FINE_TUNED_MODELS, "sentiment"))["versions"][0]["artifact"]
        return artifact

    async def passes(self, seconds: float, name: str = "sentiment") -> None:
        """Advance all clocks, trigger a reconcile of the deployment, and wait until its cost is reported."""
        await self.is_shown(name)
        before = (await self.status(MODEL_DEPLOYMENTS, name)).get("cost") or {}
        self.advance(seconds)
        await self.is_looked_at(name)
        await self._tells_the_cost(before, seconds, name)

    async def is_shown(self, name: str = "sentiment") -> None:
        """Wait until the provider's list has a deployment."""

        def is_there(status: Manifest) -> bool:
            return not any("unseenSince" in one for one in status.get("hosted") or ())

        await self.says(is_there, "shown by the provider", MODEL_DEPLOYMENTS, name)

    async def is_looked_at(self, name: str = "sentiment", calls: Sequence[str] = ()) -> None:
        """Trigger calls to the provider about a deployment: any call, or these in this order."""
        asked = len(self.asked)
        await self.touch(name)
        if self.cloud.deploys:
            await self.until(lambda: self._is_asked_after(asked, calls), "the look at the deployment")

    async def tells_the_cost_of(self, seconds: float, name: str = "sentiment") -> None:
        """Wait until status has the cost of this time, to the cent: an earlier reconcile may still be running."""

        def is_told(status: Manifest) -> bool:
            cost = status.get("cost", {})
            least = Decimal(cost.get("perHour", "0")) * Decimal(seconds) / 3600
            return Decimal(cost.get("sinceDeployed", "0")) >= least - Decimal("0.01")

        await self.says(is_told, f"cost of {seconds:g} s", MODEL_DEPLOYMENTS, name)

    async def _tells_the_cost(self, before: Manifest, seconds: float, name: str) -> None:
        """Wait until status has the additional cost of this time, if it had an hourly cost before."""
        if not {"perHour", "sinceDeployed"} <= before.keys():
            return
        least = Decimal(before["sinceDeployed"]) + Decimal(before["perHour"]) * Decimal(seconds) / 3600

        def is_told(status: Manifest) -> bool:
            return Decimal(status.get("cost", {}).get("sinceDeployed", "0")) >= least - Decimal("0.01")

        await self.says(is_told, f"cost of {seconds:g} s more", MODEL_DEPLOYMENTS, name)

    def advance(self, seconds: float) -> None:
        """Advance all clocks."""
        self.cloud.simulator.advance(seconds)
        self.clocks.pass_time(seconds)

    async def touch(self, name: str) -> None:
        """Label a deployment to trigger a reconcile; foreign annotations do not."""
        self._touched += 1
        labels = {"example.com/touched": str(self._touched)}
        await self.kube.merge_patch(MODEL_DEPLOYMENTS, name, self.name, {"metadata": {"labels": labels}})

    async def annotate(self, name: str, annotation: str, value: str) -> None:
        """Annotate a deployment; every value is made unique."""
        self._touched += 1
        annotations = {annotation: f"{value} {self._touched}"}
        await self.kube.merge_patch(MODEL_DEPLOYMENTS, name, self.name, {"metadata": {"annotations": annotations}})

    async def stalls(self, reason: str, resource: Resource, name: str) -> None:
        """Wait until an object is Stalled for this reason."""

        def is_stalled(status: Manifest) -> bool:
            found = [c for c in status.get("conditions") or () if c["type"] in {"Stalled", "Failed"}]
            return any(c["status"] == "True" and c["reason"] == reason for c in found)

        await self.says(is_stalled, f"stalled for {reason}", resource, name)

    async def answers(self, version: int = 1) -> None:
        """Wait until this version is served, and no other."""

        def alone(status: Manifest) -> bool:
            hosted = [one["version"] for one in status.get("hosted") or ()]
            return status.get("servedVersion") == version and hosted in ([], [version])

        await self.says(alone, f"version {version} alone", MODEL_DEPLOYMENTS, "sentiment")
        await self.ready(MODEL_DEPLOYMENTS)
        await self.ready(FINE_TUNED_MODELS)

    async def leaves(self) -> None:
        """Delete everything, models first; returns when it is gone, including what is garbage-collected."""
        jobs = [job["metadata"]["name"] for job in await self.kube.list(FINE_TUNE_JOBS, self.name)]
        for model in await self.kube.list(FINE_TUNED_MODELS, self.name):
            await self.kube.delete(FINE_TUNED_MODELS, model["metadata"]["name"], self.name)
        for job in jobs:
            await self.kube.delete(FINE_TUNE_JOBS, job, self.name)
        for resource in (FINE_TUNED_MODELS, FINE_TUNE_JOBS, MODEL_DEPLOYMENTS, JOBS, PODS):
            what = f"the end of all {resource.plural}"
            await self.until(lambda resource=resource: self._none(resource), what, PATIENCE_AT_THE_END)

    async def _token(self, pod: str) -> str:
        bound = ("--bound-object-kind", "Pod", "--bound-object-name", pod)
        arguments = ("create", "token", "default", "-n", self.name, "--audience", TOKEN_AUDIENCE, *bound)
        return (await asyncio.to_thread(self._cluster.kubectl, *arguments)).strip()

    async def _is_asked_after(self, times: int, calls: Sequence[str]) -> bool:
        later = iter(self.asked[times:])
        return len(self.asked) > times and all(call in later for call in calls)

    async def _is_released(self, job: str) -> bool:
        found = await self.kube.get(FINE_TUNE_JOBS, job, self.name)
        return found is not None and not found["metadata"].get("finalizers")

    async def _none(self, resource: Resource) -> bool:
        return not await self.kube.list(resource, self.name)
