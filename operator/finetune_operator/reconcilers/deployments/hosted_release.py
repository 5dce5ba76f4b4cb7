"""Deletes a ModelDeployment at a provider that bills for it: first what was created there, then the object."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from finetune_api.deployment import HostedDeployment
from finetune_api.manifest import Manifest, is_abandoned
from finetune_api.model import ModelVersion
from finetune_api.names import ABANDON_ANNOTATION, PROVIDER_FINALIZER
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, moment, reconciling, stalled
from finetune_operator.decide.deployment import hosted_record, hosting_cost
from finetune_operator.decide.deployment.decision import (
    DeploymentDecision,
    DeploymentView,
    deletion_decision,
    unrecorded,
)
from finetune_operator.decide.deployment.hosted import LONG
from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.decide.transient import TEMPORARY
from finetune_operator.providers.begun import begun
from finetune_operator.providers.calls.errors import ProviderError, Refused
from finetune_operator.providers.remote import hosting
from finetune_operator.providers.remote.hosting import Hosting
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.deployments.hosted_observation import as_recorded, left_behind, others_with
from finetune_operator.runtime.kube import CONNECTIONS, MODEL_DEPLOYMENTS

_SEARCHING = (
    "nothing records what it had at a provider, as after a restore without status, and a list there may lack what was "
    "made a moment ago: it is looked for two minutes before this object goes"
)


class HostedRelease:
    """Deletes what was created for an object, or says what stays."""

    def __init__(self, context: Context, calls: Hosting) -> None:
        self._context = context
        self._calls = calls

    async def end(self, deployment: Manifest, view: DeploymentView) -> DeploymentDecision | None:
        """Delete what was created; None once the provider says that it is gone and the finalizer is removed.

        Raises:
            KubeError: the finalizer cannot be removed, or its next try is not due.
        """
        self._context.require_finalizer_removable(deployment, PROVIDER_FINALIZER)
        if is_abandoned(deployment):
            goes_on = hosted_record.with_cost([one for one in view.status.hosted or () if not one.attached])
            goes_on = goes_on or "what it may have had"
            note = f"released, and left at the provider until somebody deletes it there: {goes_on}"
            await self._context.announce(deployment, "Warning", "Abandoned", note)
        elif view.spec.keeps if view.spec else _is_retained(deployment):
            await self._announce_retained(deployment, view)
        else:
            try:
                elsewhere, unseen = await self._elsewhere(deployment, view)
                left, trouble = await self._end(deployment, view, elsewhere)
            except ProviderError as error:
                view = replace(view, status=left_behind(view, view.status.hosted or ()))
                return deletion_decision(view, _blocked(deployment, view, error))
            waits = view.unrecorded and not left and hosted_record.may_still_show(_deleted_at(deployment), view.now)
            # What was found now is recorded; without the annotation no other place is checked again.
            last_look = not left or (view.unrecorded and not begun(deployment))
            if unseen and last_look and not waits:
                await self._context.announce(deployment, "Warning", "Retained", "; ".join(unseen))
            if left:
                view = replace(view, status=left_behind(view, left))
            if trouble is not None:
                return deletion_decision(view, _blocked(deployment, view, trouble))
            if left:
                return deletion_decision(view, _still_there(deployment, view, left))
            if waits:
                return deletion_decision(view, reconciling(Reason.PENDING, _SEARCHING))
            if view.unrecorded:
                await self._context.announce(deployment, "Warning", "Retained", unrecorded(view.unrecorded))
            await self._announce_unknown(deployment, view)
            await self._announce_shared(deployment, view)
        await self._context.remove_finalizer(MODEL_DEPLOYMENTS, deployment, PROVIDER_FINALIZER)
        return None

    async def _announce_retained(self, deployment: Manifest, view: DeploymentView) -> None:
        """Say what stays because of the policy, and what was already requested to be deleted before it changed."""
        hosted = view.status.hosted or ()
        if kept := hosted_record.with_cost([one for one in hosted if one.released_at is None]):
            note = f"left at the provider, as deletionPolicy is Retain: {kept}"
            await self._context.announce(deployment, "Normal", "Retained", note)
        if names := ", ".join(one.name for one in hosted if one.released_at is not None):
            note = f"deletionPolicy became Retain after the provider was asked to delete it, so it goes: {names}"
            await self._context.announce(deployment, "Warning", "Retained", note)
        if view.unrecorded:
            await self._context.announce(deployment, "Warning", "Retained", unrecorded(view.unrecorded))

    async def _announce_unknown(self, deployment: Manifest, view: DeploymentView) -> None:
        """Name an attached deployment that stays: it was never seen to serve a version of the model."""
        attach = view.spec.attach if view.spec else None
        known = {one.name for one in view.status.hosted or () if one.attached}
        if attach is not None and attach.id not in known:
            note = (
                f"{attach.id} is not deleted, and may be billed at the provider: it was not seen to serve a version of "
                "the model when the object was deleted"
            )
            await self._context.announce(deployment, "Warning", "Retained", note)

    async def _announce_shared(self, deployment: Manifest, view: DeploymentView) -> None:
        """Name an attached deployment that stays because others use it: the last of them deletes it."""
        for one in view.status.hosted or ():
            others = others_with(self._context.store, view, one) if one.attached else []
            if others:
                note = f"{one.name} is not deleted, and {hosted_record.billed(one)}: {', '.join(others)} has it too"
                await self._context.announce(deployment, "Warning", "Retained", note)

    async def _elsewhere(self, deployment: Manifest, view: DeploymentView) -> tuple[dict[str, Hosted], list[str]]:
        """What exists where other versions are served: a status restored from a backup lacks what was created since.

        An emptied status names no place at all. Then the annotation beside our finalizer does; without that, and if the
        model is gone, any place is possible.

        Returns:
            All deployments there, by name; and why some places could not be read, which blocks nothing.

        Raises:
            ProviderError: nothing is recorded, and the connection of an annotated place leads elsewhere.
        """
        recorded = {one.connection for one in view.status.hosted or ()}
        hosts, noted = self._all_that_host(), begun(deployment)
        places = set(noted) & hosts if noted else hosts if view.unrecorded else set()
        places = places - _of_versions(view) if view.unrecorded else (places | _of_versions(view)) - recorded
        for connection in sorted(set(noted) & hosts if view.unrecorded else ()):
            await self._calls.require_begun(connection, noted[connection])
        found: dict[str, Hosted] = {}
        unseen = []
        for connection in sorted(places):
            try:
                if connection in noted:
                    await self._calls.require_begun(connection, noted[connection])
                found |= await self._calls.list(connection)
            except ProviderError as error:
                what = "whether anything made for this object exists, and is billed"
                unseen.append(f"{what}, at LLMConnection {connection} is not known: {error.message}")
        return found, unseen

    def _all_that_host(self) -> set[str]:
        """Connections to providers that bill for deployments. The names of ours there contain the object's UID."""
        known = (name for _, name in self._context.store.addresses(CONNECTIONS))
        return {name for name in known if self._may_host(name)}

    def _may_host(self, name: str) -> bool:
        """Whether a connection is one of these; for an unreadable one, whether it has the block of such a provider."""
        spec = self._context.connection(name)
        said = self._context.store.get(CONNECTIONS, name) if spec is None else None
        return hosting.is_hosted(spec) or (said is not None and bool(hosting.HOSTED & (said.get("spec") or {}).keys()))

    async def _end(
        self, deployment: Manifest, view: DeploymentView, elsewhere: Mapping[str, Hosted]
    ) -> tuple[list[HostedDeployment], ProviderError | None]:
        """Request deletions one at a time, as the account allows. `elsewhere`: what exists in other places.

        Returns:
            The records of all that are left, as seen before the request; and the request's error, if any.
        """
        chosen = view.spec.attach.id if view.spec and view.spec.attach else None
        recorded = [
            one
            for one in view.status.hosted or ()
            if not one.attached or (one.name == chosen and not others_with(self._context.store, view, one))
        ]
        for one in recorded:
            await self._calls.require_place(one)
        connections = {one.connection for one in recorded} | (_of_versions(view) if view.unrecorded else set())
        found = {**elsewhere, **await self._calls.standing(sorted(connections), recorded)}
        prefix = hosting.prefix(deployment, view.spec, view.maker, found) if view.spec else "\0"
        ours = hosted_record.ours(recorded, found, prefix, view.now)
        ours = list(hosting_cost.billed(ours, found, as_recorded, view.now))
        busy = hosting.one_at_a_time(view.spec) and hosted_record.changes(found)
        free = () if busy else hosted_record.deletable(ours, found, view.now)
        bound = hosted_record.bound(ours, found, view.now)
        if bound and not free:
            raise Refused(Reason.PROVIDER_BUSY, bound.removeprefix("; "))
        try:
            for name in free[:1]:
                await self._calls.delete(found[name])
        except ProviderError as error:
            ending = {one.name for one in ours if hosted_record.is_ending(one, view.now)}
            busy_with_that = error.reason is Reason.PROVIDER_BUSY and name in ending
            return ours, None if busy_with_that else error
        return list(hosted_record.released(ours, free, view.now)), None


