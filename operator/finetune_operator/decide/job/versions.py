"""Versions that jobs have made: found by the job's UID, numbered consecutively, several registered at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from finetune_api.connection import place_of_models
from finetune_api.evaluation import EvaluationResult
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import ArtifactRef, Failure, FineTuneJobStatus, ProviderStatus, TrainingResult
from finetune_api.model import FineTunedModelStatus, ModelVersion
from finetune_api.names import ARTIFACT_FOLDER, artifact_folder
from finetune_api.reasons import Reason
from finetune_api.uris import artifact_place
from finetune_operator.decide.conditions import is_true, moment, timestamp
from finetune_operator.decide.job.view import Active, JobView

MOST_VERSIONS = 200
"""The limit of status.versions. Further results wait until history deletes older versions."""

LAST_NUMBER = 2**63 - 1
"""The largest number that can be written."""

_CORRECT_NUMBER = (
    "Write the number of the newest version that there was: kubectl edit ftm {model} --subresource=status; the result "
    "then becomes a version automatically."
)

RESTORED_TOGETHER = timedelta(days=1)
"""A restore, or a tool that syncs from Git after it, brings back a model's jobs within this time."""


def find_version(model: Mapping[str, Any], job: Mapping[str, Any]) -> int | None:
    """The version that a job made, from a FineTunedModel's manifest: parsing hundreds of versions is not worth it.

    A version that is older than its model object came from a backup. The job of its name that was restored with the
    model is the one that made it, though its UID is new. A job that was created long after both is another job.
    """
    versions = (model.get("status") or {}).get("versions") or ()
    uid, name, born = job["uid"], job["name"], moment(model["metadata"]["creationTimestamp"])
    came_along = moment(job["creationTimestamp"]) - born < RESTORED_TOGETHER
    for version in reversed(versions):
        if version.get("jobUID") == uid:
            return int(version["version"])
        if came_along and version.get("job") == name and moment(version["createdAt"]) < born:
            return int(version["version"])
    return next((int(one["version"]) for one in _let_go(model) if one.get("jobUID") == uid), None)


def has_made_one(model: Mapping[str, Any], uid: str) -> bool:
    """Whether a FineTunedModel has, or had, a version of the job with this UID."""
    versions = (model.get("status") or {}).get("versions") or ()
    return any(one.get("jobUID") == uid for one in (*versions, *_let_go(model)))


