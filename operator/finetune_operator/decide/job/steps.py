"""What to do about a FineTuneJob: one ordered chain of small steps, the first that has an answer decides.

Provider-neutral: the state of the attempt comes as a `Run`, whatever runs it.
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
    is_true,
    leaving,
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
    AWAITED,
    LAST_POD_CHECK_SECONDS,
    LATE_POD_CHECK_SECONDS,
    LATEST_POD_CHECK_SECONDS,
    adopted,
    disbelieve,
    is_unsaid,
    next_attempt,
    notice_loss,
    retry_or_fail,
    say_later,
    start,
    wait_before_retry,
    wait_for_last_pod,
)
from finetune_operator.decide.job.change import fail, with_status
from finetune_operator.decide.job.read_run import STARTING
from finetune_operator.decide.job.reported import (
    AT_WORK,
    at_rest,
    at_work,
    dataset_facts,
    evaluation_facts,
    push_facts,
    report_is_due,
    reported,
    tracker_facts,
)
from finetune_operator.decide.job.retries import Tally
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.versions import recorded_result
from finetune_operator.decide.job.view import Change, Decision, JobView
from finetune_operator.decide.pods.missing import with_field
from finetune_operator.decide.pods.refused import counts_what_has_ended, may_pass, refusal_of_write

CONNECTION_GRACE = timedelta(seconds=60)
"""A connection that comes in the same commit as the job may be seen a little later: no alarm before."""

_NAME_OR_MAKE = (
    "Apply the job under a new name with one that exists, or ask an admin to create this one: the job then starts "
    "automatically."
)

REJECTED_CHECK_SECONDS = 60

ROOM_GRACE = timedelta(seconds=60)
"""Most pods that find no room at once find it within seconds, when another has ended or a node has come up. What comes
in the same commit as the job may be there a little later."""

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
    """The API server refuses the attempt's object: a quota, a policy, a field of the podTemplate, or its kind."""
    facts = stalled(failure.reason, failure.message)
    status = with_status(view, Change(facts, {"phase": "Pending", "failure": failure}))
    return Decision(status, requeue_after=REJECTED_CHECK_SECONDS)


def not_done(view: JobView, refusal: str) -> Decision:
    """What is there already cannot be changed or ended: a policy or a webhook of the cluster refuses it.

    A job that has ended stays what it is.
    """
    if view.finished:
        return Decision(view.status, requeue_after=REJECTED_CHECK_SECONDS)
    failure = refusal_of_write(refusal)
    # What could not be ended goes on, and reports.
    due = report_is_due(view.run.report, view.status, view.report_interval)
    heard = reported(view.run.report, view.status) if due else {}
    status = with_status(view, Change(stalled(failure.reason, failure.message), {"failure": failure, **heard}))
    return Decision(status, requeue_after=REJECTED_CHECK_SECONDS)


def not_yet(view: JobView, said: str) -> Decision:
    """Its result is there, and its model cannot take it before something else has happened."""
    status = with_status(view, Change(reconciling(Reason.PENDING, said), {"failure": None}))
    return Decision(status, requeue_after=REJECTED_CHECK_SECONDS)


def refused_by_policy(decision: Decision) -> bool:
    """Whether the decision ends the job because of its connection: for good, so better not on a late watch's word."""
    failure = decision.status.failure
    return decision.status.phase == "Failed" and failure is not None and failure.reason in policy.REASONS


def leave_deleted(view: JobView) -> Decision | None:
    """Children go by their owner reference; where a stranger's finalizer keeps the job, what runs is ended already.

    One of ours is on it where it was copied from a job at a provider, or led there: that is for people to know.
    Where its children are to stay, as by `kubectl delete --cascade=orphan`, they go on: that is told by a finalizer of
    Kubernetes' own and, once that has gone and a stranger's keeps the job, by the owner that its children have no more.
    """
    if not view.deleting:
        return None
    stays = view.orphans or view.run.orphaned
    runs = view.run.state in {"Queued", "Active"}
    if view.held and view.abandoned and (stays or not (runs or view.live_pods)):
        return Decision(view.status, release=True)
    if stays:
        return Decision(view.status)
    return Decision(going(view), stop=runs)


def going(view: JobView) -> FineTuneJobStatus:
    """The status of a job that is deleted: where finalizers keep it, it does not say that the job goes on."""
    if view.finished or not view.kept_by:
        return view.status
    if view.live_pods or view.run.state in {"Queued", "Active"}:
        return with_status(view, Change(leaving(view.kept_by, "its pod is being stopped")))
    way_out = _OURS if view.held else ""
    return with_status(view, Change(leaving(view.kept_by, way_out=way_out), {"phase": "Cancelled", "failure": None}))