def _deleted_at(deployment: Manifest) -> datetime:
    return moment(deployment["metadata"]["deletionTimestamp"])


def _of_versions(view: DeploymentView) -> set[str]:
    """Connections at whose providers something may have been created for it without a record."""
    versions = (view.model.versions if view.model else None) or ()
    return {one.connection for one in versions if _may_be_hosted(one, view)}


def _may_be_hosted(version: ModelVersion, view: DeploymentView) -> bool:
    """By its connection; if that is unreadable, by where its weights are: a version on a claim is not hosted."""
    connection = view.connections.get(version.connection)
    unread = connection is None and version.connection in view.connections
    return hosting.is_hosted(connection) or (unread and not (version.artifact.uri or "").startswith("pvc://"))


def _blocked(deployment: Manifest, view: DeploymentView, error: ProviderError) -> list[Fact]:
    """Why its deployments are not deleted yet. A transient failure is no alarm unless it lasts."""
    passes = error.reason in TEMPORARY and not isinstance(error, Refused) and view.now - _deleted_at(deployment) < LONG
    if passes or error.reason == Reason.RATE_LIMITED:
        return reconciling(error.reason, f"its deployments are deleted later: {error.message}")
    message = f"{error.message}; fix that, or annotate this object with {ABANDON_ANNOTATION}=true to release it"
    hosted = view.status.hosted or ()  # needed by someone who deletes them by hand
    names = [one.name for one in hosted if not one.attached] or [one.name for one in hosted] or ["what it deployed"]
    return stalled(error.reason, f"{', '.join(names)} cannot be deleted, and may be billed: {message}")


