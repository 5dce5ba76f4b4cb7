"""What a FineTuneJob at a provider outside of the cluster needs besides reconciling: hold, submit, release.

Decisions are in `decide.cloud_job`. The order matters: hold before anything exists outside, record before asking.
"""

import logging
from dataclasses import replace
from datetime import datetime

from finetune_api.job_status import ProviderStatus
from finetune_api.manifest import Manifest
from finetune_api.names import PROVIDER_FINALIZER
from finetune_api.reasons import Reason
from finetune_operator.decide.cloud_job import evaluation_record, measuring, outcomes, submission
from finetune_operator.decide.cloud_job.small_pods import worded_for_small_pod
from finetune_operator.decide.cloud_job.steps import only_updates_progress
from finetune_operator.decide.cloud_job.submission import Adopt, Create, Missing, Wait, next_move
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.connection import lacking
from finetune_operator.decide.deployment.hosted_record import may_still_show
from finetune_operator.decide.job.attempts import follows_a_loss
from finetune_operator.decide.job.change import ASK_AGAIN_SECONDS, trouble
from finetune_operator.decide.job.remote import RemoteJob, oldest
from finetune_operator.decide.job.view import Decision, JobView
from finetune_operator.decide.pods.field_paths import of_connection
from finetune_operator.decide.pods.refused import counts_ended_objects, refusal_of_pod
from finetune_operator.providers.calls.errors import (
    Busy,
    CannotMake,
    Ended,
    ProviderError,
    Refused,
    TryLater,
    Unreached,
)
from finetune_operator.providers.remote.job_record import connection_of
from finetune_operator.providers.remote.pods import CloudPods
from finetune_operator.providers.remote.training import CloudTraining
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.jobs.answers import Answers
from finetune_operator.reconcilers.jobs.evaluation_hosts import EvaluationHosts
from finetune_operator.runtime.errors import REFUSALS
from finetune_operator.runtime.kube import FINE_TUNE_JOBS

logger = logging.getLogger(__name__)


