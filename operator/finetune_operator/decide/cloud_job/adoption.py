"""Adopts jobs that somebody else created at a provider: they are observed, never created or stopped."""

import re

from finetune_api.connection import LLMConnectionSpec
from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import reconciling, timestamp
from finetune_operator.decide.job.change import fail, with_status
from finetune_operator.decide.job.remote import is_named
from finetune_operator.decide.job.view import Change, Decision, JobView


def is_adopted(view: JobView) -> bool:
    """Whether the job adopts one that was created elsewhere."""
    return view.spec is not None and view.spec.adopt is not None


def duplicate_warning(view: JobView) -> str:
    """That the adopted job's model is a version already. Another version is made of it, with the same weights."""
    if not view.same_as or view.spec is None or view.spec.adopt is None:
        return ""
    before = ", ".join(str(number) for number in view.same_as[-3:])
    return (
        f"spec.adopt.jobID: what job {view.spec.adopt.job_id} has made is version {before} of FineTunedModel "
        f"{view.spec.model_ref.name} already; another version of the same model is made"
    )


def take_over(view: JobView) -> Decision | None:
    """Observe the adopted job from now on. Nothing is created."""
    adopted = view.spec.adopt if view.spec else None
    if view.run.state != "Absent" or adopted is None or view.spec is None or view.connection is None:
        return None
    if wrong := _arn_mismatch(adopted.job_id, view.connection):
        # No call to the connection's region and service can find it, and AWS's own error messages for it are unclear.
        return fail(view, _not_there(view, adopted.job_id, wrong))
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
    """An adopted job names its base model; on another base its adapter would produce nonsense."""
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


def refuse_missing_job(view: JobView) -> Decision | None:
    """An adopted job that was never seen has a wrong ID."""
    failure, adopted = view.run.failure, view.spec.adopt if view.spec else None
    if adopted is None or failure is None or failure.reason != Reason.DELETED_AT_PROVIDER:
        return None
    if view.status.phase != "Queued" or view.status.progress is not None:
        return None
    return fail(view, _not_there(view, adopted.job_id, _likely_mistake(adopted.job_id, view.connection)))


def _not_there(view: JobView, job_id: str, wrong: str) -> Failure:
    place = view.provider.place or view.place
    where = f"where the connection leads{f' ({place})' if place else ''}"
    message = f"spec.adopt.jobID: there is no job {job_id} {where}{f': {wrong}' if wrong else ''}"
    step = "Apply the job under a new name, with the provider's name of a job that is there."
    return Failure(reason=Reason.DELETED_AT_PROVIDER, message=message, next_step=step)


def _arn_mismatch(job_id: str, connection: LLMConnectionSpec) -> str:
    """Which part of an ARN does not match the connection to AWS, in words; "" if all match, or it is no ARN.

    ARNs are compared without case.
    """
    aws, parts = connection.bedrock or connection.sage_maker, job_id.casefold().split(":", 5)
    if aws is None or parts[0] != "arn" or len(parts) < 6:
        return ""
    _, _, service, region, _, resource = parts
    kind = resource.partition("/")[0]
    ours, of_jobs = _JOBS_AT_AWS[connection.provider]
    if service != ours:
        return f"it is an ARN of {service}, and the connection leads to {ours}"
    if kind != of_jobs:
        return f"it is the ARN of a {kind}; a job's has {of_jobs}/ in that place"
    if region != aws.region:
        return f"it is a job of region {region}, and the connection's region is {aws.region}"
    return ""


def _likely_mistake(job_id: str, connection: LLMConnectionSpec | None) -> str:
    """What was probably given instead of a job's ID; "" if unknown."""
    aws = (connection.bedrock or connection.sage_maker) if connection is not None else None
    if connection is None or (aws is None and job_id.startswith("ftjob-")):
        return ""
    if aws is None:
        if job_id.startswith("arn:"):
            return f"that is an ARN of AWS, and the connection leads to {connection.provider}"
        looks_like = next((what for part, what in _OTHERS.items() if re.match(part, job_id)), "a name")
        return f"that looks like {looks_like}; a job's ID looks like ftjob-abc123 at OpenAI and Azure"
    if not job_id.startswith("arn:"):
        return "at AWS a job has its name or its ARN, and no other ID"
    account, ours = ((arn.split(":") + [""] * 5)[4] for arn in (job_id, aws.role_arn))
    if not account:
        return "that is not a whole ARN"
    return "" if account == ours else f"it is a job of account {account}, and the connection's role is of {ours}"


_JOBS_AT_AWS = {"bedrock": ("bedrock", "model-customization-job"), "sageMaker": ("sagemaker", "training-job")}
"""The service and the resource type in the ARNs of a connection's jobs."""

_OTHERS = {
    ".*/": "a part of an address",
    r"ft:|.*\.ft-": "a tuned model's name",
    "ftckpt": "a checkpoint's ID",
    "file-": "a file's ID",
}
"""What was given instead of a job's ID at OpenAI or Azure, by its prefix."""
