"""Versions that jobs have made: found by the job's UID, numbered one after the other, several at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_api.connection import place_of_models
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import ArtifactRef
from finetune_api.model import FineTunedModelStatus, ModelVersion
from finetune_operator.decide.conditions import timestamp
from finetune_operator.decide.job import recorded_result
from finetune_operator.decide.job_view import Active, JobView

MOST_VERSIONS = 200
"""As many as status.versions holds; what does not fit waits until history has let older ones go."""


def find_version(model: Mapping[str, Any], job_uid: str) -> int | None:
    """The version of a FineTunedModel that a job made, in its manifest: a list of hundreds is not worth parsing."""
    versions = (model.get("status") or {}).get("versions") or ()
    return next((version.get("version") for version in versions if version.get("jobUID") == job_uid), None)


@dataclass(frozen=True)
class Compared:
    """What a model says of comparing a new version."""

    if_better: bool = False
    active: Active | None = None


def compared_of(model: Mapping[str, Any]) -> Compared:
    """From a FineTunedModel's manifest: of hundreds of versions one is read, whichever release has written it."""
    status = model.get("status") or {}
    number = status.get("activeVersion")
    found = next((one for one in status.get("versions") or () if number and one.get("version") == number), None)
    if_better = (model.get("spec") or {}).get("activation") == "IfBetter"
    if found is None:
        return Compared(if_better)
    artifact = found.get("artifact") or {}
    active = Active(
        version=found["version"],
        connection=found.get("connection", ""),
        place=found.get("place"),
        uri=artifact.get("uri"),
        sha256=artifact.get("sha256"),
        provider_model_id=artifact.get("providerModelID"),
    )
    return Compared(if_better, active)


def registered(status: FineTunedModelStatus, jobs: Iterable[JobView]) -> FineTunedModelStatus:
    """The status with a version of each job, as far as there is room. A job that has one already gets no second one."""
    versions = list(status.versions or ())
    known = {version.job_uid for version in versions}
    new = [job for job in jobs if job.uid not in known][: max(MOST_VERSIONS - len(versions), 0)]
    if not new:
        return status
    latest = max([status.latest_version or 0, *(version.version for version in versions)])
    versions += [new_version(job, number) for number, job in enumerate(new, start=latest + 1)]
    return status.model_copy(update={"versions": versions, "latest_version": latest + len(new)})


def has_versions_of(status: FineTunedModelStatus, jobs: Sequence[JobView]) -> list[JobView]:
    """Those of the jobs whose version the status has."""
    known = {version.job_uid for version in status.versions or ()}
    return [job for job in jobs if job.uid in known]


def new_version(view: JobView, number: int) -> ModelVersion:
    """What a job made, as its model records it.

    Raises:
        ValueError: the job has no result.
    """
    report, spec = view.run.report, view.spec
    if report is None or report.result is None or spec is None:
        raise ValueError("only a job with a result makes a version")
    by_provider = view.remote and report.result.artifact.uri is None
    return ModelVersion(
        version=number,
        job=view.name,
        job_uid=view.uid,
        connection=spec.connection_ref.name,
        place=place_of_models(view.provider.name, view.provider.place),
        base_model=spec.base_model,
        adopted=True if spec.adopt is not None else None,
        method="ChosenByProvider" if by_provider else _method(spec, report.result.artifact),
        lora_rank=None if by_provider else _rank(spec, report.result.artifact),
        artifact=recorded_result(view, report.result).artifact,
        dataset_sha256=report.result.dataset_sha256,
        train_loss=report.result.train_loss,
        eval_loss=report.result.eval_loss,
        evaluation=report.evaluation.compact() if report.evaluation else None,
        created_at=timestamp(view.now),
    )


def _method(spec: FineTuneJobSpec, artifact: ArtifactRef) -> str:
    """As the job asked; of one that was adopted its artifact knows better."""
    if spec.adopt is None or (artifact.kind == "Full") == (spec.method == "Full"):
        return spec.method
    return "Full" if artifact.kind == "Full" else "LoRA"


def _rank(spec: FineTuneJobSpec, artifact: ArtifactRef) -> int | None:
    """The adapter's rank: as its artifact has it, else as the job asked."""
    if artifact.kind == "Full" or spec.adapters is None or spec.adopt is not None:
        return artifact.lora_rank
    return artifact.lora_rank or spec.adapters.r
