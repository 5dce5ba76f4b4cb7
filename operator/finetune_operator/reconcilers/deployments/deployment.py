"""ModelDeployment: observe, decide, act, write status."""

from contextlib import suppress
from dataclasses import replace
from typing import Literal

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_api.job_status import Failure
from finetune_api.manifest import Manifest, annotations_of, finalizers_of, kept_by, owners_of, wants_deletion
from finetune_api.model import FineTunedModelStatus
from finetune_api.names import DEPLOYMENT_LABEL, PROVIDER_FINALIZER
from finetune_api.reasons import Reason
from finetune_operator.decide import ignored_fields
from finetune_operator.decide.cloud_job.cloud_policy import shuts_down
from finetune_operator.decide.conditions import is_true, stalled_event
from finetune_operator.decide.deployment import token_prices
from finetune_operator.decide.deployment.decision import (
    Alternatives,
    DeploymentDecision,
    DeploymentView,
    decide,
    needs_no_reconcile,
    not_served,
)
from finetune_operator.decide.deployment.hosted import terms_were_requested
from finetune_operator.decide.deployment.idle import NOT_OBSERVED, is_asleep
from finetune_operator.decide.deployment.server_state import Serving, is_awaited, read_serving
from finetune_operator.decide.deployment.serving_target import AT_PROVIDERS, Target, find_target
from finetune_operator.decide.pods.field_paths import of_connection, of_deployment
from finetune_operator.decide.pods.refused import refusal_of_pod, refusal_of_write
from finetune_operator.decide.transient import TEMPORARY
from finetune_operator.desired import prune_job, serving
from finetune_operator.desired.compare import is_managed
from finetune_operator.providers.calls.errors import CannotMake, ProviderError
from finetune_operator.providers.catalogue import catalogue_name
from finetune_operator.providers.hugging_face.pod_refusals import StartFailures
from finetune_operator.providers.remote import hosting
from finetune_operator.providers.remote.serving import CloudServing
from finetune_operator.providers.sdks import is_remote
from finetune_operator.reconcilers.children import Children, Ensured, NameTaken
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.deployments.disruption import DisruptionBudgets
from finetune_operator.reconcilers.deployments.hosted import HostedDeployments, next_check
from finetune_operator.reconcilers.deployments.hosted_observation import left_behind, wake_of, without_copied
from finetune_operator.reconcilers.deployments.hosted_release import HostedRelease
from finetune_operator.reconcilers.deployments.local_idle import LocalIdle, next_measurement, without_idle
from finetune_operator.reconcilers.watched.indexes import failed_for, pods_of_deployment, under_way
from finetune_operator.reconcilers.watched.reading import parse_spec, parse_status, unread_spec
from finetune_operator.runtime.errors import REFUSALS, KubeError
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    PODS,
    SERVICES,
    owner_uids,
)
from finetune_operator.runtime.queue import Key, Requeue

REFUSED_CHECK_SECONDS = 60

NAMES_CHECK_SECONDS = 60
"""A new model triggers a reconcile; jobs, and models of other names, which the message mentions, do not."""

ROLLING_CHECK_SECONDS = 15
"""No watch event tells that a pod's volumes cannot be mounted, so a server that does not come up is checked."""


