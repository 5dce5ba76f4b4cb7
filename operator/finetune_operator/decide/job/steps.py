"""What to do about a FineTuneJob: an ordered chain of small steps. The first one that returns a decision decides.

Provider-neutral: the attempt's state is a `Run`, whichever provider runs it.
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta

from finetune_api import policy
from finetune_api.dataset import DataFile
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, FineTuneJobStatus
from finetune_api.names import ABANDON_ANNOTATION, PROVIDER_FINALIZER
from finetune_api.reasons import Reason
from finetune_api.uris import UriError, parse_uri
from finetune_api.verdict import SPLITS
from finetune_operator.decide.conditions import (
    Fact,
    being_deleted,
    is_true,
    moment,
    ready,
    reconciling,
    resting,
    some_of,
    stalled,
    timestamp,
)
from finetune_operator.decide.connection import lacking
from finetune_operator.decide.job import silent_trainer
from finetune_operator.decide.job.attempts import (
    LAST_POD_CHECK_SECONDS,
    LATE_POD_CHECK_SECONDS,
    LATEST_POD_CHECK_SECONDS,
    WAITING_FOR_POD,
    as_recorded,
    is_unrecorded,
    next_attempt,
    notice_loss,
    record_later,
    reject_false_completion,
    retry_or_fail,
    start,
    wait_before_retry,
    wait_for_last_pod,
)
from finetune_operator.decide.job.change import fail, with_status
from finetune_operator.decide.job.read_run import STARTING
from finetune_operator.decide.job.reported import (
    AT_WORK,
    at_work,
    dataset_facts,
    evaluation_facts,
    push_facts,
    report_is_due,
    reported,
    reported_without_eta,
    tracker_facts,
)
from finetune_operator.decide.job.retries import Tally
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.versions import recorded_result
from finetune_operator.decide.job.view import Change, Decision, JobView
from finetune_operator.decide.pods.grace import GRACE, grace_left
from finetune_operator.decide.pods.missing import with_field
from finetune_operator.decide.pods.refused import counts_ended_objects, may_pass, refusal_of_write

_NAME_OR_MAKE = (
    "Apply the job under a new name with one that exists, or ask an admin to create this one: the job then starts "
    "automatically."
)

REJECTED_CHECK_SECONDS = 60

_BY_ITS_OWN_RELEASE = "Bring back the release of the operator that has begun the job; it continues automatically."
_OURS = (
    f"; {PROVIDER_FINALIZER} is of a job at a provider, which this one is not by its connection: where nothing of it "
    f"is at one, annotate it with {ABANDON_ANNOTATION}=true"
)
_BY_A_NEWER_RELEASE = (
    "The definitions on the cluster are newer than the operator: upgrade the operator to their release; the job then "
    "starts automatically."
)


def decide(view: JobView) -> Decision:
    """The decision of the first step that has one."""
    return next(found for step in STEPS if (found := step(view)) is not None)


def not_started(view: JobView, failure: Failure) -> Decision:
    """The API server refuses the attempt's object: because of a quota, a policy, a podTemplate field, or its kind."""
    facts = stalled(failure.reason, failure.message)
    status = with_status(view, Change(facts, {"phase": "Pending", "failure": failure}))
    return Decision(status, requeue_after=REJECTED_CHECK_SECONDS)


def not_done(view: JobView, refusal: str) -> Decision:
    """An existing object cannot be changed or ended: a policy or a webhook of the cluster refuses it.

    The status of an ended job does not change.
    """
    if view.finished:
        return Decision(view.status, requeue_after=REJECTED_CHECK_SECONDS)
    failure = refusal_of_write(refusal)
    # An attempt that could not be ended continues, and reports.
    due = report_is_due(view.run.report, view.status, view.report_interval)
    heard = reported(view.run.report, view.status) if due else {}
    status = with_status(view, Change(stalled(failure.reason, failure.message), {"failure": failure, **heard}))
    return Decision(status, requeue_after=REJECTED_CHECK_SECONDS)


def result_pending(view: JobView, said: str) -> Decision:
    """The attempt has a result, and its model cannot record it until something else has happened."""
    status = with_status(view, Change(reconciling(Reason.PENDING, said), {"failure": None}))
    return Decision(status, requeue_after=REJECTED_CHECK_SECONDS)