def keep_finished(view: JobView) -> Decision | None:
    """An ended job stays ended; a failed one keeps no pod, and none keeps a live one; its time to live may be over."""
    if not view.finished or view.retry_asked:
        return None
    failed = is_true(view.status.conditions, "Failed")
    # A container that a policy has put beside the trainer may go on for ever.
    stop = view.run.state != "Absent" and (failed or view.live_pods)
    status = with_status(view, Change())
    ttl = view.spec.ttl_seconds_after_finished if view.spec else None
    if ttl is None or view.status.completion_time is None:
        return Decision(status, stop=stop)
    left = (moment(view.status.completion_time) + timedelta(seconds=ttl) - view.now).total_seconds()
    return Decision(status, stop=stop, delete=left <= 0, requeue_after=max(left, 0) or None)


def refuse_invalid_spec(view: JobView) -> Decision | None:
    """What the API server let through and the models do not know.

    A job that has begun was begun by another release: what runs, and may be paid for, is left to that one. One that
    newer definitions have let through, as in the middle of an upgrade, is left to the release that they are of.
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
        return Decision(seen, requeue_after=0)  # its time to live goes on
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


def say_unread(view: JobView) -> Decision | None:
    """What the attempt has come to cannot be read: it goes on, and nothing is made of that."""
    failure = view.run.failure
    if view.run.state != "Unreachable" or failure is None:
        return None
    status = with_status(view, Change(stalled(failure.reason, failure.message), {"failure": failure}))
    return Decision(status, requeue_after=REJECTED_CHECK_SECONDS)


def suspend(view: JobView, stops: str = "stopping: the trainer writes a checkpoint") -> Decision | None:
    """On request: the pod ends with a checkpoint, and the next attempt goes on from it. `stops`: in words."""
    if view.spec is None or not view.spec.suspend or view.run.state == "Succeeded":
        return None
    stopping = view.run.state != "Absent" or view.live_pods
    message = stops if stopping else "suspended by spec.suspend"
    facts = [*resting(Reason.SUSPENDED, message), Fact("Suspended", "True", Reason.SUSPENDED, message)]
    fields = {"failure": _unknown_past(view), **at_rest(view.run.report, view.status)}
    if view.begun:
        fields["provider"] = next_attempt(view)
    status = with_status(view, Change(facts, fields))
    return Decision(status, stop=stopping, requeue_after=LAST_POD_CHECK_SECONDS if stopping else None)


def remember(view: JobView) -> Decision | None:
    """Somebody has emptied status, or put an old one back; the model has the version: it is not made a second time."""
    if view.run.state != "Absent" or view.version is None or view.spec is None:
        return None
    if view.status.provider is not None and not view.made_it:
        return None  # whoever applies a job anew, under the name of one from a backup, wants it to run
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
    """It comes from a backup, without its status: whether it has run, and was paid for, nobody knows any more."""
    failure = _unknown_past(view)
    if failure is None:
        return None
    facts = stalled(failure.reason, failure.message)
    return Decision(with_status(view, Change(facts, {"phase": "Pending", "failure": failure})))


def _unknown_past(view: JobView) -> Failure | None:
    """That a job is from a backup. A suspension, and its end, do not say that it is to run."""
    if view.restored is None or view.status.provider is not None or view.run.state != "Absent":
        return None
    if _was_known_before(view):
        return None
    message = f"restored from a backup ({view.restored}) without its status: whether it has run before is not known"
    if view.remote:
        message += "; a job that it has begun at its provider continues there unseen, and is billed"
    return Failure.because(Reason.RESTORED, message)


def _was_known_before(view: JobView) -> bool:
    """Whether the restore came over a job that was there, and has not begun by its own status.

    A status that came back with its object is older than the object is; of one that is held, its failure says so.
    """
    if view.status.failure is not None and view.status.failure.reason is Reason.RESTORED:
        return False
    return any(moment(one.last_transition_time) >= view.created for one in view.status.conditions or ())


def wait_for_connection(view: JobView) -> Decision | None:
    """A connection that is not there (yet), or by now is one to another provider."""
    if view.run.state != "Absent" or view.spec is None or (view.connection and not view.began_with):
        return None
    missing = _missing(view, view.spec.connection_ref.name)
    left = (view.created + CONNECTION_GRACE - view.now).total_seconds()
    if left > 0:
        facts = reconciling(missing.reason, missing.message)
        return Decision(with_status(view, Change(facts, {"phase": "Pending", "failure": None})), requeue_after=left)
    facts = stalled(missing.reason, missing.message)
    return Decision(with_status(view, Change(facts, {"phase": "Pending", "failure": missing})))


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
    """What the name may have been meant to be: the user may see no connections, and is to name one."""
    return f"this namespace may use {some_of(names, missing)}" if names else "no LLMConnection serves this namespace"


def refuse_by_policy(view: JobView) -> Decision | None:
    """What the connection does not allow. A running attempt is not stopped by a later change of policy."""
    if view.run.state != "Absent" or view.spec is None or view.connection is None:
        return None
    refusal = policy.refusal(policy.Request(view.spec, view.namespace, view.namespace_labels, view.connection))
    return None if refusal is None else fail(view, refusal)


def adopt(view: JobView) -> Decision | None:
    """The attempt was started and status does not say so: it does with whatever there is to say next."""
    return (say_later(view) or decide(adopted(view))) if is_unsaid(view) else None


def make_anew(view: JobView) -> Decision | None:
    """Its pod cannot start, and an admin has changed by what it is made: the next attempt's pod is made by that."""
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
    obstacle, left = named_in(view, view.run.failure), grace_left(view.run, view.now)
    if obstacle is None:
        facts = reconciling(Reason.QUEUED, view.run.note or AWAITED)
    elif left or may_pass(obstacle):
        facts = reconciling(obstacle.reason, obstacle.message)
    else:
        facts = stalled(obstacle.reason, obstacle.message)
    status = with_status(view, Change(facts, {"phase": "Queued", "failure": None if left else obstacle}))
    clear = counts_what_has_ended(obstacle)
    return Decision(status, clear=clear, requeue_after=left or pod_check_seconds(view.run, view.now))


