"""What to do about a FineTuneJob whose provider is outside of the cluster: the chain of `job` with additional steps.

data checked in a pod → within budget? → look up → record the request → create → follow → version → clean up

What costs money is created once: a create call is recorded before it is sent, and while its outcome may still appear at
the provider, it is not repeated.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, FineTuneJobStatus
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide import leftovers
from finetune_operator.decide.cloud_job import cloud_cost, cloud_policy, evaluation_hosts, evaluation_record, measuring
from finetune_operator.decide.cloud_job.adoption import (
    is_adopted,
    refuse_missing_job,
    refuse_other_base,
    take_over,
)
from finetune_operator.decide.cloud_job.submission import is_forgotten, is_submitted
from finetune_operator.decide.conditions import Fact, moment, ready, reconciling, retiring, stalled, timestamp
from finetune_operator.decide.job import attempts
from finetune_operator.decide.job import steps as job
from finetune_operator.decide.job.change import ASK_AGAIN_SECONDS, fail, trouble, with_facts, with_status
from finetune_operator.decide.job.reported import AT_WORK, dataset_facts, paused, reported_without_eta
from finetune_operator.decide.job.view import Change, Decision, JobView
from finetune_operator.decide.transient import RETRIED

NAMING = timedelta(minutes=30)
"""How long a job may be done at the provider before its model has a name."""

STOPPING = timedelta(minutes=30)
"""A job that ends this long after our request to stop it was cancelled by somebody else."""

_ALWAYS = frozenset({Reason.CANCELLED_AT_PROVIDER, Reason.PROVIDER_FAILED})
_STARTED_ELSEWHERE = _ALWAYS | RETRIED | {Reason.DATASET_INVALID, Reason.DELETED_AT_PROVIDER, Reason.QUOTA_EXCEEDED}
"""Failures after which an adopted job must be started again where it was created."""
_ADOPT_ANOTHER = "Start it again where it was made, and apply a job under a new name that adopts that one."


def needs_finalizer(view: JobView) -> bool:
    """Whether something of it is at the provider although the finalizer that guarantees its cleanup was removed.

    For an ended job, the annotation beside the finalizer tells that we have not removed it; its status may have been
    edited.
    """
    if not view.remote or view.has_finalizer or view.deleting:
        return False
    if view.finished:
        left = evaluation_record.has_deployed(view) or leftovers.is_left(view.status.conditions)
        return not view.abandoned and (view.has_begun_annotation or left)
    return not is_adopted(view) and (view.provider.asked_at is not None or view.provider.files is not None)


def only_updates_progress(view: JobView, decision: Decision) -> bool:
    """Whether only the progress of a provider's job is to be updated, which status already describes as running."""
    under_way = {"Queued", *AT_WORK}
    followed = is_submitted(view.provider) and view.run.state in {"Queued", "Active"}
    said = view.status.phase in under_way and decision.status.phase in under_way and view.status.failure is None
    return view.remote and followed and said and decision.only_says and decision.status != view.status


def decide(view: JobView) -> Decision:
    """The decision of the first step that has one, with a requeue before the deadline."""
    decision = _with_earlier_cost(view, next(found for step in STEPS if (found := step(view)) is not None))
    left = _left_to_deadline(view)
    if left is None or left <= 0:
        return decision
    again = left if decision.requeue_after is None else min(left, decision.requeue_after)
    return replace(decision, requeue_after=again)


def _with_earlier_cost(view: JobView, decision: Decision) -> Decision:
    """Adds the attempt's cost if another attempt follows: status no longer names its job afterwards."""
    provider = decision.status.provider
    if not is_submitted(view.provider) or provider is None or provider.asked_at is not None:
        return decision
    return replace(decision, status=decision.status.model_copy(update={"cost": cloud_cost.left_behind(view)}))


