"""The steps of a model's life at a provider, as a user takes them by kubectl and `finetune-operator ask`."""

import argparse
import asyncio
import os
from collections.abc import Callable
from typing import Any

from finetune_api.manifest import Manifest
from finetune_operator.ask import answer
from finetune_operator.runtime.kube import Kube
from finetune_operator.runtime.settings import Settings
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.processes import wait_until
from tests.lives.clouds import Cloud

API = "finetune.dev/v1alpha1"
PLURALS = {"ftj": "finetunejobs", "md": "modeldeployments"}
HOUR = 3600
LISTS_OF_JOBS = "*[Jj]obs*"
"""Operations by which a running job is polled, at any provider."""
SECONDS = 120
"""Limit for one step on a busy machine."""


class Life:
    """A FineTunedModel of a namespace, its jobs and what serves it, at one provider.

    Args:
        cluster: with the operator on it, or beside it.
        cloud: the provider.
        namespace: the team's.
        operator: the operator's own namespace.
        name: of the model.
    """

    def __init__(self, cluster: Cluster, cloud: Cloud, namespace: str, *, operator: str, name: str) -> None:
        self.cluster, self.cloud, self.namespace, self.operator, self.name = cluster, cloud, namespace, operator, name
        self._jobs: list[str] = []

    def connect(self, **more: Any) -> None:
        """Secret and LLMConnection, `more` being other fields of it; returns when its credentials have been checked."""
        cloud, metadata = self.cloud, {"name": self.cloud.name, "namespace": self.operator}
        spec = {"namespaceSelector": {}, **cloud.block, **more}
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": cloud.secret},
            {"apiVersion": API, "kind": "LLMConnection", "metadata": {"name": cloud.name}, "spec": spec},
        )
        self._wait("condition=Ready", "llmc", cloud.name)

    def make_model(self) -> None:
        """Create a model that deploys its versions, and deletes everything with itself."""
        deployment = {"template": self.cloud.template}
        self._apply("FineTunedModel", self.name, {"deletionPolicy": "Delete", "deployment": deployment})

    def tune(
        self,
        job: str,
        dataset: Manifest,
        check: Callable[[str], None] | None = None,
        measure: Callable[[str], None] | None = None,
        *,
        trouble: bool = False,
    ) -> Manifest:
        """Run a job to its end, an hour later; returns its status.

        Args:
            job: its name.
            dataset: as in its spec.
            check: acts as the check pod if nothing runs pods.
            measure: acts as the evaluation pod, if there is a test set.
            trouble: the provider fails once meanwhile, and quotes the connection's credentials in its message.
        """
        cloud, before = self.cloud, self.cloud.simulator.count(self.cloud.creates)
        spec = {
            "connectionRef": {"name": cloud.name},
            "baseModel": cloud.base_model,
            "modelRef": {"name": self.name},
            "dataset": dataset,
        }
        self._apply("FineTuneJob", job, spec)
        self._jobs.append(job)
        if check is not None:
            check(job)
        wait_until(lambda: cloud.simulator.count(cloud.creates) > before or self._ended(job), f"job {job}",
                   timeout=SECONDS)  # fmt: skip
        if trouble:
            cloud.simulator.fault(LISTS_OF_JOBS, status=500, message=" ".join(cloud.secret.values()))
        cloud.simulator.advance(HOUR)
        if measure is not None:
            measure(job)
        self._wait("jsonpath={.status.phase}=Succeeded", "ftj", job)
        wait_until(lambda: not self.get("ftj", job)["metadata"].get("finalizers"), f"{job}'s release", timeout=SECONDS)
        status: Manifest = self.get("ftj", job)["status"]
        return status

    def _ended(self, job: str) -> bool:
        phase = self.get("ftj", job).get("status", {}).get("phase")
        assert phase not in {"Failed", "Cancelled"}, self._told("ftj", job)
        return phase == "Succeeded"

    def serves(self, version: int) -> Manifest:
        """The deployment's status once this version answers and no other is left."""
        self._wait("create", "md", self.name)
        self._wait(f"jsonpath={{.status.servedVersion}}={version}", "md", self.name)
        if self.cloud.undeploys:
            wait_until(lambda: self._hosted() == [version], f"version {version} being alone", timeout=SECONDS)
        self._wait("condition=Ready", "md", self.name)
        status: Manifest = self.get("md", self.name)["status"]
        return status

    def _hosted(self) -> list[int]:
        hosted = self.get("md", self.name)["status"].get("hosted") or []
        return [one["version"] for one in hosted]

    def ask(self, question: str) -> str:
        """What `finetune-operator ask` prints to a user with their own credentials in the environment."""
        asked = argparse.Namespace(
            model=self.name, question=question, namespace=self.namespace, system=None, max_tokens=None, temperature=None
        )

        async def said() -> str:
            async with Kube.connect(Settings(kubeconfig=self.cluster.kubeconfig)) as kube:
                return await answer(kube, asked, os.environ)

        return asyncio.run(said())

    def pass_an_hour(self) -> None:
        """At the provider."""
        self.cloud.simulator.advance(HOUR)

    def end(self) -> None:
        """Delete all of it, model first; returns when it is gone."""
        jobs = [f"ftj/{job}" for job in self._jobs]
        self.cluster.kubectl("-n", self.namespace, "delete", f"ftm/{self.name}", *jobs, f"--timeout={SECONDS}s")
        self._wait("delete", "md", self.name)
        self.cluster.kubectl("delete", "llmc", self.cloud.name)
        self.cluster.kubectl("-n", self.operator, "delete", "secret", self.cloud.name)

    def get(self, kind: str, name: str) -> Manifest:
        """One of our objects."""
        found = self.cluster.read(f"/apis/{API}/namespaces/{self.namespace}/{PLURALS[kind]}/{name}")
        assert found is not None, f"there is no {kind} {name}"
        return found

    def _apply(self, kind: str, name: str, spec: Manifest) -> None:
        metadata = {"name": name, "namespace": self.namespace}
        self.cluster.apply({"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec})

    def _wait(self, what: str, kind: str, name: str) -> None:
        try:
            self.cluster.kubectl("-n", self.namespace, "wait", f"--for={what}", kind, name, f"--timeout={SECONDS}s")
        except ClusterError as error:
            raise AssertionError(f"{what}: {error}; {self._told(kind, name)}") from None

    def _told(self, kind: str, name: str) -> str:
        found = self.cluster.kubectl("-n", self.namespace, "get", kind, name, "--ignore-not-found", "-o", "yaml")
        pods = self.cluster.kubectl("-n", self.namespace, "get", "pods", "-o", "wide")
        return f"{found}\n{pods}"
