"""`finetune-trainer sagemaker`: what a SageMaker training container runs, with the same recipe as `train`.

    /opt/ml/input/data/job/*          the job                           ─┐
    /opt/ml/input/data/train/* …      its data, as JSON lines            ├ channels, which SageMaker fills before
    /opt/ml/input/data/base/          the base model, where there is one  │
    /opt/ml/input/data/active/        the active version, to compare with  │
    /opt/ml/input/data/code/          the job's own code, as one file     ─┘
    /opt/ml/input/config/resourceconfig.json   the job's instances, and which of them this one is
    /opt/ml/checkpoints/              the run's output; SageMaker keeps it in S3 and restores it on a new instance
    /opt/ml/checkpoints/report.json   progress: the operator cannot be reached from here, and reads it in S3
    /opt/ml/model/model/              the artifact, with its report.json beside it; SageMaker uploads them at the end
    /opt/ml/output/failure            why it failed: SageMaker's FailureReason quotes it

An instance is paid for with all its GPUs, so one process trains on each; they get the job from the process that
SageMaker started. Several instances are the nodes of one torchrun; all have the same channels and checkpoints, and only
the first one writes. Data and model are linked under fixed names, so that the checkpoints of an earlier attempt match.
"""

import argparse
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import orjson
from pydantic import ValidationError

from finetune_api.dataset import DataFile, Dataset
from finetune_api.exit_codes import ExitCode
from finetune_api.job import FineTuneJobSpec
from finetune_api.names import ARTIFACT_FOLDER, JOB_VARIABLE, MANIFEST, NODE_VARIABLE, RENDEZVOUS_PORT
from finetune_api.reasons import Reason
from finetune_api.sagemaker import ACTIVE_CHANNEL, BASE_CHANNEL, CODE_CHANNEL, JOB_CHANNEL, REPORT_FILE, ContainerJob
from finetune_api.trainer import ActiveVersionRef, Report, TrainerJob
from finetune_api.verdict import SPLITS
from finetune_api.words import cut
from finetune_trainer.attempt import launch, outcome, pod_log
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.errors import TrainerError, places
from finetune_trainer.job.code_files import unpack
from finetune_trainer.models.model_cache import model_path
from finetune_trainer.storage.durable import sha256_of
from finetune_trainer.train import execute

REPORT_SECONDS = 10.0
"""Minimum time between two reports: SageMaker copies each of them to S3."""

FAILURE_BYTES = 1024
"""How much of the failure file SageMaker quotes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hosts:
    """The instances of a job according to resourceconfig.json; the first one reports for all."""

    names: tuple[str, ...] = ("",)
    current: str = ""
    interface: str = ""
    """Network interface between the instances."""
    kind: str | None = None
    """The type of this instance."""

    @classmethod
    def of(cls, root: Path) -> Self:
        """The hosts in the file; this one alone if there is no file or only one host."""
        path = root / "input" / "config" / "resourceconfig.json"
        config = orjson.loads(path.read_bytes()) if path.is_file() else {}
        names = tuple(sorted(config.get("hosts") or ("",), key=_by_number))
        current = str(config.get("current_host", names[0]))
        kind = str(config.get("current_instance_type", ""))
        interface = str(config.get("network_interface_name", ""))
        return cls(names, current, interface, kind if kind.startswith("ml.") else None)

    @property
    def number(self) -> int:
        """The index of this host, from 0."""
        return self.names.index(self.current)

    @property
    def rendezvous(self) -> str | None:
        """The rendezvous address of torchrun; None for a single host."""
        return f"{self.names[0]}:{RENDEZVOUS_PORT}" if len(self.names) > 1 else None

    def export_to_torch(self) -> None:
        """Set node number and network in the variables that torchrun, gloo and NCCL read."""
        os.environ[NODE_VARIABLE] = str(self.number)
        if self.interface:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", self.interface)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", self.interface)


def _by_number(host: str) -> tuple[int, str]:
    """Sorts algo-10 after algo-9: the first host must not depend on how many there are."""
    number = host.rpartition("-")[2]
    return (int(number) if number.isdecimal() else 0, host)


def main(args: argparse.Namespace) -> int:
    """Run the job in the channels; the exit code is that of `train`."""
    pod_log.begin()
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
    hosts = Hosts.of(root)
    if hosts.rendezvous is not None:
        hosts.export_to_torch()
    if hosts.number:
        # A report restored from an earlier instance belongs to the first host: this one must not upload it again.
        (root / "checkpoints" / REPORT_FILE).unlink(missing_ok=True)
    os.environ[JOB_VARIABLE] = job.model_dump_json(by_alias=True, exclude_none=True)
    try:
        return launch.main(job, ("sagemaker", "--root", str(root)), failure)
    finally:
        del os.environ[JOB_VARIABLE]


def _train(root: Path, job: TrainerJob, failure: Path) -> int:
    """Run the job, or one rank's share of it; rank 0 writes the reports."""
    report_file, reports = (
        root / "checkpoints" / REPORT_FILE,
        launch.is_reporting_rank(),
    )  # asked now: training clears the rank
    log = pod_log.PodLog()

    def tell(report: Report) -> None:
        leave_report(report_file, report)
        log(report)

    reporter = Reporter(job, listener=tell if reports else None, interval=REPORT_SECONDS)
    interruption = Interruption()
    code = outcome.run_to_end(lambda: execute(job, reporter, interruption, allow_local=True), reporter, interruption)
    if code == ExitCode.OK and reports:
        leave_report(root / "model" / REPORT_FILE, reporter.report)
    if reporter.report.failure is not None:
        why = reporter.report.failure
        _leave(failure, _sentence(why.reason, why.message, why.next_step))
    return code


