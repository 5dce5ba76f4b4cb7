"""What to do about a FineTuneJob: one ordered chain of small steps, the first that has an answer decides.

Provider-neutral: the state of the attempt comes as a `Run`, whatever runs it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import Failure, FineTuneJobSpec, FineTuneJobStatus, ProviderStatus
from finetune_api.reasons import Reason
from finetune_api.trainer import Report
from finetune_operator.decide import policy
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
from finetune_operator.decide.run import Run

CONNECTION_GRACE = timedelta(seconds=60)
"""A connection that comes in the same commit as the job may be seen a little later: no alarm before."""

REPORT_INTERVAL = timedelta(seconds=5)
"""Progress is written to status no more often; phase changes are written at once."""

RETRY_DELAYS = (5, 20, 60, 180, 300)
"""Seconds before the first, second, … retry; the last one repeats."""

LATE_POD_CHECK_SECONDS = 15

PHASE_OF_REPORT = {"Validating": "Validating", "Running": "Running", "Evaluating": "Evaluating"}


@dataclass(frozen=True)
class JobView:
    """All that is known of a FineTuneJob when a decision is made."""

    name: str
    namespace: str
    uid: str
    generation: int
    created: datetime
    deleting: bool
    spec: FineTuneJobSpec | None
    spec_error: str
    status: FineTuneJobStatus
    connection: LLMConnectionSpec | None
    namespace_labels: Mapping[str, str]
    run: Run
    live_pods: bool
    """Pods of this job that may still write, where no attempt is under way."""
    version: int | None
    """Version of the model that this job made, once it is registered."""
    artifact_uri: str
    now: datetime

    @property
    def provider(self) -> ProviderStatus:
        """What is recorded about the attempts."""
        return self.status.provider or ProviderStatus()

    @property
    def finished(self) -> bool:
        """Whether the job has ended. Nothing but a new retryNonce starts it again."""
        return is_true(self.status.conditions, "Complete") or is_true(self.status.conditions, "Failed")

    @property
    def retry_asked(self) -> bool:
        """Whether retryNonce has changed since the present run began."""
        return self.spec is not None and self.spec.retry_nonce not in {None, self.status.observed_retry_nonce}


@dataclass(frozen=True)
class Decision:
    """What the job's status should be and what is to be done, in this order: stop, start, register, delete, status."""

    status: FineTuneJobStatus
    stop: bool = False
    start: bool = False
    register: bool = False
    delete: bool = False
    requeue_after: float | None = None


@dataclass(frozen=True)
class Change:
    """New values for status fields, and the facts for its conditions."""

    facts: list[Fact] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)


def decide(view: JobView) -> Decision:
    """The decision of the first step that has one."""
    return next(found for step in STEPS if (found := step(view)) is not None)


def leave_deleted(view: JobView) -> Decision | None:
    """Children go by their owner reference: nothing to do."""
    return Decision(view.status) if view.deleting else None


def keep_finished(view: JobView) -> Decision | None:
    """An ended job stays ended; a failed one keeps no pod; its time to live may be over."""
    if not view.finished or view.retry_asked:
        return None
    failed = is_true(view.status.conditions, "Failed")
    stop = failed and view.run.state != "Absent"
    status = _status(view, Change())
    ttl = view.spec.ttl_seconds_after_finished if view.spec else None
    if ttl is None or view.status.completion_time is None:
        return Decision(status, stop=stop)
    left = (moment(view.status.completion_time) + timedelta(seconds=ttl) - view.now).total_seconds()
    return Decision(status, stop=stop, delete=left <= 0, requeue_after=max(left, 0) or None)


def refuse_invalid_spec(view: JobView) -> Decision | None:
    """What the API server let through and the models do not know."""
    return None if view.spec else _fail(view, Failure.because(Reason.SPEC_INVALID, view.spec_error))


def restart(view: JobView) -> Decision | None:
    """A new retryNonce: the next attempt, from the last checkpoint, with all its retries."""
    if not view.finished or view.spec is None:
        return None
    if is_true(view.status.conditions, "Complete"):
        return Decision(_status(view, Change(fields={"observed_retry_nonce": view.spec.retry_nonce})))
    facts = [
        *reconciling(Reason.PENDING, "started again by spec.retryNonce"),
        Fact("Failed", "False", Reason.PENDING),
    ]
    provider = view.provider.model_copy(
        update={"attempt": view.provider.attempt + 1, "retries": 0, "retry_after": None, "last_failure": None}
    )
    fields = {
        "phase": "Pending",
        "failure": None,
        "completion_time": None,
        "observed_retry_nonce": view.spec.retry_nonce,
        "provider": provider,
    }
    return Decision(_status(view, Change(facts, fields)), stop=True, requeue_after=0)


