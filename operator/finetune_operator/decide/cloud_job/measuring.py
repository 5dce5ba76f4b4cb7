"""What to do between a provider's job and the version that it makes: a pod here evaluates the model.

a model → active version recorded → deployments, where it needs them → pod → answers → result recorded → version

A failed evaluation never costs the model: the job succeeds all the same and says why it was not evaluated.
"""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from finetune_api.catalogue import ModelFacts
from finetune_api.connection import place_of_models
from finetune_api.job_status import ComparedVersion, Failure, TokenUsage
from finetune_api.reasons import Reason
from finetune_operator.decide.cloud_job import asking_cost, evaluation_hosts
from finetune_operator.decide.cloud_job.evaluation_record import (
    DEPLOYING,
    deploying,
    needs_search,
    nothing_left,
    state_of,
)
from finetune_operator.decide.conditions import Fact, moment, reconciling, resting, stalled, timestamp
from finetune_operator.decide.job.attempts import LAST_POD_CHECK_SECONDS, LATE_POD_CHECK_SECONDS
from finetune_operator.decide.job.change import in_trouble, with_status
from finetune_operator.decide.job.reported import AT_WORK, report_is_due, reported
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.steps import REJECTED_CHECK_SECONDS, named_in, pod_check_seconds
from finetune_operator.decide.job.view import Change, Decision, JobView
from finetune_operator.decide.pods.grace import grace_left
from finetune_operator.decide.pods.refused import counts_ended_objects, may_pass
from finetune_operator.decide.transient import RETRIED

MEASURED_AT = frozenset({"openAI", *evaluation_hosts.IN_DEPLOYMENTS})
"""Blocks of the providers whose models are evaluated from this cluster."""

MOST_FAILURES = 3
RETRY_DELAYS = (60, 600)
"""Seconds before the second and the third pod. The pods themselves retry, too."""

WORTH_ANOTHER_POD = RETRIED | {
    Reason.PROVIDER_UNAVAILABLE,
    Reason.RATE_LIMITED,
    Reason.QUOTA_EXCEEDED,
    Reason.CREDENTIALS_INVALID,
    Reason.SECRET_NOT_FOUND,
    Reason.STORE_UNAVAILABLE,
}
"""Failures that may pass. Others would happen again."""

ASKING = "waiting for the pod that asks the model the test set"


def is_wanted(view: JobView) -> bool:
    """Whether the model is to be evaluated from here."""
    spec = view.spec
    return spec is not None and spec.dataset.test is not None and view.provider.name in MEASURED_AT


def measure(view: JobView) -> Decision | None:
    """The step between the end of the provider's job and the registration of the version."""
    if view.run.state != "Succeeded" or not is_wanted(view):
        return None
    if state_of(view).ended:
        return release_deployments(view)
    return next(found for step in STEPS if (found := step(view)) is not None)


def release_deployments(view: JobView) -> Decision | None:
    """Release its deployments before the version is made. At its end the job checks that they are gone."""
    standing = evaluation_hosts.made(view.provider.evaluation)
    if all(one.released for one in standing):
        return None
    return Decision(view.status, host="Down", requeue_after=0)


def record(view: JobView) -> Decision | None:
    """The pod is done: the result is recorded in status before anything else happens."""
    report = _pod(view).report
    if _pod(view).state != "Measured" or report is None:
        return None
    change = _change(view, reconciling(Reason.EVALUATING, "the tuned model was measured"), ended=True, failure=None)
    progress = report.progress or view.status.progress
    change.fields.update({"evaluation": report.evaluation, "progress": progress})
    return Decision(with_status(view, change), requeue_after=0)


def enforce_deadline(view: JobView) -> Decision | None:
    """`activeDeadlineSeconds` ends the evaluation, not the job: the model exists and is paid for."""
    seconds, asked = view.spec.active_deadline_seconds if view.spec else None, view.provider.asked_at
    if seconds is None or asked is None or view.now < moment(asked) + timedelta(seconds=seconds):
        return None
    return _given_up(view, Failure.because(Reason.DEADLINE_EXCEEDED, "spec.activeDeadlineSeconds is over"))


def enforce_limits(view: JobView) -> Decision | None:
    """Limits the time, and by the budget the cost, of deployments billed by the hour, whatever the pod waits for."""
    if view.spec is None or view.spec.suspend:
        return None
    overdue = evaluation_hosts.overdue(state_of(view), view.now)
    if overdue is not None:
        found = view.status.failure
        why = f"{overdue}: {found.message}" if found else overdue
        return _given_up(view, Failure.because(found.reason if found else Reason.DEPLOYMENT_FAILED, why))
    budget, price = view.spec.budget, view.status.cost
    if budget is None or price is None or not evaluation_hosts.made(state_of(view)):
        return None
    if not asking_cost.is_spent(budget, price, _trained(view), _facts(view), _spent(view)):
        return None
    message = f"tuning, deployments and answers so far come to budget.maxCost {budget.max_cost}"
    return _given_up(view, Failure.because(Reason.BUDGET_EXCEEDED, message))


