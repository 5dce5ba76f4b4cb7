"""What to do about a FineTuneJob: one ordered chain of small steps, the first that has an answer decides.

Provider-neutral: the state of the attempt comes as a `Run`, whatever runs it.
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from finetune_api.connection import HuggingFace
from finetune_api.job import DataFile, FineTuneJobSpec
from finetune_api.job_status import Failure, FineTuneJobStatus, ProviderStatus
from finetune_api.reasons import Reason
from finetune_api.uris import UriError, parse_uri
from finetune_api.verdict import SPLITS
from finetune_operator.decide import policy, unheard
from finetune_operator.decide.conditions import (
    Fact,
    is_true,
    merge,
    moment,
    ready,
    reconciling,
    resting,
    stalled,
    timestamp,
)
from finetune_operator.decide.job_view import Change, Decision, JobView
from finetune_operator.decide.reported import (
    AT_WORK,
    dataset_facts,
    evaluation_facts,
    push_facts,
    report_is_due,
    reported,
)
from finetune_operator.decide.retries import RETRY_DELAYS, Tally, ended_alike, given_up, saved
from finetune_operator.decide.run import RETRIED, STARTING, Run
from finetune_operator.decide.size import fit
from finetune_operator.decide.versions import recorded_result

CONNECTION_GRACE = timedelta(seconds=60)
"""A connection that comes in the same commit as the job may be seen a little later: no alarm before."""

LATE_POD_CHECK_SECONDS = 15
LATEST_POD_CHECK_SECONDS = 60
LAST_POD_CHECK_SECONDS = 10
REJECTED_CHECK_SECONDS = 60

AWAITED = "waiting for the trainer to start"
"""From the attempt's Job on until the trainer's first report: a pod is asked for, placed, and begins."""

PASSING = frozenset({Reason.UNSCHEDULABLE, Reason.VOLUME_UNAVAILABLE, Reason.POD_NOT_STARTED})
"""Obstacles of a pod that may pass without anybody doing something: another pod ends, a node gets well."""

DEFAULT_RETRIES: int = HuggingFace.model_fields["max_retries"].default


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
    failure = Failure.because(Reason.WRITE_REFUSED, refusal)
    status = with_status(view, Change(stalled(failure.reason, failure.message), {"failure": failure}))
    return Decision(status, requeue_after=REJECTED_CHECK_SECONDS)


def refused_by_policy(decision: Decision) -> bool:
    """Whether the decision ends the job because of its connection: for good, so better not on a late watch's word."""
    failure = decision.status.failure
    return decision.status.phase == "Failed" and failure is not None and failure.reason in policy.REASONS


def leave_deleted(view: JobView) -> Decision | None:
    """Children go by their owner reference; where a stranger's finalizer keeps the job, what runs is ended already."""
    runs = view.run.state in {"Queued", "Active"}
    return Decision(view.status, stop=runs) if view.deleting else None


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
    """What the API server let through and the models do not know."""
    problem = _unreadable_uri(view.spec) if view.spec else view.spec_error
    return fail(view, Failure.because(Reason.SPEC_INVALID, problem)) if problem is not None else None


def restart(view: JobView) -> Decision | None:
    """A new retryNonce: the next attempt, from the last checkpoint, with all its retries."""
    if not view.finished or view.spec is None:
        return None
    if is_true(view.status.conditions, "Complete"):
        return Decision(with_status(view, Change(fields={"observed_retry_nonce": view.spec.retry_nonce})))
    facts = [
        *reconciling(Reason.PENDING, "started again by spec.retryNonce"),
        Fact("Failed", "False", Reason.PENDING),
    ]
    tally = asdict(Tally(saved_work=view.provider.saved_work))
    provider = _next_attempt(view, **tally, retry_after=None, last_failure=None)
    fields = {
        "phase": "Pending",
        "failure": None,
        "completion_time": None,
        "observed_retry_nonce": view.spec.retry_nonce,
        "provider": provider,
    }
    return Decision(with_status(view, Change(facts, fields)), stop=True, requeue_after=0)