def suspend(view: JobView) -> Decision | None:
    """On request: the pod ends with a checkpoint, and the next attempt goes on from it."""
    if view.spec is None or not view.spec.suspend or view.run.state == "Succeeded":
        return None
    stopping = view.run.state != "Absent" or view.live_pods
    message = "stopping: the trainer writes a checkpoint" if stopping else "suspended by spec.suspend"
    facts = [*resting(Reason.SUSPENDED, message), Fact("Suspended", "True", Reason.SUSPENDED, message)]
    provider = view.provider
    if view.run.state != "Absent":
        provider = provider.model_copy(update={"attempt": provider.attempt + 1})
    fields = {"phase": "Suspended", "provider": provider, **_reported(view)}
    return Decision(_status(view, Change(facts, fields)), stop=view.run.state != "Absent")


def wait_for_connection(view: JobView) -> Decision | None:
    """A connection that is not there (yet)."""
    if view.connection is not None or view.run.state != "Absent" or view.spec is None:
        return None
    missing = Failure.because(
        Reason.CONNECTION_NOT_FOUND, f"spec.connectionRef: LLMConnection {view.spec.connection_ref.name} does not exist"
    )
    left = (view.created + CONNECTION_GRACE - view.now).total_seconds()
    state = reconciling if left > 0 else stalled
    facts = state(missing.reason, missing.message)
    return Decision(
        _status(view, Change(facts, {"phase": "Pending", "failure": missing})),
        requeue_after=left if left > 0 else None,
    )


def refuse_by_policy(view: JobView) -> Decision | None:
    """What the connection does not allow. A running attempt is not stopped by a later change of policy."""
    if view.run.state != "Absent" or view.spec is None or view.connection is None:
        return None
    refusal = policy.refusal(policy.Request(view.spec, view.namespace, view.namespace_labels, view.connection))
    return _fail(view, refusal) if refusal else None


def wait_for_last_pod(view: JobView) -> Decision | None:
    """Two pods never write to one output folder: the last attempt's ends first."""
    if view.run.state != "Absent" or not view.live_pods:
        return None
    facts = reconciling(Reason.PENDING, "waiting for the last attempt's pod to end")
    return Decision(_status(view, Change(facts, {"phase": "Pending"})), requeue_after=10)


def wait_before_retry(view: JobView) -> Decision | None:
    """The pause before the next attempt."""
    after = view.provider.retry_after
    left = (moment(after) - view.now).total_seconds() if after else 0
    return Decision(view.status, requeue_after=left) if view.run.state == "Absent" and left > 0 else None


def start(view: JobView) -> Decision | None:
    """No attempt is under way: start the one that status names. Its name is fixed, so it is never made twice."""
    if view.run.state != "Absent" or view.spec is None:
        return None
    attempt = max(view.provider.attempt, 1)
    provider = view.provider.model_copy(
        update={
            "name": view.connection.provider if view.connection else view.provider.name,
            "attempt": attempt,
            "retry_after": None,
            "artifact_uri": view.artifact_uri,
        }
    )
    facts = [*reconciling(Reason.QUEUED, "waiting for a pod"), *_not_suspended(view)]
    fields = {
        "phase": "Queued",
        "failure": None,
        "provider": provider,
        "start_time": view.status.start_time or timestamp(view.now),
        "observed_retry_nonce": view.spec.retry_nonce,
    }
    return Decision(_status(view, Change(facts, fields)), start=True)


def wait_for_pod(view: JobView) -> Decision | None:
    """The attempt exists and its pod does not run yet: say what it waits for."""
    if view.run.state != "Queued":
        return None
    obstacle = view.run.failure
    if obstacle is None:
        facts = reconciling(Reason.QUEUED, "waiting for a pod")
    elif obstacle.reason is Reason.UNSCHEDULABLE:
        facts = reconciling(obstacle.reason, obstacle.message)
    else:
        facts = stalled(obstacle.reason, obstacle.message)
    status = _status(view, Change(facts, {"phase": "Queued", "failure": obstacle}))
    return Decision(status, requeue_after=LATE_POD_CHECK_SECONDS if view.run.awaiting_pod else None)


def follow(view: JobView) -> Decision | None:
    """The trainer is at work: status says how far it is."""
    if view.run.state != "Active":
        return None
    report = view.run.report
    phase = PHASE_OF_REPORT.get(report.phase, view.status.phase or "Running") if report else "Running"
    facts = [*reconciling(Reason(phase), _doing(phase)), *_dataset_facts(report)]
    fields = {"phase": phase, "failure": None, **_reported(view)}
    if phase == view.status.phase and not _report_is_due(view):
        return Decision(view.status)
    return Decision(_status(view, Change(facts, fields)))