def pause(view: JobView) -> Decision | None:
    """`suspend`: the pod ends, then its deployments. With evaluation.output the next pod continues where it stopped."""
    if view.spec is None or not view.spec.suspend:
        return None
    stopping = _pod(view).state in {"Queued", "Active"}
    standing = bool(evaluation_hosts.made(state_of(view))) or needs_search(view)
    message = "stopping: answers so far are kept" if stopping else "suspended by spec.suspend"
    facts = [*resting(Reason.SUSPENDED, message), Fact("Suspended", "True", Reason.SUSPENDED, message)]
    facts += [] if standing else nothing_left(view)
    change = _change(view, facts, **_next_pod(view), retry_after=None, deploying_since=None)
    again = LAST_POD_CHECK_SECONDS if stopping or standing else None
    return Decision(
        with_status(view, change),
        measure="Stop" if stopping else None,
        host="Down" if standing and not stopping else None,
        requeue_after=again,
    )


def wait_before_retry(view: JobView) -> Decision | None:
    """The delay before another pod or deployment, and the end of the previous pod."""
    after = state_of(view).retry_after
    left = (moment(after) - view.now).total_seconds() if after else 0.0
    if _pod(view).state != "Absent" or state_of(view).job_id is not None or (left <= 0 and not view.live_pods):
        return None
    return Decision(view.status, requeue_after=max(left, LAST_POD_CHECK_SECONDS))


def prepare(view: JobView) -> Decision | None:
    """Record the model and the presently active version before the first request, so that both stay the same."""
    if view.provider.evaluation is not None:
        return None
    change = _change(view, reconciling(Reason.EVALUATING, ASKING), active_version=_active_version(view))
    return Decision(with_status(view, change), requeue_after=0)


def deploy(view: JobView) -> Decision | None:
    """Where models answer only through deployments: each deployment must answer before the pod starts."""
    if view.spec is None or _pod(view).state != "Absent" or state_of(view).job_id is not None:
        return None
    recorded = state_of(view).deployments
    tuned = evaluation_hosts.of(recorded, "tuned")
    if tuned is not None and tuned.failure is not None:
        return _given_up(view, Failure.because(Reason.DEPLOYMENT_FAILED, tuned.failure))
    if evaluation_hosts.are_settled(recorded, evaluation_hosts.needed(view.spec, view.status, view.provider.name)):
        return None
    since = state_of(view).deploying_since or timestamp(view.now)
    if recorded and evaluation_hosts.is_late(state_of(view), view.now):
        # The tuned model answers, or `enforce_limits` would have ended this. So only baselines do not answer.
        facts, left = reconciling(Reason.DEPLOYING, DEPLOYING), evaluation_hosts.given_up(recorded)
        return Decision(with_status(view, _change(view, facts, view.status.failure, deployments=left)), requeue_after=0)
    before = view.status.failure
    change = _change(view, _wanted_again(view), before, deploying_since=since, deployments_gone=False)
    status = with_status(view, change)
    if view.status.failure is None or state_of(view).retry_after is None:
        status = deploying(view, status)  # else the failure stays in status until it is known to be over
    return Decision(status, host="Up", requeue_after=LATE_POD_CHECK_SECONDS)


def _wanted_again(view: JobView) -> list[Fact]:
    """That they could not be deleted while the job was suspended is no longer a problem."""
    left = any((one.type, one.status) == ("Released", "False") for one in view.status.conditions or ())
    return [Fact("Released", "True", Reason.DEPLOYING, "they are wanted again")] if left else []


def begin(view: JobView) -> Decision | None:
    """There is no pod: start one. Its name is fixed by its number, so it is never created twice."""
    if _pod(view).state != "Absent" or state_of(view).job_id is not None:
        return None
    change = _change(view, reconciling(Reason.EVALUATING, ASKING), retry_after=None, deploying_since=None)
    return Decision(with_status(view, change), measure="Start", requeue_after=LATE_POD_CHECK_SECONDS)


def recreate(view: JobView) -> Decision | None:
    """It cannot start, and an admin has changed what it is built from: replace it, as for a check pod."""
    failure = _pod(view).failure
    if _pod(view).state != "Queued" or failure is None or not view.outdated:
        return None
    said = f"the pod that asks the model did not start ({failure.reason.value}); the next one is made by what an admin"
    change = _change(view, reconciling(Reason.EVALUATING, f"{said} has changed since"), **_next_pod(view))
    return Decision(with_status(view, change), measure="Stop", requeue_after=0)


def wait_for_pod(view: JobView) -> Decision | None:
    """It does not run yet: say why."""
    pod = _pod(view)
    if pod.state != "Queued":
        return None
    obstacle, left = named_in(view, pod.failure), grace_left(pod.failure, pod.since, view.now)
    say = reconciling if obstacle is None or left or may_pass(obstacle) else stalled
    facts = say(obstacle.reason, obstacle.message) if obstacle else reconciling(Reason.EVALUATING, ASKING)
    change = _change(view, facts, None if left else obstacle, job_id=pod.job_id)
    clear = counts_ended_objects(obstacle)
    return Decision(with_status(view, change), clear=clear, requeue_after=left or pod_check_seconds(pod, view.now))


