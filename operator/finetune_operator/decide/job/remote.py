"""A job at a provider outside of the cluster, as all providers' modules describe it, and its `Run`. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal

from finetune_api.job_status import (
    LOSS_POINTS,
    ArtifactRef,
    Failure,
    FineTuneJobStatus,
    Loss,
    LossPoint,
    Progress,
    TrainingResult,
)
from finetune_api.reasons import Reason
from finetune_api.trainer import Report, RunPhase, thin
from finetune_operator.decide.conditions import moment, timestamp
from finetune_operator.decide.job.reported import AT_WORK
from finetune_operator.decide.job.run import Run

SETTLE = timedelta(seconds=120)
"""How long a new object may be missing from a provider's lists. Longer than any of our calls takes."""

UNDATED = datetime.fromtimestamp(0, UTC)
"""Creation time of a job whose provider does not tell it."""

RemoteState = Literal["Queued", "Active", "Succeeded", "Failed", "Cancelled", "Gone"]


def settles_in(made_at: str | None, now: datetime) -> float:
    """Seconds for which the provider may not show an object created at `made_at` yet; 0 if it must show it by now."""
    return max(0.0, (moment(made_at) + SETTLE - now).total_seconds()) if made_at else 0.0


@dataclass(frozen=True)
class JobKey:
    """Identifies an attempt at a provider. Everything that is created there carries it."""

    namespace: str
    name: str
    uid: str
    attempt: int
    created: datetime
    """When the FineTuneJob was created: nothing older at the provider can belong to it."""

    @property
    def token(self) -> str:
        """The same for every call of this attempt, and for no other attempt."""
        return sha256(f"{self.uid}/{self.attempt}".encode()).hexdigest()[:32]

    @property
    def mark(self) -> str:
        """Enough of the token to recognise the attempt's model, in a name that people read."""
        return f"-{self.token[:8]}"

    @property
    def file_prefix(self) -> str:
        """Prefix of the file names of all attempts of the job."""
        return f"finetune-{self.uid}-"

    @property
    def attempt_prefix(self) -> str:
        """Prefix of the file names of one attempt."""
        return f"{self.file_prefix}{self.attempt}-"

    def file_name(self, split: str, digest: str) -> str:
        """Name of a file: it identifies the attempt and the content."""
        return f"{self.attempt_prefix}{split}-{digest[:16]}.jsonl"


@dataclass(frozen=True)
class RemoteJob:
    """A job as its provider shows it."""

    id: str
    state: RemoteState
    created: datetime
    note: str = ""
    """What it is doing, in words."""
    model: str | None = None
    """Name of the tuned model or, where that is files, their URI, once there is one."""
    nameless: bool = False
    """Whether it has succeeded and its model has no name yet: until then the model cannot be called."""
    tokens: int | None = None
    """Billed tokens, once known."""
    billed_seconds: int | None = None
    """Billed seconds, once known."""
    ends: datetime | None = None
    """When it ended or, while it runs, when the provider expects it to end."""
    failure: Failure | None = None
    results: tuple[str, ...] = ()
    """IDs of the files with the training's metrics."""
    training_file: str = ""
    base: str = ""
    """The model that it was tuned from, by the provider's name."""
    suffix: str = ""
    """What its model's name will contain, where the provider shows that before there is a model."""
    labels: dict[str, str] = field(default_factory=dict)
    told_by_report: bool = False
    """Whether only its trainer's report tells what it has made: without the report there is no version."""
    partial: bool = False
    """From a list, without what only the job itself shows, such as why it failed or what it has written."""

    @property
    def dated(self) -> bool:
        """Whether the provider tells when it was created."""
        return self.created > UNDATED

    @property
    def ended(self) -> bool:
        """Whether it can no longer change."""
        return self.state not in {"Queued", "Active"}


@dataclass(frozen=True)
class Metrics:
    """The loss and the progress, as far as the provider reports them."""

    train: tuple[LossPoint, ...] = ()
    validation: tuple[LossPoint, ...] = ()
    step: int = 0
    total_steps: int = 0
    report: Report | None = None
    """The whole report, where the provider runs our own trainer."""


def is_of(job: RemoteJob, key: JobKey, training_file: str) -> bool:
    """Whether a job at the provider is this attempt: by its labels where the provider keeps them, else by its data.

    The training file was uploaded for this attempt only, under a name that says so. After the job has ended the file is
    deleted, and may be uploaded again under another ID. Then the model's name tells: it contains the attempt's mark.
    """
    if "uid" in job.labels:
        return job.labels["uid"] == key.uid and job.labels.get("attempt") == str(key.attempt)
    named = (job.suffix, (job.model or "").replace(job.base, ""))  # a tuned base has the mark of another attempt
    its_data = job.training_file == training_file or job.training_file.startswith(key.attempt_prefix)
    return (bool(job.training_file) and its_data) or any(key.mark in name for name in named)


def run_of(job: RemoteJob, metrics: Metrics, key: JobKey, status: FineTuneJobStatus, now: datetime) -> Run:
    """The attempt's state, from its job at the provider."""
    if job.labels.get("namespace", key.namespace) != key.namespace:
        return Run("Failed", failure=_of_others(job), job_id=job.id)
    run = _run_of(job, metrics, key, status, now)
    return replace(run, billed_seconds=job.billed_seconds, billed_tokens=job.tokens, base=job.base)


