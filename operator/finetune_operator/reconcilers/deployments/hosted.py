"""Deployments at a provider that bills for them: recorded before they are created, deleted before their object."""

import logging
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from finetune_api.deployment import HostedDeployment, ModelDeploymentSpec, ModelDeploymentStatus, Sleep
from finetune_api.manifest import Manifest
from finetune_api.names import PROVIDER_FINALIZER
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.deployment import hosted as decide
from finetune_operator.decide.deployment import hosted_record, hosting_cost, idle, token_prices
from finetune_operator.decide.deployment.decision import DeploymentView, needs_no_reconcile
from finetune_operator.decide.deployment.hosted import Plan
from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.decide.deployment.server_state import Serving
from finetune_operator.decide.deployment.serving_target import Target
from finetune_operator.decide.transient import TEMPORARY
from finetune_operator.providers.calls.errors import Denied, ProviderError, Refused
from finetune_operator.providers.catalogue import catalogue_name
from finetune_operator.providers.remote import hosting
from finetune_operator.providers.remote.hosting import Hosting
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.deployments.hosted_observation import (
    Observation,
    as_recorded,
    left_behind,
    others_with,
    without_copied,
)
from finetune_operator.runtime.kube import CONNECTIONS, MODEL_DEPLOYMENTS, NAMESPACES

logger = logging.getLogger(__name__)


MOVING_SECONDS, RESTING_SECONDS = 20.0, 600.0
"""Polling intervals: while something changes at the provider, and while nothing does."""

UNSERVED_PAUSE_SECONDS = 60.0

CLOCK_MARGIN = timedelta(minutes=5)
"""How far the clock of a provider that accepts our signatures may differ: our own question may be dated earlier."""