def grace_left(run: Run, now: datetime) -> float:
    """Seconds for which conditions alone say what keeps its pod from starting: a failure is a Warning Event too."""
    if run.failure is None or not (may_pass(run.failure) or _may_come(run.failure)) or run.since is None:
        return 0.0
    return max(0.0, (run.since + ROOM_GRACE - now).total_seconds())


def _may_come(obstacle: Failure) -> bool:
    """Whether it lacks what may be made a little later than the job, by what brings Secrets from a vault for one."""
    return obstacle == Failure.because(Reason.CONTAINER_CONFIG_INVALID, obstacle.message)


def named_in(view: JobView, obstacle: Failure | None) -> Failure | None:
    """What keeps a pod from starting, with the field that names what is missing."""
    name = view.spec.connection_ref.name if view.spec else ""
    return with_field(obstacle, view.spec, name, view.connection, view.namespace) if obstacle else None


def pod_check_seconds(run: Run, now: datetime) -> float | None:
    """When to look again for what nothing tells of: when it has lasted twice as long.

    Where thousands of Jobs wait for their pods, looking at each as often as at the first would be most of the work.
    """
    if run.ending:
        return LATE_POD_CHECK_SECONDS
    if not run.awaiting_pod:
        return None
    lasted = (now - run.since).total_seconds() if run.since else 0.0
    return min(max(lasted, LATE_POD_CHECK_SECONDS), LATEST_POD_CHECK_SECONDS)


def notice_silence(view: JobView) -> Decision | None:
    """Nothing was heard of a trainer at work for long. It is left alone: its next report says that it is well."""
    failure = silent_trainer.failure(view)
    if failure is None:
        return None
    facts = stalled(failure.reason, failure.message)
    return Decision(with_status(view, Change(facts, {"failure": failure, **reported(view.run.report, view.status)})))


def follow(view: JobView) -> Decision | None:
    """The trainer is at work: status says how far it is."""
    if view.run.state != "Active":
        return None
    if view.run.starting and _says(view.status, AWAITED) and view.status.observed_generation == view.generation:
        return Decision(view.status, requeue_after=STARTING.total_seconds())
    report = view.run.report
    # Reading the data is what a trainer begins with, before its first report comes.
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
    """The attempt made its artifact: register it as a version, then say so."""
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
    leave_deleted,
    disbelieve,
    keep_finished,
    refuse_invalid_spec,
    restart,
    say_unread,
    suspend,
    remember,
    notice_loss,
    hold_restored,
    wait_for_connection,
    refuse_by_policy,
    wait_for_last_pod,
    wait_before_retry,
    start,
    adopt,
    make_anew,
    wait_for_pod,
    notice_silence,
    follow,
    retry_or_fail,
    complete,
)
"""Ended before suspended before allowed before started before followed: a test holds the order."""


def _unreadable_uri(spec: FineTuneJobSpec) -> str | None:
    """What is wrong with a dataset's uri, if anything."""
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
