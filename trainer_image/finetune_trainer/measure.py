"""`finetune-trainer measure`: the pod that evaluates a model that stays at its provider.

read the test set → ask the tuned model and its baselines through the operator → compare → report

Needs no torch; the pod has no provider credentials. With evaluation.output, answers and report outlive the pod.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_api.names import SCRATCH_PATH
from finetune_api.reasons import Reason
from finetune_api.trainer import MeasureJob
from finetune_trainer.attempt import outcome, pod_log
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter, pod_reporter
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.at_provider import AskingProvider
from finetune_trainer.evaluation.contest import Contest
from finetune_trainer.evaluation.endpoint import Way
from finetune_trainer.evaluation.kept import forget
from finetune_trainer.evaluation.material import prepare_by_length
from finetune_trainer.evaluation.operator_way import operator_way
from finetune_trainer.evaluation.page import page
from finetune_trainer.job.given import job_given
from finetune_trainer.storage.durable import whole_folder

REPORT_FOLDER = "report"

BY_HAND = "By hand: finetune-trainer run, which measures what it tunes on dataset.test."


def main(args: argparse.Namespace) -> int:  # noqa: ARG001 - it has no flags
    """Measure the model of the job that FINETUNE_JOB describes."""
    pod_log.begin()
    try:
        job = job_given(MeasureJob, BY_HAND)
    except TrainerError as error:
        return outcome.complain(error)
    reporter, interruption = pod_reporter(job), Interruption()
    return outcome.run_to_end(lambda: measure(job, operator_way(), reporter, interruption), reporter, interruption)


def measure(job: MeasureJob, way: Way, reporter: Reporter, interruption: Interruption) -> None:
    """Evaluate the model; afterwards the report says Measured, with the results.

    Raises:
        TrainerError: the test set cannot be read or has changed, or the evaluation stopped early.
    """
    reporter.update(phase="Evaluating", progress=job.progress)
    material = prepare_by_length(job)
    if material is None:
        raise TrainerError(Reason.SPEC_INVALID, "spec.dataset.test: without it there is nothing to ask")
    with _folder(job) as folder:
        asking = AskingProvider(job, folder, material=material, way=way, reporter=reporter, interruption=interruption)
        contest = asking.measure()
        if job.output is not None:
            leave_report(job, folder, contest)
            forget(folder)
    reporter.update(phase="Measured", evaluation=contest.result)


@contextmanager
def _folder(job: MeasureJob) -> Iterator[Path]:
    """Where answers are kept: the folder that the job names, otherwise scratch space that is deleted with the pod."""
    if job.output is not None:
        yield Path(job.output)
        return
    with tempfile.TemporaryDirectory(dir=SCRATCH_PATH) as scratch:
        yield Path(scratch)


def leave_report(job: MeasureJob, folder: Path, contest: Contest) -> None:
    """Write report.html, evaluation.jsonl and evaluation.json, all of them or none.

    Raises:
        TrainerError: ArtifactFailed.
    """
    about: dict[str, Any] = {
        "baseModel": job.spec.base_model,
        "job": {"namespace": job.namespace, "name": job.name, "uid": job.uid, "attempt": job.attempt},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with whole_folder(folder / REPORT_FOLDER, **about) as final:
        written = page(
            job,
            dataset=job.dataset,
            audited=(),
            curves="",
            contest=contest,
            settings={"base model": job.spec.base_model, "epochs": f"{job.spec.hyperparameters.epochs:g}"},
        )
        (final / "report.html").write_text(written, encoding="utf-8", errors="backslashreplace")
        contest.write_rows(final / "evaluation.jsonl")
        text = json.dumps(contest.result.wire(), indent=2) + "\n"
        (final / "evaluation.json").write_text(text, encoding="utf-8")