def record_files(view: JobView) -> Decision | None:
    """Record what a pod has uploaded to the provider before the pod may go: a list there may lack it for a while.

    The account was noted with the first file; the key may have changed since.
    """
    checked = view.run.report.checked if view.run.report else None
    if checked is None or view.provider.files is not None:
        return None
    brought = {"files": checked.files, "files_at": timestamp(view.now), "account": view.noted_account}
    return Decision(view.status.with_provider(**brought), requeue_after=0)


def handle_deletion(view: JobView) -> Decision | None:
    """The job is being deleted: stop what runs, delete what was uploaded, then let the object go."""
    if not view.deleting:
        return None
    if not view.has_finalizer:
        return Decision(job.status_while_deleted(view))
    return Decision(view.status, stop=not view.finished and not view.abandoned, release=True)


def keep_finished(view: JobView) -> Decision | None:
    """An ended job leaves no files at the provider, and then needs no finalizer."""
    decision = job.keep_finished(view)
    if decision is None:
        return None
    # The attempt at the provider has ended, or never began: only the check pod is left to stop.
    return replace(decision, stop=decision.stop and not is_submitted(view.provider), release=view.has_finalizer)


_DELETE_THE_COPY = "Delete this copy: nothing at the provider goes with it. To run it, apply it without its status."


def refuse_copy(view: JobView) -> Decision | None:
    """A copy neither follows nor stops anything: two objects that register, suspend and clean up would conflict."""
    if not view.copy_of:
        return None
    message = f"it is a copy of {view.copy_of}, which started what status describes and keeps it, even after its end"
    failure = Failure(reason=Reason.RESTORED, message=message, next_step=_DELETE_THE_COPY)
    fields = {"phase": "Pending", "failure": failure}
    return Decision(with_status(view, Change(stalled(failure.reason, message), fields)))


def suspend(view: JobView) -> Decision | None:
    """On request. An adopted job is not ours to stop."""
    if is_adopted(view):
        return None
    if view.run.unknown and view.spec is not None and view.spec.suspend:
        return _adopt_unknown_job(view)
    return job.suspend(view, _stopped(view)) or _continue_after_stop(view)


def _adopt_unknown_job(view: JobView) -> Decision:
    """Status does not know its job at the provider. Record it first, then stop or keep it like any other."""
    return _record_existing_job(view) or Decision(_awaiting_creation(view), submit=True)


def adopt(view: JobView) -> Decision | None:
    """As for any job. One at the provider that status does not know is recorded as soon as it is seen."""
    return _record_existing_job(view) if view.run.unknown else attempts.adopt(view)


def _record_existing_job(view: JobView) -> Decision | None:
    """Record it as requested, whatever later lists lack: otherwise it would be created, and paid for, again."""
    adopted = attempts.adopt(view) if view.provider.asked_at is None else None
    if adopted is None or adopted.status.provider is None:
        return adopted
    return replace(adopted, status=adopted.status.with_provider(asked_at=timestamp(view.now), job_id=None))


def _stopped(view: JobView) -> str:
    """What remains of the attempt, which has stopped by the time that this is reported."""
    if not is_submitted(view.provider):
        return "stopping: the check of the data ends"
    return f"suspended by spec.suspend: {paused(view.provider)}"


def _continue_after_stop(view: JobView) -> Decision | None:
    """Resumed while the provider was still stopping it. A stop cannot be taken back, so the next attempt follows."""
    stop, failure = view.provider.stop_asked_at, view.run.failure
    if stop is None or failure is None or failure.reason is not Reason.CANCELLED_AT_PROVIDER:
        return None
    if _is_stopped_by_deadline(view) or view.now - moment(stop) > STOPPING:
        return None
    facts = reconciling(Reason.PENDING, "the attempt was stopped by spec.suspend; the next one follows")
    fields = {"phase": "Pending", "failure": None, "provider": attempts.next_attempt(view)}
    fields |= reported_without_eta(view.run.report, view.status)
    return Decision(with_status(view, Change(facts, fields)), requeue_after=0)


