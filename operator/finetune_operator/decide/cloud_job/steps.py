"""What to do about a FineTuneJob whose provider is outside of the cluster: the chain of `job`, with steps of its own.

data checked in a pod → within budget? → look up → record that it is asked for → create → follow → version → tidy up

What costs money is made once: a create is recorded before it is made, and while its outcome may still show at the
provider, nothing is made again.
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
    refuse_other_base,
    refuse_what_is_not_there,
    take_over,
)
from finetune_operator.decide.cloud_job.submission import is_forgotten, is_submitted
from finetune_operator.decide.conditions import Fact, moment, ready, reconciling, retiring, stalled, timestamp
from finetune_operator.decide.job import attempts
from finetune_operator.decide.job import steps as job
from finetune_operator.decide.job.change import ASK_AGAIN_SECONDS, fail, trouble, with_facts, with_status
from finetune_operator.decide.job.reported import AT_WORK, at_rest, dataset_facts, paused
from finetune_operator.decide.job.view import Change, Decision, JobView
from finetune_operator.decide.transient import RETRIED

NAMING = timedelta(minutes=30)
"""How long a job may be done at the provider before its model has a name."""

STOPPING = timedelta(minutes=30)
"""How long after a job was told to stop its end is by that: later somebody else has cancelled it."""

_ALWAYS = frozenset({Reason.CANCELLED_AT_PROVIDER, Reason.PROVIDER_FAILED})
_STARTED_ELSEWHERE = _ALWAYS | RETRIED | {Reason.DATASET_INVALID, Reason.DELETED_AT_PROVIDER, Reason.QUOTA_EXCEEDED}
"""How a job ends that has to be started again where it was made."""
_ADOPT_ANOTHER = "Start it again where it was made, and apply a job under a new name that adopts that one."


def is_to_be_held(view: JobView) -> bool:
    """Whether something of it is at the provider, and the finalizer that sees to its end was taken off.

    Of one that has ended the note beside the finalizer tells that we have not let go of it: whatever else its status
    says, somebody may have written that.
    """
    if not view.remote or view.held or view.deleting:
        return False
    if view.finished:
        left = evaluation_record.has_deployed(view) or leftovers.is_left(view.status.conditions)
        return not view.abandoned and (view.noted or left)
    return not is_adopted(view) and (view.provider.asked_at is not None or view.provider.files is not None)


def only_follows(view: JobView, decision: Decision) -> bool:
    """Whether there is nothing to do but to say how the provider's job is, of which status tells as of one at work."""
    under_way = {"Queued", *AT_WORK}
    followed = is_submitted(view.provider) and view.run.state in {"Queued", "Active"}
    said = view.status.phase in under_way and decision.status.phase in under_way and view.status.failure is None
    return view.remote and followed and said and decision.only_says and decision.status != view.status


def decide(view: JobView) -> Decision:
    """The decision of the first step that has one, come back to before the deadline goes by."""
    decision = _with_earlier_cost(view, next(found for step in STEPS if (found := step(view)) is not None))
    left = _left_to_deadline(view)
    if left is None or left <= 0:
        return decision
    again = left if decision.requeue_after is None else min(left, decision.requeue_after)
    return replace(decision, requeue_after=again)


def _with_earlier_cost(view: JobView, decision: Decision) -> Decision:
    """The decision with what the attempt has cost, where it is followed by another one: its job is named no more."""
    provider = decision.status.provider
    if not is_submitted(view.provider) or provider is None or provider.asked_at is not None:
        return decision
    return replace(decision, status=decision.status.model_copy(update={"cost": cloud_cost.left_behind(view)}))


def remember_files(view: JobView) -> Decision | None:
    """What a pod has brought to the provider, before the pod may go: a list there may lack it for a while.

    Whose account has it was noted with the first file; the key may be another one by now.
    """
    checked = view.run.report.checked if view.run.report else None
    if checked is None or view.provider.files is not None:
        return None
    brought = {"files": checked.files, "files_at": timestamp(view.now), "account": view.noted_account}
    return Decision(view.status.with_provider(**brought), requeue_after=0)


def let_go(view: JobView) -> Decision | None:
    """Being deleted: what runs is ended and what was brought there is deleted, then the object may go."""
    if not view.deleting:
        return None
    if not view.held:
        return Decision(job.going(view))
    return Decision(view.status, stop=not view.finished and not view.abandoned, release=True)