class DeploymentReconciler:
    """Keeps a server of the wanted version answering; starts the new one before it stops the old one."""

    def __init__(
        self,
        context: Context,
        children: Children,
        cloud: CloudServing,
        *,
        hosted: HostedDeployments,
        release: HostedRelease,
        idle: LocalIdle,
    ) -> None:
        self._context = context
        self._children = children
        self._cloud = cloud
        self._hosted = hosted
        self._release = release
        self._idle = idle
        self._budgets = DisruptionBudgets(context, children)
        self._not_up = StartFailures(context.kube, context.clock)

    async def reconcile(self, key: Key) -> Requeue | None:
        """Reconcile one deployment."""
        deployment = await self._context.read(MODEL_DEPLOYMENTS, key)
        if deployment is None:
            return None
        deployment = without_copied(self._context.store, deployment)
        view = self._observe(deployment)
        target = self._target(view)
        if view.spec is not None:
            said = ignored_fields.of_deployment(
                view.spec, annotations_of(deployment), target.connection if target else None
            )
            await self._context.announce_ignored(deployment, said)
        again: float | None = None
        if view.deleting and PROVIDER_FINALIZER in finalizers_of(deployment):
            decision = await self._release.end(deployment, view)
            again = None if decision is None else self._hosted.moving_seconds
        elif target is not None and is_remote(target.connection):
            deployment, decision, again = await self._remote(deployment, view, target)
        else:
            deployment, decision, again = await self._local(deployment, view, target)
        if decision is None:
            return None if again is None else Requeue(again)
        before = parse_status(ModelDeploymentStatus, deployment)
        if before == decision.status:
            self._context.accept_status(deployment)
        same = needs_no_reconcile(before, decision.status)
        await self._context.write_status(MODEL_DEPLOYMENTS, deployment, before, decision.status, notified=same)
        await self._context.announce_event(deployment, headline(before, decision.status))
        return None if again is None else Requeue(again)

    async def _local(
        self, deployment: Manifest, view: DeploymentView, target: Target | None
    ) -> tuple[Manifest, DeploymentDecision, float | None]:
        """A server on this cluster."""
        if self._context.is_ending(view.namespace):
            return deployment, DeploymentDecision(view.status), None
        if not view.deleting:
            if target is None and view.status.hosted:
                view = replace(view, idle=NOT_OBSERVED)
            else:
                deployment, view = await self._idle.measure(deployment, view)
            deployment, view = await self._hosted.leave(deployment, view, target)
        decision = decide(view)
        try:
            made = await self._serve(deployment, view, decision)
            contested = made.contested if made else None
            unwatched = made and made.present and not is_managed(made.present)
            if made and (made.applied or contested or unwatched):
                # The server was read before this change, or before it was created; and no watch event tells of one
                # whose label a policy removed.
                state = read_serving(made.present, self._pods_of(view.namespace, view.name), view.now)
                view = replace(view, serving=state, contested=contested.note if contested else "")
                decision = decide(view)
            if view.serving.state == "Rolling" and not view.deleting:
                view = replace(view, serving=await self._with_pod_failure(view))
                decision = decide(view)
        except NameTaken as taken:
            refused = not_served(view, Failure.because(Reason.NAME_CONFLICT, str(taken)))
            return deployment, refused, REFUSED_CHECK_SECONDS
        except CannotMake as refusal:
            return deployment, not_served(view, refusal.failure), REFUSED_CHECK_SECONDS
        except REFUSALS as refusal:
            refused = not_served(view, _server_refused(refusal.message, view.spec, target))
            return deployment, refused, REFUSED_CHECK_SECONDS
        rolls = ROLLING_CHECK_SECONDS if view.serving.state in {"Rolling", "Failing"} and not view.deleting else None
        ends = self._hosted.moving_seconds if view.status.hosted and target is not None else None
        again = contested.seconds if contested else None
        named = NAMES_CHECK_SECONDS if view.beside else None
        return deployment, decision, again or rolls or ends or named or next_measurement(view)

    async def _with_pod_failure(self, view: DeploymentView) -> Serving:
        """The state of a server whose pods do not start, with what only their Events say, such as a missing volume."""
        pods = self._pods_of(view.namespace, view.name)
        try:
            found = await self._not_up.of(pods, f"{DEPLOYMENT_LABEL}={view.name}")
        except REFUSALS as refusal:
            unknown = f"; why its pod does not start is not known: {refusal.message}"
            return replace(view.serving, note=view.serving.note + unknown)
        if found is None:
            return view.serving
        failure, pod = found
        if failure.reason is Reason.UNSCHEDULABLE:
            return replace(view.serving, note=f"{view.serving.note}; a pod waits for a node: {failure.message}")
        if is_awaited(failure, pod, view.now):
            return replace(view.serving, note=f"{view.serving.note}; a pod waits: {failure.message}")
        return replace(view.serving, state="Failing", failure=failure)

    async def _remote(
        self, deployment: Manifest, view: DeploymentView, target: Target
    ) -> tuple[Manifest, DeploymentDecision | None, float]:
        """A server at a provider outside of the cluster: always there, or a deployment that has to be created.

        No decision if it cannot be asked while another operator has lately written the deployment's status.
        """
        facts, here = self._context.catalogue().of(catalogue_name(target.connection)), view.serving
        view = replace(view, retires=shuts_down(target.version.base_model, facts))
        if not hosting.is_hosted(target.connection):
            view = replace(without_idle(view), answers=token_prices.of_tuned(facts, target.version.base_model))
            if self._context.written_by_another(deployment):
                self._cloud.recheck(target)
            seen = await self._cloud.observe(target, view.status.served_version)
            if seen.failure is not None and is_awaited(seen.failure, deployment, view.now):
                seen = replace(seen, state="Rolling", failure=None, note=f"; {seen.failure.message}")
            view = replace(view, serving=seen)
            good_for = self._cloud.good_for(view.serving).total_seconds()
            if self._is_unseen(view.serving) and self._context.seconds_left_to_another(deployment) > 0:
                return deployment, None, good_for
            view = replace(view, meanwhile=await self._earlier_version(view, target))
            again = min(good_for, self._hosted.moving_seconds) if view.status.hosted else good_for
            deployment, view = await self._hosted.leave(deployment, view, target)
            view = await self._stop_pods(deployment, view, here)
            unseen = view.serving.failure if view.serving.available else None
            return deployment, not_served(view, unseen) if unseen else decide(view), _capped(here, again)
        try:
            deployment, view = await self._hosted.serve(deployment, view, target)
        except ProviderError as error:
            return self._after_error(deployment, view, target, error, here)
        view = await self._stop_pods(deployment, view, here)
        answers = view.serving.state == "Serving"
        hosted = view.status.hosted or ()
        shown = not any(one.unseen_since for one in hosted)
        rests = view.serving.state in {"Serving", "Idle"} and len(hosted) == int(answers) and shown
        return deployment, decide(view), _capped(here, next_check(view)) if rests else self._hosted.moving_seconds

    async def _earlier_version(self, view: DeploymentView, target: Target) -> int | None:
        """The version that answered before, if its model still exists and the wanted one does not answer yet."""
        number, versions = view.status.served_version, (view.model.versions if view.model else None) or ()
        before = next((one for one in versions if one.version == number), None)
        if view.serving.state == "Serving" or before is None or number == target.version.version:
            return None
        if before.connection != target.version.connection:
            return None
        found = await self._cloud.observe(replace(target, version=before), number)
        return number if found.available else None

    async def _stop_pods(self, deployment: Manifest, view: DeploymentView, here: Serving) -> DeploymentView:
        """Stop an earlier version's pods on this cluster (`here`) once the provider answers; until then they serve."""
        present = self._context.store.get(DEPLOYMENTS, view.name, view.namespace)
        if present is None or here.state in {"Absent", "Idle"}:
            return view
        if view.serving.state != "Serving":
            return replace(view, meanwhile=here.version) if here.available and not view.serving.available else view
        metadata, what = deployment["metadata"], "the server on this cluster cannot be stopped"
        write = f"{metadata['uid']}/{metadata['generation']}/without pods"
        with suppress(*REFUSALS):
            async with self._context.refusable(deployment, write, what):
                await self._children.ensure(DEPLOYMENTS, deployment, serving.without_pods(present))
        return view

    def _after_error(
        self, deployment: Manifest, view: DeploymentView, target: Target, error: ProviderError, here: Serving
    ) -> tuple[Manifest, DeploymentDecision | None, float]:
        """The decision after a provider's error. What answered, there or `here`, still counts as answering."""
        metadata = deployment["metadata"]
        again = error.retry_after or self._hosted.moving_seconds
        now = self._context.store.get(MODEL_DEPLOYMENTS, metadata["name"], metadata["namespace"]) or deployment
        if self._context.seconds_left_to_another(now) > 0:
            return now, None, again
        now = without_copied(self._context.store, now)
        view = replace(view, status=parse_status(ModelDeploymentStatus, now))
        status = left_behind(view, view.status.hosted or ())  # billed whether it can be asked or not
        number = target.version.version
        answering = [one for one in status.hosted or () if one.answered and one.version == status.served_version]
        wanted = hosting.wanted(now, view.spec, target, maker=view.maker) if view.spec else None
        asked_for = wanted is None or terms_were_requested(status.hosted or (), wanted)
        state: Literal["Serving", "Rolling", "Idle"] = "Rolling"
        if is_asleep(status.asleep, view.generation, wake_of(deployment)):
            state = "Idle"
        elif answering and status.served_version == number and asked_for:
            state = "Serving"
        view = replace(
            view,
            status=status,
            serving=Serving(state, number, len(answering), note="" if state == "Serving" else f"; {error.message}"),
            serves=status.endpoint.model if answering and status.endpoint else None,
            meanwhile=here.version if here.available and not answering else None,
            cost=status.cost,
        )
        if error.reason not in TEMPORARY and not is_awaited(error.failure(), now, view.now):
            at_provider = status.engine in AT_PROVIDERS.values()
            return now, not_served(view if at_provider else replace(view, serving=here), error.failure()), again
        # A failure is not cleared because the provider cannot be reached for a while.
        failed = is_true(status.conditions, "Stalled") and status.observed_generation == view.generation
        return now, DeploymentDecision(status) if failed else decide(view), again

    @staticmethod
    def _is_unseen(serving: Serving) -> bool:
        """Whether the provider could not be asked, as opposed to saying that the model is gone."""
        failure = serving.failure
        return serving.state == "Rolling" or (failure is not None and failure.reason is not Reason.DELETED_AT_PROVIDER)

    def _target(self, view: DeploymentView) -> Target | None:
        """What is to be served and where, if anything."""
        if view.spec is None or view.deleting:
            return None
        target = find_target(view.spec, view.model, view.connections)
        return target if isinstance(target, Target) else None

    def _observe(self, deployment: Manifest) -> DeploymentView:
        metadata, store = deployment["metadata"], self._context.store
        namespace, name = metadata["namespace"], metadata["name"]
        spec, spec_error = parse_spec(ModelDeploymentSpec, deployment)
        model = store.get(FINE_TUNED_MODELS, spec.model_ref.name, namespace) if spec else None
        own = parse_status(ModelDeploymentStatus, deployment)
        lost = spec is not None and own.hosted is None and PROVIDER_FINALIZER in finalizers_of(deployment)
        status, now = self._usable(spec, model) if spec and model else None, self._context.clock()
        return DeploymentView(
            name=name,
            namespace=namespace,
            generation=metadata["generation"],
            deleting=wants_deletion(deployment),
            kept_by=kept_by(deployment),
            spec=spec,
            spec_error=unread_spec(ModelDeploymentSpec, deployment, spec_error),
            status=own,
            unrecorded=hosting.begins(deployment, spec) if spec is not None and lost else "",
            maker=hosting.maker(deployment, model, self._first_job(namespace, model)) if model is not None else "",
            model=status,
            connections=self._connections(status),
            serving=read_serving(store.get(DEPLOYMENTS, name, namespace), self._pods_of(namespace, name), now),
            now=now,
            beside=self._alternatives(namespace, spec.model_ref.name) if spec and _lacks_target(spec, status) else None,
            owner_gone=model is None and any(one["kind"] == FINE_TUNED_MODELS.kind for one in owners_of(deployment)),
        )

    def _first_job(self, namespace: str, model: Manifest) -> Manifest | None:
        """The job that made the model's first version, if it is known and exists."""
        versions = parse_status(FineTunedModelStatus, model).versions or ()
        first = next((one for one in versions if one.version == 1), None)
        job = self._context.store.get(FINE_TUNE_JOBS, first.job, namespace) if first is not None else None
        made = job is not None and first is not None and job["metadata"]["uid"] == first.job_uid
        return job if made else None

    def _usable(self, spec: ModelDeploymentSpec, model: Manifest) -> FineTunedModelStatus:
        """The model's status, without the wanted version if its weights are being deleted."""
        metadata, status = model["metadata"], parse_status(FineTunedModelStatus, model)
        number = status.active_version if spec.version == "Active" else int(spec.version)
        deletes = number and self._context.store.get(
            JOBS, prune_job.name(metadata["name"], number), metadata["namespace"]
        )
        if not deletes or metadata["uid"] not in owner_uids(deletes):
            return status
        return status.model_copy(update={"versions": [one for one in status.versions or () if one.version != number]})

    def _alternatives(self, namespace: str, model: str) -> Alternatives:
        """What exists instead of a missing model or version."""
        store = self._context.store
        models = [name for where, name in store.addresses(FINE_TUNED_MODELS) if where == namespace]
        jobs = store.addresses(FINE_TUNE_JOBS, under_way(namespace, model))
        failed = store.addresses(FINE_TUNE_JOBS, failed_for(namespace, model))
        return Alternatives(models, [name for _, name in jobs], [name for _, name in failed])

    def _pods_of(self, namespace: str, name: str) -> list[Manifest]:
        return self._context.store.select(PODS, pods_of_deployment(namespace, name))

    def _connections(self, model: FineTunedModelStatus | None) -> dict[str, LLMConnectionSpec | None]:
        named = {version.connection for version in (model.versions if model else None) or ()}
        known = {name for _, name in self._context.store.addresses(CONNECTIONS)}
        return {name: self._context.connection(name) for name in named & known}

    async def _serve(self, deployment: Manifest, view: DeploymentView, decision: DeploymentDecision) -> Ensured | None:
        """Apply Service, Deployment and disruption budget; returns the server and what was done to the first two."""
        version = decision.serve
        if version is None or view.spec is None:
            return None
        spec = view.connections[version.connection]
        connection = spec.hugging_face if spec else None
        if connection is None or decision.engine not in {"vLLM", "Transformers"}:
            return None
        asleep, ipv6 = view.status.asleep is not None, self._context.ipv6
        served = serving.Served(version, decision.engine, connection, asleep=asleep, ipv6=ipv6)
        try:
            service = await self._children.ensure(SERVICES, deployment, serving.service(deployment, view.spec))
        except REFUSALS as refusal:
            raise _service_refused(view.name, refusal) from refusal
        wanted = serving.deployment(deployment, view.spec, served)
        server = await self._children.ensure(DEPLOYMENTS, deployment, wanted)
        await self._budgets.ensure(deployment, wanted)
        applied = service.applied or server.applied
        return replace(server, applied=applied, contested=server.contested or service.contested)


