"""FineTuneJob: observe, decide, act, write status."""

import logging
from dataclasses import replace
from typing import Any

from finetune_api.display import job_display
from finetune_api.job_status import (
    EXPERTS_LEFT,
    LITTLE_KEPT,
    NOTHING_LEARNT,
    TOKENIZER_LEFT_OUT,
    TOO_LONG,
    Failure,
    FineTuneJobStatus,
)
from finetune_api.manifest import Manifest, annotations_of, labels_of
from finetune_api.reasons import Reason
from finetune_operator.decide import ignored_fields, leftovers
from finetune_operator.decide.cloud_job import outcomes
from finetune_operator.decide.cloud_job import steps as cloud_job
from finetune_operator.decide.cloud_job.adoption import duplicate_warning
from finetune_operator.decide.cloud_job.small_pods import worded_for_small_pod
from finetune_operator.decide.cloud_job.submission import is_submitted
from finetune_operator.decide.conditions import is_true
from finetune_operator.decide.job.change import ASK_AGAIN_SECONDS, trouble
from finetune_operator.decide.job.reported import AT_WORK, last_work, paused, reported_without_eta, tracker_event
from finetune_operator.decide.job.steps import not_done, not_started, result_pending
from finetune_operator.decide.job.view import Decision, JobView
from finetune_operator.decide.pods.field_paths import of_connection
from finetune_operator.decide.pods.refused import counts_ended_objects, refusal_of_pod
from finetune_operator.providers.calls.errors import Busy, CannotMake, ProviderError
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.jobs.cloud_job import CloudJobs
from finetune_operator.reconcilers.jobs.observation import JobObserver
from finetune_operator.reconcilers.jobs.providers import Providers
from finetune_operator.reconcilers.jobs.reports import ReportBox
from finetune_operator.reconcilers.offers import Offers
from finetune_operator.reconcilers.watched.indexes import under_way
from finetune_operator.runtime import metrics
from finetune_operator.runtime.errors import REFUSALS
from finetune_operator.runtime.kube import FINE_TUNE_JOBS
from finetune_operator.runtime.queue import Key, Requeue

logger = logging.getLogger(__name__)

_NOT_DIVERGED = (NOTHING_LEARNT, TOO_LONG, LITTLE_KEPT, TOKENIZER_LEFT_OUT)
"""How warnings begin that report something else than a diverged training."""