def follow(view: JobView) -> Decision | None:
    """It is evaluating: record its progress, or why nothing answers."""
    pod = _pod(view)
    if pod.state != "Active":
        return None
    again = LATE_POD_CHECK_SECONDS if pod.ending else None
    silence, before = view.silence, view.status.failure
    told = (silence and silence.reason) == (before and before.reason)
    said = view.status.phase == "Evaluating" and told and state_of(view).job_id == pod.job_id
    if said and not report_is_due(pod.report, view.status, view.report_interval):
        return Decision(view.status, requeue_after=again)
    facts = in_trouble(silence) if silence else reconciling(Reason.EVALUATING, AT_WORK["Evaluating"])
    change = _change(view, facts, silence, job_id=pod.job_id)
    change.fields["progress"] = (pod.report and pod.report.progress) or view.status.progress
    return Decision(with_status(view, change), requeue_after=again)


def retry_or_give_up(view: JobView) -> Decision:
    """It ended without a result, or is gone: start another one if that can help."""
    gone = Failure.because(Reason.INTERRUPTED, "the pod that asks the model ended without reporting a result")
    failure = _pod(view).failure or gone
    before = state_of(view).failures
    if failure.reason not in WORTH_ANOTHER_POD or before + 1 >= MOST_FAILURES:
        return _given_up(view, failure)
    delay = RETRY_DELAYS[min(before, len(RETRY_DELAYS) - 1)]
    after = timestamp(view.now + timedelta(seconds=delay))
    message = f"the evaluation was interrupted ({failure.reason.value}); it continues at {after}: {failure.message}"
    change = _change(
        view,
        reconciling(Reason.RETRYING, message),
        **_next_pod(view),
        retry_after=after,
        deployments=evaluation_hosts.to_be_tested_again(state_of(view).deployments),
        failures=before + 1,
        failure=failure,
    )
    return Decision(with_status(view, change), requeue_after=delay)


STEPS: tuple[Callable[[JobView], Decision | None], ...] = (
    record,
    prepare,
    enforce_deadline,
    enforce_limits,
    pause,
    wait_before_retry,
    deploy,
    begin,
    recreate,
    wait_for_pod,
    follow,
    retry_or_give_up,
)
"""What is known comes before what is requested, so that existing answers are used. A test checks this order."""


def not_started(view: JobView, failure: Failure) -> Decision:
    """The API server refuses the pod's Job."""
    change = _change(view, stalled(failure.reason, failure.message), failure)
    return Decision(with_status(view, change), requeue_after=REJECTED_CHECK_SECONDS)


def _given_up(view: JobView, failure: Failure) -> Decision:
    """The version is made without an evaluation."""
    message = f"the tuned model is not measured ({failure.reason.value}): {failure.message}"
    change = _change(view, reconciling(Reason.EVALUATING, message), ended=True, failure=failure)
    stop = _pod(view).state in {"Queued", "Active"}
    return Decision(with_status(view, change), measure="Stop" if stop else None, requeue_after=0)


def _facts(view: JobView) -> ModelFacts:
    return view.facts.model(view.spec.base_model) if view.spec else ModelFacts()


def _trained(view: JobView) -> int | None:
    return view.status.result.tokens if view.status.result else None


def _spent(view: JobView) -> Decimal:
    prices = _facts(view).answers
    asked = asking_cost.spent(state_of(view), prices) if prices else Decimal(0)
    return asked + evaluation_hosts.cost(state_of(view), view.now)


def _pod(view: JobView) -> Run:
    return view.run.measuring or Run("Absent")


def _next_pod(view: JobView) -> dict[str, Any]:
    """A pod's number is used up once the pod existed."""
    used = state_of(view).job_id is not None or _pod(view).state != "Absent"
    return {"job_id": None, "tries": state_of(view).tries + used}


def _active_version(view: JobView) -> ComparedVersion | None:
    active = view.active if evaluation_hosts.compares_versions(view) else None
    if active is None or view.spec is None:
        return None
    at = place_of_models(view.provider.name, view.provider.place)
    here = active.connection == view.spec.connection_ref.name and active.place in {None, at}
    return ComparedVersion(version=active.version, model=active.provider_model_id if here else None)


def _change(view: JobView, told: list[Fact], in_the_way: Failure | None = None, **fields: Any) -> Change:
    """New values of the evaluation, with the requests so far. The model stays in status while it is evaluated."""
    report, state = view.run.report, state_of(view)
    evaluation = state.model_copy(
        update={"tuned": _more(state.tuned, view.asked_tuned), "base": _more(state.base, view.asked_base), **fields}
    )
    return Change(
        told,
        {
            "phase": "Evaluating",
            "failure": in_the_way,
            **reported(report, view.status),
            "provider": view.provider.model_copy(update={"evaluation": evaluation}),
            "result": (report and report.result) or view.status.result,
        },
    )


def _more(recorded: TokenUsage | None, counted: TokenUsage | None) -> TokenUsage | None:
    """The higher count: after a restart the operator counts on from what is recorded."""
    if recorded is None or counted is None:
        return counted or recorded
    return max(recorded, counted, key=lambda one: one.answers)