def check_again(view: JobView) -> Decision | None:
    """The connection was corrected during the data check for its former provider account: nothing was uploaded yet."""
    place, now = view.provider.place, view.connection.place if view.connection else None
    moved = place is not None and now is not None and place != now
    if not moved or view.spec is None or view.has_finalizer or view.provider.asked_at is not None:
        return None
    if view.run.state not in {"Queued", "Active"}:
        return None
    said = f"LLMConnection {view.spec.connection_ref.name} leads to {now} by now: the data are checked again, for there"
    fields = {"phase": "Pending", "failure": None, "provider": attempts.next_attempt(view, place=None)}
    change = Change(reconciling(Reason.PENDING, said), fields)
    return Decision(with_status(view, change), stop=True, requeue_after=0)


def wait_for_namespace_deletion(view: JobView) -> Decision | None:
    """Its namespace is being deleted, and soon the job too: start nothing that costs money and would be ended.

    A job that runs at the provider is still followed, as a finalizer may keep the namespace for long.
    """
    if not view.namespace_deleting or view.run.state not in {"Absent", "Checked"}:
        return None
    said = "its namespace is being deleted: nothing of it is begun any more"
    phase = view.status.phase or "Pending"
    return Decision(with_status(view, Change(reconciling(Reason.PENDING, said), {"phase": phase, "failure": None})))


def refuse_unsupported_fields(view: JobView) -> Decision | None:
    """Fields that the provider, or the base model there, would ignore are refused."""
    if view.run.state != "Absent" or view.spec is None or view.connection is None:
        return None
    problem = cloud_policy.unsupported(view.spec, view.connection)
    problem = problem or cloud_policy.cannot_learn_preferences(view.spec, view.facts)
    active = view.active if evaluation_hosts.compares_versions(view) else None
    problem = problem or cloud_policy.cannot_be_compared_with(active, view.connection)
    return fail(view, Failure.because(Reason.SPEC_INVALID, problem)) if problem else None


def refuse_retired(view: JobView) -> Decision | None:
    """A provider that has closed, or a base model that was shut down."""
    if view.run.state not in {"Absent", "Checked"} or view.spec is None or view.provider.asked_at is not None:
        return None
    refusal = cloud_policy.retired(view.spec.base_model, view.facts, view.now.date())
    return fail(view, refusal) if refusal else None


def refuse_unpriced(view: JobView) -> Decision | None:
    """A budget that cannot be enforced is refused before a pod is started."""
    refusal = cloud_cost.unpriced(view) if view.run.state == "Absent" else None
    return fail(view, refusal) if refusal else None


def report_unreachable(view: JobView) -> Decision | None:
    """The provider cannot be asked: the job continues there, and status says why nothing new is known."""
    failure = view.run.failure
    if view.run.state != "Unreachable" or failure is None:
        return None
    return trouble(view, failure, ASK_AGAIN_SECONDS)


def report_upload_failure(view: JobView) -> Decision | None:
    """The data are checked, and the provider does not accept them: the check pod retries for a while."""
    failure = view.run.failure
    if view.run.state != "Active" or failure is None or is_submitted(view.provider):
        return None
    return trouble(view, failure, ASK_AGAIN_SECONDS)


def wait_for_news(view: JobView) -> Decision | None:
    """Nothing is known of the job yet; the provider is being asked."""
    return Decision(view.status) if view.run.state == "Unseen" else None


def enforce_deadline(view: JobView) -> Decision | None:
    """`activeDeadlineSeconds`, which providers do not enforce: counted from the request for the job."""
    left = _left_to_deadline(view)
    if left is None or left > 0:
        return None
    return replace(fail(view, _late()), stop=True)


def _late() -> Failure:
    message = "the job ran longer than spec.activeDeadlineSeconds and was cancelled"
    return Failure.because(Reason.DEADLINE_EXCEEDED, message)


def _is_stopped_by_deadline(view: JobView) -> bool:
    """Whether we have told the provider to stop it because of the deadline."""
    seconds = view.spec.active_deadline_seconds if view.spec else None
    asked, stop = view.provider.asked_at, view.provider.stop_asked_at
    if seconds is None or asked is None or stop is None:
        return False
    return moment(stop) >= moment(asked) + timedelta(seconds=seconds)