def suspend(view: JobView) -> Decision | None:
    """On request: the pod ends with a checkpoint, and the next attempt goes on from it."""
    if view.spec is None or not view.spec.suspend or view.run.state == "Succeeded":
        return None
    stopping = view.run.state != "Absent" or view.live_pods
    message = "stopping: the trainer writes a checkpoint" if stopping else "suspended by spec.suspend"
    facts = [*resting(Reason.SUSPENDED, message), Fact("Suspended", "True", Reason.SUSPENDED, message)]
    fields = {"phase": "Suspended", "failure": None, **reported(view.run.report, view.status)}
    if view.begun:
        fields["provider"] = _next_attempt(view)
    status = with_status(view, Change(facts, fields))
    return Decision(status, stop=stopping, requeue_after=LAST_POD_CHECK_SECONDS if stopping else None)


def notice_loss(view: JobView) -> Decision | None:
    """The attempt was started and nothing is left of it: its number is used up, the next one goes on."""
    if view.run.state != "Absent" or not view.begun:
        return None
    gone = Failure.because(Reason.INTERRUPTED, "the attempt is gone: its Job was deleted")
    return _retry_or_give_up(view, gone, interrupted=True)


def remember(view: JobView) -> Decision | None:
    """Somebody has emptied status, and the model still has this job's version: it is not made a second time."""
    if view.status.provider is not None or view.run.state != "Absent" or view.version is None or view.spec is None:
        return None
    message = f"version {view.version} of FineTunedModel {view.spec.model_ref.name}, by the model's own record"
    facts = [*ready(Reason.SUCCEEDED, message), Fact("Complete", "True", Reason.SUCCEEDED, message)]
    fields = {
        "phase": "Succeeded",
        "model_version": view.version,
        "completion_time": timestamp(view.now),
        "observed_retry_nonce": view.spec.retry_nonce,
    }
    return Decision(with_status(view, Change(facts, fields)), requeue_after=view.spec.ttl_seconds_after_finished)


def hold_restored(view: JobView) -> Decision | None:
    """It comes from a backup, without its status: whether it has run, and was paid for, nobody knows any more."""
    if view.restored is None or view.status.provider is not None or view.run.state != "Absent":
        return None
    message = f"restored from a backup ({view.restored}) without its status: whether it has run before is not known"
    failure = Failure.because(Reason.RESTORED, message)
    facts = stalled(failure.reason, message)
    return Decision(with_status(view, Change(facts, {"phase": "Pending", "failure": failure})))


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
        message = f"spec.connectionRef: LLMConnection {name} does not exist"
        return Failure.because(Reason.CONNECTION_NOT_FOUND, message)
    message = (
        f"spec.connectionRef: LLMConnection {name} is one to {view.connection.provider}, and the job was begun with "
        f"{view.began_with}"
    )
    next_step = "Ask an admin to make the connection as it was, or apply the job under a new name."
    return Failure(reason=Reason.CONNECTION_NOT_FOUND, message=message, next_step=next_step)


def refuse_by_policy(view: JobView) -> Decision | None:
    """What the connection does not allow. A running attempt is not stopped by a later change of policy."""
    if view.run.state != "Absent" or view.spec is None or view.connection is None:
        return None
    refusal = policy.refusal(policy.Request(view.spec, view.namespace, view.namespace_labels, view.connection))
    return fail(view, refusal) if refusal else None


def wait_for_last_pod(view: JobView) -> Decision | None:
    """Two pods never write to one output folder: the last attempt's ends first."""
    if view.run.state != "Absent" or not view.live_pods:
        return None
    said = "waiting for the last attempt's pod to end; delete it where nothing ends it any more (kubectl get pods)"
    facts = reconciling(Reason.PENDING, said)
    status = with_status(view, Change(facts, {"phase": "Pending"}))
    return Decision(status, stop=True, requeue_after=LAST_POD_CHECK_SECONDS)


