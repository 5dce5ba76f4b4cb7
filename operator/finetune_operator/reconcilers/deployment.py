"""ModelDeployment: observe, decide, act, write status."""

from typing import Any

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_api.model import FineTunedModelStatus
from finetune_api.names import SERVED_VERSION_LABEL
from finetune_operator.decide.deployment import DeploymentDecision, DeploymentView, decide, read_serving
from finetune_operator.desired import serving
from finetune_operator.desired.compare import covers
from finetune_operator.reconcilers.context import Context, parse_spec, parse_status, wants_deletion
from finetune_operator.reconcilers.observed import pods_of_deployment
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    MODEL_DEPLOYMENTS,
    PODS,
    SERVICES,
    Resource,
)
from finetune_operator.runtime.queue import Key

Manifest = dict[str, Any]


class DeploymentReconciler:
    """Keeps a server of the wanted version answering, new before old."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> None:
        """One look at a deployment."""
        deployment = await self._context.read(MODEL_DEPLOYMENTS, key)
        if deployment is None:
            return
        view = self._observe(deployment)
        decision = decide(view)
        changed = await self._serve(deployment, view, decision)
        if changed:
            # What was read of the server is of before the change.
            view = self._observe(deployment)
            decision = decide(view)
        await self._context.write_status(MODEL_DEPLOYMENTS, deployment, view.status, decision.status)
        told = headline(view.status, decision.status)
        if told is not None:
            await self._context.announce(deployment, *told)

    def _observe(self, deployment: Manifest) -> DeploymentView:
        metadata, store = deployment["metadata"], self._context.store
        namespace, name = metadata["namespace"], metadata["name"]
        spec, spec_error = parse_spec(ModelDeploymentSpec, deployment)
        model = store.get(FINE_TUNED_MODELS, spec.model_ref.name, namespace) if spec else None
        status = parse_status(FineTunedModelStatus, model) if model else None
        return DeploymentView(
            name=name,
            namespace=namespace,
            generation=metadata["generation"],
            deleting=wants_deletion(deployment),
            spec=spec,
            spec_error=spec_error,
            status=parse_status(ModelDeploymentStatus, deployment),
            model=status,
            connections=self._connections(status),
            serving=read_serving(
                store.get(DEPLOYMENTS, name, namespace),
                store.select(PODS, pods_of_deployment(namespace, name)),
                SERVED_VERSION_LABEL,
            ),
            now=self._context.clock(),
        )

    def _connections(self, model: FineTunedModelStatus | None) -> dict[str, LLMConnectionSpec]:
        named = {version.connection for version in (model.versions if model else None) or ()}
        known = {name for _, name in self._context.store.addresses(CONNECTIONS)}
        found = ((name, self._context.connection(name)) for name in named & known)
        return {name: connection for name, connection in found if connection is not None}

    async def _serve(self, deployment: Manifest, view: DeploymentView, decision: DeploymentDecision) -> bool:
        """Apply Deployment and Service where they are not as they should be; whether anything was applied."""
        version = decision.serve
        if version is None or view.spec is None:
            return False
        connection = view.connections[version.connection].hugging_face
        if connection is None:
            return False
        served = serving.Served(version, decision.engine, connection, self._lora_rank(view.namespace, version.job))
        service = await self._ensure(SERVICES, serving.service(deployment, view.spec))
        return await self._ensure(DEPLOYMENTS, serving.deployment(deployment, view.spec, served)) or service

    def _lora_rank(self, namespace: str, job: str) -> int | None:
        found = self._context.store.get(FINE_TUNE_JOBS, job, namespace)
        rank = (found or {}).get("spec", {}).get("lora", {}).get("r")
        return int(rank) if rank else None

    async def _ensure(self, resource: Resource, wanted: Manifest) -> bool:
        metadata = wanted["metadata"]
        present = self._context.store.get(resource, metadata["name"], metadata["namespace"])
        if present is not None and covers(present, wanted):
            return False
        self._context.store.put(resource, await self._context.kube.apply(resource, wanted))
        return True


def headline(old: ModelDeploymentStatus, new: ModelDeploymentStatus) -> tuple[str, str, str] | None:
    """Type, reason and note of the Event that a change of status deserves."""
    if new.served_version != old.served_version and new.served_version is not None:
        return (
            "Normal",
            "Serving",
            f"version {new.served_version} answers at {new.endpoint.url if new.endpoint else ''}",
        )
    stalled = next((c for c in new.conditions or () if c.type == "Stalled" and c.status == "True"), None)
    was = next((c for c in old.conditions or () if c.type == "Stalled" and c.status == "True"), None)
    if stalled is not None and (was is None or was.reason != stalled.reason):
        return "Warning", stalled.reason, stalled.message
    return None