def keep_finished(view: JobView) -> Decision | None:
    """An ended job leaves no files at the provider, and then needs no finalizer any more."""
    decision = job.keep_finished(view)
    if decision is None:
        return None
    # The attempt at the provider has ended, or was never begun: there is nothing to stop but the check's pod.
    return replace(decision, stop=decision.stop and not is_submitted(view.provider), release=view.held)


_DELETE_THE_COPY = "Delete this copy: nothing at the provider goes with it. To run it, apply it without its status."


def leave_to_its_owner(view: JobView) -> Decision | None:
    """A copy follows nothing and ends nothing: two that register, suspend and tidy up would take from each other."""
    if not view.copy_of:
        return None
    message = f"it is a copy of {view.copy_of}, which started what status describes and keeps it, even after its end"
    failure = Failure(reason=Reason.RESTORED, message=message, next_step=_DELETE_THE_COPY)
    fields = {"phase": "Pending", "failure": failure}
    return Decision(with_status(view, Change(stalled(failure.reason, message), fields)))


def suspend(view: JobView) -> Decision | None:
    """On request; a job that was made elsewhere is not ours to stop."""
    if is_adopted(view):
        return None
    if view.run.unknown and view.spec is not None and view.spec.suspend:
        return _take_up(view)
    return job.suspend(view, _stopped(view)) or _go_on_after_the_stop(view)


def _take_up(view: JobView) -> Decision:
    """Its job at the provider is one that status does not know: once it is known, it is stopped or kept as any is."""
    return _remember_what_is_there(view) or Decision(_waiting_to_be_made(view), submit=True)


def adopt(view: JobView) -> Decision | None:
    """As anywhere; a job at the provider that status does not know of is noted as soon as it is seen."""
    return _remember_what_is_there(view) if view.run.unknown else attempts.adopt(view)


def _remember_what_is_there(view: JobView) -> Decision | None:
    """From now on it was asked for, whatever later lists lack: one that is missed would be paid for again."""
    unsaid = attempts.adopt(view) if view.provider.asked_at is None else None
    if unsaid is None or unsaid.status.provider is None:
        return unsaid
    return replace(unsaid, status=unsaid.status.with_provider(asked_at=timestamp(view.now), job_id=None))


def _stopped(view: JobView) -> str:
    """What has come of what ran. It has stopped by the time that this is said."""
    if not is_submitted(view.provider):
        return "stopping: the check of the data ends"
    return f"suspended by spec.suspend: {paused(view.provider)}"


def _go_on_after_the_stop(view: JobView) -> Decision | None:
    """Wanted again while its provider still stopped it: that could not be taken back, so the next attempt follows."""
    stop, failure = view.provider.stop_asked_at, view.run.failure
    if stop is None or failure is None or failure.reason is not Reason.CANCELLED_AT_PROVIDER:
        return None
    if _is_stopped_by_deadline(view) or view.now - moment(stop) > STOPPING:
        return None
    facts = reconciling(Reason.PENDING, "the attempt was stopped by spec.suspend; the next one follows")
    fields = {"phase": "Pending", "failure": None, "provider": attempts.next_attempt(view)}
    fields |= at_rest(view.run.report, view.status)
    return Decision(with_status(view, Change(facts, fields)), requeue_after=0)


def check_anew(view: JobView) -> Decision | None:
    """The connection was corrected while the data were checked for where it led before: nothing of them has left."""
    place, now = view.provider.place, view.connection.place if view.connection else None
    moved = place is not None and now is not None and place != now
    if not moved or view.spec is None or view.held or view.provider.asked_at is not None:
        return None
    if view.run.state not in {"Queued", "Active"}:
        return None
    said = f"LLMConnection {view.spec.connection_ref.name} leads to {now} by now: the data are checked again, for there"
    fields = {"phase": "Pending", "failure": None, "provider": attempts.next_attempt(view, place=None)}
    change = Change(reconciling(Reason.PENDING, said), fields)
    return Decision(with_status(view, change), stop=True, requeue_after=0)


def wait_for_the_end(view: JobView) -> Decision | None:
    """Its namespace is being deleted, and the job in a moment: nothing is begun, and paid for, that would be ended.

    What runs at the provider is followed: where something keeps the namespace, that takes its time.
    """
    if not view.ending or view.run.state not in {"Absent", "Checked"}:
        return None
    said = "its namespace is being deleted: nothing of it is begun any more"
    phase = view.status.phase or "Pending"
    return Decision(with_status(view, Change(reconciling(Reason.PENDING, said), {"phase": phase, "failure": None})))