def _is_retained(deployment: Manifest) -> bool:
    """The deletion policy of a spec that this release cannot read."""
    return bool(deployment["spec"].get("deletionPolicy") == "Retain")


def _deletion_note(left: Sequence[HostedDeployment]) -> str:
    """What is being deleted, and what was recorded but never listed: it may have been refused, for a quota say."""
    shown = [one.name for one in left if one.unseen_since is None or one.released_at is not None]
    hidden = [one.name for one in left if one.name not in shown]
    parts = [f"being deleted at the provider: {', '.join(shown)}"] if shown else []
    if hidden:
        parts.append(f"not shown by the provider, and looked for two minutes as it may still come: {', '.join(hidden)}")
    return "; ".join(parts)


def _still_there(deployment: Manifest, view: DeploymentView, left: Sequence[HostedDeployment]) -> list[Fact]:
    """The facts while deletions are in progress, and when they have not finished for long."""
    deleted, names = deployment["metadata"]["deletionTimestamp"], ", ".join(one.name for one in left)
    # The provider may have been asked late, for example because its connection was missing.
    asked = max(deleted, min((one.released_at for one in left if one.released_at), default=deleted), key=moment)
    if view.now - moment(asked) < LONG:
        return reconciling(Reason.PENDING, _deletion_note(left))
    said = f"still at the provider, which has accepted the deletion requested at {asked}: {names}. See there"
    message = f"{said} what holds it up; or annotate this object with {ABANDON_ANNOTATION}=true to release it"
    return stalled(Reason.PROVIDER_BUSY, message)
