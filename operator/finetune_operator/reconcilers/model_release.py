"""A FineTunedModel that takes its weights with it: held until they are gone, with a way out."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.connection import HuggingFace, LLMConnectionSpec
from finetune_api.model import FineTunedModelStatus, ModelVersion
from finetune_api.names import ABANDON_ANNOTATION, WEIGHTS_FINALIZER
from finetune_api.reasons import Reason
from finetune_operator.decide import leftovers
from finetune_operator.decide.conditions import Fact, merge, reconciling, stalled
from finetune_operator.decide.model import ModelView
from finetune_operator.decide.model_release import next_step
from finetune_operator.desired import prune_job
from finetune_operator.providers.accounts import Accounts, is_remote
from finetune_operator.providers.errors import CannotMake, ProviderError, TryLater
from finetune_operator.providers.hugging_face import create_job
from finetune_operator.reconcilers.context import Context, has_finalizer, is_abandoned
from finetune_operator.runtime.errors import REFUSALS, Conflict
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, JOBS, MODEL_DEPLOYMENTS
from finetune_operator.runtime.queue import Requeue

logger = logging.getLogger(__name__)

Manifest = dict[str, Any]

LOOK_SECONDS, TROUBLE_SECONDS = 5.0, 60.0


class ModelRelease:
    """Puts the finalizer on and takes it off.

    Args:
        context: the world.
        accounts: of the providers that have weights.
    """

    def __init__(self, context: Context, accounts: Accounts) -> None:
        self._context = context
        self._accounts = accounts

    async def hold(self, model: Manifest, view: ModelView) -> Manifest:
        """The finalizer on a model that takes its weights with it, and on no other."""
        wanted = view.spec is not None and view.spec.deletion_policy == "Delete"
        if view.deleting or view.spec is None:
            return model
        step = self._context.hold if wanted else self._context.let_go
        return await step(FINE_TUNED_MODELS, model, WEIGHTS_FINALIZER)

    async def release(self, model: Manifest, view: ModelView) -> Requeue | None:
        """One step towards the end of a model that is held."""
        if is_abandoned(model) or view.spec is None or view.spec.deletion_policy == "Retain":
            await self._let_go(model, view.versions)
            return None
        step = next_step(view.name, view.deployments)
        if step.step == "DeleteWeights":
            return await self._delete_weights(model, view)
        names = ", ".join(step.deployments)
        if step.step == "WaitForOthers":
            said = f"ModelDeployment {names} uses it: delete that first, {_way_out()}"
            return await self._say(model, view, stalled(Reason.PENDING, said), view.versions, TROUBLE_SECONDS)
        try:
            for name in step.deployments:
                await self._context.kube.delete(MODEL_DEPLOYMENTS, name, model["metadata"]["namespace"])
        except REFUSALS as refusal:
            said = f"ModelDeployment {names} cannot be deleted: {refusal.message}; {_way_out()}"
            return await self._say(model, view, stalled(Reason.WRITE_REFUSED, said), view.versions, TROUBLE_SECONDS)
        said = f"its weights are deleted when ModelDeployment {names} is gone"
        return await self._say(model, view, reconciling(Reason.PENDING, said), view.versions, LOOK_SECONDS)

    async def _delete_weights(self, model: Manifest, view: ModelView) -> Requeue | None:
        left: list[ModelVersion] = []
        trouble: ProviderError | None = None
        for version in view.versions:
            try:
                gone = await self._delete(model, version)
            except ProviderError as error:
                gone, trouble = False, trouble or error
            left += [] if gone else [version]
        if not left:
            await self._let_go(model, ())
            return None
        numbers = ", ".join(str(version.version) for version in left)
        if trouble is None:
            facts = reconciling(Reason.PENDING, f"the weights of version {numbers} are being deleted")
            return await self._say(model, view, facts, left, LOOK_SECONDS)
        said = f"the weights of version {numbers} cannot be deleted: {trouble.message}; {_way_out()}"
        what = leftovers.left(f"the weights of version {numbers}", trouble.failure(), leftovers.way_out("model"))
        again = leftovers.pause(view.status.conditions, trouble.failure(), view.now)
        return await self._say(model, view, [*stalled(trouble.reason, said), what], left, again)

    async def _delete(self, model: Manifest, version: ModelVersion) -> bool:
        """Whether a version's weights are gone, or not this model's to delete.

        Raises:
            ProviderError: they cannot be deleted now.
        """
        if version.adopted:
            return True
        connection = self._context.connection(version.connection)
        if is_at_provider(version, connection):
            await delete_at_provider(self._accounts, version)
            return True
        job = prune_job.for_release(model, version, require_here(version, connection))
        return job is None or await self._pruned(job)

    async def _pruned(self, job: Manifest) -> bool:
        """Whether the Job that deletes a folder has done so; it is made where it is not there."""
        metadata = job["metadata"]
        present = self._context.store.get(JOBS, metadata["name"], metadata["namespace"])
        conditions = {one["type"] for one in _conditions(present) if one["status"] == "True"}
        if "Complete" in conditions:
            return True
        if present is not None:
            require_not_failed(present)
            return False
        if self._context.is_ending(metadata["namespace"]):
            return True  # its claims go with it
        await make_prune_job(self._context, job)
        return False

    async def _let_go(self, model: Manifest, left: Sequence[ModelVersion]) -> None:
        if left:
            numbers = ", ".join(str(version.version) for version in left)
            note = f"let go; the weights of version {numbers} stay where they are until somebody deletes them"
            await self._context.announce(model, "Warning", "Abandoned", note)
        await self._context.let_go(FINE_TUNED_MODELS, model, WEIGHTS_FINALIZER)

    async def _say(
        self, model: Manifest, view: ModelView, facts: list[Fact], left: list[ModelVersion], again: float
    ) -> Requeue:
        conditions = merge(view.status.conditions, facts, generation=view.generation, now=view.now)
        fields: dict[str, Any] = {"conditions": conditions, "versions": left, "observed_generation": view.generation}
        status: FineTunedModelStatus = view.status.model_copy(update=fields)
        await self._context.write_status(FINE_TUNED_MODELS, model, view.status, status)
        told = leftovers.headline(view.status.conditions, conditions)
        if told is not None:
            await self._context.announce(model, *told)
        return Requeue(again)


def is_at_provider(version: ModelVersion, connection: LLMConnectionSpec | None) -> bool:
    """Whether a version's weights are a provider's to delete; on a claim they are not, whatever the connection is."""
    if version.artifact.provider_model_id is not None:
        return True
    return is_remote(connection) and not (version.artifact.uri or "").startswith("pvc://")


async def delete_at_provider(accounts: Accounts, version: ModelVersion) -> None:
    """Delete a version's weights at the provider where they are: elsewhere they would be taken for gone.

    Raises:
        ProviderError: they cannot be deleted now.
    """
    accounts.require_models(version)
    name = version.artifact.provider_model_id or version.artifact.uri or ""
    await accounts.of(version.connection).call(lambda api: api.delete_model(name))


def require_here(version: ModelVersion, connection: LLMConnectionSpec | None) -> HuggingFace:
    """The connection's block, which says where on the cluster weights are.

    Raises:
        TryLater: there is none by now.
    """
    if connection is None or connection.hugging_face is None:
        raise TryLater(Reason.CONNECTION_NOT_FOUND, f"there is no LLMConnection {version.connection} to its place")
    return connection.hugging_face


async def make_prune_job(context: Context, job: Manifest) -> None:
    """Have a Job delete a folder; one of an earlier model that has the name and is on its way out is waited for.

    Raises:
        TryLater: a policy refuses it, or somebody else's has the name.
    """
    try:
        context.store.put(JOBS, await create_job(context.kube, job))
    except Conflict as going:
        logger.info("a Job that deletes weights waits: %s", going.message)  # its end has the model looked at
    except CannotMake as taken:
        raise TryLater(taken.failure.reason, taken.failure.message) from None
    except REFUSALS as refusal:
        raise TryLater(Reason.POD_REJECTED, refusal.message) from None


def require_not_failed(job: Manifest) -> None:
    """The Job that deletes a folder has not failed.

    Raises:
        TryLater: it has, and is not tried again while it is there.
    """
    if any((one["type"], one["status"]) == ("Failed", "True") for one in _conditions(job)):
        said = f"Job {job['metadata']['name']} failed; its pod's log says why; delete the Job to have it tried again"
        raise TryLater(Reason.ARTIFACT_FAILED, said)


def is_held(model: Mapping[str, Any]) -> bool:
    """Whether the model waits for its weights to be deleted, or will."""
    return has_finalizer(model, WEIGHTS_FINALIZER)


def _way_out() -> str:
    return f"or annotate the model with {ABANDON_ANNOTATION}=true to let it go and leave the weights"


def _conditions(job: Manifest | None) -> list[dict[str, Any]]:
    return (job or {}).get("status", {}).get("conditions") or []