class HostedDeployments:
    """Creates, checks, measures and deletes the deployments of ModelDeployments.

    Args:
        context: what reconcilers share.
        calls: calls to providers.
        warn_after: how long a billed deployment may be unused before a warning.
        moving_seconds: polling interval while something changes at the provider.
    """

    def __init__(
        self,
        context: Context,
        calls: Hosting,
        *,
        warn_after: timedelta,
        moving_seconds: float,
    ) -> None:
        self._context = context
        self._calls = calls
        self._warn_after = warn_after
        self.moving_seconds = moving_seconds

    async def serve(
        self, deployment: Manifest, view: DeploymentView, target: Target
    ) -> tuple[Manifest, DeploymentView]:
        """Bring the wanted version up, then delete the others; or delete all, if the deployment is unused.

        Raises:
            ProviderError: a call to the provider failed.
            Conflict: the object has changed since it was read; nothing was created.
        """
        if view.spec is None:
            return deployment, view
        note = self._calls.note(deployment, target.version.connection)
        deployment = await self._context.add_finalizer(MODEL_DEPLOYMENTS, deployment, PROVIDER_FINALIZER, note)
        deployment = without_copied(self._context.store, deployment)
        observed = await self._observe(deployment, view, view.spec, target)
        asleep = view.status.asleep
        if not idle.is_asleep(asleep, view.generation, observed.wake):
            asleep = None
        plan = observed.plan(view.status.hosted or (), asleep)
        plan, trouble = await self._ask_if_due(observed, plan, asleep)
        seen = await self._usage(observed, plan)
        if seen is not None and seen.sleeps:
            asleep = idle.fall_asleep(view.generation, observed.wake, view.now)
            plan = observed.plan(plan.recorded, asleep)
        status = self._status(observed, plan, asleep, seen)
        before = observed.before(plan, status)
        written = await self._write(observed.deployment, view.status, before)
        if written is None:
            return observed.deployment, view  # deleted meanwhile, whoever removed its finalizer: nothing is created
        await self._announce_idle(written, view, asleep, seen)
        self._context.guard()
        try:
            status = await self._make(observed, plan, status)
        except Refused:
            await self._write(written, before, status)  # so that it is not requested again and again
            raise
        plan = await self._delete(observed, plan)
        if trouble is not None and plan.serving.state != "Failing":
            raise trouble
        fact = idle.sleeping(asleep, status.usage) if asleep else (seen.fact if seen else idle.NOT_ANSWERING_YET)
        note = self._namesakes_note(observed) + self._sharers_note(view, status)
        serving = replace(_serving_after(plan), note=plan.serving.note + note)
        view = replace(view, status=status, serving=serving, serves=plan.serves, cost=status.cost, idle=fact)
        view = replace(view, answers=observed.answers(plan.serves))
        if serving.available and plan.serves is None:
            view = replace(view, meanwhile=view.status.served_version)  # not listed now: asked by its recorded name
        answering = observed.answering(plan)
        if serving.state == "Unshown" or (asleep is None and answering and answering.name not in observed.found):
            view = replace(view, idle=None)
        return written, view

    @staticmethod
    def _namesakes_note(observed: Observation) -> str:
        """Names deployments that this object may have had before it was recreated (a restore): nothing else does."""
        recorded = {one.name for one in observed.view.status.hosted or ()}
        alike = hosting.namesakes(observed.deployment, observed.spec, observed.found, observed.view.maker)
        named = [one for one in alike if one not in recorded]
        if not named:
            return ""
        names = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
        return (
            f"; {names} at the provider may be billed, and was made for an earlier object of this name, or in another "
            "cluster: attach it (spec.attach.id), or delete it there"
        )

    def _sharers_note(self, view: DeploymentView, status: ModelDeploymentStatus) -> str:
        """Says who else has what is attached: each of them shows its cost, though it is billed once.

        The object that it was made for deletes it when its own next version answers: an attachment does not block that.
        """
        attached = [one for one in status.hosted or () if one.attached]
        if makers := {maker for one in attached for maker in others_with(self._context.store, view, one, made=True)}:
            return (
                f"; {', '.join(sorted(makers))} has made it (it is billed once), and deletes it when it serves another "
                "version or is deleted: remove spec.attach to have one made for this object"
            )
        found = {other for one in attached for other in others_with(self._context.store, view, one)}
        return f"; {', '.join(sorted(found))} has it too, and it is billed once" if found else ""

    async def leave(
        self, deployment: Manifest, view: DeploymentView, target: Target | None
    ) -> tuple[Manifest, DeploymentView]:
        """Delete deployments at a provider once the version answers in a place that needs none, and not before.

        The record of an attached one stays while spec names it: deleting it along with the object relies on that.
        """
        hosted = view.status.hosted
        if not hosted:
            return deployment, view
        attach = view.spec.attach if view.spec else None
        kept = [one for one in hosted if one.attached and attach and one.name == attach.id]
        recorded = [one for one in hosted if not one.attached]
        number = target.version.version if target is not None else None
        answers = view.serving.state in {"Serving", "Idle"} and view.serving.version == number
        try:
            for one in recorded:
                await self._calls.require_place(one)
            found = await self._calls.standing(sorted({one.connection for one in recorded}), recorded)
            left, delete = decide.leave(recorded, found, view.now, answers=answers)
            status = left_behind(view, [*kept, *hosting_cost.billed(left, found, as_recorded, view.now)])
            deployment = await self._write(deployment, view.status, status) or deployment
            self._context.guard()
            for one in [one for one in left if one.name in delete[:1]]:
                await self._calls.delete(found[one.name])
        except ProviderError as error:
            status = left_behind(view, [*kept, *recorded])
            names = ", ".join(one.name for one in recorded)
            note = f"; {names}, which served before, cannot be ended and may be billed: {error.message}"
            serving = replace(view.serving, note=note)
            return deployment, replace(view, status=status, cost=status.cost, serving=serving)
        before = next((one for one in left if one.answered and hosted_record.is_ready(found, one.name)), None)
        meanwhile = before.version if before is not None and not answers else None
        return deployment, replace(view, status=status, cost=status.cost, meanwhile=meanwhile)

    async def _write(
        self, deployment: Manifest, before: ModelDeploymentStatus, status: ModelDeploymentStatus
    ) -> Manifest | None:
        same = needs_no_reconcile(before, status)
        return await self._context.write_status(MODEL_DEPLOYMENTS, deployment, before, status, notified=same)

    async def _ask_if_due(
        self, observed: Observation, plan: Plan, asleep: Sleep | None
    ) -> tuple[Plan, ProviderError | None]:
        """The plan after asking the deployment, if that is due; and the error, if that failed.

        The deployment exists and is billed whether or not it can be asked, so its cost is shown all the same.
        """
        if not plan.ask:
            return plan, None
        try:
            answers = await self._calls.answers(observed.found[observed.wanted.name])
        except ProviderError as error:
            failure = plan.serving.failure
            if failure is not None:
                failure = failure.model_copy(update={"message": f"{failure.message}: {error.message}"})
                plan = replace(plan, serving=replace(plan.serving, failure=failure))
            return plan, error
        if answers:
            return observed.plan(hosted_record.answered(plan.recorded, observed.wanted.name), asleep), None
        note = f"{plan.serving.note}; {observed.wanted.name} exists at the provider, and does not answer yet"
        return replace(plan, serving=replace(plan.serving, note=note)), None

    async def _observe(
        self, deployment: Manifest, view: DeploymentView, spec: ModelDeploymentSpec, target: Target
    ) -> Observation:
        for one in view.status.hosted or ():
            await self._calls.require_place(one)
        await self._calls.require_models(target.version)
        versions = (view.model.versions if view.model else None) or ()
        wanted = hosting.wanted(deployment, spec, target, versions, maker=view.maker)
        others = {one.connection for one in view.status.hosted or ()} - {wanted.connection}
        found = await self._calls.standing([*sorted(others), wanted.connection], view.status.hosted or (), wanted.name)
        wanted = hosting.wanted(deployment, spec, target, versions, maker=view.maker, found=found)
        there = found.get(wanted.name)
        if spec.attach is not None and there is not None and there.connection == wanted.connection:
            found[wanted.name] = await self._calls.details(there)
        for one in view.status.hosted or ():
            await self._add_failure(one, found)
            await self._add_changes(one, found)
        facts = self._context.catalogue().of(catalogue_name(target.connection))
        return Observation(deployment, view, spec, target, wanted, found, facts)

    async def _add_failure(self, one: HostedDeployment, found: dict[str, Hosted]) -> None:
        """For a failed or unlisted deployment, add the error that only the operation that created it shows."""
        there = found.get(one.name)
        unsure = there is None or (there.state == "Failed" and not there.failure)
        if one.operation is None or one.released_at is not None or not unsure:
            return
        asked = there or Hosted(one.name, "Creating", one.connection)
        details = await self._calls.details(replace(asked, operation=one.operation))
        if details.state == "Failed":
            found[one.name] = details

    async def _add_changes(self, one: HostedDeployment, found: dict[str, Hosted]) -> None:
        """For a deployment that has answered, add changes that someone may have made at the provider."""
        there = found.get(one.name)
        if there is None or there.state != "Ready" or one.attached or not one.answered or one.released_at is not None:
            return
        with suppress(Denied):  # the right for this is optional
            found[one.name] = await self._calls.details(there)

    async def _usage(self, observed: Observation, plan: Plan) -> idle.UsageCheck | None:
        """The provider's usage figures of the answering deployment; None if none answers."""
        entry = observed.answering(plan)
        if entry is None or entry.name not in observed.found or plan.serving.state == "Idle":
            return None
        there, now, usage = observed.found[entry.name], observed.view.now, idle.usage_of(observed.usage, entry.name)
        since = moment(usage.last_request_at) if usage.last_request_at else moment(entry.created_at) - CLOCK_MARGIN
        try:
            figures = await self._calls.usage(there, since, now)
            activity = idle.of_figures(figures, usage, moment(entry.created_at))
        except ProviderError as error:
            activity = idle.Activity(unknown=error.message, started=moment(entry.created_at))
        return idle.check(usage, activity, self._limits(observed, there), now)

    def _limits(self, observed: Observation, there: Hosted) -> idle.Limits:
        rate, limit = observed.price(there), observed.spec.idle
        bound = there.bound_until is not None and there.bound_until > observed.view.now
        if limit is not None and (bound or there.name != observed.wanted.name):
            # Stopping it would not end the bill; or it answers until the wanted one does, which was asked for.
            limit = limit.model_copy(update={"action": "None"})
        if rate is None or (rate.per_hour is not None and not Decimal(rate.per_hour)):
            return idle.Limits(limit, None)
        known = f"with {rate.per_hour} {observed.facts.hosting_currency} an hour"
        said = f" {known}" if rate.per_hour else " at a price that is not known"
        return idle.Limits(limit, self._warn_after, said)

    def _status(
        self, observed: Observation, plan: Plan, asleep: Sleep | None, seen: idle.UsageCheck | None
    ) -> ModelDeploymentStatus:
        """The status to write before anything is done."""
        before, now = observed.view.status, observed.view.now
        placed = [self._with_place(one) for one in plan.recorded]
        recorded = hosting_cost.billed(placed, observed.found, observed.price, now)
        cost = hosting_cost.total(before.cost, before.hosted or (), recorded, observed.facts.hosting_currency, now)
        cost = token_prices.as_before(cost and cost.model_copy(update={"basis": observed.basis(recorded)}), before.cost)
        usage = seen.usage if seen else observed.usage
        return before.model_copy(update={"hosted": list(recorded), "cost": cost, "asleep": asleep, "usage": usage})

    def _with_place(self, one: HostedDeployment) -> HostedDeployment:
        """Add the place as soon as it is known; a recorded place stays."""
        place = one.place or self._calls.place(one.connection)
        return one.model_copy(update={"place": place, "account": one.account or self._calls.account(one.connection)})

    async def _announce_idle(
        self, deployment: Manifest, view: DeploymentView, asleep: Sleep | None, seen: idle.UsageCheck | None
    ) -> None:
        if seen is not None and seen.warns:
            await self._context.announce(deployment, "Warning", seen.fact.reason, seen.fact.message)
        if asleep is not None and view.status.asleep != asleep:
            note = f"{seen.fact.message if seen else 'it receives no requests'}: its deployment is deleted"
            await self._context.announce(deployment, "Normal", Reason.IDLE, note)

    async def _make(self, observed: Observation, plan: Plan, status: ModelDeploymentStatus) -> ModelDeploymentStatus:
        """Create what the plan says; returns the status with the operation, which can be followed.

        Raises:
            ProviderError: it was not created, as far as is known.
        """
        if not plan.make:
            return status
        await self._require_served(observed.view.namespace, observed.wanted.connection)
        recorded = next(one for one in plan.recorded if one.name == observed.wanted.name)
        request = hosting.request(observed.deployment, observed.spec, observed.target, recorded)
        operation = await self._calls.make(observed.wanted.connection, request)
        followed = hosted_record.with_operation(status.hosted or (), observed.wanted.name, operation)
        return status.model_copy(update={"hosted": list(followed)})

    async def _require_served(self, namespace: str, connection: str) -> None:
        """Check the selector of the connection: its account is billed for what is created there.

        Raises:
            Refused: it does not select this namespace, according to the API and not just to watches.
        """
        context = self._context
        if connection in context.connections_of(namespace):
            return
        await context.refresh(NAMESPACES, namespace)
        await context.refresh(CONNECTIONS, connection)
        if connection not in context.connections_of(namespace):
            said = f"LLMConnection {connection} does not serve namespace {namespace}"
            message = f"{said}: nothing new is created at its provider, and what exists there continues"
            raise Refused(Reason.NAMESPACE_NOT_ALLOWED, message, UNSERVED_PAUSE_SECONDS)

    async def _delete(self, observed: Observation, plan: Plan) -> Plan:
        """Delete one deployment that is no longer needed. A failure does not affect the one that answers.

        Raises:
            ProviderError: the call failed, and nothing of the wanted version answers.
        """
        for one in [one for one in plan.recorded if one.name in plan.delete[:1]]:
            try:
                await self._calls.delete(observed.found[one.name])
            except ProviderError as error:
                if plan.serving.state != "Serving":
                    raise
                logger.warning("%s cannot be deleted at the provider: %s", one.name, error.message)
                asked_before = {old.name for old in observed.view.status.hosted or () if old.released_at}
                if error.reason not in TEMPORARY or one.name in asked_before:
                    note = f"; {one.name}, which served before, cannot be deleted and may be billed: {error.message}"
                    return replace(plan, serving=replace(plan.serving, note=plan.serving.note + note))
        return plan


def _serving_after(plan: Plan) -> Serving:
    """What answers while it is changed to other terms: whether they are in effect shows at the next reconcile."""
    serving = plan.serving
    if not plan.make or serving.state != "Serving":
        return serving
    return replace(serving, state="Rolling", answers=serving.version)


def next_check(view: DeploymentView) -> float:
    """Seconds until the next check of a deployment that answers or sleeps: a part of its idle limit."""
    limit = view.spec.idle if view.spec else None
    return RESTING_SECONDS if limit is None else max(MOVING_SECONDS, min(RESTING_SECONDS, limit.after_seconds / 5))
