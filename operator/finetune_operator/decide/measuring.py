"""What to do between a provider's job and the version that it makes: a pod here asks the model the test set.

a model → active version recorded → pod → answers → result recorded → version

Nothing that becomes of it costs the model: where it cannot be measured, the job succeeds all the same and says why.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from finetune_api.job_status import Asked, ComparedVersion, Failure, FineTuneJobStatus, ProviderEvaluation
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, moment, reconciling, resting, stalled, timestamp
from finetune_operator.decide.job import (
    LAST_POD_CHECK_SECONDS,
    LATE_POD_CHECK_SECONDS,
    REJECTED_CHECK_SECONDS,
    with_status,
)
from finetune_operator.decide.job_view import Change, Decision, JobView
from finetune_operator.decide.reported import doing, report_is_due, reported
from finetune_operator.decide.run import RETRIED, Run

MEASURED_AT = frozenset({"openAI"})
"""Provider blocks of those whose models answer without a deployment that is billed by the hour."""

MOST_FAILURES = 3
RETRY_DELAYS = (60, 600)
"""Seconds before the second and the third pod: the pods themselves have been patient."""

WORTH_ANOTHER_POD = RETRIED | {
    Reason.PROVIDER_UNAVAILABLE,
    Reason.RATE_LIMITED,
    Reason.QUOTA_EXCEEDED,
    Reason.CREDENTIALS_INVALID,
    Reason.SECRET_NOT_FOUND,
    Reason.STORE_UNAVAILABLE,
}
"""What may be otherwise in a while. Other failures would be met again."""

ASKING = "waiting for the pod that asks the model the test set"


def is_wanted(view: JobView) -> bool:
    """Whether the model is to be measured here."""
    spec = view.spec
    return spec is not None and spec.dataset.test is not None and view.provider.name in MEASURED_AT


def compares_versions(view: JobView) -> bool:
    """Whether the tuned model is compared with the active version: the job names it, or the activation rests on it."""
    return view.spec is not None and (view.if_better or view.spec.evaluation.has("activeVersion"))


def measure(view: JobView) -> Decision | None:
    """The step between the provider's end and the version's beginning."""
    if view.run.state != "Succeeded" or not is_wanted(view) or _state(view).ended:
        return None
    return next(found for step in STEPS if (found := step(view)) is not None)


def record(view: JobView) -> Decision | None:
    """The pod is done: what came out is in status before anything else happens."""
    report = _pod(view).report
    if _pod(view).state != "Measured" or report is None:
        return None
    change = _change(view, reconciling(Reason.EVALUATING, "the tuned model was measured"), ended=True, failure=None)
    progress = report.progress or view.status.progress
    change.fields.update({"evaluation": report.evaluation, "progress": progress, "failure": None})
    return Decision(with_status(view, change), requeue_after=0)


def enforce_deadline(view: JobView) -> Decision | None:
    """`activeDeadlineSeconds` ends the asking, not the job: the model is there and paid for."""
    seconds, asked = view.spec.active_deadline_seconds if view.spec else None, view.provider.asked_at
    if seconds is None or asked is None or view.now < moment(asked) + timedelta(seconds=seconds):
        return None
    return _given_up(view, Failure.because(Reason.DEADLINE_EXCEEDED, "spec.activeDeadlineSeconds is over"))


def pause(view: JobView) -> Decision | None:
    """`suspend`: the pod ends. With evaluation.output the next one goes on where it was."""
    if view.spec is None or not view.spec.suspend:
        return None
    stopping = _pod(view).state in {"Queued", "Active"}
    message = "stopping: answers so far are kept" if stopping else "suspended by spec.suspend"
    facts = [*resting(Reason.SUSPENDED, message), Fact("Suspended", "True", Reason.SUSPENDED, message)]
    change = _change(view, facts, **_next_pod(view), retry_after=None)
    change.fields.update({"phase": "Suspended", "failure": None})
    again = LAST_POD_CHECK_SECONDS if stopping else None
    return Decision(with_status(view, change), measure="Stop" if stopping else None, requeue_after=again)


def wait_before_retry(view: JobView) -> Decision | None:
    """The pause before another pod, and the end of the one before."""
    after = _state(view).retry_after
    left = (moment(after) - view.now).total_seconds() if after else 0.0
    if _pod(view).state != "Absent" or _state(view).job_id is not None or (left <= 0 and not view.live_pods):
        return None
    return Decision(view.status, requeue_after=max(left, LAST_POD_CHECK_SECONDS))


def prepare(view: JobView) -> Decision | None:
    """The model, and the version that is active now, are in status before anybody is asked: they stay what they are."""
    if view.provider.evaluation is not None:
        return None
    change = _change(view, reconciling(Reason.EVALUATING, ASKING), active_version=_active_version(view))
    change.fields["failure"] = None
    return Decision(with_status(view, change), requeue_after=0)


def begin(view: JobView) -> Decision | None:
    """No pod is there: it is started. Its name is fixed by its number, so it is never made twice."""
    if _pod(view).state != "Absent" or _state(view).job_id is not None:
        return None
    change = _change(view, reconciling(Reason.EVALUATING, ASKING), retry_after=None)
    change.fields["failure"] = None
    return Decision(with_status(view, change), measure="Start", requeue_after=LATE_POD_CHECK_SECONDS)


def wait_for_pod(view: JobView) -> Decision | None:
    """It does not run yet: say why."""
    pod = _pod(view)
    if pod.state != "Queued":
        return None
    obstacle = pod.failure
    say = reconciling if obstacle is None or obstacle.reason is Reason.UNSCHEDULABLE else stalled
    facts = say(obstacle.reason, obstacle.message) if obstacle else reconciling(Reason.EVALUATING, ASKING)
    change = _change(view, facts, job_id=pod.job_id)
    change.fields["failure"] = obstacle
    again = LATE_POD_CHECK_SECONDS if pod.awaiting_pod or pod.ending else None
    return Decision(with_status(view, change), requeue_after=again)


def follow(view: JobView) -> Decision | None:
    """It asks: status says how far it is."""
    pod = _pod(view)
    if pod.state != "Active":
        return None
    again = LATE_POD_CHECK_SECONDS if pod.ending else None
    said = view.status.phase == "Evaluating" and view.status.failure is None and _state(view).job_id == pod.job_id
    if said and not report_is_due(pod.report, view.status, view.report_interval):
        return Decision(view.status, requeue_after=again)
    change = _change(view, reconciling(Reason.EVALUATING, doing("Evaluating")), job_id=pod.job_id)
    change.fields["failure"] = None
    change.fields["progress"] = (pod.report and pod.report.progress) or view.status.progress
    return Decision(with_status(view, change), requeue_after=again)


def retry_or_give_up(view: JobView) -> Decision:
    """It ended without a result, or is gone: another one, where that can help."""
    gone = Failure.because(Reason.INTERRUPTED, "the pod that asks the model ended without telling its result")
    failure = _pod(view).failure or gone
    before = _state(view).failures
    if failure.reason not in WORTH_ANOTHER_POD or before + 1 >= MOST_FAILURES:
        return _given_up(view, failure)
    delay = RETRY_DELAYS[min(before, len(RETRY_DELAYS) - 1)]
    after = timestamp(view.now + timedelta(seconds=delay))
    message = f"measuring the model broke off ({failure.reason.value}); it goes on at {after}: {failure.message}"
    change = _change(
        view,
        reconciling(Reason.RETRYING, message),
        **_next_pod(view),
        retry_after=after,
        failures=before + 1,
        failure=failure,
    )
    change.fields["failure"] = None
    return Decision(with_status(view, change), requeue_after=delay)


STEPS: tuple[Callable[[JobView], Decision | None], ...] = (
    record,
    prepare,
    enforce_deadline,
    pause,
    wait_before_retry,
    begin,
    wait_for_pod,
    follow,
    retry_or_give_up,
)
"""What is known comes before what is asked: answers that are there are not thrown away. A test holds the order."""


def not_started(view: JobView, failure: Failure) -> Decision:
    """The API server refuses the pod's Job."""
    change = _change(view, stalled(failure.reason, failure.message))
    change.fields["failure"] = failure
    return Decision(with_status(view, change), requeue_after=REJECTED_CHECK_SECONDS)


