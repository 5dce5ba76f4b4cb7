"""Converts Bedrock's customization jobs. Pure: dicts as used by boto3; missing fields are no error."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from finetune_api.aws import Bedrock
from finetune_api.bedrock import family_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, LossPoint
from finetune_api.reasons import Reason
from finetune_operator.decide.job.remote import UNDATED, JobKey, Metrics, RemoteJob, RemoteState
from finetune_operator.desired import names
from finetune_operator.providers.calls.errors import Refused
from finetune_operator.providers.calls.values import (
    EvenSample,
    Wire,
    complete_lines,
    csv_rows,
    number,
    parse_int,
    sanitized,
    unknown_state,
)
from finetune_operator.providers.failed_jobs import OTHER_BASE, TRANSIENT, UNSAFE, UNSAFE_STEP, failed
from finetune_operator.providers.ports import JobRequest

NAME_LIMIT = 63
TOKEN_LETTERS = 12
"""Part of a model's name, long enough to tell attempts apart."""
RESULTS = "results"

_STATES: dict[str, RemoteState] = {
    "InProgress": "Queued",
    "Stopping": "Active",
    "Completed": "Succeeded",
    "Failed": "Failed",
    "Stopped": "Cancelled",
}
_PHASES = {
    "validationDetails": "Bedrock checks the data",
    "dataProcessingDetails": "Bedrock prepares the data",
    "trainingDetails": "",
}
_TRAINING = "training_artifacts/step_wise_training_metrics.csv"
_VALIDATION = "validation_artifacts/post_fine_tuning_validation/validation_metrics.csv"
_LINE = re.compile(r"\b(?:[Ll]ine|[Rr]ecord|[Rr]ow)s? (\d+)\b")
_PLACES = (
    (
        re.compile(r"NoSuchBucket|NoSuchKey|\b(bucket|object|s3)\b.*(does not exist|not found)", re.IGNORECASE),
        Reason.BUCKET_NOT_FOUND,
        "Bedrock did not find the data or the place for its results in the connection's s3.bucket",
    ),
    (
        re.compile(r"assume|access|permission|authoriz|denied|\brole\b|\bKMS\b", re.IGNORECASE),
        Reason.ROLE_NOT_USABLE,
        "Bedrock could not read the data, or write its results, with the connection's roleARN",
    ),
)
"""Pattern of Bedrock's message, reason, and the message shown instead."""

_FIELDS = (
    (re.compile("hyperparameter", re.IGNORECASE), "hyperparameters"),
    (re.compile("model ?identifier|support (fine-tuning|customization)", re.IGNORECASE), "baseModel"),
)
"""Fields of a job's spec, by patterns of Bedrock's message."""


def with_spec_field(error: Refused) -> Refused:
    """The refusal of a job's creation, with the job's own field."""
    field = next((field for words, field in _FIELDS if words.search(error.message)), None)
    if field is None:
        return error
    step = OTHER_BASE if field == "baseModel" else None
    return Refused(error.reason, f"spec.{field}: {error.message}", next_step=step)


def job_name(key: JobKey) -> str:
    """The attempt's unique, readable name at Bedrock. Jobs cannot be deleted, so it can never be reused."""
    return f"{names.fit(f'{key.namespace}-{key.name}', NAME_LIMIT - len(key.token) - 1)}-{key.token}"


def results_folder(key: JobKey) -> str:
    """The results folder in the connection's S3 location, with the prefix of the job's files."""
    return f"{key.file_prefix}{key.attempt}-{RESULTS}"


def is_of_results(name: str) -> bool:
    """Whether an object was written by Bedrock."""
    return f"-{RESULTS}/" in name


def creation(request: JobRequest, settings: Bedrock, uri: Callable[[str], str]) -> dict[str, Any]:
    """The arguments that create the job. `uri`: converts a name in the connection's S3 location."""
    key, validation = request.key, request.file("validation")
    tags = [
        {"key": name, "value": value}
        for name, value in (
            ("finetune-uid", key.uid),
            ("finetune-attempt", str(key.attempt)),
            ("finetune-namespace", key.namespace),
            ("finetune-job", key.name),
        )
    ]
    asked: dict[str, Any] = {
        "jobName": job_name(key),
        "customModelName": plain_name(f"{request.suffix}-{key.token[:TOKEN_LETTERS]}"),
        "roleArn": settings.role_arn,
        "clientRequestToken": key.token,
        "baseModelIdentifier": request.spec.base_model,
        "customizationType": "FINE_TUNING",
        "jobTags": tags,
        "customModelTags": tags,
        "trainingDataConfig": {"s3Uri": uri(request.file("train") or "")},
        "outputDataConfig": {"s3Uri": uri(results_folder(key))},
        "hyperParameters": hyperparameters(request.spec),
    }
    if validation is not None:
        asked["validationDataConfig"] = {"validators": [{"s3Uri": uri(validation)}]}
    return asked