def refuse_what_has_no_meaning(view: JobView) -> Decision | None:
    """Fields that the provider, or the base model there, could not heed are refused, not ignored."""
    if view.run.state != "Absent" or view.spec is None or view.connection is None:
        return None
    problem = cloud_policy.meaningless(view.spec, view.connection)
    problem = problem or cloud_policy.cannot_learn_preferences(view.spec, view.facts)
    active = view.active if evaluation_hosts.compares_versions(view) else None
    problem = problem or cloud_policy.cannot_be_compared_with(active, view.connection)
    return fail(view, Failure.because(Reason.SPEC_INVALID, problem)) if problem else None


def refuse_what_has_ended(view: JobView) -> Decision | None:
    """A provider that has closed, or a base model that is shut down."""
    if view.run.state not in {"Absent", "Checked"} or view.spec is None or view.provider.asked_at is not None:
        return None
    refusal = cloud_policy.retired(view.spec.base_model, view.facts, view.now.date())
    return fail(view, refusal) if refusal else None


def refuse_what_has_no_price(view: JobView) -> Decision | None:
    """A budget that nobody can hold needs no pod to find that out."""
    refusal = cloud_cost.unpriced(view) if view.run.state == "Absent" else None
    return fail(view, refusal) if refusal else None


def say_unreachable(view: JobView) -> Decision | None:
    """The provider cannot be asked: the job goes on there, and status says why nothing new is known."""
    failure = view.run.failure
    if view.run.state != "Unreachable" or failure is None:
        return None
    return trouble(view, failure, ASK_AGAIN_SECONDS)


def say_untaken(view: JobView) -> Decision | None:
    """The data have been read, and their provider does not take them: the check's pod tries again for a while."""
    failure = view.run.failure
    if view.run.state != "Active" or failure is None or is_submitted(view.provider):
        return None
    return trouble(view, failure, ASK_AGAIN_SECONDS)


def wait_for_news(view: JobView) -> Decision | None:
    """Nothing is known of the job yet; the provider is being asked."""
    return Decision(view.status) if view.run.state == "Unseen" else None


def enforce_deadline(view: JobView) -> Decision | None:
    """`activeDeadlineSeconds`, which no provider keeps for us: from when the job was asked for."""
    left = _left_to_deadline(view)
    if left is None or left > 0:
        return None
    return replace(fail(view, _late()), stop=True)


def _late() -> Failure:
    message = "the job ran longer than spec.activeDeadlineSeconds and was cancelled"
    return Failure.because(Reason.DEADLINE_EXCEEDED, message)


def _is_stopped_by_deadline(view: JobView) -> bool:
    """Whether it is the deadline for which the provider was told to stop it."""
    seconds = view.spec.active_deadline_seconds if view.spec else None
    asked, stop = view.provider.asked_at, view.provider.stop_asked_at
    if seconds is None or asked is None or stop is None:
        return False
    return moment(stop) >= moment(asked) + timedelta(seconds=seconds)


def wait_for_the_name(view: JobView) -> Decision | None:
    """A job that is done is followed until its model has a name, and not for ever: nobody could ask the model."""
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
    """Seconds for which the job may still run at the provider; None where it does not run, or has no deadline."""
    seconds = view.spec.active_deadline_seconds if view.spec and not is_adopted(view) else None
    asked = view.provider.asked_at
    if seconds is None or asked is None or not is_submitted(view.provider):
        return None
    if view.run.state not in {"Queued", "Active"}:
        return None
    return (moment(asked) + timedelta(seconds=seconds) - view.now).total_seconds()


def refuse_what_was_not_brought(view: JobView) -> Decision | None:
    """A pod of another release may leave out what it does not know of: nothing is paid for that lacks it."""
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
    """What a pod has to bring, by its name as a file's, with the field that wants it; a test set to our own trainer."""
    trains_there = connection is not None and connection.sage_maker is not None
    wanted = {
        "train": ("spec.dataset.train", True),
        "validation": ("spec.dataset.validation", spec.dataset.validation is not None),
        "test": ("spec.dataset.test", trains_there and spec.dataset.test is not None),
        "code": ("spec.code", trains_there and spec.code is not None),
    }
    return {part: field for part, (field, is_wanted) in wanted.items() if is_wanted}


