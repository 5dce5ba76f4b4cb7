"""ModelDeployment: observe, decide, act, write status."""

from typing import Any

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_api.job import Failure
from finetune_api.model import FineTunedModelStatus
from finetune_api.names import FIELD_MANAGER, MANAGED_BY_LABEL, SERVED_VERSION_LABEL
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment import DeploymentDecision, DeploymentView, decide, not_applied, read_serving
from finetune_operator.desired import serving
from finetune_operator.desired.compare import covers, stamped
from finetune_operator.reconcilers.context import Context, parse_spec, parse_status, wants_deletion
from finetune_operator.reconcilers.observed import pods_of_deployment
from finetune_operator.runtime.errors import Forbidden, Invalid
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    FINE_TUNED_MODELS,
    MODEL_DEPLOYMENTS,
    PODS,
    SERVICES,
    Resource,
)
from finetune_operator.runtime.queue import Key, Requeue

Manifest = dict[str, Any]


REFUSED_CHECK_SECONDS = 60


class NameTaken(Exception):  # noqa: N818 - named as the API's reasons are
    """An object of somebody else has the name of one that is to be made."""


class DeploymentReconciler:
    """Keeps a server of the wanted version answering, new before old."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> Requeue | None:
        """One look at a deployment."""
        deployment = await self._context.read(MODEL_DEPLOYMENTS, key)
        if deployment is None:
            return None
        view = self._observe(deployment)
        decision = decide(view)
        problem: Failure | None = None
        try:
            if await self._serve(deployment, view, decision):
                # What was read of the server is of before the change.
                view = self._observe(deployment)
                decision = decide(view)
        except NameTaken as taken:
            problem = Failure.because(Reason.NAME_CONFLICT, str(taken))
        except (Invalid, Forbidden) as refusal:
            problem = Failure.because(Reason.POD_REJECTED, refusal.message)
        if problem is not None:
            decision = not_applied(view, problem)
        await self._context.write_status(MODEL_DEPLOYMENTS, deployment, view.status, decision.status)
        told = headline(view.status, decision.status)
        if told is not None:
            await self._context.announce(deployment, *told)
        return Requeue(REFUSED_CHECK_SECONDS) if problem is not None else None

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
        served = serving.Served(version, decision.engine, connection)
        service = await self._ensure(SERVICES, serving.service(deployment, view.spec))
        return await self._ensure(DEPLOYMENTS, serving.deployment(deployment, view.spec, served)) or service

    async def _ensure(self, resource: Resource, wanted: Manifest) -> bool:
        """Apply what is not as wanted.

        Raises:
            NameTaken: an object of that name is there that the operator has not made.
        """
        wanted = stamped(wanted)
        metadata = wanted["metadata"]
        present = self._context.store.get(resource, metadata["name"], metadata["namespace"])
        if present is not None and covers(present, wanted):
            return False
        if present is None:
            # Only objects of ours are watched: applying would take a stranger's over.
            found = await self._context.kube.get(resource, metadata["name"], metadata["namespace"])
            if found is not None and (found["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) != FIELD_MANAGER:
                raise NameTaken(f"{resource.kind} {metadata['name']} exists and was not made by this operator")
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