def refused_by_policy(decision: Decision) -> bool:
    """Whether the job is refused because of its connection: that becomes final, so no stale watch may decide it."""
    conditions = decision.status.conditions or ()
    return any(one.type == "Ready" and one.reason in policy.REASONS for one in conditions)


def handle_deletion(view: JobView) -> Decision | None:
    """Let a deleted job go. Owner references delete its children; if a foreign finalizer keeps it, stop its attempt.

    It has our finalizer if it was copied from a job at a provider, or once led to one: only the user knows what to do
    with it. Children to be kept, as by `kubectl delete --cascade=orphan`, continue: Kubernetes' own finalizer tells
    that and, once it is gone and a foreign one keeps the job, the owner reference that is missing from the children.
    """
    if not view.deleting:
        return None
    stays = view.orphans or view.run.orphaned
    runs = view.run.state in {"Queued", "Active"}
    if view.has_finalizer and view.abandoned and (stays or not (runs or view.live_pods)):
        return Decision(view.status, release=True)
    if stays:
        return Decision(view.status)
    return Decision(status_while_deleted(view), stop=runs)


def status_while_deleted(view: JobView) -> FineTuneJobStatus:
    """The status of a job that is being deleted: if finalizers keep it, it must not say that the job continues."""
    if view.finished or not view.kept_by:
        return view.status
    if view.live_pods or view.run.state in {"Queued", "Active"}:
        return with_status(view, Change(being_deleted(view.kept_by, "its pod is being stopped")))
    way_out = _OURS if view.has_finalizer else ""
    return with_status(
        view, Change(being_deleted(view.kept_by, way_out=way_out), {"phase": "Cancelled", "failure": None})
    )


def keep_finished(view: JobView) -> Decision | None:
    """An ended job stays ended. Its pods are stopped if it failed or if they still run; its TTL may be over."""
    if not view.finished or view.retry_asked:
        return None
    failed = is_true(view.status.conditions, "Failed")
    # A container that a policy has added beside the trainer may run for ever.
    stop = view.run.state != "Absent" and (failed or view.live_pods)
    status = with_status(view, Change())
    ttl = view.spec.ttl_seconds_after_finished if view.spec else None
    if ttl is None or view.status.completion_time is None:
        return Decision(status, stop=stop)
    left = (moment(view.status.completion_time) + timedelta(seconds=ttl) - view.now).total_seconds()
    return Decision(status, stop=stop, delete=left <= 0, requeue_after=max(left, 0) or None)


def refuse_invalid_spec(view: JobView) -> Decision | None:
    """Refuse a spec that the API server admitted and our models do not accept.

    A job that has started was started by another release: what runs, and may be billed, is left to that one. A job that
    newer CRDs have admitted, as during an upgrade, is left to the release of these CRDs.
    """
    problem = _unreadable_uri(view.spec) if view.spec else view.spec_error
    if problem is None:
        return None
    failure = Failure.because(Reason.SPEC_INVALID, problem)
    if view.begun or view.status.start_time is not None:
        failure = failure.model_copy(update={"next_step": _BY_ITS_OWN_RELEASE})
        return Decision(with_status(view, Change(stalled(failure.reason, problem), {"failure": failure})))
    if not view.newer:
        return fail(view, failure)
    failure = failure.model_copy(update={"next_step": _BY_A_NEWER_RELEASE})
    fields = {"phase": "Pending", "failure": failure}
    return Decision(with_status(view, Change(stalled(failure.reason, problem), fields)))


def restart(view: JobView) -> Decision | None:
    """A new retryNonce: the next attempt, from the last checkpoint, with all its retries."""
    if not view.finished or view.spec is None:
        return None
    if is_true(view.status.conditions, "Complete"):
        seen = with_status(view, Change(fields={"observed_retry_nonce": view.spec.retry_nonce}))
        return Decision(seen, requeue_after=0)  # its TTL goes on
    facts = [
        *reconciling(Reason.PENDING, "started again by spec.retryNonce"),
        Fact("Failed", "False", Reason.PENDING),
    ]
    tally = asdict(Tally(saved_work=view.provider.saved_work))
    provider = next_attempt(view, **tally, retry_after=None, last_failure=None)
    fields = {
        "phase": "Pending",
        "failure": None,
        "completion_time": None,
        "observed_retry_nonce": view.spec.retry_nonce,
        "provider": provider,
    }
    return Decision(with_status(view, Change(facts, fields)), stop=True, requeue_after=0)