def _let_go(model: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (model.get("status") or {}).get("letGo") or ()


def versions_of_weights(model: Mapping[str, Any], made: ArtifactRef, uid: str) -> tuple[int, ...]:
    """Versions of a FineTunedModel, in its manifest, with these weights, except that of the job with this UID."""
    weights = made.provider_model_id or made.uri
    versions = (model.get("status") or {}).get("versions") or ()
    others = (one for one in versions if weights and one.get("jobUID") != uid)
    named = ((one["version"], one.get("artifact") or {}) for one in others)
    return tuple(number for number, of in named if weights in {of.get("providerModelID"), of.get("uri")})


@dataclass(frozen=True)
class Comparison:
    """What a new version is compared with, by its model."""

    if_better: bool = False
    active: Active | None = None


def comparison_of(model: Mapping[str, Any]) -> Comparison:
    """From a FineTunedModel's manifest: only the active version is read, whichever release wrote the others."""
    status = model.get("status") or {}
    number = status.get("activeVersion")
    found = next((one for one in status.get("versions") or () if number and one.get("version") == number), None)
    if_better = (model.get("spec") or {}).get("activation") == "IfBetter"
    if found is None:
        return Comparison(if_better)
    artifact = found.get("artifact") or {}
    active = Active(
        version=found["version"],
        connection=found.get("connection", ""),
        place=found.get("place"),
        uri=place.text if (place := artifact_place(artifact.get("uri"))) else None,
        sha256=artifact.get("sha256"),
        provider_model_id=artifact.get("providerModelID"),
    )
    return Comparison(if_better, active)


def version_to_compare(model: Mapping[str, Any] | None, spec: FineTuneJobSpec) -> Active | None:
    """The active version, if it is a baseline of the job or the model's activation depends on the comparison."""
    if spec.dataset.test is None:
        return None
    compared = comparison_of(model or {})
    return compared.active if compared.if_better or spec.evaluation.has("activeVersion") else None


Room = Callable[[FineTunedModelStatus, Sequence[ModelVersion]], int]
"""How many of these new versions, counted from the first, fit into a status."""


def registered(status: FineTunedModelStatus, jobs: Iterable[JobView], room: Room) -> FineTunedModelStatus:
    """The status with a version of each job, as far as there is room. No job gets a second version."""
    versions, known, latest = list(status.versions or ()), _makers(status), latest_of(status)
    least = min(MOST_VERSIONS - len(versions), LAST_NUMBER - latest)
    waiting = [job for job in jobs if job.uid not in known][: max(least, 0)]
    new = [new_version(job, number) for number, job in enumerate(waiting, start=latest + 1)]
    new = new[: room(status, new)]
    if not new:
        return status
    return status.model_copy(update={"versions": [*versions, *new], "latest_version": new[-1].version})


def no_room(model: str, status: FineTunedModelStatus, *, makes_room: bool, trouble: Failure | None) -> Failure:
    """Why results of jobs wait to become versions.

    Args:
        model: the FineTunedModel's name.
        status: the model's status.
        makes_room: whether history deletes older versions.
        trouble: what keeps history from deleting them.
    """
    count, latest = len(status.versions or ()), latest_of(status)
    if latest >= LAST_NUMBER:
        message = f"status.latestVersion of FineTunedModel {model} is {latest}: no number comes after it"
        return Failure(reason=Reason.MODEL_FULL, message=message, next_step=_CORRECT_NUMBER.format(model=model))
    message = f"FineTunedModel {model} has {count} versions, and no room in its status for more"
    if trouble is not None:
        message += f"; weights of older ones cannot be deleted: {trouble.message}"
        full = Failure.because(Reason.MODEL_FULL, message)
        return full.model_copy(update={"next_step": trouble.next_step}) if trouble.next_step else full
    if makes_room:
        return Failure.because(Reason.PENDING, f"its result waits: {message}, until history has let older ones go")
    return Failure.because(Reason.MODEL_FULL, message)


def latest_of(status: FineTunedModelStatus) -> int:
    """The highest version number given so far."""
    return max([status.latest_version or 0, *(version.version for version in status.versions or ())])


def recovered(
    status: FineTunedModelStatus, records: Iterable[ModelVersion], served: int | None, room: Room
) -> FineTunedModelStatus:
    """Restores the versions that the status has lost, from the records of their jobs: those after its latest version.

    Other missing versions were deleted by history, or belong to a job whose version is recorded. If there are more
    than fit, the served version comes first, then the newest ones.

    Args:
        status: the present one, which was emptied or replaced by an old one.
        records: versions as jobs record them.
        served: the version that the model's deployment serves: taken as the active one if nothing else tells which was.
        room: how many of these new versions, counted from the first, fit into a status.
    """
    known = {version.job_uid for version in status.versions or ()}
    latest = status.latest_version or 0
    lost = {one.version: one for one in records if one.version > latest and one.job_uid not in known}
    if not lost:
        return status
    active = status.active_version or (served if served in lost else None)
    fields = {"latest_version": max(lost), "active_version": active}
    status = status.model_copy(update=fields)
    least = max(MOST_VERSIONS - len(status.versions or ()), 0)
    wanted = [lost[number] for number in sorted(lost, key=lambda number: (number == active, number), reverse=True)]
    back = wanted[: room(status, wanted[:least])]
    versions = [*(status.versions or ()), *sorted(back, key=lambda one: one.version)]
    return status.model_copy(update={"versions": versions or None})


def of_record(metadata: Mapping[str, Any], spec: FineTuneJobSpec, status: FineTuneJobStatus) -> ModelVersion | None:
    """The version that a completed job's own status describes, if it does."""
    result, ended = status.result, status.completion_time
    if status.model_version is None or result is None or ended is None or not is_true(status.conditions, "Complete"):
        return None
    provider = status.provider or ProviderStatus()
    return _version(
        _Maker(metadata["name"], metadata["uid"], spec, provider),
        status.model_version,
        result,
        status.evaluation,
        by_provider=result.artifact.uri is None,
        created_at=ended,
    )


def recorded_result(view: JobView, result: TrainingResult) -> TrainingResult:
    """The result with the artifact's URI as the operator assigned it: a pod's report cannot move it elsewhere.

    For an artifact at a provider, the operator has read the URI there itself.
    """
    if result.artifact.uri is None or view.remote:
        return result
    uri = f"{view.provider.artifact_uri}/{_folder_told(view, result.artifact.uri)}"
    return result.model_copy(update={"artifact": result.artifact.model_copy(update={"uri": uri})})


def _folder_told(view: JobView, uri: str) -> str:
    """In a store each attempt has a folder of its own, and the artifact may be an earlier attempt's."""
    in_store = not (view.provider.artifact_uri or "").startswith("pvc://")
    told = uri.rpartition("/")[2]
    known = [artifact_folder(number) for number in range(1, view.attempt + 1)] if in_store else []
    return told if told in known else ARTIFACT_FOLDER


def has_versions_of(status: FineTunedModelStatus, jobs: Sequence[JobView]) -> list[JobView]:
    """The jobs whose version the status has, or had before history deleted it."""
    known = _makers(status)
    return [job for job in jobs if job.uid in known]


def _makers(status: FineTunedModelStatus) -> set[str]:
    """UIDs of the jobs that have made a version."""
    return {one.job_uid for one in (*(status.versions or ()), *(status.let_go or ()))}


def new_version(view: JobView, number: int) -> ModelVersion:
    """The version that a job made, as its model records it.

    Raises:
        ValueError: the job has no result.
    """
    report, spec = view.run.report, view.spec
    if report is None or report.result is None or spec is None:
        raise ValueError("only a job with a result makes a version")
    result = recorded_result(view, report.result)
    return _version(
        _Maker(view.name, view.uid, spec, view.provider),
        number,
        result,
        report.evaluation,
        by_provider=view.remote and report.result.artifact.uri is None,
        created_at=timestamp(view.now),
    )


@dataclass(frozen=True)
class _Maker:
    """The job that made a version."""

    name: str
    uid: str
    spec: FineTuneJobSpec
    provider: ProviderStatus
    """The provider that has its model."""


def _version(
    job: _Maker,
    number: int,
    result: TrainingResult,
    evaluation: EvaluationResult | None,
    *,
    by_provider: bool,
    created_at: str,
) -> ModelVersion:
    return ModelVersion(
        version=number,
        job=job.name,
        job_uid=job.uid,
        connection=job.spec.connection_ref.name,
        place=place_of_models(job.provider.name, job.provider.place),
        account=job.provider.account,
        base_model=job.spec.base_model,
        adopted=job.spec.adopt is not None,
        method="ChosenByProvider" if by_provider else _method(job.spec, result.artifact),
        lora_rank=None if by_provider else _rank(job.spec, result.artifact),
        artifact=result.artifact,
        dataset_sha256=result.dataset_sha256,
        train_loss=result.train_loss,
        eval_loss=result.eval_loss,
        evaluation=evaluation.compact() if evaluation else None,
        created_at=created_at,
    )


def _method(spec: FineTuneJobSpec, artifact: ArtifactRef) -> str:
    """The method that the job asked for; for an adopted job, the one that its artifact shows."""
    if spec.adopt is None or (artifact.kind == "Full") == (spec.method == "Full"):
        return spec.method
    return "Full" if artifact.kind == "Full" else "LoRA"


def _rank(spec: FineTuneJobSpec, artifact: ArtifactRef) -> int | None:
    """The adapter's rank: from its artifact, else from the job's spec."""
    if artifact.kind == "Full" or spec.adapters is None or spec.adopt is not None:
        return artifact.lora_rank
    return artifact.lora_rank or spec.adapters.r


def there_are(versions: Sequence[ModelVersion]) -> str:
    """Which versions exist, as the end of a sentence."""
    numbers = ", ".join(str(version.version) for version in versions)
    return f"there {'is' if len(versions) == 1 else 'are'} {numbers or 'none yet'}"
