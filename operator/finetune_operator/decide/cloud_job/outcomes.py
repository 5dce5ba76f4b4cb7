"""What status says about actions at a provider, and about those that failed. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide import leftovers
from finetune_operator.decide.cloud_job import cloud_cost, cloud_policy, evaluation_record
from finetune_operator.decide.cloud_job.submission import is_submitted
from finetune_operator.decide.conditions import reconciling, timestamp
from finetune_operator.decide.deployment.hosted import LONG
from finetune_operator.decide.job.change import ASK_AGAIN_SECONDS, fail, trouble, with_facts, with_status
from finetune_operator.decide.job.remote import RemoteJob
from finetune_operator.decide.job.view import Change, Decision, JobView
from finetune_operator.decide.transient import TEMPORARY


def refused(view: JobView, failure: Failure) -> Decision:
    """The provider rejects this job. If the model's name may be the cause, a similar known one is suggested."""
    meant = view.spec and cloud_policy.suggested_model(view.spec.base_model, view.facts)
    if failure.reason is Reason.PROVIDER_REFUSED and meant:
        failure = failure.model_copy(update={"message": f"{failure.message}; did you mean spec.baseModel: {meant}?"})
    return fail(view, failure.model_copy(update={"attempt": view.attempt}))


def not_stopped(view: JobView, failure: Failure, again: float) -> Decision:
    """It was told to stop, and has not stopped yet, or its state is unknown. A stop that we requested is no failure."""
    if is_submitted(view.provider) and view.provider.stop_asked_at is None:
        view = replace(view, status=view.status.with_provider(stop_asked_at=timestamp(view.now)))
    if failure.reason is not Reason.SUCCEEDED:
        return trouble(view, failure, again)
    change = Change(reconciling(Reason.PENDING, failure.message), {"failure": None})  # it becomes a version
    return Decision(with_status(view, change), requeue_after=again)


def stopped(view: JobView, decision: Decision, ended: RemoteJob) -> Decision:
    """It has stopped and its bill is known. Record that now: status is about to name the next attempt."""
    run = replace(view.run, state="Failed", billed_seconds=ended.billed_seconds, billed_tokens=ended.tokens)
    told, provider = replace(view, run=run), decision.status.provider
    followed = provider is not None and provider.asked_at is None
    cost = cloud_cost.left_behind(told) if followed else cloud_cost.with_bill(told)
    return replace(decision, status=decision.status.model_copy(update={"cost": cost}))


def postponed(view: JobView, failure: Failure, again: float) -> Decision:
    """The provider has created nothing and asks for a delay. Events do not shorten it."""
    after = timestamp(view.now + timedelta(seconds=max(1.0, again)))
    return trouble(replace(view, status=view.status.with_provider(retry_after=after)), failure, again)


def not_cleaned_up(view: JobView, failure: Failure) -> Decision:
    """What is left at the provider cannot be deleted now. The status of an ended job does not change otherwise."""
    what = "what the job left at the provider"
    fact = leftovers.left(what, failure, leftovers.way_out("job"))
    billed = view.provider.evaluation is not None and view.provider.evaluation.deployments is not None
    again = ASK_AGAIN_SECONDS if billed else leftovers.pause(view.status.conditions, failure, view.now)
    if not view.deleting:
        return Decision(with_status(view, Change([fact])), requeue_after=again)
    message = (
        f"{what} cannot be deleted: {failure.message}; annotate the job with finetune.dev/abandon=true to release it"
    )
    if failure.reason in TEMPORARY:  # no reason to give up what will soon be over
        message = f"{what} is deleted later: {failure.message}"
    return with_facts(view, trouble(view, failure.model_copy(update={"message": message}), again), [fact])


def cleaned_up(view: JobView, decision: Decision) -> Decision:
    """Everything of the job that had to be deleted at the provider is gone, or was abandoned."""
    conditions = decision.status.conditions
    facts = leftovers.abandoned(conditions) if view.abandoned else leftovers.nothing_left(conditions)
    return with_facts(view, decision, facts)


def deployments_left(
    view: JobView, names: Sequence[str], failure: Failure | None, again: float, ended: datetime | None
) -> Decision:
    """Deployments of an evaluation are being deleted, or cannot be deleted now. `ended`: when the job ended."""
    if failure is None and ended is not None and view.now - ended >= LONG:  # nobody watches an ended job
        said = (
            "the provider still shows them, more than an hour after the job ended: their deletion takes long, or waits "
            "for another change of the account. See there what holds it up"
        )
        failure = Failure(reason=Reason.PROVIDER_BUSY, message=said)
    if failure is None:
        said = f"being deleted at the provider: {', '.join(names)}"
        change = _going(view, said) if view.deleting else Change()
        change.fields["cost"] = cloud_cost.with_bill(view)
        return Decision(with_status(view, change), requeue_after=again)
    facts = [evaluation_record.unreleased(names, failure)]
    decision = not_cleaned_up(view, failure)
    if not view.deleting:
        decision = Decision(with_status(view, Change()))
    return with_facts(view, replace(decision, requeue_after=ASK_AGAIN_SECONDS), facts, cost=cloud_cost.with_bill(view))


def searching(view: JobView, again: float) -> Decision:
    """Search for deployments without a record, for as long as a list may lack them."""
    said = (
        "nothing records whether the evaluation had deployments at the provider, and a list there may lack what was "
        "made a moment ago: they are looked for two minutes before this object goes"
    )
    return Decision(with_status(view, _going(view, said)), requeue_after=again)


def _going(view: JobView, said: str) -> Change:
    """It is being deleted, and nothing of it runs any more."""
    facts = reconciling(Reason.PENDING, said)
    return Change(facts, {} if view.finished else {"phase": "Cancelled", "failure": None})


def deployments_deleted(view: JobView, decision: Decision) -> Decision:
    """All of them are gone: their cost is final, and what was in the way no longer matters."""
    left = evaluation_record.nothing_left(view)
    return with_facts(view, decision, left, provider=view.status.provider, cost=cloud_cost.with_bill(view))