def wait_for_model_name(view: JobView) -> Decision | None:
    """A job that is done is followed until its model has a name, for a limited time: nameless, it cannot be called."""
    if not view.run.nameless:
        return None
    since = view.provider.nameless_since
    if since is None:
        return Decision(view.status.with_provider(nameless_since=timestamp(view.now)), requeue_after=0)
    left = (moment(since) + NAMING - view.now).total_seconds()
    if left > 0:
        followed = job.follow(view)
        return followed and replace(followed, requeue_after=left)
    minutes = NAMING.total_seconds() / 60
    message = f"job {view.provider.job_id} succeeded at the provider, which has named no model for {minutes:g} minutes"
    step = (
        "Look the job up at the provider. If its model has a name by now, apply a job with spec.adopt.jobID; else set "
        "spec.retryNonce to pay for another attempt."
    )
    return fail(view, Failure(reason=Reason.PROVIDER_FAILED, message=message, next_step=step))


def _left_to_deadline(view: JobView) -> float | None:
    """Seconds that the job may still run at the provider; None if it does not run, or has no deadline."""
    seconds = view.spec.active_deadline_seconds if view.spec and not is_adopted(view) else None
    asked = view.provider.asked_at
    if seconds is None or asked is None or not is_submitted(view.provider):
        return None
    if view.run.state not in {"Queued", "Active"}:
        return None
    return (moment(asked) + timedelta(seconds=seconds) - view.now).total_seconds()


def refuse_missing_uploads(view: JobView) -> Decision | None:
    """A pod of another release may leave out a file that it does not know: do not pay for a job without it."""
    files = view.provider.files
    if view.run.state != "Checked" or view.spec is None or files is None or view.provider.asked_at is not None:
        return None
    brought = {file.split for file in files}
    lacking = [field for part, field in _parts(view.spec, view.connection).items() if part not in brought]
    if not lacking:
        return None
    message = (
        f"the pod that checked the data has brought the provider nothing of {' and '.join(lacking)}: is its image of "
        "another release? The job was not made"
    )
    return fail(view, Failure(reason=Reason.TRAINER_CRASHED, message=message, next_step=_OTHER_IMAGE))


_OTHER_IMAGE = (
    "Ask an admin to set checkImage of the chart, or checkPod.image of the connection, to the image of the operator's "
    "release; then set spec.retryNonce."
)


def _parts(spec: FineTuneJobSpec, connection: LLMConnectionSpec | None) -> dict[str, str]:
    """Files that a pod must upload, each with the field that requires it; the test set only for our own trainer."""
    trains_there = connection is not None and connection.sage_maker is not None
    wanted = {
        "train": ("spec.dataset.train", True),
        "validation": ("spec.dataset.validation", spec.dataset.validation is not None),
        "test": ("spec.dataset.test", trains_there and spec.dataset.test is not None),
        "code": ("spec.code", trains_there and spec.code is not None),
    }
    return {part: field for part, (field, is_wanted) in wanted.items() if is_wanted}


def submit(view: JobView) -> Decision | None:
    """The data are at the provider: have the job created if it is within its budget."""
    if view.run.state != "Checked" or view.spec is None:
        return None
    after = view.provider.retry_after
    left = (moment(after) - view.now).total_seconds() if after else 0.0
    if left > 0:
        return Decision(view.status, requeue_after=left)
    checked = view.run.report.checked if view.run.report else None
    if checked is None:
        return Decision(_awaiting_creation(view), submit=True)
    cost = cloud_cost.after(view.status.cost, cloud_cost.expected(view, checked))
    refusal = cloud_cost.over_budget(view, cost)
    if refusal is not None:
        return fail(view, refusal)
    status = _awaiting_creation(view)
    return Decision(status.model_copy(update={"cost": cost}), submit=True)


_BEING_MADE = "the data are at the provider; the job is being made there"
_LOOKED_FOR = "the job is looked for at the provider: status has lost what it is called there"