def wait_before_retry(view: JobView) -> Decision | None:
    """The pause before the next attempt."""
    after = view.provider.retry_after
    left = (moment(after) - view.now).total_seconds() if after else 0
    # No pause is longer: another clock has written that one.
    if view.run.state != "Absent" or after is None or not 0 < left <= RETRY_DELAYS[-1]:
        return None
    return Decision(with_status(view, _waiting(view.provider)), requeue_after=left)


def start(view: JobView) -> Decision | None:
    """No attempt is under way: start the one that status names. Its name is fixed, so it is never made twice."""
    if view.run.state != "Absent" or view.spec is None:
        return None
    # Nothing tells of a pod that cannot be made.
    return Decision(with_status(view, _started(view)), start=True, requeue_after=LATE_POD_CHECK_SECONDS)


def adopt(view: JobView) -> Decision | None:
    """The attempt was started and the operator ended before it could say so: say so now."""
    if view.run.state == "Absent" or view.run.job_id == view.provider.job_id:
        return None
    change = _started(view)
    change.fields["provider"] = change.fields["provider"].model_copy(update={"job_id": view.run.job_id})
    said_all = view.run.state == "Queued" and view.run.failure is None
    return Decision(with_status(view, change), requeue_after=LATE_POD_CHECK_SECONDS if said_all else 0)


def wait_for_pod(view: JobView) -> Decision | None:
    """The attempt exists and its pod does not run yet: say what it waits for."""
    if view.run.state != "Queued":
        return None
    obstacle = view.run.failure
    if obstacle is None:
        facts = reconciling(Reason.QUEUED, view.run.note or AWAITED)
    elif obstacle.reason in PASSING:
        facts = reconciling(obstacle.reason, obstacle.message)
    else:
        facts = stalled(obstacle.reason, obstacle.message)
    status = with_status(view, Change(facts, {"phase": "Queued", "failure": obstacle}))
    return Decision(status, requeue_after=pod_check_seconds(view.run, view.now))


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
    failure = unheard.failure(view)
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
    again = LATE_POD_CHECK_SECONDS if view.run.ending else unheard.left(view)
    message = view.run.note or AT_WORK[phase]
    seen = view.status.observed_generation == view.generation and view.status.failure is None
    said = seen and _says(view.status, message) and phase == view.status.phase
    if said and not report_is_due(report, view.status, view.report_interval):
        return Decision(view.status, requeue_after=again)
    facts = [*reconciling(Reason(phase), message), *dataset_facts(report)]
    fields = {"phase": phase, "failure": None, **reported(view.run.report, view.status)}
    return Decision(with_status(view, Change(facts, fields)), requeue_after=again)


def retry_or_fail(view: JobView) -> Decision | None:
    """An attempt ended badly: the next one from the checkpoint if that can help and retries are left."""
    failure = view.run.failure
    if view.run.state == "ResultUnknown":
        failure = Failure.because(Reason.INTERRUPTED, "the trainer ended without telling its result")
    elif view.run.state != "Failed" or failure is None:
        return None
    if failure.reason not in RETRIED:
        return fail(view, failure.model_copy(update={"attempt": view.attempt}))
    return _retry_or_give_up(view, failure, interrupted=view.run.interrupted)


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
        *evaluation_facts(report),
    ]
    fields = {
        "phase": "Succeeded",
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
    keep_finished,
    refuse_invalid_spec,
    restart,
    suspend,
    notice_loss,
    remember,
    hold_restored,
    wait_for_connection,
    refuse_by_policy,
    wait_for_last_pod,
    wait_before_retry,
    start,
    adopt,
    wait_for_pod,
    notice_silence,
    follow,
    retry_or_fail,
    complete,
)
"""Ended before suspended before allowed before started before followed: a test holds the order."""


def with_status(view: JobView, change: Change) -> FineTuneJobStatus:
    """The job's status with the change, its conditions merged and its size within bounds."""
    status = view.status.model_copy(update=change.fields)
    facts = change.facts
    if not any(fact.type == "Suspended" for fact in facts):
        facts = [*facts, *_not_suspended(view)]
    conditions = merge(view.status.conditions, facts, generation=view.generation, now=view.now)
    return fit(status.model_copy(update={"conditions": conditions, "observed_generation": view.generation}))


