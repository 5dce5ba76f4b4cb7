"""What happens to the weights of a deleted FineTunedModel.

With deletionPolicy Delete it is held until they are deleted, with a way to release it without that. Otherwise it is
gone at once, and an Event names what stays in stores and at providers, which may bill for it.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.manifest import Manifest, finalizers_of, is_abandoned
from finetune_api.model import FineTunedModelStatus, ModelVersion
from finetune_api.names import ABANDON_ANNOTATION, WEIGHTS_FINALIZER
from finetune_api.reasons import Reason
from finetune_operator.decide import leftovers
from finetune_operator.decide.conditions import Fact, merge, reconciling, stalled
from finetune_operator.decide.model import ModelView
from finetune_operator.decide.model_release import next_step
from finetune_operator.decide.pods.refused import refusal_of_write
from finetune_operator.desired import prune_job
from finetune_operator.providers.calls.errors import ProviderError
from finetune_operator.providers.remote.hosting import named
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.models.weights import Weights
from finetune_operator.reconcilers.watched.indexes import has_weights, is_shared
from finetune_operator.reconcilers.watched.reading import parse_status
from finetune_operator.runtime.errors import REFUSALS
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.queue import Requeue

logger = logging.getLogger(__name__)

LOOK_SECONDS, TROUBLE_SECONDS = 5.0, 60.0
GONE_REMEMBERED = 256
"""How many models deleted without a finalizer are remembered, until the reconcile that their deletion triggers."""


class ModelRelease:
    """Adds and removes the finalizer.

    Args:
        context: what reconcilers share.
        weights: deletes the weights of versions.
    """

    def __init__(self, context: Context, weights: Weights) -> None:
        self._context = context
        self._weights = weights
        self._gone: LRUCache[Manifest] = LRUCache(GONE_REMEMBERED)

    def remember_deleted(self, model: Mapping[str, Any]) -> None:
        """Remember a model that was deleted without our finalizer."""
        if not is_held(model):
            metadata = model["metadata"]
            whole = {**model, "apiVersion": FINE_TUNED_MODELS.api_version, "kind": FINE_TUNED_MODELS.kind}
            self._gone.put(f"{metadata['namespace']}/{metadata['name']}", whole)

    async def announce_left_weights(self, namespace: str, name: str) -> None:
        """Post an Event with the weights that a deleted model left, as nothing else names them; not those on claims."""
        if (model := self._gone.get(f"{namespace}/{name}")) is None:
            return
        self._gone.drop(f"{namespace}/{name}")
        versions = parse_status(FineTunedModelStatus, model).versions or ()
        made = {named(one.artifact) for one in versions if not one.adopted}
        known = self._context.store.count
        left = sorted(one for one in made if is_shared(one) and not known(FINE_TUNED_MODELS, has_weights(one)))
        if left:
            said = "its weights stay, and storage may be billed until somebody deletes them there"
            note = f"{said}: {', '.join(left)}"
            logger.warning("FineTunedModel %s/%s is gone; %s", namespace, name, note)  # its namespace may take no Event
            await self._context.announce(model, "Warning", "Retained", note)

    async def set_finalizer(self, model: Manifest, view: ModelView) -> Manifest:
        """The model, with the finalizer exactly if its policy is to delete its weights."""
        wanted = view.spec is not None and view.spec.deletion_policy == "Delete"
        if view.deleting or view.spec is None:
            return model
        step = self._context.add_finalizer if wanted else self._context.remove_finalizer
        return await step(FINE_TUNED_MODELS, model, WEIGHTS_FINALIZER)

    async def release(self, model: Manifest, view: ModelView) -> Requeue | None:
        """One step of deleting a model that has the finalizer.

        Raises:
            KubeError: the finalizer cannot be removed, or its next try is not due.
        """
        self._context.require_finalizer_removable(model, WEIGHTS_FINALIZER)
        if is_abandoned(model) or view.spec is None or view.spec.deletion_policy == "Retain":
            await self._remove_finalizer(model, view.versions)
            return None
        step = next_step(view.serving)
        if step.step == "DeleteWeights":
            return await self._delete_weights(model, view)
        names = ", ".join(step.deployments)
        if step.step == "WaitForOthers":
            message = f"ModelDeployment {names} uses it: delete that first, {_way_out()}"
            return await self._report(model, view, stalled(Reason.PENDING, message), view.versions, TROUBLE_SECONDS)
        try:
            for name in step.deployments:
                await self._context.kube.delete(MODEL_DEPLOYMENTS, name, model["metadata"]["namespace"])
        except REFUSALS as refusal:
            why = refusal_of_write(refusal.message).sentences.rstrip(".")
            message = f"ModelDeployment {names} cannot be deleted: {why}; {_way_out()}"
            return await self._report(
                model, view, stalled(Reason.WRITE_REFUSED, message), view.versions, TROUBLE_SECONDS
            )
        message = f"its weights are deleted when ModelDeployment {names} is gone"
        return await self._report(model, view, reconciling(Reason.PENDING, message), view.versions, LOOK_SECONDS)

    async def _delete_weights(self, model: Manifest, view: ModelView) -> Requeue | None:
        left: list[ModelVersion] = []
        trouble: ProviderError | None = None
        for version in view.versions:
            try:
                gone = await self._weights.delete(model, version, prune_job.for_release)
            except ProviderError as error:
                gone, trouble = False, trouble or error
            left += [] if gone else [version]
        if not left:
            await self._remove_finalizer(model, ())
            return None
        numbers = ", ".join(str(version.version) for version in left)
        if trouble is None:
            facts = reconciling(Reason.PENDING, f"the weights of version {numbers} are being deleted")
            return await self._report(model, view, facts, left, LOOK_SECONDS)
        message = f"the weights of version {numbers} cannot be deleted: {trouble.message}; {_way_out()}"
        what = leftovers.left(f"the weights of version {numbers}", trouble.failure(), leftovers.way_out("model"))
        again = leftovers.pause(view.status.conditions, trouble.failure(), view.now)
        return await self._report(model, view, [*stalled(trouble.reason, message), what], left, again)

    async def _remove_finalizer(self, model: Manifest, left: Sequence[ModelVersion]) -> None:
        if left:
            numbers = ", ".join(str(version.version) for version in left)
            note = f"released; the weights of version {numbers} stay where they are until somebody deletes them"
            await self._context.announce(model, "Warning", "Abandoned", note)
        await self._context.remove_finalizer(FINE_TUNED_MODELS, model, WEIGHTS_FINALIZER)

    async def _report(
        self, model: Manifest, view: ModelView, facts: list[Fact], left: list[ModelVersion], again: float
    ) -> Requeue:
        conditions = merge(view.status.conditions, facts, generation=view.generation, now=view.now)
        fields: dict[str, Any] = {"conditions": conditions, "versions": left, "observed_generation": view.generation}
        status: FineTunedModelStatus = view.status.model_copy(update=fields)
        await self._context.write_status(FINE_TUNED_MODELS, model, view.status, status)
        await self._context.announce_event(model, leftovers.leftover_event(view.status.conditions, conditions))
        return Requeue(again)


def is_held(model: Mapping[str, Any]) -> bool:
    """Whether the model's deletion waits, or will wait, for its weights to be deleted."""
    return WEIGHTS_FINALIZER in finalizers_of(model)


def _way_out() -> str:
    return f"or annotate the model with {ABANDON_ANNOTATION}=true to release it and leave the weights"