class JobReconciler:
    """Reconciles FineTuneJobs."""

    def __init__(
        self, context: Context, providers: Providers, reports: ReportBox, cloud: CloudJobs, offers: Offers
    ) -> None:
        self._context = context
        self._providers = providers
        self._reports = reports
        self._observer = JobObserver(context, providers, reports, cloud)
        self._cloud = cloud
        self._offers = offers

    async def reconcile(self, key: Key) -> Requeue | None:
        """Reconcile one job. Idempotent: doing it twice, late or after a crash gives the same result."""
        job = await self._context.read(FINE_TUNE_JOBS, key)
        if job is None:
            self._reports.forget_named(key.namespace, key.name)
            return None
        view, decision = await self._observer.observe_and_decide(job)
        unreachable = view.run.state == "Unreachable" and decision.only_says
        await self._announce_ignored(job, view)
        await self._cloud.cancel_surplus(job, view)
        if decision.register and view.spec is not None:
            offered, model = replace(view, status=decision.status), view.spec.model_ref.name
            refused = self._offers.make(offered, model, self._under_way(key.namespace, model))
            if refused is None:
                return None
            decision = _result_refused(view, refused)
        try:
            if cloud_job.needs_finalizer(view):
                job = await self._cloud.add_finalizer(job)
            job, decision = await self._act(job, view, decision)
        except Busy as busy:
            return Requeue(busy.retry_after or 1.0)
        except ProviderError as error:
            # That a stop was requested is recorded, whoever else has written the status.
            unreachable = not decision.stop
            outcome = outcomes.not_stopped if decision.stop else trouble
            decision = outcome(view, error.failure(), error.retry_after or ASK_AGAIN_SECONDS)
        except REFUSALS as refusal:
            decision = not_done(view, refusal.message)
        if decision.later:
            return Requeue(decision.requeue_after or 0)
        at_work = is_submitted(view.provider) and view.status.phase in {"Queued", *AT_WORK}
        if unreachable and at_work and (left := self._context.seconds_left_to_another(job)) > 0:
            return Requeue(min(left, ASK_AGAIN_SECONDS))  # the other writer may see more than this operator
        return await self._conclude(job, view, decision)

    async def _conclude(self, job: Manifest, view: JobView, decision: Decision) -> Requeue | None:
        """Write the outcome to status, or let the job go."""
        if view.deleting and decision.release:
            self._forget(view.uid)
            return None
        if decision.delete:
            return await self._delete_expired(job)
        if self._cloud.is_behind(job, view, decision):
            return Requeue(ASK_AGAIN_SECONDS)
        status = decision.status.model_copy(update={"display": _display(view, decision.status)})
        # Only this job is affected, and it is being reconciled: figures that grow with time would trigger it for ever.
        counts = any(now > before for before, now in zip(_counters(view.status), _counters(status), strict=True))
        memory = "provider" if counts else ""
        await self._context.write_status(FINE_TUNE_JOBS, job, view.status, status, notified=True, memory=memory)
        await self._announce(job, view.status, status)
        if status.completion_time is not None or view.deleting:
            self._forget(view.uid)
        if status.completion_time is not None and view.spec is not None:
            model = view.spec.model_ref.name
            self._offers.ended(view.namespace, model, self._under_way(view.namespace, model))
        return None if decision.requeue_after is None else Requeue(decision.requeue_after)

    async def _delete_expired(self, job: Manifest) -> Requeue | None:
        """Delete a job whose time to live is over; if a policy forbids that, it stays and is tried again later.

        Raises:
            Conflict: it was edited since it was read: its time to live may have changed, or it may have been restarted.
        """
        metadata, kube = job["metadata"], self._context.kube
        unchanged = {"uid": metadata["uid"], "version": metadata["resourceVersion"]}
        what = "it cannot be deleted at the end of its time to live"
        try:
            async with self._context.refusable(job, f"{metadata['uid']}/{metadata['generation']}/delete", what):
                await kube.delete(FINE_TUNE_JOBS, metadata["name"], metadata["namespace"], **unchanged)
        except REFUSALS:
            return Requeue(ASK_AGAIN_SECONDS)
        return None

    def _under_way(self, namespace: str, model: str) -> int:
        """How many jobs of a model have not ended."""
        return self._context.store.count(FINE_TUNE_JOBS, under_way(namespace, model))

    def _forget(self, uid: str) -> None:
        """Drop the in-memory counts of a job that has ended or is gone."""
        self._reports.forget(uid)
        self._cloud.answers.forget(uid)

    async def _act(self, job: Manifest, view: JobView, decision: Decision) -> tuple[Manifest, Decision]:
        """Carry out the decision, before status reports it. Idempotent: repeating it after a crash changes nothing.

        Returns:
            The job as it is now, and the decision with what was learnt.

        Raises:
            ProviderError: a provider outside of the cluster failed.
        """
        provider = self._providers.of(view.status, view.connection)
        if decision.release:
            return await self._cloud.release(job, view, decision)
        if decision.stop:
            ended = await provider.stop(job, view.status)
            decision = outcomes.stopped(view, decision, ended) if ended is not None else decision
        if decision.clear:
            await provider.end_earlier(job, view.status)
        if decision.submit:
            return await self._cloud.submit(job, view, decision)
        if decision.host:
            return await self._cloud.host(job, view, decision)
        if decision.measure:
            self._reports.forget(view.uid)  # reports of an earlier pod of the attempt
            return job, await self._cloud.measure(job, view, decision)
        if decision.start:
            return await self._start(job, view, decision)
        return job, decision

    async def _start(self, job: Manifest, view: JobView, decision: Decision) -> tuple[Manifest, Decision]:
        """Start the attempt that the decision's status names."""
        spec, connection = view.spec, view.connection
        if spec is None or connection is None or decision.status.provider is None:
            return job, decision
        provider = self._providers.of(view.status, connection)
        try:
            job_id = await provider.start(job, spec, connection, decision.status)
        except REFUSALS as error:
            refused = of_connection(refusal_of_pod(error.message), spec.connection_ref.name, connection)
            refused = worded_for_small_pod(refused) if view.remote else refused
            if counts_ended_objects(refused):
                await provider.end_earlier(job, decision.status)  # so that the next try fits the quota
            return job, not_started(view, refused)
        except CannotMake as error:
            return job, not_started(view, error.failure)
        return job, replace(decision, status=decision.status.with_provider(job_id=job_id))

    async def _announce_ignored(self, job: Manifest, view: JobView) -> None:
        if view.spec is not None and (view.deleting or not view.finished):
            again = view.retry_asked and not view.finished and view.status.start_time is not None
            of, labels = annotations_of(job), labels_of(job)
            said = ignored_fields.of_job(view.spec, of, view.connection, labels=labels, asked_again=again)
            await self._context.announce_ignored(job, said)
            if twice := duplicate_warning(view):
                await self._context.announce(job, "Warning", "AlreadyAVersion", twice)

    async def _announce(self, job: Manifest, old: FineTuneJobStatus, new: FineTuneJobStatus) -> None:
        """Post an Event about what users should notice; count failures."""
        await self._context.announce_event(job, headline(old, new))
        if new.phase == "Failed" and old.phase != "Failed" and new.failure is not None:
            metrics.FAILURES.labels(new.failure.reason.value).inc()