def report_unreachable(view: JobView) -> Decision | None:
    """The attempt's state cannot be read. It continues, and only this is recorded."""
    failure = view.run.failure
    if view.run.state != "Unreachable" or failure is None:
        return None
    status = with_status(view, Change(stalled(failure.reason, failure.message), {"failure": failure}))
    return Decision(status, requeue_after=REJECTED_CHECK_SECONDS)


def suspend(view: JobView, stops: str = "stopping: the trainer writes a checkpoint") -> Decision | None:
    """On request: the pod ends with a checkpoint for the next attempt. `stops`: the message until it has ended."""
    if view.spec is None or not view.spec.suspend or view.run.state == "Succeeded":
        return None
    stopping = view.run.state != "Absent" or view.live_pods
    message = stops if stopping else "suspended by spec.suspend"
    facts = [*resting(Reason.SUSPENDED, message), Fact("Suspended", "True", Reason.SUSPENDED, message)]
    fields = {"failure": _unknown_past(view), **reported_without_eta(view.run.report, view.status)}
    if view.begun:
        fields["provider"] = next_attempt(view)
    status = with_status(view, Change(facts, fields))
    return Decision(status, stop=stopping, requeue_after=LAST_POD_CHECK_SECONDS if stopping else None)


def restore_completion(view: JobView) -> Decision | None:
    """Status was emptied or replaced by an old one, but the model has the version: it is not made a second time."""
    if view.run.state != "Absent" or view.version is None or view.spec is None:
        return None
    if view.status.provider is not None and not view.is_maker:
        return None  # a job applied again under the name of one from a backup is to run
    message = f"version {view.version} of FineTunedModel {view.spec.model_ref.name}, by the model's own record"
    facts = [*ready(Reason.SUCCEEDED, message), Fact("Complete", "True", Reason.SUCCEEDED, message)]
    fields = {
        "failure": None,
        "model_version": view.version,
        "completion_time": timestamp(view.now),
        "observed_retry_nonce": view.spec.retry_nonce,
    }
    return Decision(with_status(view, Change(facts, fields)), requeue_after=0)


def hold_restored(view: JobView) -> Decision | None:
    """A job restored from a backup without its status: nobody knows whether it has run and was billed."""
    failure = _unknown_past(view)
    if failure is None:
        return None
    facts = stalled(failure.reason, failure.message)
    return Decision(with_status(view, Change(facts, {"phase": "Pending", "failure": failure})))


def _unknown_past(view: JobView) -> Failure | None:
    """That a job is from a backup. That it was suspended, or no longer is, does not mean that it should run."""
    if view.restored is None or view.status.provider is not None or view.run.state != "Absent":
        return None
    if _was_known_before(view):
        return None
    message = f"restored from a backup ({view.restored}) without its status: whether it has run before is not known"
    if view.remote:
        message += "; a job that it has begun at its provider continues there unseen, and is billed"
    return Failure.because(Reason.RESTORED, message)


def _was_known_before(view: JobView) -> bool:
    """Whether the restore overwrote a job that existed, and that has not started by its own status.

    A status that was restored with its object is older than the object. A job held by `hold_restored` has that failure.
    """
    if view.status.failure is not None and view.status.failure.reason is Reason.RESTORED:
        return False
    return any(moment(one.last_transition_time) >= view.created for one in view.status.conditions or ())


def wait_for_connection(view: JobView) -> Decision | None:
    """The connection does not exist (yet), or now leads to another provider."""
    if view.run.state != "Absent" or view.spec is None or (view.connection and not view.began_with):
        return None
    missing = _missing(view, view.spec.connection_ref.name)
    if (left := _connection_grace(view)) > 0:
        return _not_yet_there(view, missing, left)
    facts = stalled(missing.reason, missing.message)
    return Decision(with_status(view, Change(facts, {"phase": "Pending", "failure": missing})))


