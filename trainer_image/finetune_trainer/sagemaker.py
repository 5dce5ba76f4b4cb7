"""`finetune-trainer sagemaker`: what a training container of SageMaker runs. The recipe is that of `train`.

    /opt/ml/input/data/job/*          the job                           ─┐
    /opt/ml/input/data/train/* …      its data, as JSON lines            ├ channels, which SageMaker fills before
    /opt/ml/input/data/base/          the base model, where there is one ─┘
    /opt/ml/checkpoints/              the run's output; SageMaker keeps it in S3, and brings it back to a new instance
    /opt/ml/checkpoints/report.json   how it goes: nobody here reaches the operator, and it reads this in S3
    /opt/ml/model/model/              the artifact, and its report.json beside it; SageMaker takes them at the end
    /opt/ml/output/failure            why it failed: SageMaker's FailureReason quotes it

An instance with several GPUs is paid for whole: one process trains on each, and they get the job from the one that
SageMaker has started.
Data and model get links of fixed names, so that a checkpoint of an earlier attempt is known again.
"""

import argparse
import logging
import os
from pathlib import Path

import orjson
from pydantic import ValidationError

from finetune_api.exit_codes import ExitCode
from finetune_api.job import DataFile, Dataset, FineTuneJobSpec
from finetune_api.names import ARTIFACT_FOLDER, JOB_VARIABLE
from finetune_api.reasons import Reason
from finetune_api.sagemaker import BASE_CHANNEL, JOB_CHANNEL, REPORT_FILE, ContainerJob
from finetune_api.trainer import Report, TrainerJob
from finetune_api.verdict import SPLITS
from finetune_trainer import launch, outcome
from finetune_trainer.errors import TrainerError, places
from finetune_trainer.interruption import Interruption
from finetune_trainer.model_cache import model_path
from finetune_trainer.report import Reporter
from finetune_trainer.train import execute

REPORT_SECONDS = 10.0
"""Least time between two reports: SageMaker copies each of them to S3."""

FAILURE_BYTES = 1024
"""What SageMaker quotes of the failure file."""

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:
    """Do the job that the channels hold; the exit code is that of `train`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    root: Path = args.root
    failure = root / "output" / "failure"
    if launch.is_rank():
        return _train(root, TrainerJob.model_validate_json(os.environ[JOB_VARIABLE]), launch.message_path())
    try:
        job = trainer_job(root)
    except TrainerError as error:
        outcome.complain(error)
        _leave(failure, _sentence(error.reason, error.message, error.next_step))
        return int(error.exit_code)
    if not launch.is_needed(job):
        return _train(root, job, failure)
    os.environ[JOB_VARIABLE] = job.model_dump_json(by_alias=True, exclude_none=True)
    try:
        return launch.main(job, ("sagemaker", "--root", str(root)), failure)
    finally:
        del os.environ[JOB_VARIABLE]


def _train(root: Path, job: TrainerJob, failure: Path) -> int:
    """Do the job, or a rank's share of it; rank 0 leaves the reports of all."""
    report_file = root / "checkpoints" / REPORT_FILE
    listener = (lambda report: leave_report(report_file, report)) if launch.speaks() else None
    reporter = Reporter(job, listener=listener, interval=REPORT_SECONDS)
    interruption = Interruption()
    code = outcome.run_to_end(lambda: execute(job, reporter, interruption, allow_local=True), reporter, interruption)
    if code == ExitCode.OK and launch.speaks():
        leave_report(root / "model" / REPORT_FILE, reporter.report)
    if reporter.report.failure is not None:
        why = reporter.report.failure
        _leave(failure, _sentence(why.reason, why.message, why.next_step))
    return code


def trainer_job(root: Path) -> TrainerJob:
    """The job of the channels, with the container's folders.

    Raises:
        TrainerError: SpecInvalid, a channel is missing or holds no job that this image can do.
    """
    try:
        job = ContainerJob.model_validate_json(_only_file(root, JOB_CHANNEL).read_bytes())
    except ValidationError as error:
        message = f"the job channel holds no job for this image: {places(error)}"
        raise TrainerError(Reason.SPEC_INVALID, message) from error
    inputs = root / "output" / "inputs"
    files = {split: _linked(root, split, inputs) for split in SPLITS if getattr(job.spec.dataset, split) is not None}
    cache = _cache(root, job.spec.base_model, inputs)
    return TrainerJob(
        namespace=job.namespace,
        name=job.name,
        uid=job.uid,
        attempt=job.attempt,
        spec=job.spec.model_copy(update={"dataset": Dataset.model_validate(files)}),
        output=str(root / "checkpoints"),
        artifact_uri=job.artifact_uri,
        artifact_folder=str(root / "model" / ARTIFACT_FOLDER),
        model_cache=str(cache) if cache else None,
        air_gapped=cache is not None,
        trust_remote_code=job.trust_remote_code,
        ranks_per_node=_ranks(job.spec),
    )


def _ranks(spec: FineTuneJobSpec) -> int:
    """One for each GPU of the instance, if each of them gets a row of every step."""
    return max(1, min(gpus(), spec.hyperparameters.batch_size))


def gpus() -> int:
    """GPUs of the instance; torch counts them without touching them."""
    import torch

    return torch.cuda.device_count()


def _only_file(root: Path, channel: str) -> Path:
    """The one file of a channel.

    Raises:
        TrainerError: SpecInvalid, there is none, or more than one.
    """
    folder = root / "input" / "data" / channel
    files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    if len(files) != 1:
        message = f"channel {channel} has {len(files)} files where one is expected"
        raise TrainerError(Reason.SPEC_INVALID, message, "Start the job by the operator, which fills the channels.")
    return files[0]


def _linked(root: Path, split: str, inputs: Path) -> DataFile:
    """A split's file by a name that does not change with the attempt: what is learnt from is known by it."""
    link = inputs / f"{split}.jsonl"
    _link(link, _only_file(root, split))
    return DataFile(uri=link.as_uri(), format="JSONLines")


def _cache(root: Path, base_model: str, inputs: Path) -> Path | None:
    """A model cache with the base model, where a channel brings it."""
    folder = root / "input" / "data" / BASE_CHANNEL
    if not folder.is_dir():
        return None
    cache = inputs / "cache"
    _link(model_path(cache, base_model), folder)
    return cache


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def leave_report(path: Path, report: Report) -> None:
    """Write the report whole or not at all. Trouble with it never reaches the training."""
    _leave(path, orjson.dumps(report.wire()).decode())


def _leave(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        logger.warning("%s could not be written: %s", path, error.strerror)


def _sentence(reason: Reason, message: str, next_step: str | None) -> str:
    """The failure in one line; its reason comes first, and the operator reads it there."""
    return outcome.sentence(reason, message, next_step).encode()[:FAILURE_BYTES].decode(errors="ignore")
