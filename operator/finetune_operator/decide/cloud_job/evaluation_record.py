"""What status records of an evaluation that asks a provider's model, and of the deployments that it needs. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from finetune_api.job_status import EvaluationDeployment, Failure, FineTuneJobStatus, ProviderEvaluation
from finetune_api.money import to_be_added
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
    """It could not be asked for. The pause is in status: what is written wakes the next look at once."""
    paused = _recorded(status, retry_after=timestamp(view.now + timedelta(seconds=again)))
    return trouble(replace(view, status=paused), failure, again)


def not_released(view: JobView, status: FineTuneJobStatus, names: Sequence[str], failure: Failure) -> Decision:
    """What was deployed is to go, and cannot be deleted now."""
    decision = trouble(replace(view, status=status), failure, ASK_AGAIN_SECONDS)
    return with_facts(view, decision, [unreleased(names, failure)])


def unreleased(names: Sequence[str], failure: Failure) -> Fact:
    """The condition Released while deployments that were made for an evaluation cannot be deleted."""
    standing = ", ".join(names) or "of the evaluation"
    message = f"deployment {standing} may exist at the provider, and be billed: {failure.message}"
    return Fact("Released", "False", failure.reason, message)


def nothing_left(view: JobView) -> list[Fact]:
    """The condition Released once they are gone, where that was in doubt."""
    was_left = any(condition.type == "Released" for condition in view.status.conditions or ())
    return [Fact("Released", "True", Reason.SUCCEEDED, "nothing is left at the provider")] if was_left else []


def deployed(status: FineTuneJobStatus, recorded: Sequence[EvaluationDeployment]) -> FineTuneJobStatus:
    """The status with this record of deployments."""
    return _recorded(status, deployments=list(recorded) or None)


def fallen(status: FineTuneJobStatus, fall: evaluation_hosts.Fall) -> FineTuneJobStatus:
    """The status with what is left of them, and what those have cost that are gone."""
    evaluation = status.provider.evaluation if status.provider else None
    if evaluation is None and not fall.recorded:
        return status
    hosting = evaluation.hosting if evaluation else None
    if fall.cost is not None:
        hosting = to_be_added(Decimal(hosting or "0") + fall.cost)
    fields: dict[str, Any] = {"deployments": list(fall.recorded) or None, "hosting": hosting}
    if evaluation_hosts.made(evaluation) and not fall.recorded:
        fields["deployments_gone"] = True  # else what is deleted would be looked through for what nobody has recorded
    return _recorded(status, **fields)


def released(status: FineTuneJobStatus, *, gone: bool = False) -> FineTuneJobStatus:
    """The status once all that was made is to go, whether the provider has heard of it or not.

    Args:
        status: as it was.
        gone: whether nothing of it has shown for a while.
    """
    evaluation = status.provider.evaluation if status.provider else None
    if evaluation is None:
        return status
    deployments = evaluation_hosts.released(evaluation.deployments)
    return _recorded(status, deployments=deployments, deployments_gone=gone)


def has_deployed(view: JobView) -> bool:
    """Whether deployments that the evaluation needed are recorded, and not known to be gone."""
    return bool(state_of(view).deployments)


def may_have_deployed(view: JobView) -> bool:
    """Whether something that the evaluation needed may stand at the provider.

    They are made once there is a result. A status that somebody has emptied, or put back, does not tell of that: what
    is deleted is looked through for them.
    """
    there = view.provider_name in evaluation_hosts.IN_DEPLOYMENTS
    there = there and (view.status.result is not None or view.deleting)
    return there and (view.spec is None or view.spec.dataset.test is not None)


def is_unrecorded(view: JobView, *, succeeded: bool) -> bool:
    """Whether what is deleted may have deployments of which status does not tell: it is an older one, or was emptied.

    Args:
        view: of a job that is being deleted.
        succeeded: whether its job at the provider has, so that an evaluation may have begun.
    """
    begun = not view.finished and (succeeded or view.status.result is not None)
    return view.deleting and begun and not evaluation_hosts.made(state_of(view)) and not state_of(view).deployments_gone


def _recorded(status: FineTuneJobStatus, **fields: Any) -> FineTuneJobStatus:
    before = status.provider.evaluation if status.provider else None
    return status.with_provider(evaluation=(before or ProviderEvaluation()).model_copy(update=fields))


def started(status: FineTuneJobStatus, job_id: str) -> FineTuneJobStatus:
    """The status once the pod's Job is there."""
    if status.provider is None or status.provider.evaluation is None:
        return status
    return _recorded(status, job_id=job_id)


def facts(view: JobView) -> list[Fact]:
    """The condition Evaluated of a job whose model could not be measured."""
    failure = view.provider.evaluation.failure if view.provider.evaluation else None
    if failure is None:
        return []
    return [not_evaluated(failure.reason, failure.message)]


def is_to_be_looked_for(view: JobView) -> bool:
    """Whether deployments may stand of which status does not tell: an older one was put back, or it was emptied.

    Nobody knows that of a status that names none. They are billed while the job rests, so each rest begins with a look.
    """
    there = view.provider.name in evaluation_hosts.IN_DEPLOYMENTS
    return there and not evaluation_hosts.made(state_of(view)) and not state_of(view).deployments_gone


def deploying(view: JobView, status: FineTuneJobStatus) -> FineTuneJobStatus:
    """The status while what is needed comes to stand; `status`: as it was before."""
    change = Change(reconciling(Reason.DEPLOYING, DEPLOYING), {"failure": None})
    return with_status(replace(view, status=status), change)