def retry_or_fail(view: JobView) -> Decision | None:
    """An attempt ended badly: the next one from the checkpoint if that can help and retries are left."""
    failure = view.run.failure
    if view.run.state == "ResultUnknown":
        failure = Failure.because(Reason.INTERRUPTED, "the trainer ended without telling its result")
    elif view.run.state != "Failed" or failure is None:
        return None
    limit = _retry_limit(view)
    retries = view.provider.retries
    may_retry = view.run.retryable or view.run.state == "ResultUnknown"
    failure = failure.model_copy(update={"attempt": view.provider.attempt})
    if not may_retry:
        return _fail(view, failure)
    if retries >= limit:
        told = f"{failure.message}; given up after {retries} retries" if retries else failure.message
        return _fail(view, failure.model_copy(update={"message": told}))
    return _retry(view, failure)


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
        *_dataset_facts(report),
        *_not_suspended(view),
    ]
    fields = {
        "phase": "Succeeded",
        "failure": None,
        "model_version": view.version,
        "result": report.result,
        "completion_time": timestamp(view.now),
        **_reported(view),
    }
    fields["train_loss"] = report.result.train_loss if report.result.train_loss is not None else fields["train_loss"]
    fields["eval_loss"] = report.result.eval_loss if report.result.eval_loss is not None else fields["eval_loss"]
    return Decision(_status(view, Change(facts, fields)), requeue_after=view.spec.ttl_seconds_after_finished)


STEPS: tuple[Callable[[JobView], Decision | None], ...] = (
    leave_deleted,
    keep_finished,
    refuse_invalid_spec,
    restart,
    suspend,
    wait_for_connection,
    refuse_by_policy,
    wait_for_last_pod,
    wait_before_retry,
    start,
    wait_for_pod,
    follow,
    retry_or_fail,
    complete,
)
"""Ended before suspended before allowed before started before followed: a test holds the order."""


def _status(view: JobView, change: Change) -> FineTuneJobStatus:
    status = view.status.model_copy(update=change.fields)
    conditions = merge(view.status.conditions, change.facts, generation=view.generation, now=view.now)
    return status.model_copy(update={"conditions": conditions, "observed_generation": view.generation})


def _fail(view: JobView, failure: Failure) -> Decision:
    facts = [
        *stalled(failure.reason, failure.message),
        Fact("Failed", "True", failure.reason, failure.message),
        *_dataset_facts(view.run.report),
        *_not_suspended(view),
    ]
    fields = {
        "phase": "Failed",
        "failure": failure,
        "completion_time": timestamp(view.now),
        "observed_retry_nonce": view.spec.retry_nonce if view.spec else view.status.observed_retry_nonce,
        **_reported(view),
    }
    # The pod is stopped by `keep_finished`, once the failure is safely in status.
    return Decision(_status(view, Change(facts, fields)), requeue_after=0)


def _retry(view: JobView, failure: Failure) -> Decision:
    retries = view.provider.retries
    delay = RETRY_DELAYS[min(retries, len(RETRY_DELAYS) - 1)]
    provider = view.provider.model_copy(
        update={
            "attempt": view.provider.attempt + 1,
            "retries": retries + 1,
            "retry_after": timestamp(view.now + timedelta(seconds=delay)),
            "last_failure": failure,
        }
    )
    message = f"attempt {view.provider.attempt} ended ({failure.reason.value}); the next one starts in {delay} s"
    fields = {"phase": "Pending", "provider": provider, **_reported(view)}
    facts = reconciling(Reason.RETRYING, message)
    return Decision(_status(view, Change(facts, fields)), requeue_after=delay)


def _retry_limit(view: JobView) -> int:
    hugging_face = view.connection.hugging_face if view.connection else None
    return hugging_face.max_retries if hugging_face else 0


def _reported(view: JobView) -> dict[str, Any]:
    """What the last report says, kept from before where it says nothing."""
    report, status = view.run.report, view.status
    loss = (report and report.loss) or status.loss
    return {
        "progress": (report and report.progress) or status.progress,
        "loss": loss,
        "train_loss": loss.last_train if loss else status.train_loss,
        "eval_loss": loss.last_validation if loss else status.eval_loss,
        "dataset": (report and report.dataset) or status.dataset,
        "evaluation": (report and report.evaluation) or status.evaluation,
    }


def _report_is_due(view: JobView) -> bool:
    new = view.run.report.progress if view.run.report else None
    old = view.status.progress
    if new is None or new.updated_at is None or old is None or old.updated_at is None:
        return True
    return old == new or moment(new.updated_at) - moment(old.updated_at) >= REPORT_INTERVAL


def _dataset_facts(report: Report | None) -> list[Fact]:
    if report is None or report.dataset is None:
        return []
    verdict = report.dataset
    return [Fact("DatasetValid", "True" if verdict.valid else "False", verdict.reason, verdict.message)]


def _not_suspended(view: JobView) -> list[Fact]:
    was = any(condition.type == "Suspended" for condition in view.status.conditions or ())
    return [Fact("Suspended", "False", Reason.RUNNING)] if was else []


def _doing(phase: str) -> str:
    return {
        "Validating": "the dataset is being read",
        "Running": "the model is being tuned",
        "Evaluating": "the tuned model is being measured",
    }.get(phase, "")
