"""The attempts of a job, one after the other: start, adopt after a crash, notice a loss, wait, retry or give up.

These are steps of the chains in `steps.py`, here and in `cloud_job`. `retries.py` limits their number and sets delays.
"""

from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any
from zlib import crc32

from finetune_api.base import Condition
from finetune_api.connection import HuggingFace
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, FineTuneJobStatus, ProviderStatus
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide.conditions import Fact, is_true, moment, reconciling, timestamp
from finetune_operator.decide.job.change import fail, with_status
from finetune_operator.decide.job.reported import reported_without_eta
from finetune_operator.decide.job.retries import RETRY_DELAYS, Tally, ended_alike, given_up, saved
from finetune_operator.decide.job.view import Change, Decision, JobView
from finetune_operator.decide.pods.disruption import THEN_RETRY
from finetune_operator.decide.transient import INTERRUPTIONS, RETRIED

LATE_POD_CHECK_SECONDS = 15
LATEST_POD_CHECK_SECONDS = 60
LAST_POD_CHECK_SECONDS = 10

STARTS_RECORDED_PER_SECOND = 5
RECORDED_WITHIN_SECONDS = 300
"""Recording only that a job has started is spread out to this rate, but delayed by no more than this for any job."""

WAITING_FOR_POD = "waiting for its pod to start"
"""From the creation of the attempt's Job until the trainer's first report, while its pod is scheduled and started."""

_LAST_POD = (
    "waiting for the last attempt's pod to end, or for a Job that an earlier job of this name has left (kubectl get "
    "jobs,pods): if nothing ends it any more, delete it, or remove the finalizer that keeps it"
)

_FOREIGN_DEADLINE = (
    "the attempt ran longer than the activeDeadlineSeconds that a policy of the cluster, or somebody, has set on its "
    "batch Job: the job itself has none in its spec"
)
_FOREIGN_DEADLINE_STEP = (
    "Find out with kubectl get jobs -o yaml, or from an admin, who sets it, and have these Jobs left out; then set "
    "spec.retryNonce: the next attempt resumes from the last checkpoint."
)
_NOT_COMPLETE = "another writer marked it as Complete: it has no version yet, and its attempt continues"
NOTHING_TO_DO = "Nothing to do: the next attempt resumes from the last checkpoint."
"""Next step of an interruption that is followed by another attempt; the reason's own step is for a job given up."""

_NEW_ATTEMPT: dict[str, Any] = {
    "job_id": None,
    "files": None,
    "files_at": None,
    "asked_at": None,
    "evaluation": None,
    "nameless_since": None,
    "stop_asked_at": None,
}
"""Fields of status.provider for an attempt of which nothing is known yet."""

CAUSE_LIMIT = 1000
"""Characters of a failure's message to repeat in a condition. status.provider.lastFailure has the whole message."""

DEFAULT_RETRIES: int = HuggingFace.model_fields["max_retries"].default


def with_latest_attempt(status: FineTuneJobStatus, latest: int, spec: FineTuneJobSpec | None) -> FineTuneJobStatus:
    """Restores the latest attempt that has left traces to a status that was emptied or replaced by an old one.

    If an earlier attempt failed, that is not the end of the job: a new spec.retryNonce has started a later attempt.
    """
    if latest <= max(status.provider.attempt if status.provider else 0, 1):
        return status
    known = status.provider or ProviderStatus()
    fields: dict[str, Any] = {"provider": known.model_copy(update={**_NEW_ATTEMPT, "attempt": latest})}
    if is_true(status.conditions, "Failed"):
        fields |= {
            "conditions": [_not_failed(one) if one.type == "Failed" else one for one in status.conditions or ()],
            "phase": "Pending",
            "failure": None,
            "completion_time": None,
            "observed_retry_nonce": spec.retry_nonce if spec else None,
        }
    return status.model_copy(update=fields)