def trainer_job(root: Path) -> TrainerJob:
    """The job from the channels, with the container's folders.

    Raises:
        TrainerError: SpecInvalid, a channel is missing or holds no job for this image.
    """
    try:
        job = ContainerJob.model_validate_json(_only_file(root, JOB_CHANNEL).read_bytes())
    except ValidationError as error:
        message = f"the job channel holds no job for this image: {places(error)}"
        raise TrainerError(Reason.SPEC_INVALID, message) from error
    inputs, hosts = root / "output" / "inputs", Hosts.of(root)
    files = {split: _linked(root, split, inputs) for split in SPLITS if getattr(job.spec.dataset, split) is not None}
    cache = _cache(root, job.spec.base_model, inputs)
    # The next step for too little memory names another type, so use the actual one if the connection chose it.
    asked = job.spec.resources
    resources = asked.model_copy(update={"instance_type": asked.instance_type or hosts.kind})
    return TrainerJob(
        namespace=job.namespace,
        name=job.name,
        uid=job.uid,
        attempt=job.attempt,
        spec=job.spec.model_copy(update={"dataset": Dataset.model_validate(files), "resources": resources}),
        output=str(root / "checkpoints"),
        artifact_uri=job.artifact_uri,
        artifact_folder=str(root / "model" / ARTIFACT_FOLDER),
        model_cache=str(cache) if cache else None,
        air_gapped=cache is not None,
        trust_remote_code=job.trust_remote_code,
        active_version=_active(root, job.active_version),
        code=_code(root, job.spec, inputs),
        nodes=len(hosts.names),
        ranks_per_node=_ranks(job.spec, len(hosts.names)),
        rendezvous=hosts.rendezvous,
        short_of_memory=job.short_of_memory,
    )


def _ranks(spec: FineTuneJobSpec, nodes: int) -> int:
    """One per GPU of an instance, as long as each gets a row of every step; the job's own code uses all GPUs itself."""
    return 1 if spec.code is not None else max(1, min(gpus(), spec.hyperparameters.batch_size // nodes))


def _code(root: Path, spec: FineTuneJobSpec, inputs: Path) -> str | None:
    """The file of spec.code, with the ConfigMap's other keys beside it."""
    if spec.code is None:
        return None
    unpack(_only_file(root, CODE_CHANNEL), inputs / CODE_CHANNEL)
    return str(inputs / CODE_CHANNEL / spec.code.config_map_ref.key)


def gpus() -> int:
    """Number of GPUs of the instance; torch counts them without initialising them."""
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
    """A split's file under a fixed name, since checkpoints identify their data by it."""
    link = inputs / f"{split}.jsonl"
    _link(link, _only_file(root, split))
    return DataFile(uri=link.as_uri(), format="JSONLines")


def _cache(root: Path, base_model: str, inputs: Path) -> Path | None:
    """A model cache with the base model, if there is a channel with it."""
    folder = root / "input" / "data" / BASE_CHANNEL
    if not folder.is_dir():
        return None
    cache = inputs / "cache"
    _link(model_path(cache, base_model), folder)
    return cache


def _active(root: Path, version: ActiveVersionRef | None) -> ActiveVersionRef | None:
    """The version to compare with; with a folder only if the channel contains exactly that version."""
    if version is None:
        return None
    folder = root / "input" / "data" / ACTIVE_CHANNEL
    manifest = folder / MANIFEST
    digest = sha256_of(manifest) if manifest.is_file() else None
    if not folder.is_dir() or (version.sha256 is not None and version.sha256 != digest):
        return version
    return version.model_copy(update={"folder": str(folder)})


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def leave_report(path: Path, report: Report) -> None:
    """Write the report atomically. Errors are logged and never reach the training."""
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
    """The failure in one line, starting with its reason, which the operator reads."""
    return cut(outcome.sentence(reason, message, next_step), FAILURE_BYTES, as_bytes=True)