def _run_of(job: RemoteJob, metrics: Metrics, key: JobKey, status: FineTuneJobStatus, now: datetime) -> Run:
    if job.state == "Gone":
        gone = Failure.because(
            Reason.DELETED_AT_PROVIDER, f"job {job.id} is not at the provider: it was deleted, or is of another account"
        )
        return Run("Failed", failure=gone, job_id=job.id)
    if job.state == "Cancelled":
        cancelled = Failure.because(Reason.CANCELLED_AT_PROVIDER, f"job {job.id} was cancelled at the provider")
        return Run("Failed", report=_report("Failed", job, metrics, key, status, now), failure=cancelled, job_id=job.id)
    told = metrics.report.failure if metrics.report else None
    if job.state == "Failed" or (job.state == "Succeeded" and told is not None):
        unknown = Failure.because(Reason.PROVIDER_FAILED, f"job {job.id} failed without a reason")
        failure = told or job.failure or unknown
        return Run("Failed", report=_report("Failed", job, metrics, key, status, now), failure=failure, job_id=job.id)
    if job.state == "Succeeded":
        return Run("Succeeded", report=_report("Succeeded", job, metrics, key, status, now), job_id=job.id)
    report = _report("Running", job, metrics, key, status, now) if job.state == "Active" else None
    return Run(job.state, report=report, job_id=job.id, note=job.note, nameless=job.nameless)


def is_named(shown: str, asked: str) -> bool:
    """Whether a provider's name of a model may be the manifest's: with a date or version added, or as an ARN."""
    names = sorted((name.rpartition("/")[2].casefold() for name in (shown, asked)), key=len)
    return names[1].startswith(names[0]) and re.match("(|[-:@]v?[0-9].*)$", names[1][len(names[0]) :]) is not None


def _of_others(job: RemoteJob) -> Failure:
    """Only adoption leads here: the job's model could reveal the training data of another namespace."""
    message = f"spec.adopt.jobID: job {job.id} was made for a FineTuneJob of another namespace"
    step = (
        "Adopt it in that namespace, or apply a job under a new name with the ID of one that was not made by this "
        "operator."
    )
    return Failure(reason=Reason.SPEC_INVALID, message=message, next_step=step)


def _report(  # noqa: PLR0917 - what a report is made of
    phase: RunPhase, job: RemoteJob, metrics: Metrics, key: JobKey, status: FineTuneJobStatus, now: datetime
) -> Report:
    """What a pod would have reported."""
    loss = merged(status.loss, metrics)
    if metrics.report is not None:
        return _own_report(phase, job, metrics.report, key, status, loss)
    return Report(
        namespace=key.namespace,
        name=key.name,
        uid=key.uid,
        attempt=key.attempt,
        phase=phase,
        progress=_progress(job, metrics, status, now),
        loss=loss,
        result=_result(job, metrics, loss, status) if phase == "Succeeded" else None,
    )


def _own_report(  # noqa: PLR0917 - what a report is made of
    phase: RunPhase, job: RemoteJob, said: Report, key: JobKey, status: FineTuneJobStatus, loss: Loss | None
) -> Report:
    """Our own trainer's report, without its dataset verdict: it saw data that a check pod had already converted."""
    train = status.dataset.train if status.dataset else None
    result = said.result
    if result is not None:
        artifact = result.artifact.model_copy(update={"uri": job.model or result.artifact.uri})
        result = result.model_copy(
            update={"artifact": artifact, "dataset_sha256": train.sha256 if train else result.dataset_sha256}
        )
    return said.model_copy(
        update={
            "namespace": key.namespace,
            "name": key.name,
            "uid": key.uid,
            "attempt": key.attempt,
            "phase": said.phase if phase == "Running" and said.phase in AT_WORK else phase,
            "loss": loss,
            "dataset": None,
            "result": result if phase == "Succeeded" else None,
        }
    )


def merged(before: Loss | None, metrics: Metrics) -> Loss | None:
    """The curves in status with the new points: a provider may show only its newest ones."""
    before = before or Loss()
    train = _curve(before.train, metrics.train)
    validation = _curve(before.validation, metrics.validation)
    return Loss(train=train, validation=validation) if train or validation else None


def _curve(before: Iterable[LossPoint], new: Iterable[LossPoint]) -> list[LossPoint]:
    points = {point.step: point for point in (*before, *new)}
    return thin([points[step] for step in sorted(points)], LOSS_POINTS)


def _progress(job: RemoteJob, metrics: Metrics, status: FineTuneJobStatus, now: datetime) -> Progress | None:
    """None where the provider does not tell the number of steps."""
    if not metrics.total_steps:
        return status.progress
    left = (job.ends - now).total_seconds() if job.ends and not job.ended else None
    return Progress(
        step=metrics.step,
        total_steps=metrics.total_steps,
        percent=min(100, 100 * metrics.step // metrics.total_steps),
        eta_seconds=max(0, round(left)) if left is not None else None,
        updated_at=timestamp(now),
    )


def _result(job: RemoteJob, metrics: Metrics, loss: Loss | None, status: FineTuneJobStatus) -> TrainingResult:
    train = status.dataset.train if status.dataset else None
    return TrainingResult(
        artifact=ArtifactRef(provider_model_id=job.model),
        steps=metrics.step,
        tokens=job.tokens,
        train_loss=loss.last_train if loss else None,
        eval_loss=loss.last_validation if loss else None,
        **(loss.last_rewards if loss else {}),
        runtime_seconds=_took(job),
        dataset_sha256=train.sha256 if train else None,
    )


def _took(job: RemoteJob) -> int | None:
    """Seconds from creation to end; None where the provider's times contradict each other."""
    if job.ends is None or not job.dated or job.ends < job.created:
        return None
    return round((job.ends - job.created).total_seconds())


def oldest(jobs: Sequence[RemoteJob]) -> RemoteJob:
    """The job that was created first."""
    return min(jobs, key=lambda job: (job.created, job.id))


def at(seconds: float) -> datetime:
    """A time from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)