def _lacks_target(spec: ModelDeploymentSpec, model: FineTunedModelStatus | None) -> bool:
    """Whether the spec names a model, or a version by number, that does not exist."""
    if model is None or spec.version == "Active":
        return model is None
    return all(one.version != int(spec.version) for one in model.versions or ())


def _capped(here: Serving, again: float) -> float:
    """Seconds until the next check: if pods of this cluster could not be stopped, no event says when they can."""
    return again if here.state in {"Absent", "Idle"} else min(again, REFUSED_CHECK_SECONDS)


def headline(old: ModelDeploymentStatus, new: ModelDeploymentStatus) -> tuple[str, str, str] | None:
    """Type, reason and note of the Event for a change of status, if it deserves one."""
    if new.served_version != old.served_version and new.served_version is not None:
        return (
            "Normal",
            "Serving",
            f"version {new.served_version} answers at {new.endpoint.url if new.endpoint else ''}",
        )
    if new.served_version is not None and is_true(new.conditions, "Ready") and not is_true(old.conditions, "Ready"):
        return "Normal", "Ready", f"version {new.served_version} answers as spec says"  # after trouble, or an edit
    return stalled_event(old.conditions, new.conditions)


def _server_refused(refusal: str, spec: ModelDeploymentSpec | None, target: Target | None) -> Failure:
    """Why the API server refuses the server, with the field of the deployment or connection that causes it."""
    failure = of_deployment(refusal_of_pod(refusal), spec)
    return failure if target is None else of_connection(failure, target.version.connection, target.connection)


def _service_refused(name: str, refusal: KubeError) -> CannotMake:
    """Why a server has no address. Not a refused pod: a change of the connection would not help."""
    return CannotMake(refusal_of_write(f"Service {name} cannot be made, or changed: {refusal.message}"))