def submit(view: JobView) -> Decision | None:
    """The data are at the provider: have the job made, if it is within its budget."""
    if view.run.state != "Checked" or view.spec is None:
        return None
    after = view.provider.retry_after
    left = (moment(after) - view.now).total_seconds() if after else 0.0
    if left > 0:
        return Decision(view.status, requeue_after=left)
    checked = view.run.report.checked if view.run.report else None
    if checked is None:
        return Decision(_waiting_to_be_made(view), submit=True)
    cost = cloud_cost.after(view.status.cost, cloud_cost.expected(view, checked))
    refusal = cloud_cost.over_budget(view, cost)
    if refusal is not None:
        return fail(view, refusal)
    status = _waiting_to_be_made(view)
    return Decision(status.model_copy(update={"cost": cost}), submit=True)


_BEING_MADE = "the data are at the provider; the job is being made there"
_LOOKED_FOR = "the job is looked for at the provider: status has lost what it is called there"


def _waiting_to_be_made(view: JobView) -> FineTuneJobStatus:
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
    """As anywhere, and with what the provider has billed."""
    decision = job.complete(view)
    if decision is None or decision.register:
        return decision
    # What it has at the provider goes next.
    told = replace(decision, requeue_after=0)
    facts = [*evaluation_record.facts(view), *_same_weights(view)]
    return with_facts(view, told, facts, cost=cloud_cost.with_bill(view))


def _same_weights(view: JobView) -> list[Fact]:
    """Completion, of a version whose weights are those of earlier ones."""
    if not view.same_as or view.version is None or view.spec is None:
        return []
    before = ", ".join(str(number) for number in view.same_as[-3:])
    said = f"version {view.version} of FineTunedModel {view.spec.model_ref.name}; the same model as version {before}"
    return [*ready(Reason.SUCCEEDED, said), Fact("Complete", "True", Reason.SUCCEEDED, said)]


def retry_or_fail(view: JobView) -> Decision | None:
    """As anywhere; what has failed may be billed, too. What was made elsewhere is not started again from here."""
    failure = view.run.failure
    if is_adopted(view) and failure is not None and view.run.state == "Failed":
        return fail(view, _of_adopted(failure).model_copy(update={"attempt": view.attempt}))
    if failure is not None and failure.reason is Reason.CANCELLED_AT_PROVIDER and _is_stopped_by_deadline(view):
        view = replace(view, run=replace(view.run, failure=_late()))
    return attempts.retry_or_fail(
        replace(view, status=view.status.model_copy(update={"cost": cloud_cost.with_bill(view)}))
    )


def _of_adopted(failure: Failure) -> Failure:
    """With what can be done about a job that is only looked at. No attempt of ours would be another job there."""
    step, usual = failure.next_step, NEXT_STEP.get(Reason(failure.reason))
    is_to_begin_again = failure.reason in _STARTED_ELSEWHERE and (step == usual or failure.reason in _ALWAYS)
    return failure.model_copy(update={"next_step": _ADOPT_ANOTHER}) if is_to_begin_again else failure


def retirement_facts(view: JobView) -> list[Fact]:
    """A warning while there is time: the provider closes, or the base model is shut down, on a day that is known."""
    said = cloud_policy.retires(view.spec.base_model, view.facts) if view.spec else None
    return retiring(said, view.status.conditions)


STEPS: tuple[Callable[[JobView], Decision | None], ...] = (
    remember_files,
    let_go,
    attempts.disbelieve,
    keep_finished,
    leave_to_its_owner,
    job.refuse_invalid_spec,
    job.restart,
    say_unreachable,
    wait_for_news,
    suspend,
    job.remember,
    wait_for_the_end,
    attempts.notice_loss,
    job.hold_restored,
    job.wait_for_connection,
    job.refuse_by_policy,
    refuse_what_has_no_meaning,
    take_over,
    refuse_what_has_ended,
    refuse_what_has_no_price,
    attempts.wait_for_last_pod,
    attempts.wait_before_retry,
    attempts.start,
    adopt,
    refuse_other_base,
    check_anew,
    enforce_deadline,
    job.make_anew,
    job.wait_for_pod,
    refuse_what_was_not_brought,
    submit,
    say_untaken,
    job.notice_silence,
    wait_for_the_name,
    job.follow,
    refuse_what_is_not_there,
    retry_or_fail,
    measuring.measure,
    complete,
)
"""As the chain of jobs that train here. What is known comes before what is asked: a job that has succeeded is not
cancelled. A test holds the order."""