class CloudJobs:
    """Creates one job at the provider for each attempt, and cleans up there.

    Args:
        context: what reconcilers share.
        training: calls to providers.
        pods: those that ask a model the test set.
        answers: counts the questions to the models of jobs.
        hosts: creates and deletes deployments for evaluations.
    """

    def __init__(
        self, context: Context, training: CloudTraining, pods: CloudPods, answers: Answers, hosts: EvaluationHosts
    ) -> None:
        self._context = context
        self._training = training
        self._pods = pods
        self.answers = answers
        self._hosts = hosts

    async def add_finalizer(self, job: Manifest) -> Manifest:
        """Put our finalizer on the job: it must not be deleted before its resources outside of the cluster are."""
        return await self._context.add_finalizer(FINE_TUNE_JOBS, job, PROVIDER_FINALIZER, self._training.note(job))

    async def submit(self, job: Manifest, view: JobView, decision: Decision) -> tuple[Manifest, Decision]:
        """Find the attempt's job at the provider, or create it.

        Raises:
            ProviderError: there is no room, or the look-up failed; nothing was created.
            Conflict: the object has changed since it was read; nothing was created.
        """
        provider = decision.status.provider
        if provider is None:
            return job, decision
        if view.spec is not None and not submission.may_be_there(provider):
            self._training.require_capacity(job, view.spec)
        async with self._training.turn(job):
            return await self._find_or_create(job, view, decision, provider)

    async def _find_or_create(
        self, job: Manifest, view: JobView, decision: Decision, provider: ProviderStatus
    ) -> tuple[Manifest, Decision]:
        job = await self.add_finalizer(job)  # the data's upload did that; someone may have removed the finalizer
        move = next_move(view, await self._training.find(job, provider))
        view = replace(view, account_now=self._training.account(job))  # it is known after the look-up
        match move:
            case Adopt():
                await self._cancel_others(job, move)
                return job, Decision(submission.taken(view, decision.status, move.job), requeue_after=0)
            case Wait():
                return job, replace(decision, requeue_after=move.seconds)
            case Missing():
                return job, trouble(view, move.failure, ASK_AGAIN_SECONDS)
            case Create():
                late = await self._job_of_previous_attempt(job, provider)
                if late is not None:
                    return job, Decision(submission.taken(view, decision.status, late), requeue_after=0)
                return await self._create(job, view, decision)

    async def _job_of_previous_attempt(self, job: Manifest, provider: ProviderStatus) -> RemoteJob | None:
        """The previous attempt's job, if it exists although a list lacked it: one job is enough."""
        if not follows_a_loss(provider):
            return None
        before = ProviderStatus(attempt=provider.attempt - 1)
        found = [one for one in await self._training.find(job, before) if not one.ended or one.state == "Succeeded"]
        return oldest(found) if found else None

    def is_behind(self, job: Manifest, view: JobView, decision: Decision) -> bool:
        """Whether to wait for a new poll of the provider: another operator has written the job since the last one.

        Otherwise two operators that poll at different times would revert each other as fast as watch events arrive.
        """
        job_id = view.provider.job_id
        if job_id is None or not only_updates_progress(view, decision) or not self._context.written_by_another(job):
            return False
        return self._training.recheck(job, job_id)

    async def host(self, job: Manifest, view: JobView, decision: Decision) -> tuple[Manifest, Decision]:
        """Create or delete the deployments that an evaluation asks.

        Raises:
            ProviderError: the provider could not be read.
            Conflict: the object has changed since it was read; nothing was created.
        """
        async with self._training.turn(job):
            if decision.host == "Up":
                return await self._hosts.up(await self.add_finalizer(job), view, decision)
            left = await self._hosts.down(job, replace(view, status=decision.status))
        status = evaluation_record.released(left.status, gone=left.error is None and not left.names)
        if left.error is not None and decision.status.phase == "Suspended":
            return left.job, evaluation_record.not_released(view, status, left.names, left.error.failure())
        if left.error is not None:
            logger.warning("deployments of an evaluation cannot be deleted yet: %s", left.error.message)
        return left.job, replace(decision, status=status)

    async def measure(self, job: Manifest, view: JobView, decision: Decision) -> Decision:
        """Start or stop the pod that asks the tuned model the test set."""
        self.answers.begin(view.uid)
        if decision.measure == "Stop":
            await self._pods.end_measuring(job, view.provider)
            return decision
        if view.spec is None or view.connection is None:
            missing = lacking(connection_of(job), is_there=view.connection_unread, field="spec.connectionRef")
            return measuring.not_started(view, missing)
        try:
            job_id = await self._pods.measure(job, view.spec, view.connection, decision.status)
        except REFUSALS as error:
            refused = of_connection(refusal_of_pod(error.message), view.spec.connection_ref.name, view.connection)
            refused = worded_for_small_pod(refused)
            if counts_ended_objects(refused):
                await self._training.end_earlier(job, decision.status)  # so that the next try fits the quota
            return measuring.not_started(view, refused)
        except CannotMake as error:
            return measuring.not_started(view, error.failure)
        return replace(decision, status=evaluation_record.started(decision.status, job_id))

    async def release(self, job: Manifest, view: JobView, decision: Decision) -> tuple[Manifest, Decision]:
        """Stop what runs, delete what was uploaded, and remove the finalizer.

        Raises:
            KubeError: the finalizer cannot be removed, or its next try is not due.
        """
        self._context.require_finalizer_removable(job, PROVIDER_FINALIZER)
        deployed = evaluation_record.may_have_deployed(view) and not view.abandoned
        try:
            succeeded = decision.stop and await self._stop(job, view)
            if not view.abandoned:
                async with self._training.turn(job):
                    job, view, waits = await self._clean_up(job, view, succeeded=succeeded)
                if waits is not None:
                    return job, waits
        except ProviderError as error:
            return job, _not_cleaned_up(view, error)
        if deployed:
            decision = outcomes.deployments_deleted(view, decision)
        if view.copy_of:
            note = f"the job is released; what is at the provider is that of {view.copy_of}, and stays"
            await self._context.announce(job, "Normal", "Retained", note)
        elif view.abandoned:
            note = "the job is released; what it left at the provider, and costs there, is not ended"
            await self._context.announce(job, "Warning", "Abandoned", note)
        job = await self._context.remove_finalizer(FINE_TUNE_JOBS, job, PROVIDER_FINALIZER)
        return job, outcomes.cleaned_up(view, decision)

    async def _clean_up(
        self, job: Manifest, view: JobView, *, succeeded: bool
    ) -> tuple[Manifest, JobView, Decision | None]:
        """Delete what was created and uploaded; returns a decision if the job has to wait for that.

        Raises:
            ProviderError: deployments could not be read.
        """
        if evaluation_record.may_have_deployed(view):
            left = await self._hosts.down(job, view)
            job, view = left.job, replace(view, status=left.status)
            if left.names or left.error is not None:
                ended = _ended_at(job, view)
                return (
                    job,
                    view,
                    outcomes.deployments_left(view, left.names, left.failure, self._hosts.moving_seconds, ended),
                )
            unrecorded = evaluation_record.may_lack_record(view, succeeded=succeeded)
            if unrecorded and may_still_show(_deleted_at(job), view.now):
                return job, view, outcomes.searching(view, self._hosts.moving_seconds)
        try:
            await self._cancel_strays(job, view)
            await self._training.clean(job, view.provider.files or ())
        except ProviderError as error:
            return job, view, _not_cleaned_up(view, error)
        return job, view, None

    async def _stop(self, job: Manifest, view: JobView) -> bool:
        """Stop what runs; returns whether it had succeeded before."""
        try:
            await self._training.stop(job, view.status)
        except Ended as ended:
            note = f"{ended.message}; spec.adopt.jobID of another job makes it a version, or delete it there"
            await self._context.announce(job, "Warning", "Retained", note)
            return True
        return False

    async def _create(self, job: Manifest, view: JobView, decision: Decision) -> tuple[Manifest, Decision]:
        """Record the request in status, then send it, once."""
        status = submission.asked(view, decision.status)
        written = await self._context.write_status(
            FINE_TUNE_JOBS, job, view.status, status, notified=True, memory="provider"
        )
        if view.spec is None or status.provider is None or written is None:
            return job, Decision(view.status)  # deleted meanwhile
        self._context.guard()
        try:
            made = await self._training.create(written, view.spec, status.provider)
        except Refused as error:
            return written, outcomes.refused(replace(view, status=status), error.failure())
        except (TryLater, Unreached) as error:
            # Nothing was created: the next reconcile need not wait for a job that may show up late.
            before = replace(view, status=decision.status)
            again = error.retry_after or ASK_AGAIN_SECONDS
            return written, outcomes.postponed(before, error.failure(), again)
        except ProviderError as error:
            logger.warning("whether a job was made is not known: %s", error.message)
            unknown = replace(view, status=status)
            return written, trouble(unknown, error.failure(), submission.LOOK_AGAIN_SECONDS)
        return written, Decision(submission.submitted(status, made), requeue_after=0)

    async def _cancel_strays(self, job: Manifest, view: JobView) -> None:
        """Cancel jobs that still run for a job that has ended or is being deleted.

        A request with unknown outcome may have created one that lists did not show for long. Or someone else has
        written that the job has ended: then nobody would watch a job that is billed.
        """
        known, adopts = view.provider.job_id, view.spec is not None and view.spec.adopt is not None
        if adopts or not submission.may_be_there(view.provider) or not (known or view.finished):
            return
        for made in await self._training.find(job, view.provider):
            if made.ended:
                continue
            if known is not None and made.id != known:
                await self._cancel_surplus(job, made.id, known)
            elif view.finished and await self._training.end_surplus(job, made.id, made.id):
                note = f"job {made.id} at the provider went on, and by status this one has ended: it is cancelled"
                await self._context.announce(job, "Warning", Reason.CANCELLED_AT_PROVIDER, note)

    async def cancel_surplus(self, job: Manifest, view: JobView) -> None:
        """Cancel surplus jobs of the attempt that show only now; an Event names those that cannot be cancelled.

        A failure does not hold up the job: its next reconcile tries again.
        """
        kept = view.provider.job_id
        if kept is None or view.deleting or view.finished or view.copy_of:
            return
        for surplus in view.run.beside:
            made = f"job {surplus} at the provider was made beside {kept}"
            try:
                if await self._training.end_surplus(job, surplus, kept):
                    await self._context.announce(job, "Warning", "Duplicate", f"{made} and is cancelled")
            except Busy:
                return
            except ProviderError as error:
                note = f"{made}, cannot be cancelled, and may be billed: {error.message}"
                await self._context.announce(job, "Warning", "Duplicate", note)

    async def _cancel_others(self, job: Manifest, move: Adopt) -> None:
        """Cancel all but the oldest: without an atomic guard at the provider there may be several."""
        for surplus in move.surplus:
            await self._cancel_surplus(job, surplus.id, move.job.id)

    async def _cancel_surplus(self, job: Manifest, surplus: str, kept: str) -> None:
        await self._training.cancel(job, surplus)
        note = f"job {surplus} at the provider was made beside {kept} and is cancelled"
        await self._context.announce(job, "Warning", "Duplicate", note)


def _deleted_at(job: Manifest) -> datetime:
    return moment(job["metadata"]["deletionTimestamp"])


def _ended_at(job: Manifest, view: JobView) -> datetime | None:
    if view.status.completion_time is not None:
        return moment(view.status.completion_time)
    return _deleted_at(job) if view.deleting else None


def _not_cleaned_up(view: JobView, error: ProviderError) -> Decision:
    """Busy is no failure: it will be the job's turn."""
    if isinstance(error, Busy):
        return Decision(view.status, requeue_after=error.retry_after)
    logger.warning("what is left at the provider cannot be deleted: %s", error.message)
    return outcomes.not_cleaned_up(view, error.failure())
