"""The record in status of an evaluation at a provider, and of the deployments that it needs. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from finetune_api.job_status import EvaluationDeployment, Failure, FineTuneJobStatus, ProviderEvaluation
from finetune_api.money import as_summand
from finetune_api.reasons import Reason
from finetune_operator.decide.cloud_job import evaluation_hosts
from finetune_operator.decide.conditions import Fact, reconciling, timestamp
from finetune_operator.decide.job.change import ASK_AGAIN_SECONDS, trouble, with_facts, with_status
from finetune_operator.decide.job.reported import not_evaluated
from finetune_operator.decide.job.view import Change, Decision, JobView

DEPLOYING = "waiting for the deployments that are asked the test set"


def state_of(view: JobView) -> ProviderEvaluation:
    """The record; an empty one before it has begun."""
    return view.provider.evaluation or ProviderEvaluation()


def not_deployed(view: JobView, status: FineTuneJobStatus, failure: Failure, again: float) -> Decision:
    """A deployment could not be requested. The delay is kept in status, as the status write triggers a reconcile."""
    paused = _recorded(status, retry_after=timestamp(view.now + timedelta(seconds=again)))
    return trouble(replace(view, status=paused), failure, again)


def not_released(view: JobView, status: FineTuneJobStatus, names: Sequence[str], failure: Failure) -> Decision:
    """The deployments are to be deleted, and that is not possible now."""
    decision = trouble(replace(view, status=status), failure, ASK_AGAIN_SECONDS)
    return with_facts(view, decision, [unreleased(names, failure)])


def unreleased(names: Sequence[str], failure: Failure) -> Fact:
    """The condition Released while deployments of an evaluation cannot be deleted."""
    standing = ", ".join(names) or "of the evaluation"
    message = f"deployment {standing} may exist at the provider, and be billed: {failure.message}"
    return Fact("Released", "False", failure.reason, message)


def nothing_left(view: JobView) -> list[Fact]:
    """The condition Released once they are gone, if it was False before."""
    was_left = any(condition.type == "Released" for condition in view.status.conditions or ())
    return [Fact("Released", "True", Reason.SUCCEEDED, "nothing is left at the provider")] if was_left else []


def deployed(status: FineTuneJobStatus, recorded: Sequence[EvaluationDeployment]) -> FineTuneJobStatus:
    """The status with this record of deployments."""
    return _recorded(status, deployments=list(recorded) or None)


def torn_down(status: FineTuneJobStatus, fall: evaluation_hosts.TearDown) -> FineTuneJobStatus:
    """The status with the deployments that are left, and the cost of those that are gone."""
    evaluation = status.provider.evaluation if status.provider else None
    if evaluation is None and not fall.recorded:
        return status
    hosting = evaluation.hosting if evaluation else None
    if fall.cost is not None:
        hosting = as_summand(Decimal(hosting or "0") + fall.cost)
    fields: dict[str, Any] = {"deployments": list(fall.recorded) or None, "hosting": hosting}
    if evaluation_hosts.made(evaluation) and not fall.recorded:
        fields["deployments_gone"] = True  # else a deleted job would be searched for deployments without a record
    return _recorded(status, **fields)


def released(status: FineTuneJobStatus, *, gone: bool = False) -> FineTuneJobStatus:
    """The status once all deployments are to be deleted, whether or not the provider has received the requests.

    Args:
        status: the present one.
        gone: whether none has been listed for a while.
    """
    evaluation = status.provider.evaluation if status.provider else None
    if evaluation is None:
        return status
    deployments = evaluation_hosts.released(evaluation.deployments)
    return _recorded(status, deployments=deployments, deployments_gone=gone)


def has_deployed(view: JobView) -> bool:
    """Whether deployments of the evaluation are recorded, and not known to be gone."""
    return bool(state_of(view).deployments)


def may_have_deployed(view: JobView) -> bool:
    """Whether deployments of the evaluation may exist at the provider.

    They are created once there is a result. An emptied or outdated status does not tell, so the provider is searched
    when the job is deleted.
    """
    there = view.provider_name in evaluation_hosts.IN_DEPLOYMENTS
    there = there and (view.status.result is not None or view.deleting)
    return there and (view.spec is None or view.spec.dataset.test is not None)


def may_lack_record(view: JobView, *, succeeded: bool) -> bool:
    """Whether a deleted job may have deployments that its status, emptied or outdated, does not record.

    Args:
        view: of a job that is being deleted.
        succeeded: whether its job at the provider succeeded, so that an evaluation may have begun.
    """
    begun = not view.finished and (succeeded or view.status.result is not None)
    return view.deleting and begun and not evaluation_hosts.made(state_of(view)) and not state_of(view).deployments_gone


def _recorded(status: FineTuneJobStatus, **fields: Any) -> FineTuneJobStatus:
    before = status.provider.evaluation if status.provider else None
    return status.with_provider(evaluation=(before or ProviderEvaluation()).model_copy(update=fields))


def started(status: FineTuneJobStatus, job_id: str) -> FineTuneJobStatus:
    """The status once the pod's Job exists."""
    if status.provider is None or status.provider.evaluation is None:
        return status
    return _recorded(status, job_id=job_id)


def facts(view: JobView) -> list[Fact]:
    """The condition Evaluated of a job whose model could not be evaluated."""
    failure = view.provider.evaluation.failure if view.provider.evaluation else None
    if failure is None:
        return []
    return [not_evaluated(failure.reason, failure.message)]


def needs_search(view: JobView) -> bool:
    """Whether deployments may exist that status, emptied or outdated, does not record.

    A status without deployments does not tell whether that happened. They are billed while the job is suspended, so
    each suspension begins with a search.
    """
    there = view.provider.name in evaluation_hosts.IN_DEPLOYMENTS
    return there and not evaluation_hosts.made(state_of(view)) and not state_of(view).deployments_gone


def deploying(view: JobView, status: FineTuneJobStatus) -> FineTuneJobStatus:
    """The status while deployments come up; `status`: the one to change."""
    change = Change(reconciling(Reason.DEPLOYING, DEPLOYING), {"failure": None})
    return with_status(replace(view, status=status), change)