def _result_refused(view: JobView, why: Failure) -> Decision:
    """The decision if the model cannot take the job's result now: training is done, and status shows how far it is."""
    fields = {"phase": last_work(view.run.report), **reported_without_eta(view.run.report, view.status)}
    view = replace(view, status=view.status.model_copy(update=fields))
    if why.reason is Reason.PENDING:
        return result_pending(view, why.message)
    return trouble(view, why, ASK_AGAIN_SECONDS)


def headline(old: FineTuneJobStatus, new: FineTuneJobStatus) -> tuple[str, str, str] | None:
    """Type, reason and note of the Event for a change of status, if it deserves one."""
    left = leftovers.leftover_event(old.conditions, new.conditions)
    if left is not None and new.completion_time is not None:
        return left
    retried = _counters(new)[0] > _counters(old)[0]
    if retried and new.provider is not None and new.provider.last_failure is not None:
        failure = new.provider.last_failure
        return "Warning", "Retrying", f"attempt {failure.attempt}: {failure.reason.value}: {failure.message}"
    if new.failure is not None and (old.failure is None or old.failure.reason != new.failure.reason):
        return "Warning", new.failure.reason.value, new.failure.sentences
    if new.phase == old.phase or new.phase in AT_WORK or new.phase is None:
        return tracker_event(old, new) or _ineffective_retry(old, new)
    if new.phase == "Succeeded" and (caveat := _caveat(new)) is not None:
        reason, but = caveat
        return "Warning", reason, f"version {new.model_version} is registered, {but}"
    # Progress is in status; an Event for each phase would be most of what the API server is asked for.
    notes = {
        "Suspended": f"suspended; {paused(old.provider)}",
        "Succeeded": f"version {new.model_version} is registered",
    }
    return ("Normal", new.phase, notes[new.phase]) if new.phase in notes else None


def _counters(status: FineTuneJobStatus) -> tuple[int, int]:
    """Counters that have a limit: retries, and pods that failed to ask the model at its provider."""
    evaluation = status.provider.evaluation if status.provider else None
    return status.provider.retries if status.provider else 0, evaluation.failures if evaluation else 0


def _caveat(status: FineTuneJobStatus) -> tuple[str, str] | None:
    """Reason and text of what users of a new version should know first, if anything."""
    result, provider = status.result, status.provider
    said = result.warnings[0] if result and result.warnings else ""
    if said and not said.startswith(EXPERTS_LEFT):
        reason = "Succeeded" if said.startswith(_NOT_DIVERGED) else Reason.TRAINING_DIVERGED.value
        return reason, f"but {said}"
    unmeasured = (result and result.evaluation_failure) or (
        provider.evaluation.failure if provider and provider.evaluation else None
    )
    if unmeasured:
        return unmeasured.reason.value, f"and is not measured: {unmeasured.message}"
    return ("Succeeded", f"but {said}") if said else None


def _ineffective_retry(old: FineTuneJobStatus, new: FineTuneJobStatus) -> tuple[str, str, str] | None:
    """The Event for a new retryNonce on a job that has succeeded: its user waits for a restart that will not come."""
    if not is_true(old.conditions, "Complete") or new.observed_retry_nonce in {None, old.observed_retry_nonce}:
        return None
    note = "spec.retryNonce: it starts failed jobs again, and this one has succeeded; for another version apply the job"
    return "Warning", ignored_fields.EVENT, f"{note} under a new name"


def _display(view: JobView, status: FineTuneJobStatus) -> Any:
    if view.spec is None:
        return status.display
    provider = view.provider.name or (view.connection.provider if view.connection else None)
    return job_display(view.spec.base_model, view.spec.method, status, provider)