def fail(view: JobView, failure: Failure) -> Decision:
    """End the job for this reason."""
    facts = [
        *stalled(failure.reason, failure.message),
        Fact("Failed", "True", failure.reason, failure.message),
        *dataset_facts(view.run.report),
    ]
    fields = {
        "phase": "Failed",
        "failure": failure,
        "completion_time": timestamp(view.now),
        "observed_retry_nonce": view.spec.retry_nonce if view.spec else view.status.observed_retry_nonce,
        **reported(view.run.report, view.status),
    }
    # The pod is stopped by `keep_finished`, once the failure is safely in status.
    return Decision(with_status(view, Change(facts, fields)), requeue_after=0)


def _started(view: JobView) -> Change:
    """What status says of an attempt that has just been started."""
    provider = view.provider.model_copy(
        update={
            "name": view.connection.provider if view.connection else view.provider.name,
            "attempt": view.attempt,
            "retry_after": None,
            "artifact_uri": _output(view) or None,
            "place": view.place,
        }
    )
    fields = {
        "phase": "Queued",
        "failure": None,
        "provider": provider,
        "start_time": view.status.start_time or timestamp(view.now),
        "observed_retry_nonce": view.spec.retry_nonce if view.spec else None,
    }
    return Change(reconciling(Reason.QUEUED, AWAITED), fields)


def _output(view: JobView) -> str:
    """The folder of an earlier attempt that may hold a checkpoint, else where the connection says now."""
    recorded = view.provider.artifact_uri
    return recorded if recorded and view.status.progress else view.artifact_uri or recorded or ""


def _next_attempt(view: JobView, **fields: Any) -> ProviderStatus:
    """The provider's part of status for the attempt after this one; one that was never started is still to come."""
    number = view.attempt + 1 if view.begun else view.provider.attempt
    return view.provider.model_copy(
        update={"attempt": number, "job_id": None, "files": None, "files_at": None, "asked_at": None}
        | {"evaluation": None, "nameless_since": None, **fields}
    )


def _retry_or_give_up(view: JobView, failure: Failure, *, interrupted: bool) -> Decision:
    before, limit = Tally.of(view.provider), _retry_limit(view)
    told = view.run.report.progress if view.run.report else None
    after = before.after(saved(view.status.progress, told), interrupted)
    failure = failure.model_copy(update={"attempt": view.attempt})
    alike = view.run.at_its_limit and ended_alike(failure, view.provider.last_failure, before, after)
    if limit and after.used <= limit and not alike:
        return _retry(view, failure, after)
    end = given_up(before, after, interrupted, alike=alike)
    return fail(view, failure.model_copy(update={"message": failure.message[: 4096 - len(end)] + end}))


def _retry(view: JobView, failure: Failure, tally: Tally) -> Decision:
    after = timestamp(view.now + timedelta(seconds=tally.delay))
    provider = _next_attempt(view, **asdict(tally), retry_after=after, last_failure=failure)
    change = _waiting(provider)
    change.fields.update({"provider": provider, **reported(view.run.report, view.status)})
    return Decision(with_status(view, change), requeue_after=tally.delay)


def _waiting(provider: ProviderStatus) -> Change:
    """The pause between two attempts."""
    failure = provider.last_failure
    ended = f"attempt {failure.attempt} ended ({failure.reason.value}); " if failure else ""
    message = f"{ended}the next one starts at {provider.retry_after}"
    return Change(reconciling(Reason.RETRYING, message), {"phase": "Pending", "failure": None})


def _retry_limit(view: JobView) -> int:
    """The connection's; while that is gone, the default one: the next attempt waits for the connection anyway."""
    connection = view.connection
    ours = (connection.hugging_face or connection.sage_maker) if connection else None
    return ours.max_retries if ours else DEFAULT_RETRIES


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


def _not_suspended(view: JobView) -> list[Fact]:
    was = any(condition.type == "Suspended" for condition in view.status.conditions or ())
    return [Fact("Suspended", "False", Reason.RUNNING)] if was else []
