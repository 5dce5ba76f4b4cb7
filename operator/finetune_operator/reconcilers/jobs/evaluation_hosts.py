"""Deployments for evaluations: recorded before they are created, deleted before their job's finalizer is removed.

Decisions are in `decide.cloud_job`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import EvaluationDeployment, Failure, FineTuneJobStatus
from finetune_api.manifest import Manifest
from finetune_operator.decide.cloud_job import evaluation_hosts as decide
from finetune_operator.decide.cloud_job import evaluation_record
from finetune_operator.decide.cloud_job.evaluation_hosts import ONE_AT_A_TIME, BringUp, Wanted
from finetune_operator.decide.deployment.hosted_record import Hosted, address
from finetune_operator.decide.job.view import Decision, JobView
from finetune_operator.desired import names
from finetune_operator.providers.calls.errors import ProviderError, Refused
from finetune_operator.providers.ports import HostRequest
from finetune_operator.providers.remote.hosting import Hosting
from finetune_operator.providers.remote.job_record import connection_of
from finetune_operator.reconcilers.context import Context
from finetune_operator.runtime.kube import FINE_TUNE_JOBS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remaining:
    """What one step of deleting a job's deployments has left."""

    job: Manifest
    status: FineTuneJobStatus
    names: tuple[str, ...] = ()
    error: ProviderError | None = None
    """The provider's error, if any."""

    @property
    def failure(self) -> Failure | None:
        """The same, as status shows it."""
        return self.error.failure() if self.error is not None else None


class EvaluationHosts:
    """Creates deployments for evaluations, checks whether they answer, and deletes them.

    Args:
        context: what reconcilers share.
        calls: calls to providers.
        moving_seconds: interval of polls while something changes at the provider.
    """

    def __init__(self, context: Context, calls: Hosting, *, moving_seconds: float) -> None:
        self._context = context
        self._calls = calls
        self.moving_seconds = moving_seconds

    async def up(self, job: Manifest, view: JobView, decision: Decision) -> tuple[Manifest, Decision]:
        """Ensure that the deployments of the evaluation exist and answer.

        Raises:
            ProviderError: the provider could not be read; nothing was created.
            Conflict: the object has changed since it was read; nothing was created.
        """
        if view.spec is None or view.connection is None or view.provider.evaluation is None:
            return job, decision
        connection, status = view.spec.connection_ref.name, decision.status
        wanted = _wanted(view, view.spec, view.connection, status)
        known = [one.name for one in _recorded(view.status)] + [one.name for one in wanted]
        found = await self._calls.list(connection, known)
        alone = view.provider.name in ONE_AT_A_TIME
        plan = decide.bring_up(_recorded(view.status), wanted, found, view.now, one_at_a_time=alone)
        recorded = await self._ask_ready(plan, found)
        status = evaluation_record.deployed(status, recorded)
        written = await self._context.write_status(FINE_TUNE_JOBS, job, view.status, status, notified=True)
        if written is None:
            return job, Decision(view.status)  # deleted meanwhile
        status, failure = await self._make(view, status, plan.make)
        if failure is not None:
            again = failure.retry_after or self.moving_seconds
            return written, evaluation_record.not_deployed(view, status, failure.failure(), again)
        status = evaluation_record.deploying(view, status)
        stands = decide.are_settled(_recorded(status), [one.candidate for one in wanted])
        return written, replace(decision, status=status, requeue_after=0 if stands else self.moving_seconds)

    async def down(self, job: Manifest, view: JobView) -> Remaining:
        """Request the deletion of all that was created for the job.

        Raises:
            Conflict: the object has changed since it was read; nothing was deleted.
        """
        recorded = [*_recorded(view.status), *_unrecorded(view)]
        try:
            found = await self._calls.list(connection_of(job), [one.name for one in recorded])
        except ProviderError as error:
            return Remaining(job, view.status, error=error)
        alone = view.provider_name in ONE_AT_A_TIME
        plan = decide.tear_down(recorded, found, name_prefix(view), view.now, one_at_a_time=alone)
        status = evaluation_record.torn_down(view.status, plan)
        written = await self._context.write_status(FINE_TUNE_JOBS, job, view.status, status, notified=True) or job
        self._context.guard()
        left = Remaining(written, status, tuple(one.name for one in plan.recorded))
        try:
            for name in plan.delete:
                await self._calls.delete(found[name])
        except ProviderError as error:
            return replace(left, error=error)
        return left

    async def _ask_ready(self, plan: BringUp, found: Mapping[str, Hosted]) -> Sequence[EvaluationDeployment]:
        """The record after asking the ready deployments whether they answer."""
        recorded = plan.recorded
        for name in plan.ask:
            if await self._calls.answers(found[name]):
                recorded = decide.answering(recorded, name, address(found, name) or name)
        return recorded

    async def _make(
        self, view: JobView, status: FineTuneJobStatus, to_make: Sequence[str]
    ) -> tuple[FineTuneJobStatus, ProviderError | None]:
        """Create the given recorded deployments; returns the status, and the error that stopped it, if any."""
        recorded = list(_recorded(status))
        for at, one in enumerate(recorded):
            if one.name not in to_make or view.spec is None or view.connection is None:
                continue
            self._context.guard()
            request = _request(view, view.spec, view.connection, one, status)
            try:
                await self._calls.make(view.spec.connection_ref.name, request)
            except Refused as error:
                recorded[at] = decide.failed(one, error.message)
            except ProviderError as error:
                logger.warning("deployment %s was not made, as far as is known: %s", one.name, error.message)
                return evaluation_record.deployed(status, recorded), error
        return evaluation_record.deployed(status, recorded), None


def name_prefix(view: JobView) -> str:
    """Prefix of the names of a job's deployments, in the form of those of ModelDeployments."""
    return names.deployment_at_provider(view.namespace, view.name, view.outside_uid)


def _wanted(
    view: JobView, spec: FineTuneJobSpec, connection: LLMConnectionSpec, status: FineTuneJobStatus
) -> list[Wanted]:
    found = decide.needed(spec, status, view.provider.name)
    return [
        Wanted(
            candidate,
            model,
            decide.name(name_prefix(view), view.attempt, candidate),
            decide.per_hour(connection, view.facts, spec.base_model, candidate)[1],
        )
        for candidate, model in found.items()
    ]


def _request(
    view: JobView,
    spec: FineTuneJobSpec,
    connection: LLMConnectionSpec,
    one: EvaluationDeployment,
    status: FineTuneJobStatus,
) -> HostRequest:
    return HostRequest(
        name=one.name,
        model=decide.models(spec, status)[one.candidate],
        template=decide.template(connection, one.candidate),
        owner=view.outside_uid,
        recorded_at=one.created_at,
        is_base=one.candidate == "base",
    )


def _unrecorded(view: JobView) -> list[EvaluationDeployment]:
    """Deployments that may exist unrecorded. One list may lack them: they count as gone after missing for a while."""
    if view.spec is None or view.deleting or not view.spec.suspend or not evaluation_record.needs_search(view):
        return []
    needed = decide.needed(view.spec, view.status, view.provider.name)
    return [decide.unrecorded(decide.name(name_prefix(view), view.attempt, part), part, view.now) for part in needed]


def _recorded(status: FineTuneJobStatus) -> Sequence[EvaluationDeployment]:
    evaluation = status.provider.evaluation if status.provider else None
    return (evaluation and evaluation.deployments) or ()
