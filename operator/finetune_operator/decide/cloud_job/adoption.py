"""Jobs that somebody has made at a provider, and a FineTuneJob takes over: looked at, and never made or stopped."""

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import reconciling, timestamp
from finetune_operator.decide.job.change import fail, with_status
from finetune_operator.decide.job.remote import is_named
from finetune_operator.decide.job.view import Change, Decision, JobView


def is_adopted(view: JobView) -> bool:
    """Whether the job takes over one that was made elsewhere."""
    return view.spec is not None and view.spec.adopt is not None


def told_twice(view: JobView) -> str:
    """That what the job takes over is a version already: another one is made of it, and both are one model."""
    if not view.same_as or view.spec is None or view.spec.adopt is None:
        return ""
    before = ", ".join(str(number) for number in view.same_as[-3:])
    return (
        f"spec.adopt.jobID: what job {view.spec.adopt.job_id} has made is version {before} of FineTunedModel "
        f"{view.spec.model_ref.name} already; another version of the same model is made"
    )


def take_over(view: JobView) -> Decision | None:
    """A job that was made elsewhere is looked at from now on; nothing is made."""
    adopted = view.spec.adopt if view.spec else None
    if view.run.state != "Absent" or adopted is None or view.spec is None or view.connection is None:
        return None
    provider = view.provider.model_copy(
        update={
            "name": view.connection.provider,
            "attempt": view.attempt,
            "job_id": adopted.job_id,
            "place": view.place,
            "account": view.account,
            "asked_at": timestamp(view.now),
        }
    )
    fields = {
        "phase": "Queued",
        "failure": None,
        "provider": provider,
        "start_time": view.status.start_time or timestamp(view.now),
        "observed_retry_nonce": view.spec.retry_nonce,
    }
    message = f"job {adopted.job_id} at the provider is looked up"
    return Decision(with_status(view, Change(reconciling(Reason.QUEUED, message), fields)), requeue_after=0)


def refuse_other_base(view: JobView) -> Decision | None:
    """What was tuned elsewhere says itself what it was tuned from; with another base model it would answer nonsense."""
    if not is_adopted(view) or view.run.state not in {"Queued", "Active", "Succeeded"} or view.spec is None:
        return None
    result = view.run.report.result if view.run.report else None
    base = view.run.base or (result.artifact.base_model if result else None)
    if base in {None, view.spec.base_model} or (view.run.base and is_named(view.run.base, view.spec.base_model)):
        return None
    what = f"job {view.provider.job_id} is tuned" if view.run.base else "the job's adapter was tuned"
    message = f"spec.baseModel: {what} from {base}, and not from {view.spec.base_model}"
    step = f"Apply the job under a new name with baseModel: {base}."
    return fail(view, Failure(reason=Reason.SPEC_INVALID, message=message, next_step=step))


def refuse_what_is_not_there(view: JobView) -> Decision | None:
    """A job to adopt that was never seen is one whose name is wrong."""
    failure, adopted = view.run.failure, view.spec.adopt if view.spec else None
    if adopted is None or failure is None or failure.reason != Reason.DELETED_AT_PROVIDER:
        return None
    if view.status.phase != "Queued" or view.status.progress is not None:
        return None
    where = f" ({view.provider.place})" if view.provider.place else ""
    message = f"spec.adopt.jobID: there is no job {adopted.job_id} where the connection leads{where}"
    step = "Apply the job under a new name, with the provider's name of a job that is there."
    return fail(view, failure.model_copy(update={"message": message, "next_step": step}))