def plain_name(name: str) -> str:
    """A name that Bedrock accepts for models and deployments: without consecutive dashes."""
    return re.sub("-+", "-", name)


def hyperparameters(spec: FineTuneJobSpec) -> dict[str, str]:
    """The requested hyperparameters that the base model's family supports; Bedrock chooses the rest."""
    asked, family = spec.hyperparameters, family_of(spec.base_model)
    found = {"epochCount": str(int(asked.epochs))}
    if asked.learning_rate is not None:
        found["learningRate"] = format(Decimal(str(asked.learning_rate)), "f")  # 1e-05 is no number there
    if asked.learning_rate_multiplier is not None:
        found["learningRateMultiplier"] = f"{asked.learning_rate_multiplier:g}"
    bounds = family.batch_size if family else None
    if bounds is not None and bounds[0] <= asked.batch_size <= bounds[1]:
        found["batchSize"] = str(asked.batch_size)
    return found


def job(shown: Wire) -> RemoteJob:
    """A job from GetModelCustomizationJob."""
    state, note, model = _state(shown), _note(shown), shown.get("outputModelArn")
    nameless = state == "Succeeded" and not model
    if nameless:
        state, note = "Active", "Bedrock stores the model"
    results = [_result(shown, _TRAINING)]
    if (shown.get("validationDataConfig") or {}).get("validators"):
        results.append(_result(shown, _VALIDATION))
    return RemoteJob(
        id=str(shown["jobArn"]),
        state=state,
        created=shown.get("creationTime") or UNDATED,
        note=note,
        model=model or None,
        nameless=nameless,
        ends=shown.get("endTime"),
        failure=failure(shown) if shown.get("status") == "Failed" else None,
        results=tuple(results),
        training_file=str((shown.get("trainingDataConfig") or {}).get("s3Uri") or "").rpartition("/")[2],
        base=str(shown.get("baseModelArn") or ""),
    )


def listed(summary: Wire) -> RemoteJob:
    """A job from ListModelCustomizationJobs, which omits its failure and the locations of its data."""
    return RemoteJob(
        id=str(summary["jobArn"]),
        state=_state(summary),
        created=summary.get("creationTime") or UNDATED,
        note=_note(summary),
        model=summary.get("customModelArn"),
        ends=summary.get("endTime"),
        partial=True,
    )


def failure(shown: Wire) -> Failure:
    """Why a job failed, without Bedrock's messages about data, which may quote a row."""
    said = str(shown.get("failureMessage") or "")
    phase = next((name for name in _PHASES if _phase(shown, name) == "Failed"), "")
    if phase == "trainingDetails" or not phase:
        return failed(sanitized(said) or "Bedrock gives no reason")
    line = _LINE.search(said)
    place = next(((reason, message) for words, reason, message in _PLACES if words.search(said)), None)
    if place and not line:
        return Failure.because(*place)
    if TRANSIENT.search(said) and not line:
        return failed("Bedrock met an internal error while it looked at the data")
    where = f" at line {line[1]} of the converted file" if line else ""
    text = f"Bedrock refuses the data{where}; its console has its own words"
    found = Failure.because(Reason.DATASET_INVALID, text)
    return found.model_copy(update={"next_step": UNSAFE_STEP}) if UNSAFE.search(said) else found


def metrics(training: bytes, validation: bytes) -> Metrics:
    """From the two CSV files; our steps count from 1, Bedrock's from 0."""
    train = _curve(training, "training_loss")
    last = train[-1].step if train else 0
    return Metrics(train, _curve(validation, "validation_loss"), last, last)


def _state(shown: Wire) -> RemoteState:
    status = str(shown.get("status") or "InProgress")
    if status == "InProgress" and _phase(shown, "trainingDetails") not in {"", "NotStarted"}:
        return "Active"
    return _STATES.get(status, "Active")


def _note(shown: Wire) -> str:
    status = str(shown.get("status") or "")
    if status == "Stopping":
        return "being stopped at Bedrock"
    if status not in {"", "InProgress"}:
        return "" if status in _STATES else unknown_state(status)
    return next((said for name, said in _PHASES.items() if _phase(shown, name) == "InProgress"), "waiting at Bedrock")


def _phase(shown: Wire, name: str) -> str:
    return str(((shown.get("statusDetails") or {}).get(name) or {}).get("status") or "")


def _result(shown: Wire, path: str) -> str:
    folder = str((shown.get("outputDataConfig") or {}).get("s3Uri") or "").rstrip("/")
    return f"{folder}/model-customization-job-{str(shown['jobArn']).rpartition('/')[2]}/{path}"


def _curve(content: bytes, column: str) -> tuple[LossPoint, ...]:
    points = EvenSample[tuple[int, float]]()
    for row in csv_rows(complete_lines(content, read=len(content))):
        step, value = parse_int(row.get("step_number")), number(row.get(column))
        if step is not None and value is not None and step >= 0:
            points.add((step + 1, value))
    return tuple(LossPoint(step=step, value=value) for step, value in sorted(dict(points.found()).items()))
