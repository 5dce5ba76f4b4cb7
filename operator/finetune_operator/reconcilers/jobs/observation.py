"""Observes a FineTuneJob: the store, its pods' reports and its provider; and decides what follows."""

from dataclasses import replace
from datetime import datetime

from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import FineTuneJobStatus
from finetune_api.manifest import (
    Manifest,
    annotations_of,
    finalizers_of,
    is_abandoned,
    kept_by,
    labels_of,
    wants_deletion,
)
from finetune_api.names import BEGUN_ANNOTATION, PROVIDER_FINALIZER, RESTORE_LABEL
from finetune_operator.decide.cloud_job import steps as cloud_job
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.job.attempts import with_latest_attempt
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.steps import decide, refused_by_policy
from finetune_operator.decide.job.versions import comparison_of, find_version, has_made_one, versions_of_weights
from finetune_operator.decide.job.view import Decision, JobView
from finetune_operator.decide.pods.refused import refusal_of_write
from finetune_operator.providers.calls.errors import ProviderError
from finetune_operator.providers.ports import TrainingProvider
from finetune_operator.providers.remote.job_record import begun_at, remembered
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.jobs.cloud_job import CloudJobs
from finetune_operator.reconcilers.jobs.providers import Providers
from finetune_operator.reconcilers.jobs.reports import ReportBox
from finetune_operator.reconcilers.watched.indexes import UNRECORDED, has_attempts, is_shared
from finetune_operator.reconcilers.watched.reading import is_of_newer_definitions, parse_spec, parse_status
from finetune_operator.runtime.errors import REFUSALS
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, NAMESPACES

ORPHAN = "orphan"
"""Kubernetes' own finalizer, there until an object's dependents have no owner any more."""