def _connection_grace(view: JobView) -> float:
    """Seconds for which its connection, or the label that lets its namespace use it, may still be created."""
    since = max(view.created, view.connection_created or view.created)
    return (since + GRACE - view.now).total_seconds()


def _not_yet_there(view: JobView, missing: Failure, left: float) -> Decision:
    facts = reconciling(missing.reason, missing.message)
    return Decision(with_status(view, Change(facts, {"phase": "Pending", "failure": None})), requeue_after=left)


def _missing(view: JobView, name: str) -> Failure:
    """What is wrong with the connection."""
    if view.connection is None:
        missing = lacking(name, is_there=view.connection_unread, field="spec.connectionRef")
        if view.connection_unread:
            return missing
        message = f"{missing.message}; {_usable(view.usable_connections, name)}"
        next_step = _NAME_OR_MAKE if view.usable_connections else missing.next_step
        return missing.model_copy(update={"message": message, "next_step": next_step})
    message = (
        f"spec.connectionRef: LLMConnection {name} leads to {view.connection.provider} now, and the job was "
        f"started with {view.began_with}"
    )
    next_step = "Ask an admin to restore the connection as it was, or apply the job under a new name."
    return Failure(reason=Reason.CONNECTION_NOT_FOUND, message=message, next_step=next_step)


def _usable(names: tuple[str, ...], missing: str) -> str:
    """Which connections exist: the user must name one, and has no right to list them."""
    return f"this namespace may use {some_of(names, missing)}" if names else "no LLMConnection serves this namespace"


def refuse_by_policy(view: JobView) -> Decision | None:
    """What the connection does not allow. A later change of policy does not stop a running attempt."""
    if view.run.state != "Absent" or view.spec is None or view.connection is None:
        return None
    refusal = policy.refusal(policy.Request(view.spec, view.namespace, view.namespace_labels, view.connection))
    if refusal is None:
        return None
    left = _connection_grace(view) if refusal.reason is Reason.NAMESPACE_NOT_ALLOWED else 0
    return _not_yet_there(view, refusal, left) if left > 0 else fail(view, refusal)


def adopt(view: JobView) -> Decision | None:
    """The attempt was started and status does not say so: record it together with what there is to say next."""
    return (record_later(view) or decide(as_recorded(view))) if is_unrecorded(view) else None


def recreate(view: JobView) -> Decision | None:
    """Its pod cannot start, and an admin has changed what it is built from: replace it by the next attempt's pod."""
    failure = view.run.failure
    if view.run.state != "Queued" or failure is None or not view.outdated:
        return None
    said = f"attempt {view.attempt} did not start ({failure.reason.value})"
    facts = reconciling(Reason.PENDING, f"{said}; the next one is made by what an admin has changed since")
    fields = {"phase": "Pending", "failure": None, "provider": next_attempt(view)}
    return Decision(with_status(view, Change(facts, fields)), stop=True, requeue_after=0)


def wait_for_pod(view: JobView) -> Decision | None:
    """The attempt exists and its pod does not run yet: say what it waits for."""
    if view.run.state != "Queued":
        return None
    obstacle, left = named_in(view, view.run.failure), grace_left(view.run.failure, view.run.since, view.now)
    if obstacle is None:
        facts = reconciling(Reason.QUEUED, view.run.note or WAITING_FOR_POD)
    elif left or may_pass(obstacle):
        facts = reconciling(obstacle.reason, obstacle.message)
    else:
        facts = stalled(obstacle.reason, obstacle.message)
    status = with_status(view, Change(facts, {"phase": "Queued", "failure": None if left else obstacle}))
    clear = counts_ended_objects(obstacle)
    return Decision(status, clear=clear, requeue_after=left or pod_check_seconds(view.run, view.now))


def named_in(view: JobView, obstacle: Failure | None) -> Failure | None:
    """What keeps a pod from starting, with the field that names what is missing."""
    name = view.spec.connection_ref.name if view.spec else ""
    return with_field(obstacle, view.spec, name, view.connection, view.namespace) if obstacle else None


