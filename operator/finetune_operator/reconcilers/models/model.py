"""FineTunedModel: observe, decide, act, write status."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from finetune_api.deployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_api.display import model_display
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, FineTuneJobStatus
from finetune_api.manifest import Manifest, annotations_of, has_condition, is_abandoned, kept_by, wants_deletion
from finetune_api.model import FineTunedModelSpec, FineTunedModelStatus, ModelVersion
from finetune_api.reasons import Reason
from finetune_operator.decide import ignored_fields, leftovers, model_size
from finetune_operator.decide.conditions import being_deleted, merge, moment, stalled_event
from finetune_operator.decide.deployment.server_state import versions_of
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.versions import (
    MOST_VERSIONS,
    has_versions_of,
    no_room,
    of_record,
    recovered,
    registered,
)
from finetune_operator.decide.job.view import JobView
from finetune_operator.decide.model import (
    DeploymentView,
    ModelDecision,
    ModelView,
    decide,
    not_deployed,
    pins_missing_version,
)
from finetune_operator.decide.pods.refused import refusal_of_write
from finetune_operator.desired import fine_tuned_model, model_deployment, prune_job
from finetune_operator.desired.compare import is_managed
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.calls.errors import ProviderError
from finetune_operator.reconcilers.children import Children
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.models.release import ModelRelease, is_held
from finetune_operator.reconcilers.models.weights import Weights
from finetune_operator.reconcilers.offers import Offers
from finetune_operator.reconcilers.watched.indexes import (
    made_version,
    of_model,
    pods_of_deployment,
    servers_of_model,
    under_way,
)
from finetune_operator.reconcilers.watched.reading import parse_spec, parse_status, unread_spec
from finetune_operator.runtime.errors import REFUSALS, Conflict
from finetune_operator.runtime.kube import (
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    MODEL_DEPLOYMENTS,
    PODS,
    owner_uids,
)
from finetune_operator.runtime.queue import Key, Requeue

REFUSED_CHECK_SECONDS = 60
PRUNING_CHECK_SECONDS = 60
ROOM_CHECK_SECONDS = 15
PIN_CHECK_SECONDS = 60


@dataclass(frozen=True)
class Pruning:
    """The result of deleting weights."""

    gone: frozenset[int] = frozenset()
    """Versions whose weights are gone."""
    left: tuple[int, ...] = ()
    """Versions whose weights cannot be deleted."""
    goes_on: bool = False
    """Whether weights are being deleted: if their pod cannot be created, no event tells."""
    trouble: ProviderError | None = None
    """The first failure."""

    def again(self, view: ModelView) -> float | None:
        """Seconds until it is tried or checked again."""
        if self.trouble:
            return leftovers.pause(view.status.conditions, self.trouble.failure(), view.now)
        return PRUNING_CHECK_SECONDS if self.goes_on else None


@dataclass(frozen=True)
class Deployed:
    """The result of applying the automatic deployment."""

    refused: Failure | None = None
    """Why it cannot be made."""
    again: float | None = None
    """Seconds until it is tried again."""


class ModelReconciler:
    """Keeps exactly one version active, its deployment in place, and the history within its limit."""

    def __init__(
        self,
        context: Context,
        children: Children,
        accounts: Accounts,
        offers: Offers,
        observe: Callable[[Manifest], Awaitable[Run]],
    ) -> None:
        self._context = context
        self._children = children
        self._offers = offers
        self._weights = Weights(context, accounts, observe)
        self._release = ModelRelease(context, self._weights)
        self.remember_deleted = self._release.remember_deleted

    async def reconcile(self, key: Key) -> Requeue | None:
        """Reconcile one model; a second time if the store was behind and the write conflicted."""
        try:
            return await self._reconcile(key)
        except Conflict:
            await self._context.refresh(FINE_TUNED_MODELS, key.name, key.namespace)
            return await self._reconcile(key)

    async def _reconcile(self, key: Key) -> Requeue | None:
        await self._release.announce_left_weights(key.namespace, key.name)
        offered = self._offered(key)
        model = await self._context.read(FINE_TUNED_MODELS, key)
        if model is None and offered:
            try:
                model = await self._context.kube.create(
                    FINE_TUNED_MODELS, fine_tuned_model.build(key.namespace, key.name)
                )
            except REFUSALS as refusal:
                self._offers.refuse(key, f"cannot be made: {refusal.message}")
                return Requeue(REFUSED_CHECK_SECONDS)
            offered = self._offered(key)  # also offers made meanwhile, which got the earlier refusal
        self._offers.open(key)
        if model is None:
            return None
        view = self._observe(model)
        if view.spec is not None:
            await self._context.announce_ignored(model, ignored_fields.of_model(view.spec, annotations_of(model)))
        if view.deleting:
            return await self._reconcile_deleted(key, model, view, offered)
        try:
            model = await self._release.set_finalizer(model, view)
        except REFUSALS:  # an Event was posted; no watch event tells when it is over
            again = await self._register(key, model, view, offered)
            return Requeue(min(again.after_seconds if again else REFUSED_CHECK_SECONDS, REFUSED_CHECK_SECONDS))
        return await self._register(key, model, view, offered)

    async def _reconcile_deleted(
        self, key: Key, model: Manifest, view: ModelView, offered: Sequence[JobView]
    ) -> Requeue | None:
        """Handle a model that is being deleted: offers wait, as the model is created again once this one is gone."""
        if offered:
            kept = f", and kept by its finalizers {kept_by(model)}" if kept_by(model) else ""
            self._offers.wait(key, f"is being deleted{kept}; once it is gone it is made again, with this job's version")
        if is_held(model):
            return await self._release.release(model, view)
        if kept_by(model):
            conditions = merge(
                view.status.conditions, being_deleted(kept_by(model)), generation=view.generation, now=view.now
            )
            status = view.status.model_copy(update={"conditions": conditions, "observed_generation": view.generation})
            await self._context.write_status(FINE_TUNED_MODELS, model, view.status, status)
        return None

    def _offered(self, key: Key) -> list[JobView]:
        """The results that wait for the model, without those of jobs that are gone (after a crash, say)."""
        waiting = self._offers.of(key)
        gone = [job.uid for job in waiting if not self._is_there(job)]
        self._offers.settle(key, [job for job in waiting if job.uid in gone])
        return [job for job in waiting if job.uid not in gone]

    def _is_there(self, job: JobView) -> bool:
        found = self._context.store.get(FINE_TUNE_JOBS, job.name, job.namespace)
        return found is not None and found["metadata"]["uid"] == job.uid

    async def _register(self, key: Key, model: Manifest, view: ModelView, offered: list[JobView]) -> Requeue | None:
        """Register waiting versions and the active one in one write: there is never a version without an active one."""
        before, known = view.status, self._recovered(model, view)
        if known is not before:
            back = ", ".join(str(one.version) for one in known.versions or () if one not in (before.versions or ()))
            note = f"status had lost version {back}: it is restored from their jobs"
            await self._context.announce(model, "Warning", "Recovered", note)
            gone, going = self._pruned_and_pruning(model, known)
            view = replace(view, pruned=gone, pruning=going)
        # A version is never older than its model, unless both came from a backup.
        created = moment(model["metadata"]["creationTimestamp"])
        made = [replace(job, now=max(job.now, created)) for job in offered]
        view = replace(view, status=registered(known, made, model_size.room))
        decision, pruning = await self._prune_history(model, before, view)
        # The deployment follows status.activeVersion, so that is written first where it changes.
        changes = decision.status.active_version != before.active_version
        deployed = Deployed() if changes else await self._deploy(model, view, decision)
        if deployed.refused is not None:
            decision = replace(decision, status=not_deployed(view, decision.status, deployed.refused))
        status = _with_leftovers(view, decision.status, pruning)
        status = model_size.fit(status.model_copy(update={"display": model_display(status)}))
        if await self._write_status(key, model, before, status) is None:
            self._context.enqueue(key)  # deleted meanwhile: the offers create it again
            return None
        settled = has_versions_of(view.status, offered)
        self._offers.settle(key, settled)
        # An offer made while status was written triggers the next reconcile, and must not be turned away.
        full = self._turn_away(key, view, decision, pruning) if len(settled) < len(offered) else None
        if changes:
            deployed = await self._deploy(model, view, decision)
            note = f"version {status.active_version} is active (before: {before.active_version or 'none'})"
            await self._context.announce(model, "Normal", "Activated", note)
        await self._context.announce_event(model, headline(before, status))
        if deployed.refused is not None and changes:
            return Requeue(0)  # the next reconcile writes that to status
        pinned = PIN_CHECK_SECONDS if pins_missing_version(view) else None
        pauses = [again for again in (deployed.again, pruning.again(view), full, pinned) if again is not None]
        return Requeue(min(pauses)) if pauses else None

    def _turn_away(self, key: Key, view: ModelView, decision: ModelDecision, pruning: Pruning) -> float:
        """Tell jobs that still wait why; returns seconds until there may be room, as no event tells when there is."""
        makes_room = bool(pruning.gone or (decision.prune and pruning.trouble is None))
        trouble = pruning.trouble.failure() if pruning.trouble and not makes_room else None
        self._offers.turn_away(key, no_room(key.name, view.status, makes_room=makes_room, trouble=trouble))
        return ROOM_CHECK_SECONDS if makes_room else REFUSED_CHECK_SECONDS

    async def _write_status(
        self, key: Key, model: Manifest, before: FineTunedModelStatus, status: FineTunedModelStatus
    ) -> Manifest | None:
        """Write the model's status; returns None if it is gone. A refusal is passed on to jobs with results in it."""
        try:
            return await self._context.write_status(FINE_TUNED_MODELS, model, before, status, memory="versions")
        except REFUSALS as refusal:
            self._offers.refuse(key, f"cannot be written: {refusal.message}")
            raise

    async def _prune_history(
        self, model: Manifest, before: FineTunedModelStatus, view: ModelView
    ) -> tuple[ModelDecision, Pruning]:
        """The decision, after pruning the history as far as possible."""
        decision = decide(view)
        # Delete recorded versions only: after a crash an unrecorded number may be given to another job's version.
        recorded = {version.version for version in before.versions or ()}
        namespace = model["metadata"]["namespace"]
        known = (version for version in decision.prune if version.version in recorded)
        surplus = [version for version in known if self._job_knows_version(namespace, version)]
        if any(version.version not in view.pruning for version in surplus):
            await self._require_unchanged(model)
        pruning = await self._prune_all(model, surplus)
        return (decide(replace(view, pruned=view.pruned | pruning.gone)) if pruning.gone else decision), pruning

    def _job_knows_version(self, namespace: str, version: ModelVersion) -> bool:
        """Whether the job of a version says that it made one, or is gone.

        A policy may prevent that for long. After the version is pruned such a job would offer it again, as the newest.
        """
        job = self._context.store.get(FINE_TUNE_JOBS, version.job, namespace)
        return job is None or job["metadata"]["uid"] != version.job_uid or has_condition(job, "Complete", "True")

    async def _require_unchanged(self, model: Manifest) -> None:
        """Check with the API, since deletion is final and the store may be late: a user may just choose the version.

        Raises:
            Conflict: the model has changed since it was read.
        """
        metadata = model["metadata"]
        now = await self._context.kube.get(FINE_TUNED_MODELS, metadata["name"], metadata["namespace"])
        if now is None or now["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise Conflict(409, "Conflict", "the model has changed since it was read")

    def _recovered(self, model: Manifest, view: ModelView) -> FineTunedModelStatus:
        """The status with lost versions restored; a model that its user recreated does not get an earlier one's."""
        metadata, store, status = model["metadata"], self._context.store, view.status
        namespace, name = metadata["namespace"], metadata["name"]
        latest = status.latest_version or 0
        following = range(latest + 1, latest + MOST_VERSIONS + 1)  # the jobs of some may be gone
        told = any(store.count(FINE_TUNE_JOBS, made_version(namespace, name, number)) for number in following)
        if view.deleting or (latest and not told):
            return status
        records = []
        for job in store.select(FINE_TUNE_JOBS, made_version(namespace, name)):
            spec, _ = parse_spec(FineTuneJobSpec, job)
            made = spec and of_record(job["metadata"], spec, parse_status(FineTuneJobStatus, job))
            if made and not _belongs_to_earlier_model(model, made, job):
                records.append(made)
        served = next((one.status.served_version for one in view.serving if one.spec.version == "Active"), None)
        return recovered(status, records, served, model_size.room)

    def _observe(self, model: Manifest) -> ModelView:
        metadata = model["metadata"]
        spec, spec_error = parse_spec(FineTunedModelSpec, model)
        status = parse_status(FineTunedModelStatus, model)
        gone, going = self._pruned_and_pruning(model, status)
        return ModelView(
            name=metadata["name"],
            generation=metadata["generation"],
            deleting=wants_deletion(model),
            spec=spec,
            spec_error=unread_spec(FineTunedModelSpec, model, spec_error),
            status=status,
            deployments=self._deployments(model),
            standing=self._versions_of_servers(metadata["namespace"], metadata["name"]),
            pruned=gone,
            pruning=going,
            makers=self._existing_jobs(metadata["namespace"], status),
            under_way=self._under_way(metadata["namespace"], metadata["name"], spec, status),
            now=self._context.clock(),
        )

    def _pruned_and_pruning(
        self, model: Manifest, status: FineTunedModelStatus
    ) -> tuple[frozenset[int], frozenset[int]]:
        """Versions whose weights are deleted, and those whose weights are deleted or being deleted."""
        found = ((one.version, self._weights.job_of(model, one)) for one in status.versions or ())
        jobs = {number: job for number, job in found if job is not None}
        return frozenset(at for at, job in jobs.items() if has_condition(job, "Complete", "True")), frozenset(jobs)

    def _under_way(
        self, namespace: str, name: str, spec: FineTunedModelSpec | None, status: FineTunedModelStatus
    ) -> list[str]:
        """The unfinished jobs of the model, if a version is pinned that does not exist yet."""
        pin = spec.active_version if spec else None
        if pin is None or any(one.version == pin for one in status.versions or ()):
            return []
        return [job for _, job in self._context.store.addresses(FINE_TUNE_JOBS, under_way(namespace, name))]

    def _existing_jobs(self, namespace: str, status: FineTunedModelStatus) -> frozenset[str]:
        """UIDs of the jobs named in status, as far as they exist."""
        made = ((one.job, one.job_uid) for one in (*(status.versions or ()), *(status.let_go or ())))
        found = ((self._context.store.get(FINE_TUNE_JOBS, job, namespace), uid) for job, uid in made)
        return frozenset(uid for job, uid in found if job is not None and job["metadata"]["uid"] == uid)

    def _deployments(self, model: Manifest) -> list[DeploymentView]:
        """Deployments of the model, and one that has its name but serves another."""
        metadata = model["metadata"]
        store, namespace = self._context.store, metadata["namespace"]
        found = store.select(MODEL_DEPLOYMENTS, of_model(namespace, metadata["name"]))
        namesake = store.get(MODEL_DEPLOYMENTS, metadata["name"], namespace)
        if namesake is not None and all(d["metadata"]["name"] != metadata["name"] for d in found):
            found.append(namesake)
        return [
            DeploymentView(
                name=deployment["metadata"]["name"],
                owned=_belongs_to(deployment, model),
                spec=_spec_of(deployment),
                status=parse_status(ModelDeploymentStatus, deployment),
                standing=self._versions_of_deployment(namespace, deployment["metadata"]["name"]),
            )
            for deployment in found
        ]

    def _versions_of_deployment(self, namespace: str, name: str) -> frozenset[int]:
        """The versions used by a deployment's server and its pods."""
        store = self._context.store
        server = store.get(DEPLOYMENTS, name, namespace)
        pods = store.select(PODS, pods_of_deployment(namespace, name))
        return frozenset(versions_of([server["spec"]["template"], *pods] if server else pods))

    def _versions_of_servers(self, namespace: str, model: str) -> frozenset[int]:
        """The versions used by servers, including those whose ModelDeployments are already gone."""
        servers = self._context.store.select(DEPLOYMENTS, servers_of_model(namespace, model))
        return frozenset(versions_of([server["spec"]["template"] for server in servers]))

    async def _prune_all(self, model: Manifest, surplus: Sequence[ModelVersion]) -> Pruning:
        """Delete the weights of versions, as far as possible."""
        pruning = Pruning()
        for version in surplus:
            try:
                gone = await self._prune(model, version)
            except ProviderError as error:
                pruning = replace(pruning, left=(*pruning.left, version.version), trouble=pruning.trouble or error)
            else:
                known = pruning.gone | ({version.version} if gone else set())
                pruning = replace(pruning, gone=known, goes_on=pruning.goes_on or not gone)
        return pruning

    async def _prune(self, model: Manifest, version: ModelVersion) -> bool:
        """Delete the version's weights; returns whether they are gone, so that the version leaves status.

        Raises:
            ProviderError: they cannot be deleted now.
        """
        if is_abandoned(model) and not version.adopted:
            note = f"version {version.version} is released; its weights stay where they are until somebody deletes them"
            await self._context.announce(model, "Warning", "Abandoned", note)
            return True
        return await self._weights.delete(model, version, prune_job.build)

    async def _deploy(self, model: Manifest, view: ModelView, decision: ModelDecision) -> Deployed:
        """Apply the automatic deployment, if there is to be one."""
        if not decision.deploy or view.spec is None:
            return Deployed()
        wanted = model_deployment.build(model, view.spec)
        metadata = wanted["metadata"]
        if self._context.is_ending(metadata["namespace"]):
            return Deployed()  # its end takes the deployment before the model
        try:
            ensured = await self._children.ensure(MODEL_DEPLOYMENTS, model, wanted)
        except REFUSALS as refusal:
            message = f"ModelDeployment {metadata['name']} cannot be made: {refusal.message}"
            return Deployed(refusal_of_write(message), REFUSED_CHECK_SECONDS)
        return Deployed(again=ensured.contested.seconds if ensured.contested else None)


def _belongs_to_earlier_model(model: Manifest, made: ModelVersion, job: Manifest) -> bool:
    """Whether the version belonged to an earlier model of the name.

    A job that ended before it was created comes from a backup, and its model came back with it.
    """
    created, begun = (moment(one["metadata"]["creationTimestamp"]) for one in (model, job))
    return begun <= moment(made.created_at) < created


def _with_leftovers(view: ModelView, status: FineTunedModelStatus, pruning: Pruning) -> FineTunedModelStatus:
    """The status, including whether weights beyond historyLimit are left."""
    if pruning.trouble is not None:
        numbers = ", ".join(map(str, pruning.left))
        what = f"the weights of version {numbers}, beyond spec.historyLimit,"
        way_out = f"Or raise spec.historyLimit. {leftovers.way_out('model')}"
        facts = [leftovers.left(what, pruning.trouble.failure(), way_out)]
    else:
        facts = leftovers.nothing_left(status.conditions)
    conditions = merge(status.conditions, facts, generation=view.generation, now=view.now)
    return status.model_copy(update={"conditions": conditions})


def _spec_of(deployment: Manifest) -> ModelDeploymentSpec:
    """Its spec; if another release wrote it, only the fields that decide which weights are in use."""
    spec, _ = parse_spec(ModelDeploymentSpec, deployment)
    named = {key: deployment["spec"][key] for key in ("modelRef", "version") if key in deployment["spec"]}
    return spec or ModelDeploymentSpec.model_validate(named)


def _belongs_to(deployment: Manifest, model: Manifest) -> bool:
    """Whether it is the model's own: by its owner or, if someone has removed that, by the operator's label."""
    metadata, owners = deployment["metadata"], owner_uids(deployment)
    named = deployment["spec"]["modelRef"]["name"] == metadata["name"] == model["metadata"]["name"]
    return model["metadata"]["uid"] in owners or (not owners and named and is_managed(deployment))


_MODEL_FAILURES = {Reason.VERSION_NOT_FOUND, Reason.NAME_CONFLICT}
"""Failures of the model itself; all others are reported by its deployment, in an Event of its own."""


def headline(old: FineTunedModelStatus, new: FineTunedModelStatus) -> tuple[str, str, str] | None:
    """Type, reason and note of the Event for a change of status, if it deserves one."""
    if (left := leftovers.leftover_event(old.conditions, new.conditions)) is not None:
        return left
    told = stalled_event(old.conditions, new.conditions)
    return told if told is not None and told[1] in _MODEL_FAILURES else None