def _awaiting_creation(view: JobView) -> FineTuneJobStatus:
    report = view.run.report
    facts = [
        *reconciling(Reason.QUEUED, _LOOKED_FOR if is_forgotten(view.provider) else _BEING_MADE),
        *dataset_facts(report),
        *retirement_facts(view),
    ]
    dataset = (report.dataset if report else None) or view.status.dataset
    fields = {"phase": "Queued", "failure": None, "dataset": dataset}
    return with_status(view, Change(facts, fields))


def complete(view: JobView) -> Decision | None:
    """As for any job, plus what the provider has billed."""
    decision = job.complete(view)
    if decision is None or decision.register:
        return decision
    # Next, what it has left at the provider is deleted.
    told = replace(decision, requeue_after=0)
    facts = [*evaluation_record.facts(view), *_same_weights(view)]
    return with_facts(view, told, facts, cost=cloud_cost.with_bill(view))


def _same_weights(view: JobView) -> list[Fact]:
    """Completion of a job whose version has the weights of earlier ones."""
    if not view.same_as or view.version is None or view.spec is None:
        return []
    before = ", ".join(str(number) for number in view.same_as[-3:])
    said = f"version {view.version} of FineTunedModel {view.spec.model_ref.name}; the same model as version {before}"
    return [*ready(Reason.SUCCEEDED, said), Fact("Complete", "True", Reason.SUCCEEDED, said)]


def retry_or_fail(view: JobView) -> Decision | None:
    """As for any job, plus what the provider has billed for it. An adopted job cannot be started again here."""
    failure = view.run.failure
    if is_adopted(view) and failure is not None and view.run.state == "Failed":
        return fail(view, _of_adopted(failure).model_copy(update={"attempt": view.attempt}))
    if failure is not None and failure.reason is Reason.CANCELLED_AT_PROVIDER and _is_stopped_by_deadline(view):
        view = replace(view, run=replace(view.run, failure=_late()))
    return attempts.retry_or_fail(
        replace(view, status=view.status.model_copy(update={"cost": cloud_cost.with_bill(view)}))
    )


def _of_adopted(failure: Failure) -> Failure:
    """With the next step for a job that is only observed: an attempt of ours would be another job there."""
    step, usual = failure.next_step, NEXT_STEP.get(Reason(failure.reason))
    is_to_begin_again = failure.reason in _STARTED_ELSEWHERE and (step == usual or failure.reason in _ALWAYS)
    return failure.model_copy(update={"next_step": _ADOPT_ANOTHER}) if is_to_begin_again else failure


def retirement_facts(view: JobView) -> list[Fact]:
    """A warning in advance: the provider closes, or the base model is shut down, on a known date."""
    said = cloud_policy.retires(view.spec.base_model, view.facts) if view.spec else None
    return retiring(said, view.status.conditions)


STEPS: tuple[Callable[[JobView], Decision | None], ...] = (
    record_files,
    handle_deletion,
    attempts.reject_false_completion,
    keep_finished,
    refuse_copy,
    job.refuse_invalid_spec,
    job.restart,
    report_unreachable,
    wait_for_news,
    suspend,
    job.restore_completion,
    wait_for_namespace_deletion,
    attempts.notice_loss,
    job.hold_restored,
    job.wait_for_connection,
    job.refuse_by_policy,
    refuse_unsupported_fields,
    take_over,
    refuse_retired,
    refuse_unpriced,
    attempts.wait_for_last_pod,
    attempts.wait_before_retry,
    attempts.start,
    adopt,
    refuse_other_base,
    check_again,
    enforce_deadline,
    job.recreate,
    job.wait_for_pod,
    refuse_missing_uploads,
    submit,
    report_upload_failure,
    job.notice_silence,
    wait_for_model_name,
    job.follow,
    refuse_missing_job,
    retry_or_fail,
    measuring.measure,
    complete,
)
"""As in the chain for jobs on the cluster. What is known comes before what is requested: a job that has succeeded is
not cancelled. A test checks this order."""
