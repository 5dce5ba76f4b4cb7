"""Detects a running trainer that has not reported for long: it hangs, or its reports do not arrive. It is not ended.

A trainer reports whenever it makes progress, so silence may mean either. Its end still shows in its pod's status.
"""

from datetime import datetime

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import moment, timestamp
from finetune_operator.decide.job.view import JobView

WHILE_LOADING = 4
"""The allowed silence is this many times longer while data are read and a model is loaded, with few reports."""


def left(view: JobView) -> float | None:
    """Seconds until the silence is too long, 0 or less if it is; None if no report is expected."""
    since = _since(view)
    if since is None:
        return None
    phase = view.run.report.phase if view.run.report else view.status.phase
    patience = view.patience * (1 if phase in {"Running", "Evaluating"} else WHILE_LOADING)
    return (since + patience - view.now).total_seconds()


def failure(view: JobView) -> Failure | None:
    """The failure to report, if any. One that another process has reported stays until the trainer reports again."""
    since, seconds, before = _since(view), left(view), view.status.failure
    if since is None or seconds is None:
        return None
    if before is not None and before.reason is Reason.TRAINER_SILENT and view.run.report is None:
        return before
    if seconds > 0:
        return None
    progress = (view.run.report and view.run.report.progress) or view.status.progress
    where = f", at step {progress.step} of {progress.total_steps}" if progress else ""
    said = f"the trainer has not reported since {timestamp(since)}{where}"
    why = view.run.note or "it hangs, or its reports do not come through"
    return Failure.because(Reason.TRAINER_SILENT, f"{said}: {why}")


def _since(view: JobView) -> datetime | None:
    """When the trainer last reported, or started. Users' own code need not report at all."""
    report = view.run.report
    mute = view.spec is not None and view.spec.code is not None and not (report and report.progress)
    if view.run.state != "Active" or view.run.ending or view.last_report_at is None or mute:
        return None
    # Progress in status may have been reported to another process: to a previous leader, or to a second one by mistake.
    progress = view.status.progress
    told = moment(progress.updated_at) if progress and progress.updated_at else None
    return max(found for found in (view.last_report_at, view.run.started_at, told) if found is not None)