class JobObserver:
    """Observes jobs; changes nothing."""

    def __init__(self, context: Context, providers: Providers, reports: ReportBox, cloud: CloudJobs) -> None:
        self._context = context
        self._providers = providers
        self._reports = reports
        self._cloud = cloud

    async def observe_and_decide(self, job: Manifest) -> tuple[JobView, Decision]:
        """Observe and decide. A refusal is final, so it must rest on what the API says now and not on the store.

        A namespace, its connection and a job may come in one commit, and their watches are not in step.
        """
        view = await self._observe(job)
        decision = _decide(view)
        if view.spec is not None and not view.finished and refused_by_policy(decision):
            await self._context.refresh(NAMESPACES, view.namespace)
            await self._context.refresh(CONNECTIONS, view.spec.connection_ref.name)
            view = await self._observe(job)
            decision = _decide(view)
        return view, decision

    async def _observe(self, job: Manifest) -> JobView:
        metadata, context = job["metadata"], self._context
        spec, spec_error = parse_spec(FineTuneJobSpec, job)
        status = parse_status(FineTuneJobStatus, job)
        connection = context.connection(spec.connection_ref.name) if spec else None
        status = remembered(job, status, connection)
        provider, model = self._providers.of(status, connection), self._model(job, spec)
        status, run = await _latest_run(provider, job, spec, status)
        view = JobView(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            generation=metadata["generation"],
            created=moment(metadata["creationTimestamp"]),
            deleting=wants_deletion(job),
            spec=spec,
            spec_error=spec_error,
            newer=spec is None and is_of_newer_definitions(FineTuneJobSpec, job),
            status=status,
            connection=connection,
            connection_created=context.connection_created(spec.connection_ref.name) if spec else None,
            connection_unread=spec is not None and not connection and context.has_connection(spec.connection_ref.name),
            usable_connections=() if connection else self._usable_connections(metadata["namespace"]),
            namespace_labels=context.labels_of(metadata["namespace"]),
            run=run,
            live_pods=provider.has_live_pods(job),
            version=find_version(model, metadata) if model else None,
            is_maker=model is not None and has_made_one(model, metadata["uid"]),
            artifact_uri=self._artifact_uri(job, spec, connection, status),
            now=context.clock(),
            unrecorded_jobs=context.store.count(FINE_TUNE_JOBS, UNRECORDED),
            report_interval=context.report_interval,
            patience=context.patience,
            outdated=_is_outdated(provider, run, connection),
            restored=labels_of(job).get(RESTORE_LABEL),
            kept_by=kept_by(job),
            orphans=wants_deletion(job) and ORPHAN in finalizers_of(job),
            namespace_deleting=context.is_ending(metadata["namespace"]),
            has_finalizer=PROVIDER_FINALIZER in finalizers_of(job),
            abandoned=is_abandoned(job),
            facts=self._providers.facts(connection),
        )
        remote = self._providers.is_remote(status, connection)
        return self._with_provider_facts(job, view) if remote else self._with_local_facts(job, view)

    def _usable_connections(self, namespace: str) -> tuple[str, ...]:
        """Connections that accept jobs of a namespace."""
        specs = {name: self._context.connection(name) for name in self._context.connections_of(namespace)}
        return tuple(name for name, spec in specs.items() if spec and spec.fine_tuning.enabled)

    def _with_local_facts(self, job: Manifest, view: JobView) -> JobView:
        """Add what is known only of a job on this cluster."""
        # What ends with its namespace may be deleted after its children: nothing can be created any more.
        deleting, folder = view.deleting or view.namespace_deleting, view.provider.artifact_uri or ""
        shares = is_shared(folder) and self._context.store.count(FINE_TUNE_JOBS, has_attempts(folder)) > 1
        copy_of = self._original_of(view, folder) if shares else ""
        return replace(view, deleting=deleting, last_report_at=self._last_report_at(job, view), copy_of=copy_of)

    def _with_provider_facts(self, job: Manifest, view: JobView) -> JobView:
        """Add what is known only of a job at a provider."""
        tuned, base = self._cloud.answers.asked(view.uid)
        copy_of = self._original_of(view, view.provider.owner_uid) if view.provider.owner_uid != view.uid else ""
        in_pod, (place, account) = view.provider.asked_at is None, begun_at(job)
        view = replace(
            view,
            remote=True,
            noted_place=place,
            noted_account=account,
            has_begun_annotation=BEGUN_ANNOTATION in annotations_of(job),
            account_now=self._providers.account(job),
            asked_tuned=tuned,
            asked_base=base,
            silence=self._cloud.answers.silence(view.uid),
            copy_of=copy_of,
            abandoned=view.abandoned or copy_of != "",
            last_report_at=self._last_report_at(job, view) if in_pod else None,
        )
        spec, result = view.spec, view.run.report.result if view.run.report else None
        if spec is None:
            return view
        if spec.adopt is not None and result is not None:
            weights = versions_of_weights(self._model(job, spec) or {}, result.artifact, view.uid)
            view = replace(view, same_as=weights)
        if spec.dataset.test is None:
            return view
        compared = comparison_of(self._model(job, spec) or {})
        return replace(view, if_better=compared.if_better, active=compared.active)

    def _original_of(self, view: JobView, known_by: str | None) -> str:
        """The job that this one is a copy of: an earlier, existing one whose attempts are known by the same ID."""
        found = self._context.store.select(FINE_TUNE_JOBS, has_attempts(known_by)) if known_by else []
        others = (one["metadata"] for one in found if not wants_deletion(one) and one["metadata"]["uid"] != view.uid)
        for one in others:
            if (moment(one["creationTimestamp"]), one["uid"]) < (view.created, view.uid):
                here = one["namespace"] == view.namespace
                return f"FineTuneJob {one['name']}" if here else "a FineTuneJob of another namespace"
        return ""

    def _last_report_at(self, job: Manifest, view: JobView) -> datetime | None:
        """When the running trainer last reported."""
        if view.run.state != "Active":
            return None
        metadata = job["metadata"]
        return self._reports.last_heard_at(metadata["namespace"], metadata["name"], metadata["uid"])

    def _model(self, job: Manifest, spec: FineTuneJobSpec | None) -> Manifest | None:
        """The FineTunedModel of the job's version, if it exists yet."""
        if spec is None:
            return None
        return self._context.store.get(FINE_TUNED_MODELS, spec.model_ref.name, job["metadata"]["namespace"])

    def _artifact_uri(
        self,
        job: Manifest,
        spec: FineTuneJobSpec | None,
        connection: LLMConnectionSpec | None,
        status: FineTuneJobStatus,
    ) -> str:
        """Where the provider writes the artifact; "" if the connection leads to another provider by now."""
        began = status.provider.name if status.provider else None
        if spec is None or connection is None or began not in {None, connection.provider}:
            return ""
        if not self._providers.know(connection):
            return ""
        return self._providers.of(status, connection).output_uri(job, spec, connection)


async def _latest_run(
    provider: TrainingProvider, job: Manifest, spec: FineTuneJobSpec | None, status: FineTuneJobStatus
) -> tuple[FineTuneJobStatus, Run]:
    """The status with the latest attempt, and that attempt's state, or why it cannot be read."""
    try:
        status = with_latest_attempt(status, await provider.latest_attempt(job, status), spec)
        return status, await provider.observe(job, status)
    except REFUSALS as refusal:
        job_id = status.provider.job_id if status.provider else None
        return status, Run("Unreachable", failure=refusal_of_write(refusal.message), job_id=job_id)
    except ProviderError as error:
        return status, Run("Unreachable", failure=error.failure())


def _is_outdated(provider: TrainingProvider, run: Run, connection: LLMConnectionSpec | None) -> bool:
    """Whether the connection or the chart has changed since it was used to create a pod that cannot start."""
    waiting = run.measuring or run
    if connection is None or waiting.failure is None or not waiting.made_by:
        return False  # computing the digest is not worth its time if nothing follows from it
    return provider.made_by(connection) not in {"", waiting.made_by}


def _decide(view: JobView) -> Decision:
    """Decide by the chain for jobs that run here, or by the one for jobs at a provider outside of the cluster."""
    return cloud_job.decide(view) if view.remote else decide(view)
