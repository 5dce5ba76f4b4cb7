"""A change becomes a job's status: its conditions merged, its size within bounds. What changes is decided elsewhere."""

from finetune_api.job_status import Failure, FineTuneJobStatus
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, merge, stalled, timestamp
from finetune_operator.decide.job.reported import at_rest, dataset_facts
from finetune_operator.decide.job.status_size import fit
from finetune_operator.decide.job.view import Change, Decision, JobView


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
        **at_rest(view.run.report, view.status),
    }
    # The pod is stopped by `keep_finished`, once the failure is safely in status.
    return Decision(with_status(view, Change(facts, fields)), requeue_after=0)


def _not_suspended(view: JobView) -> list[Fact]:
    was = any(condition.type == "Suspended" for condition in view.status.conditions or ())
    return [Fact("Suspended", "False", Reason.RUNNING)] if was else []
