"""Applies a change to a job's status: merges conditions and limits its size. What changes is decided elsewhere."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from finetune_api.base import Condition
from finetune_api.job_status import Failure, FineTuneJobStatus, JobPhase
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_api.words import cut
from finetune_operator.decide.conditions import Fact, is_true, merge, reconciling, stalled, timestamp
from finetune_operator.decide.job.reported import dataset_facts, reported_without_eta, tracker_facts
from finetune_operator.decide.job.status_size import fit
from finetune_operator.decide.job.view import Change, Decision, JobView
from finetune_operator.decide.pods.grace import grace_left
from finetune_operator.decide.transient import TEMPORARY


def with_status(view: JobView, change: Change) -> FineTuneJobStatus:
    """The job's status after the change: conditions merged, phase derived from them, size within the limit."""
    facts = change.facts
    if not any(fact.type == "Suspended" for fact in facts):
        facts = [*facts, *_not_suspended(view, facts)]
    conditions = merge(view.status.conditions, facts, generation=view.generation, now=view.now)
    status = view.status.model_copy(update=change.fields)
    told = {"phase": _phase(status.phase, conditions), "conditions": conditions, "observed_generation": view.generation}
    return fit(status.model_copy(update=told))


_PHASES_OF: dict[str, JobPhase] = {"Complete": "Succeeded", "Failed": "Failed", "Suspended": "Suspended"}
"""The phase that goes with each condition of a job that has ended or is suspended."""


def _phase(phase: JobPhase | None, conditions: list[Condition]) -> JobPhase:
    """The phase that fits these conditions: an end or a suspension comes only from them, whatever status says.

    A job has a phase from its first status on, even if that only reports an obstacle.
    """
    come_to = next((phase_of for kind, phase_of in _PHASES_OF.items() if is_true(conditions, kind)), None)
    return come_to or ("Pending" if phase is None or phase in _PHASES_OF.values() else phase)


ASK_AGAIN_SECONDS = 60

_WAY_ON = "spec.retryNonce; if the job itself has to change, apply it under a new name."
_ANOTHER_JOB = "apply the job under a new name."
_MENDED_BY_ANOTHER_JOB = frozenset(
    {Reason.SPEC_INVALID, Reason.MODEL_UNUSABLE, Reason.MODEL_RETIRED, Reason.FINE_TUNING_CLOSED}
)
"""Reasons whose cause is an immutable field, unless the failure has a next step of its own."""
_STEP_LIMIT = 1024 - len(f" Then set {_WAY_ON}")
"""The longest step that leaves room for this ending within the field's limit."""


def fail(view: JobView, failure: Failure) -> Decision:
    """End the job for this reason. It does not continue automatically, so the next step says how to continue it."""
    failure = failure.model_copy(update={"next_step": _with_way_on(failure)})
    facts = [
        *stalled(failure.reason, failure.message),
        Fact("Failed", "True", failure.reason, failure.message),
        *dataset_facts(view.run.report),
        *tracker_facts(view.run.report),
    ]
    fields = {
        "failure": failure,
        "completion_time": timestamp(view.now),
        "observed_retry_nonce": view.spec.retry_nonce if view.spec else view.status.observed_retry_nonce,
        **reported_without_eta(view.run.report, view.status),
    }
    # `keep_finished` stops the pod once the failure is recorded in status.
    return Decision(with_status(view, Change(facts, fields)), requeue_after=0)


def in_trouble(failure: Failure) -> list[Fact]:
    """The conditions while this failure persists."""
    say = reconciling if failure.reason in TEMPORARY else stalled
    return say(failure.reason, failure.message)


def trouble(view: JobView, failure: Failure, again: float) -> Decision:
    """Report the obstacle in status, keep the phase, and try again."""
    comes = grace_left(failure, view.created, view.now) > 0
    facts = reconciling(failure.reason, failure.message) if comes else in_trouble(failure)
    status = with_status(view, Change(facts, {"failure": None if comes else failure}))
    return Decision(status, requeue_after=max(1.0, again))


def with_facts(view: JobView, decision: Decision, facts: Iterable[Fact], **fields: Any) -> Decision:
    """The decision with these facts added to its conditions, and with these status fields."""
    conditions = merge(decision.status.conditions, facts, generation=view.generation, now=view.now)
    return replace(decision, status=decision.status.model_copy(update={**fields, "conditions": conditions}))


def _with_way_on(failure: Failure) -> str:
    step, way_on = failure.next_step, f"set {_WAY_ON}"
    if failure.reason in _MENDED_BY_ANOTHER_JOB and step in {None, NEXT_STEP.get(failure.reason)}:
        step, way_on = step or "Correct what the message names.", _ANOTHER_JOB
    if step is None:
        return f"Set {_WAY_ON}"
    known = "retryNonce" in step or "new name" in step
    return step if known else f"{cut(step, _STEP_LIMIT)} Then {way_on}"


def _not_suspended(view: JobView, facts: list[Fact]) -> list[Fact]:
    """Ends a suspension. New trouble of a job that is still to be suspended does not; its end or deletion does."""
    ends = any(fact.type in {"Complete", "Failed"} and fact.status == "True" for fact in facts)
    rests = view.spec is not None and view.spec.suspend and not (ends or view.deleting)
    was = any(condition.type == "Suspended" for condition in view.status.conditions or ())
    return [Fact("Suspended", "False", Reason.RUNNING)] if was and not rests else []