def started(status: FineTuneJobStatus, job_id: str) -> FineTuneJobStatus:
    """The status once the pod's Job is there."""
    provider = status.provider
    if provider is None or provider.evaluation is None:
        return status
    evaluation = provider.evaluation.model_copy(update={"job_id": job_id})
    return status.model_copy(update={"provider": provider.model_copy(update={"evaluation": evaluation})})


def facts(view: JobView) -> list[Fact]:
    """The condition Evaluated of a job whose model could not be measured."""
    failure = view.provider.evaluation.failure if view.provider.evaluation else None
    if failure is None:
        return []
    message = f"the model was made and is not measured: {failure.message}"
    return [Fact("Evaluated", "False", failure.reason, message)]


def _given_up(view: JobView, failure: Failure) -> Decision:
    """The version is made without."""
    message = f"the tuned model is not measured ({failure.reason.value}): {failure.message}"
    change = _change(view, reconciling(Reason.EVALUATING, message), ended=True, failure=failure)
    change.fields["failure"] = None
    stop = _pod(view).state in {"Queued", "Active"}
    return Decision(with_status(view, change), measure="Stop" if stop else None, requeue_after=0)


def _pod(view: JobView) -> Run:
    return view.run.measuring or Run("Absent")


def _state(view: JobView) -> ProviderEvaluation:
    return view.provider.evaluation or ProviderEvaluation()


def _next_pod(view: JobView) -> dict[str, Any]:
    """A pod's number is used up once it was there."""
    used = _state(view).job_id is not None or _pod(view).state != "Absent"
    return {"job_id": None, "tries": _state(view).tries + used}


def _active_version(view: JobView) -> ComparedVersion | None:
    active = view.active if compares_versions(view) else None
    if active is None or view.spec is None:
        return None
    here = active.connection == view.spec.connection_ref.name
    return ComparedVersion(version=active.version, model=active.artifact.provider_model_id if here else None)


def _change(view: JobView, told: list[Fact], **fields: Any) -> Change:
    """New values of the evaluation, with what was asked by now; the model is in status as long as it is measured."""
    report, state = view.run.report, _state(view)
    evaluation = state.model_copy(
        update={"tuned": _more(state.tuned, view.asked_tuned), "base": _more(state.base, view.asked_base), **fields}
    )
    return Change(
        told,
        {
            "phase": "Evaluating",
            **reported(report, view.status),
            "provider": view.provider.model_copy(update={"evaluation": evaluation}),
            "result": (report and report.result) or view.status.result,
        },
    )


def _more(recorded: Asked | None, counted: Asked | None) -> Asked | None:
    """What was counted since; an operator that has just begun counts from what is recorded."""
    if recorded is None or counted is None:
        return counted or recorded
    return max(recorded, counted, key=lambda one: one.answers)
