"""Deployments at a provider that bills for them: recorded before they are made, gone before their object goes."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from finetune_api.catalogue import Catalogue, hosted
from finetune_api.deployment import DeploymentCost, HostedDeployment
from finetune_api.names import ABANDON_ANNOTATION, PROVIDER_FINALIZER
from finetune_api.reasons import Reason
from finetune_operator.decide import hosted as decide
from finetune_operator.decide.conditions import moment, reconciling, stalled
from finetune_operator.decide.deployment import DeploymentDecision, DeploymentView, Target, going
from finetune_operator.decide.hosted import Hosted, Plan, Wanted
from finetune_operator.decide.hosting_terms import terms_of
from finetune_operator.providers import hosting
from finetune_operator.providers.accounts import catalogue_name
from finetune_operator.providers.errors import ProviderError
from finetune_operator.providers.hosting import Hosting
from finetune_operator.reconcilers.context import Context
from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS

logger = logging.getLogger(__name__)

Manifest = dict[str, Any]

MOVING_SECONDS, RESTING_SECONDS = 20.0, 600.0
"""Between two looks, while something changes at the provider and while nothing does."""


class HostedDeployments:
    """Makes, asks and deletes deployments of ModelDeployments.

    Args:
        context: the world.
        calls: what is asked of providers.
        catalogue: prices as they are known now.
        guard: raises LeadershipLost where another replica may lead by now.
    """

    def __init__(
        self, context: Context, calls: Hosting, catalogue: Callable[[], Catalogue], guard: Callable[[], None]
    ) -> None:
        self._context = context
        self._calls = calls
        self._catalogue = catalogue
        self._guard = guard

    async def serve(
        self, deployment: Manifest, view: DeploymentView, target: Target
    ) -> tuple[Manifest, DeploymentView]:
        """Bring the wanted version up, and then take the others down.

        Raises:
            ProviderError: the provider did not do its part.
            Conflict: the object has changed since it was read; nothing was asked for.
        """
        if view.spec is None:
            return deployment, view
        wanted = hosting.wanted(deployment, view.spec, target)
        deployment = await self._hold(deployment)
        recorded = tuple(view.status.hosted or ())
        found = await self._found({wanted.connection, *(one.connection for one in recorded)})
        plan = decide.plan(recorded, found, wanted, view.now)
        if plan.ask and await self._calls.answers(wanted.connection, wanted.name):
            plan = decide.plan(decide.answered(plan.recorded, wanted.name), found, wanted, view.now)
        status = view.status.model_copy(update={"hosted": list(plan.recorded)})
        deployment = await self._write(deployment, view, status)
        await self._do(deployment, view, target, wanted, plan)
        cost = self._cost(view, target, plan, found)
        return deployment, replace(view, status=status, serving=plan.serving, serves=plan.serves, cost=cost)

    async def release(self, deployment: Manifest, view: DeploymentView) -> DeploymentDecision | None:
        """End what was made, and take the finalizer off once the provider says that it is gone; None when it is."""
        abandoned = deployment["metadata"].get("annotations", {}).get(ABANDON_ANNOTATION) == "true"
        keep = view.spec is not None and view.spec.deletion_policy == "Retain"
        if not abandoned and not keep:
            try:
                left = await self._end(deployment, view)
            except ProviderError as error:
                message = f"{error.message}; annotate it with {ABANDON_ANNOTATION}=true to let it go"
                return going(view, stalled(error.reason, f"its deployments cannot be deleted: {message}"))
            if left:
                return going(view, reconciling(Reason.PENDING, f"{', '.join(left)} is being deleted at the provider"))
        if abandoned:
            note = "let go; deployments that it left at the provider are billed until somebody deletes them"
            await self._context.announce(deployment, "Warning", "Abandoned", note)
        kept = [name for name in deployment["metadata"].get("finalizers") or () if name != PROVIDER_FINALIZER]
        await self._with_finalizers(deployment, kept)
        return None

    async def _end(self, deployment: Manifest, view: DeploymentView) -> list[str]:
        """Ask for the end of one deployment at a time, as the account allows; the names of all that are left."""
        recorded = view.status.hosted or []
        found = await self._found({one.connection for one in recorded})
        prefix = hosting.prefix(deployment, view.spec) if view.spec else "\0"
        ours = decide.ours(recorded, found, prefix, view.now)
        busy = terms_of(view.spec).one_at_a_time and decide.changes(found)
        first = next((one for one in ours if one.name in found), None)
        if first is not None and not busy:
            await self._calls.delete(first.connection, first.name)
        return [one.name for one in ours]

    async def _do(self, deployment: Manifest, view: DeploymentView, target: Target, wanted: Wanted, plan: Plan) -> None:
        if view.spec is None:
            return
        self._guard()
        if plan.make:
            recorded = next(one for one in plan.recorded if one.name == wanted.name)
            await self._calls.make(wanted.connection, hosting.request(deployment, view.spec, target, recorded))
        for one in [one for one in plan.recorded if one.name in plan.delete][:1]:
            await self._calls.delete(one.connection, one.name)

    async def _found(self, connections: set[str]) -> dict[str, Hosted]:
        found: dict[str, Hosted] = {}
        for connection in sorted(connections):
            found |= await self._calls.list(connection)
        return found

    def _cost(
        self, view: DeploymentView, target: Target, plan: Plan, found: dict[str, Hosted]
    ) -> DeploymentCost | None:
        """Of all that stands; None where no price of an hour is known."""
        facts, terms = self._catalogue().of(catalogue_name(target.connection)), terms_of(view.spec)
        price = facts.price_per_hour(target.version.base_model, terms.sku)
        standing = [one for one in plan.recorded if one.answered and one.name in found]
        if price is None or not standing:
            return None
        hours = sum((_age(view, one) for one in standing), timedelta()).total_seconds() / 3600
        return hosted(price, terms.units * len(standing), hours / len(standing), facts.hosting_currency)

    async def _hold(self, deployment: Manifest) -> Manifest:
        present = deployment["metadata"].get("finalizers") or []
        if PROVIDER_FINALIZER in present:
            return deployment
        return await self._with_finalizers(deployment, [*present, PROVIDER_FINALIZER])

    async def _write(self, deployment: Manifest, view: DeploymentView, status: Any) -> Manifest:
        await self._context.write_status(MODEL_DEPLOYMENTS, deployment, view.status, status)
        metadata = deployment["metadata"]
        return self._context.store.get(MODEL_DEPLOYMENTS, metadata["name"], metadata["namespace"]) or deployment

    async def _with_finalizers(self, deployment: Manifest, finalizers: list[str]) -> Manifest:
        metadata = deployment["metadata"]
        body = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        patched = await self._context.kube.merge_patch(MODEL_DEPLOYMENTS, metadata["name"], metadata["namespace"], body)
        self._context.store.put(MODEL_DEPLOYMENTS, patched)
        return patched


def _age(view: DeploymentView, one: HostedDeployment) -> timedelta:
    return view.now - moment(one.created_at)
