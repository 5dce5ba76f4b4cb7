"""A namespace whose jobs run at a provider outside of the cluster: the test is its user, its kubelet and its pods."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from finetune_api.job_status import ProviderFile
from finetune_api.names import TOKEN_AUDIENCE, UPLOAD_PATH
from finetune_api.trainer import Report, termination_message
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    MODEL_DEPLOYMENTS,
    SECRETS,
    Resource,
)
from tests.chaos.site import PATIENCE, Manifest, Site
from tests.cluster.cluster import Cluster
from tests.lives.clouds import Cloud

HOUR = 3600
ROWS = "".join(
    f'{{"messages":[{{"role":"user","content":"q{n}"}},{{"role":"assistant","content":"a{n}"}}]}}\n' for n in range(12)
).encode()
TOKENS = 100
LONG_PATIENCE = 3 * PATIENCE
"""A create whose outcome is unknown is waited for: two minutes."""


class CloudSite(Site):
    """What a team does with a provider, and what its pods would do.

    Args:
        site: the namespace, which is the operator's own, too.
        cluster: the control plane.
        cloud: the provider.
        address: of the operator's report server.
    """

    def __init__(self, site: Site, cluster: Cluster, cloud: Cloud, address: str) -> None:
        super().__init__(site.kube, site.name)
        self.cloud = cloud
        self._cluster = cluster
        self._address = address

    async def until(
        self, look: Callable[[], Awaitable[Any]], what: str, seconds: float = LONG_PATIENCE
    ) -> Any:
        """As a Site's, with more patience."""
        return await super().until(look, what, seconds)

    async def connects(self) -> None:
        """Secret and LLMConnection, of the namespace's name; its credentials have been checked in the end."""
        metadata = {"name": self.cloud.name, "namespace": self.name}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": self.cloud.secret}
        await self.kube.create(SECRETS, secret)
        await self.apply(CONNECTIONS, self.name, {"namespaceSelector": {}, **self.cloud.block})
        await self.ready(CONNECTIONS, self.name)

    async def model(self, **spec: Any) -> None:
        """A model that takes everything with it when it is deleted."""
        await self.apply(FINE_TUNED_MODELS, "sentiment", {"deletionPolicy": "Delete", **spec})

    async def asks_for(self, job: str = "sentiment-1") -> None:
        """Apply a FineTuneJob."""
        await self.job(job, connectionRef={"name": self.name}, baseModel=self.cloud.base_model)

    async def is_made(self, attempt: int = 1, job: str = "sentiment-1") -> None:
        """The data are checked and brought there; the provider makes the job, and the operator knows it."""
        pod = await self.trainer(attempt, job)
        owner = await self.kube.get(FINE_TUNE_JOBS, job, self.name)
        assert owner is not None
        of = {"namespace": self.name, "name": job, "uid": owner["metadata"]["uid"], "attempt": attempt}
        file = await self._sends(pod, of, ROWS)
        report = {
            **of, "phase": "Checked", "checked": {"files": [file.wire()], "tokens": TOKENS},
            "dataset": {"valid": True, "reason": "Valid", "message": "good"},
        }  # fmt: skip
        await self.ends(pod, message=termination_message(Report.model_validate(report)))

        def is_known(status: Manifest) -> bool:
            provider = status.get("provider", {})
            return provider.get("attempt") == attempt and "askedAt" in provider and "jobID" in provider

        await self.says(is_known, f"job {attempt} at the provider", FINE_TUNE_JOBS, job)

    async def is_tuned(self, attempt: int = 1, job: str = "sentiment-1") -> None:
        """A job to its end, an hour later, and until nothing that was brought there for it is left."""
        await self.is_made(attempt, job)
        self.cloud.simulator.advance(HOUR)
        await self.phase("Succeeded", job)
        await self.until(lambda: self._is_released(job), f"{job}'s release")

    async def answers(self, version: int = 1) -> None:
        """Wait until a version is served, and nothing else is."""

        def alone(status: Manifest) -> bool:
            hosted = [one["version"] for one in status.get("hosted") or ()]
            return status.get("servedVersion") == version and hosted in ([], [version])

        await self.says(alone, f"version {version} alone", MODEL_DEPLOYMENTS, "sentiment")
        await self.ready(MODEL_DEPLOYMENTS)
        await self.ready(FINE_TUNED_MODELS)

    async def leaves(self) -> None:
        """Delete all of it, model first; returns when it is gone."""
        jobs = [job["metadata"]["name"] for job in await self.kube.list(FINE_TUNE_JOBS, self.name)]
        await self.kube.delete(FINE_TUNED_MODELS, "sentiment", self.name)
        for job in jobs:
            await self.kube.delete(FINE_TUNE_JOBS, job, self.name)
        for resource in (FINE_TUNED_MODELS, FINE_TUNE_JOBS, MODEL_DEPLOYMENTS):
            await self.until(lambda resource=resource: self._none(resource), f"the end of all {resource.plural}")

    async def _sends(self, pod: Manifest, of: Manifest, content: bytes) -> ProviderFile:
        """What the check's pod does with the training data: it sends them until the operator says that it has them."""
        token = await self._token(pod["metadata"]["name"])
        query = {**of, "split": "train", "sha256": hashlib.sha256(content).hexdigest()}
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self._address}{UPLOAD_PATH}"
        async with aiohttp.ClientSession(headers=headers) as session:

            async def send() -> ProviderFile | None:
                try:
                    async with session.put(url, params=query, data=content, ssl=False) as answer:
                        # 403: the operator has not seen the pod yet. 503: it, or the provider, asks for patience.
                        if answer.status in {403, 503}:
                            return None
                        assert answer.status == 200, await answer.text()
                        return ProviderFile.model_validate(await answer.json())
                except aiohttp.ClientError:
                    return None

            file: ProviderFile = await self.until(send, "an upload")
            return file

    async def _token(self, pod: str) -> str:
        bound = ("--bound-object-kind", "Pod", "--bound-object-name", pod)
        arguments = ("create", "token", "default", "-n", self.name, "--audience", TOKEN_AUDIENCE, *bound)
        return (await asyncio.to_thread(self._cluster.kubectl, *arguments)).strip()

    async def _is_released(self, job: str) -> bool:
        found = await self.kube.get(FINE_TUNE_JOBS, job, self.name)
        return found is not None and not found["metadata"].get("finalizers")

    async def _none(self, resource: Resource) -> bool:
        return not await self.kube.list(resource, self.name)