def _not_failed(failed: Condition) -> Condition:
    return failed.model_copy(update={"status": "False", "reason": Reason.PENDING, "message": ""})


def notice_loss(view: JobView) -> Decision | None:
    """The attempt was started and nothing of it is left. Its number is used up, so the next attempt follows."""
    if view.run.state != "Absent" or not view.begun:
        return None
    return _retry_or_give_up(view, Failure.because(Reason.INTERRUPTED, _GONE), interrupted=True)


_GONE = "the attempt is gone: its Job was deleted"


def follows_a_loss(provider: ProviderStatus) -> bool:
    """Whether the previous attempt was given up because nothing of it was left."""
    last = provider.last_failure
    return last is not None and last.message == _GONE and last.attempt == provider.attempt - 1


def wait_for_last_pod(view: JobView) -> Decision | None:
    """Wait for the last attempt's pod to end, so that two pods never write to one output folder."""
    if view.run.state != "Absent" or not view.live_pods:
        return None
    last = view.provider.last_failure
    ended = _ended(last) if last is not None and last.attempt == view.provider.attempt - 1 else ""
    facts = reconciling(Reason.PENDING, f"{ended}{_LAST_POD}")
    status = with_status(view, Change(facts, {"phase": "Pending", "failure": None}))
    return Decision(status, stop=True, requeue_after=LAST_POD_CHECK_SECONDS)


def wait_before_retry(view: JobView) -> Decision | None:
    """The pause before the next attempt."""
    after = view.provider.retry_after
    left = (moment(after) - view.now).total_seconds() if after else 0
    # No pause is longer than this, so a longer one was written by another clock.
    if view.run.state != "Absent" or not 0 < left <= RETRY_DELAYS[-1]:
        return None
    return Decision(with_status(view, _waiting(view.provider)), requeue_after=left)


def start(view: JobView) -> Decision | None:
    """No attempt is under way: start the one that status names. Its name is fixed, so it is never created twice."""
    if view.run.state != "Absent" or view.spec is None:
        return None
    # An attempt on several nodes is found only by what status says, so status must be written at once.
    delay = _record_delay(view) if view.spec.resources.nodes == 1 else 0
    later = delay > 0
    # No event reports a pod that cannot be created, so check again.
    again = min(delay, LATE_POD_CHECK_SECONDS) if later else LATE_POD_CHECK_SECONDS
    return Decision(with_status(view, _started(view)), start=True, later=later, requeue_after=again)


def adopt(view: JobView) -> Decision | None:
    """Record an attempt that was started by an operator that crashed before it could write status."""
    if not is_unrecorded(view):
        return None
    said_all = view.run.state == "Queued" and view.run.failure is None
    return Decision(as_recorded(view).status, requeue_after=LATE_POD_CHECK_SECONDS if said_all else 0)


def is_unrecorded(view: JobView) -> bool:
    """Whether an attempt exists that status does not record as started."""
    return view.run.state != "Absent" and view.run.job_id != view.provider.job_id


def as_recorded(view: JobView) -> JobView:
    """The view as if the attempt were recorded in status."""
    change = _started(view)
    change.fields["provider"] = change.fields["provider"].model_copy(update={"job_id": view.run.job_id})
    return replace(view, status=with_status(view, change))


def record_later(view: JobView) -> Decision | None:
    """Delay the write if all there is to record is that the attempt was started a moment ago.

    When many jobs start at once, these writes would be half of all status writes.
    """
    run = view.run
    waits = (run.state == "Queued" and run.failure is None and not run.note) or (run.state == "Active" and run.starting)
    lasted = (view.now - run.made_at).total_seconds() if run.made_at else RECORDED_WITHIN_SECONDS
    left = _record_delay(view) - lasted
    if not waits or left <= 0:
        return None
    late = not run.starting and lasted >= LATE_POD_CHECK_SECONDS
    again = _turn(view.uid, lasted, left) if late else LATE_POD_CHECK_SECONDS
    return Decision(view.status, later=True, requeue_after=min(left, again))


