"""Turns a trainer's report into status fields and conditions. Decides nothing about the job."""

from datetime import timedelta
from typing import Any

from finetune_api.evaluation import EvaluationResult
from finetune_api.job_status import FineTuneJobStatus, JobPhase, Progress, ProviderStatus, TrainingResult
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_api.trainer import Report
from finetune_api.words import counted
from finetune_operator.decide.conditions import Fact, moment

REPORT_INTERVAL = timedelta(seconds=5)
"""Default minimum time between two writes of progress. A change of phase is written at once."""

AT_WORK = {
    "Validating": "the dataset is being read",
    "Running": "the model is being tuned",
    "Evaluating": "the tuned model is being measured",
}
"""Phases of a trainer at work, which are also its job's, in words."""

LOADING = "the dataset is read, and the base model is being loaded"
"""In phase Validating, after the memory estimate: loading a large model takes much longer than reading its data."""

_AS_IT_IS = (
    "The version can be used all the same (activation IfBetter needs spec.activeVersion on the FineTunedModel for it); "
    "a job under a new name is evaluated again."
)
"""The next step if a version was not evaluated."""

_GAPS = "problem in status.evaluation.baselines says why"
"""Where to look if a baseline was not compared on every row, for example because an endpoint does not answer."""


def at_work(phase: str, report: Report | None) -> str:
    """What the trainer does in this phase, in words."""
    return LOADING if phase == "Validating" and report and report.memory else AT_WORK[phase]


def reported(report: Report | None, status: FineTuneJobStatus) -> dict[str, Any]:
    """Status fields from the last report. Where it has no value, the present one is kept."""
    loss = (report and report.loss) or status.loss
    return {
        "progress": (report and report.progress) or status.progress,
        "loss": loss,
        "train_loss": loss.last_train if loss else status.train_loss,
        "eval_loss": loss.last_validation if loss else status.eval_loss,
        "dataset": (report and report.dataset) or status.dataset,
        "memory": (report and report.memory) or status.memory,
        "evaluation": (report and report.evaluation) or status.evaluation,
        "trackers": (report and report.trackers) or status.trackers,
    }


def reported_without_eta(report: Report | None, status: FineTuneJobStatus) -> dict[str, Any]:
    """The same for a trainer that no longer works: without the estimate of the time left."""
    fields = reported(report, status)
    progress: Progress | None = fields["progress"]
    return fields | {"progress": progress and progress.model_copy(update={"eta_seconds": None})}


def last_work(report: Report | None) -> JobPhase:
    """The last phase of a trainer that has made its artifact, even if no report came during that phase."""
    return "Evaluating" if report and report.evaluation else "Running"


def report_is_due(report: Report | None, status: FineTuneJobStatus, interval: timedelta) -> bool:
    """Whether the report's progress may be written: not before `interval` has passed since the last write."""
    new = report.progress if report else None
    old = status.progress
    if new is None or new.updated_at is None or old is None or old.updated_at is None:
        return True
    # In either direction: the clocks of two attempts' nodes may differ.
    return old == new or abs(moment(new.updated_at) - moment(old.updated_at)) >= interval


def dataset_facts(report: Report | None) -> list[Fact]:
    """The condition DatasetValid, if the report has a verdict."""
    if report is None or report.dataset is None:
        return []
    verdict = report.dataset
    return [Fact("DatasetValid", "True" if verdict.valid else "False", verdict.reason, verdict.message)]


def evaluation_facts(report: Report) -> list[Fact]:
    """The condition Evaluated, if the tuned model was evaluated, or should have been."""
    failure = report.result.evaluation_failure if report.result else None
    if failure is not None:
        return [not_evaluated(failure.reason, failure.sentences)]
    if report.evaluation is None:
        return []
    return [Fact("Evaluated", "True", Reason.SUCCEEDED, in_words(report.evaluation))]


def not_evaluated(reason: Reason, why: str) -> Fact:
    """The condition Evaluated of a version that could not be evaluated. A job that succeeded is not retried for it."""
    return Fact("Evaluated", "False", reason, f"the model was made and is not measured: {why.rstrip('.')}. {_AS_IT_IS}")


def in_words(evaluation: EvaluationResult) -> str:
    """The verdict of an evaluation in one sentence, with the figures that it is based on."""
    verdict = f": {evaluation.verdict}" if evaluation.verdict else ""
    metric, found = evaluation.metric, evaluation.baselines
    beside = {"zeroShot": found.zero_shot, "fewShot": found.few_shot, "activeVersion": found.active_version}
    beside |= {endpoint.name: endpoint for endpoint in found.endpoints or ()}
    values = [
        f"{name} {value:.3f}{' (no verdict)' if one.problem and not one.verdict else ''}"
        for name, one in beside.items()
        if one and (value := one.of(metric)) is not None
    ]
    tuned = evaluation.tuned.of(metric)
    figures = f". {metric} {tuned:.3f} on {counted(evaluation.rows, 'row')}" if tuned is not None else ""
    figures += f", beside {', '.join(values)}" if figures and values else ""
    troubled = [name for name, one in beside.items() if one and one.problem]
    known = sum(one is not None for one in beside.values())
    gaps = f". Incomplete: {', '.join(troubled)} ({len(troubled)} of {counted(known, 'baseline')}); {_GAPS}"
    return f"the tuned model was measured on dataset.test{verdict}{figures}{gaps if troubled else ''}"


def push_facts(result: TrainingResult) -> list[Fact]:
    """The condition Pushed, if the job has pushes."""
    if not result.pushes:
        return []
    failed = [f"{push.target}: {push.message}" for push in result.pushes if push.message]
    if failed:
        return [Fact("Pushed", "False", Reason.PUSH_FAILED, f"{'; '.join(failed)}. {NEXT_STEP[Reason.PUSH_FAILED]}")]
    done = ", ".join(f"{push.target} is {push.revision}" for push in result.pushes)
    return [Fact("Pushed", "True", Reason.SUCCEEDED, done)]


def tracker_facts(report: Report | None) -> list[Fact]:
    """The condition Tracked, if the job has trackers and their state is known."""
    trackers = (report and report.trackers) or []
    troubles = [f"{one.name}: {one.problem}" for one in trackers if one.problem]
    if troubles:
        message = f"{'; '.join(troubles)}. {NEXT_STEP[Reason.TRACKER_FAILED]}"
        return [Fact("Tracked", "False", Reason.TRACKER_FAILED, message)]
    names = ", ".join(one.name for one in trackers)
    return [Fact("Tracked", "True", Reason.SUCCEEDED, f"followed by {names}")] if names else []


def tracker_event(old: FineTuneJobStatus, new: FineTuneJobStatus) -> tuple[str, str, str] | None:
    """Type, reason and note of the Event when a tracker starts to lose data."""
    before, now = (
        next((one for one in status.conditions or () if one.type == "Tracked"), None) for status in (old, new)
    )
    if now is None or now.status != "False" or (before is not None and before.status == "False"):
        return None
    return "Warning", now.reason, now.message


def paused(before: ProviderStatus | None) -> str:
    """What a suspended attempt leaves behind, from its record."""
    if before is None or before.name is None:
        return "nothing has begun yet"
    at_provider = before.name in {"openAI", "azureOpenAI", "bedrock"}
    if before.asked_at is None and (at_provider or (before.name == "sageMaker" and before.attempt <= 1)):
        return "no job was made at the provider"
    if not at_provider:
        return "the checkpoint is kept"
    return "its job at the provider is cancelled, and the next one is paid for from the beginning"