def pod_check_seconds(run: Run, now: datetime) -> float | None:
    """When to check again what no event reports: after it has lasted twice as long.

    If thousands of Jobs wait for their pods, checking each as often as at first would be most of the work.
    """
    if run.ending:
        return LATE_POD_CHECK_SECONDS
    if not run.awaiting_pod:
        return None
    lasted = (now - run.since).total_seconds() if run.since else 0.0
    return min(max(lasted, LATE_POD_CHECK_SECONDS), LATEST_POD_CHECK_SECONDS)


def notice_silence(view: JobView) -> Decision | None:
    """The trainer has not reported for long. It is left alone: its next report clears the failure."""
    failure = silent_trainer.failure(view)
    if failure is None:
        return None
    facts = stalled(failure.reason, failure.message)
    return Decision(with_status(view, Change(facts, {"failure": failure, **reported(view.run.report, view.status)})))


def follow(view: JobView) -> Decision | None:
    """The trainer is at work: record its progress."""
    if view.run.state != "Active":
        return None
    if view.run.starting and _says(view.status, WAITING_FOR_POD) and view.status.observed_generation == view.generation:
        return Decision(view.status, requeue_after=STARTING.total_seconds())
    report = view.run.report
    # A trainer reads the data first, before it can report.
    begun = "Running" if report else "Validating"
    present = view.status.phase if view.status.phase in AT_WORK else begun
    phase = report.phase if report and report.phase in AT_WORK else present
    again = LATE_POD_CHECK_SECONDS if view.run.ending else silent_trainer.left(view)
    message = view.run.note or at_work(phase, report)
    seen = view.status.observed_generation == view.generation and view.status.failure is None
    said = seen and _says(view.status, message) and phase == view.status.phase
    if said and not report_is_due(report, view.status, view.report_interval):
        return Decision(view.status, requeue_after=again)
    facts = [*reconciling(Reason(phase), message), *dataset_facts(report), *tracker_facts(report)]
    fields = {"phase": phase, "failure": None, **reported(view.run.report, view.status)}
    return Decision(with_status(view, Change(facts, fields)), requeue_after=again)


def complete(view: JobView) -> Decision | None:
    """The attempt made its artifact: register it as a version, then complete the job."""
    report = view.run.report
    if view.run.state != "Succeeded" or report is None or report.result is None or view.spec is None:
        return None
    if view.version is None:
        return Decision(view.status, register=True)
    message = f"version {view.version} of FineTunedModel {view.spec.model_ref.name}"
    facts = [
        *ready(Reason.SUCCEEDED, message),
        Fact("Complete", "True", Reason.SUCCEEDED, message),
        *dataset_facts(report),
        *push_facts(report.result),
        *tracker_facts(report),
        *evaluation_facts(report),
    ]
    fields = {
        "failure": None,
        "model_version": view.version,
        "result": recorded_result(view, report.result),
        "completion_time": timestamp(view.now),
        **reported(view.run.report, view.status),
    }
    fields["train_loss"] = report.result.train_loss if report.result.train_loss is not None else fields["train_loss"]
    fields["eval_loss"] = report.result.eval_loss if report.result.eval_loss is not None else fields["eval_loss"]
    again = 0 if view.live_pods else view.spec.ttl_seconds_after_finished
    return Decision(with_status(view, Change(facts, fields)), requeue_after=again)


STEPS: tuple[Callable[[JobView], Decision | None], ...] = (
    handle_deletion,
    reject_false_completion,
    keep_finished,
    refuse_invalid_spec,
    restart,
    report_unreachable,
    suspend,
    restore_completion,
    notice_loss,
    hold_restored,
    wait_for_connection,
    refuse_by_policy,
    wait_for_last_pod,
    wait_before_retry,
    start,
    adopt,
    recreate,
    wait_for_pod,
    notice_silence,
    follow,
    retry_or_fail,
    complete,
)
"""Ended before suspended before allowed before started before followed: a test checks this order."""


def _unreadable_uri(spec: FineTuneJobSpec) -> str | None:
    """What is wrong with a dataset's URI, if anything."""
    for name in SPLITS:
        file: DataFile | None = getattr(spec.dataset, name)
        try:
            if file is not None:
                parse_uri(file.uri)
        except UriError as error:
            return f"spec.dataset.{name}.uri: {error}"
    return None


def _says(status: FineTuneJobStatus, message: str) -> bool:
    return any(c.type == "Reconciling" and c.message == message for c in status.conditions or ())