def _turn(uid: str, lasted: float, left: float) -> float:
    """Seconds until a job that waits among many is checked again: once while it waits, at another time than the others.

    With thousands of jobs, pods are missing because there are so many. Any other cause is reported by Events, and a
    check of one waiting job reads the Events of all; with staggered checks some job is checked every few seconds.
    """
    earliest, place = LATE_POD_CHECK_SECONDS + LATEST_POD_CHECK_SECONDS, crc32(uid.encode()) / 0xFFFFFFFF
    turn = earliest + max(0.0, lasted + left - earliest) * place
    return turn - lasted if lasted < turn - 1 else left


def _record_delay(view: JobView) -> float:
    """For how many seconds after its start a job may stay without a status, if it never had one.

    The more such jobs there are, the busier the cluster is with their pods; with few jobs it is 0. A status that exists
    must be updated at once: what it says of an earlier attempt, or of what the job waited for, is no longer true.
    """
    if view.status.observed_generation is not None:
        return 0
    return min(view.unrecorded_jobs // STARTS_RECORDED_PER_SECOND, RECORDED_WITHIN_SECONDS)


def reject_false_completion(view: JobView) -> Decision | None:
    """Correct a status that somebody else set to Complete: a complete job has a version, and no attempt at work.

    A number in status is not enough: either the model has the version, or status has the result. If nothing of the
    attempt exists, status is believed: a job that lost only its number must not start again. If a provider was sent
    a request, its job is looked up there, so nothing is created twice.
    """
    made = view.status.model_version is not None and (view.version is not None or view.status.result is not None)
    said = is_true(view.status.conditions, "Complete") and not made
    there = {"Queued", "Active", "Checked", "Succeeded"}
    there |= {"Unseen", "Unreachable"} if view.provider.asked_at is not None else set()
    if not said or view.deleting or view.run.state not in there:
        return None
    facts = [*reconciling(Reason.PENDING, _NOT_COMPLETE), Fact("Complete", "False", Reason.PENDING, _NOT_COMPLETE)]
    fields = {"phase": "Pending", "completion_time": None, "model_version": None}
    return Decision(with_status(view, Change(facts, fields)), requeue_after=0)


def retry_or_fail(view: JobView) -> Decision | None:
    """An attempt failed: start the next one from the checkpoint if that can help and retries are left."""
    failure = view.run.failure
    if view.run.state == "ResultUnknown":
        failure = Failure.because(Reason.INTERRUPTED, "the trainer ended without reporting a result")
    elif view.run.state != "Failed" or failure is None:
        return None
    if failure.reason is Reason.DEADLINE_EXCEEDED and view.spec and view.spec.active_deadline_seconds is None:
        failure = failure.model_copy(update={"message": _FOREIGN_DEADLINE, "next_step": _FOREIGN_DEADLINE_STEP})
    if not _may_pass(view, failure.reason):
        return fail(view, failure.model_copy(update={"attempt": view.attempt}))
    return _retry_or_give_up(view, failure, interrupted=view.run.interrupted)


def _may_pass(view: JobView, reason: Reason) -> bool:
    """Whether the next attempt may succeed.

    A store that was reached before may come back, since its address and credentials are right. If it was never reached,
    the job fails at once. An attempt that is billed is not repeated to find out.
    """
    told = view.run.report.progress if view.run.report else None
    was_there = max(view.provider.saved_work, saved(view.status.progress, told)) > 0
    away = reason is Reason.STORE_UNAVAILABLE and was_there and view.provider.asked_at is None
    return reason in RETRIED or away


def _started(view: JobView) -> Change:
    """What status says of an attempt that has just been started."""
    provider = view.provider.model_copy(
        update={
            "name": view.connection.provider if view.connection else view.provider.name,
            "attempt": view.attempt,
            "retry_after": None,
            "artifact_uri": _output(view) or None,
            "place": view.place,
            # Before the finalizer there is no request yet, and the key may have changed by the first.
            "account": view.account if view.has_finalizer else None,
            "owner_uid": view.outside_uid if view.remote else None,
        }
    )
    fields = {
        "phase": "Queued",
        "failure": None,
        "provider": provider,
        "start_time": view.status.start_time or timestamp(view.run.made_at or view.now),
        "observed_retry_nonce": view.spec.retry_nonce if view.spec else None,
    }
    return Change(reconciling(Reason.QUEUED, WAITING_FOR_POD), fields)


def _output(view: JobView) -> str:
    """The folder of an earlier attempt that may hold a checkpoint, else the one that the connection gives now.

    A copied job starts in its own folder: in the original's, its attempt number would make the original's trainer stop.
    """
    recorded = view.provider.artifact_uri
    goes_on = recorded and view.status.progress and not view.copy_of
    return recorded if recorded and goes_on else view.artifact_uri or recorded or ""


def next_attempt(view: JobView, **fields: Any) -> ProviderStatus:
    """status.provider for the next attempt. An attempt that was never started keeps its number."""
    number = view.attempt + 1 if view.begun else view.provider.attempt
    return view.provider.model_copy(update={**_NEW_ATTEMPT, "attempt": number, **fields})


def _retry_or_give_up(view: JobView, failure: Failure, *, interrupted: bool) -> Decision:
    before, limit = Tally.of(view.provider), _retry_limit(view)
    told = view.run.report.progress if view.run.report else None
    after = before.after(saved(view.status.progress, told), interrupted)
    failure = failure.model_copy(update={"attempt": view.attempt})
    alike = view.run.at_its_limit and ended_alike(failure, view.provider.last_failure, before, after)
    if limit and after.used <= limit and not alike:
        return _retry(view, failure, after)
    end = given_up(before, after, interrupted, alike=alike)
    said = failure.message.rstrip(".") if end else failure.message
    return fail(view, failure.model_copy(update={"message": said[: 4096 - len(end)] + end}))


def _retry(view: JobView, failure: Failure, tally: Tally) -> Decision:
    after = timestamp(view.now + timedelta(seconds=tally.delay))
    failure = failure.model_copy(update={"next_step": _step_before_retry(failure)})
    provider = next_attempt(view, **asdict(tally), retry_after=after, last_failure=failure)
    change = _waiting(provider)
    change.fields.update({"provider": provider, **reported_without_eta(view.run.report, view.status)})
    return Decision(with_status(view, change), requeue_after=tally.delay)


def _step_before_retry(failure: Failure) -> str | None:
    """What the user can do while the next attempt starts automatically."""
    step = failure.next_step
    if step and failure.reason in INTERRUPTIONS:
        step = step.removeprefix(NEXT_STEP[failure.reason]).strip() or NOTHING_TO_DO
    return step and step.removesuffix(THEN_RETRY)


def _waiting(provider: ProviderStatus) -> Change:
    """The pause between two attempts."""
    last = provider.last_failure
    helps = f". {last.next_step}" if last and last.next_step and last.next_step != NOTHING_TO_DO else ""
    message = f"{_ended(last) if last else ''}the next one starts at {provider.retry_after}{helps}"
    return Change(reconciling(Reason.RETRYING, message), {"phase": "Pending", "failure": None})


def _ended(failure: Failure) -> str:
    """How an attempt ended, and why: until the next one starts, the columns of kubectl get do not show it."""
    cause = failure.message[:CAUSE_LIMIT].rstrip(". ")
    return f"attempt {failure.attempt} ended ({failure.reason.value}): {cause}; "


def _retry_limit(view: JobView) -> int:
    """The connection's limit, or the default if the connection is gone: the next attempt waits for it anyway."""
    connection = view.connection
    ours = (connection.hugging_face or connection.sage_maker) if connection else None
    return ours.max_retries if ours else DEFAULT_RETRIES
