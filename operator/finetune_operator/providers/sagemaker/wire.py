"""Converts SageMaker's training jobs. Pure: dicts as used by boto3.

Layout of the connection's S3 location:

    finetune-UID-ATTEMPT-train-DIGEST.jsonl …   data, and the job beside them        until the job has ended
    finetune-UID-checkpoints/                   checkpoints and report.json, of all attempts   until then
    models/JOB/output/model/model/              the artifact, and report.json beside its folder
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from finetune_api.aws import SageMaker
from finetune_api.exit_codes import REASON_OF_EXIT_CODE, ExitCode
from finetune_api.job_status import ArtifactRef, Failure, TrainingResult
from finetune_api.names import ARTIFACT_FOLDER
from finetune_api.reasons import Reason
from finetune_api.sagemaker import (
    ACTIVE_CHANNEL,
    BASE_CHANNEL,
    CODE_CHANNEL,
    HUB_FOLDER,
    JOB_CHANNEL,
    REPORT_FILE,
    TRAIN_COMMAND,
    ContainerJob,
)
from finetune_api.trainer import ActiveVersionRef, Report
from finetune_operator.decide.cloud_job.cloud_cost import instance_type, longest_seconds
from finetune_operator.decide.job.remote import UNDATED, JobKey, RemoteJob, RemoteState
from finetune_operator.providers.aws.s3 import Bucket
from finetune_operator.providers.calls.errors import Refused
from finetune_operator.providers.calls.values import Wire, unknown_state
from finetune_operator.providers.failed_jobs import failed
from finetune_operator.providers.ports import JobRequest
from finetune_operator.runtime.logs import redact

NAME_PREFIX = "finetune-"
MODELS = "models/"
MESSAGE_LIMIT = 500

_ENDED: dict[str, RemoteState] = {"Completed": "Succeeded", "Failed": "Failed", "Stopped": "Cancelled"}
_UNDER_WAY = frozenset({"InProgress", "Stopping"})
_AT_WORK = frozenset({"Training", "Uploading", "Stopping", "Interrupted", "Restarting", "Updating"})
_QUOTA = re.compile(
    r"is (?P<limit>\d+) \w+, with current utilization of \d+ \w+ and a request delta of (?P<asked>\d+)\b"
)
"""In SageMaker's quota messages: the limit, and how much more was requested."""

_NOTES = {
    "Starting": "SageMaker starts an instance",
    "Pending": "waiting for an instance of SageMaker",
    "LaunchingMLInstances": "SageMaker starts an instance",
    "PreparingTrainingStack": "SageMaker prepares the instance",
    "Downloading": "SageMaker copies data and base model to the instance",
    "DownloadingTrainingImage": "SageMaker fetches the trainer image",
    "Uploading": "SageMaker copies the model to S3",
    "Interrupted": "the spot instance was taken away; SageMaker waits for another one",
    "Restarting": "SageMaker starts the job again",
    "Stopping": "being stopped at SageMaker",
}
_LABELS = ("uid", "attempt", "namespace", "job")
_QUOTED = re.compile(r"\b([A-Z][A-Za-z]+): (.*?)(?:, exit code: -?\d+)?\s*$", re.DOTALL)
_INSTANCES = re.compile(r"instance ?type", re.IGNORECASE)
_LIST_OF_TYPES = re.compile(
    r"(failed to satisfy constraint: Member must satisfy enum value set|is none of)\b.*", re.DOTALL
)
_EXIT_CODE = re.compile(r"exit code:? (\d+)", re.IGNORECASE)
_REASONS = {reason.value: reason for reason in Reason}
_KILLED = 137
_OWN_NAME = re.compile(rf"{NAME_PREFIX}.+-\d+")
_TRAIN_LOSS = re.compile(r"((train|training)[:_/ -]*)?loss", re.IGNORECASE)
_EVAL_LOSS = re.compile(r"(eval|evaluation|val|valid|validation)[:_/ -]*loss", re.IGNORECASE)
"""Metric names in the MetricDefinitions of common recipes: train:loss, eval_loss, validation:loss."""


def job_name(key: JobKey) -> str:
    """Name of an attempt's training job. SageMaker accepts a name only once, which makes creation idempotent."""
    return f"{key.file_prefix}{key.attempt}"


def attempt_of(name: str) -> tuple[str, int]:
    """The name prefix of a training job's FineTuneJob, and the attempt's number."""
    prefix, dash, attempt = name.rpartition("-")
    return prefix + dash, int(attempt) if attempt.isdecimal() else 0


def job_file(key: JobKey) -> str:
    """The object of the job channel."""
    return f"{key.file_prefix}{key.attempt}-job.json"


def checkpoints(file_prefix: str) -> str:
    """Folder of all attempts' checkpoints and progress report."""
    return f"{file_prefix}checkpoints/"


def model_folder(name: str) -> str:
    """Folder to which SageMaker uploads a training job's /opt/ml/model."""
    return f"{MODELS}{name}/output/model/"


def artifact_folder(name: str) -> str:
    """The artifact of a training job."""
    return f"{model_folder(name)}{ARTIFACT_FOLDER}"


def progress_report(file_prefix: str) -> str:
    """The report of a running job."""
    return f"{checkpoints(file_prefix)}{REPORT_FILE}"


def container_job(request: JobRequest, settings: SageMaker, bucket: Bucket) -> ContainerJob:
    """The container's job file, with the whole spec."""
    key = request.key
    return ContainerJob(
        namespace=key.namespace,
        name=key.name,
        uid=key.uid,
        attempt=key.attempt,
        spec=request.spec,
        artifact_uri=bucket.uri(artifact_folder(job_name(key))),
        trust_remote_code=settings.trust_remote_code,
        active_version=_compared(request),
        short_of_memory=request.short_of_memory,
    )


def _compared(request: JobRequest) -> ActiveVersionRef | None:
    active = request.active
    return ActiveVersionRef(version=active.version, sha256=active.sha256) if active else None


def with_instance_field(error: Refused, field: str, asked: str) -> Refused:
    """The refusal of an instance type, with our field, and without SageMaker's list of hundreds of types."""
    if not _INSTANCES.search(error.message):
        return error
    said = _LIST_OF_TYPES.sub("is not one that SageMaker offers for this", error.message)
    return Refused(error.reason, f"{field}: {asked}: {said}")


def fits_quota_later(refusal: str) -> bool:
    """Whether a quota of concurrent instances is large enough for the job once others have ended."""
    found = _QUOTA.search(refusal)
    return found is not None and int(found["asked"]) <= int(found["limit"])


@dataclass(frozen=True)
class Models:
    """URIs of the model folders that a job's channels provide, each ending with a slash."""

    base: str | None = None
    """The base model, if the connection has a cache."""
    active: str | None = None
    """The version to compare the tuned model with, if the connection's role can read it."""


def training_job(request: JobRequest, settings: SageMaker, bucket: Bucket, models: Models) -> dict[str, Any]:
    """CreateTrainingJob's arguments."""
    key = request.key
    kms = {"KmsKeyId": settings.kms_key_id} if settings.kms_key_id else {}
    sources: dict[str, str] = {JOB_CHANNEL: bucket.uri(job_file(key))}
    files = [one for one in request.files if one.split != CODE_CHANNEL or request.spec.code is not None]
    sources |= {one.split: bucket.uri(one.id) for one in files}
    brought = {BASE_CHANNEL: models.base, ACTIVE_CHANNEL: models.active}
    sources |= {channel: uri for channel, uri in brought.items() if uri is not None}
    asked: dict[str, Any] = {
        "TrainingJobName": job_name(key),
        "RoleArn": settings.role_arn,
        "AlgorithmSpecification": {
            "TrainingImage": settings.trainer_image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["finetune-trainer"],
            "ContainerArguments": [TRAIN_COMMAND],
        },
        "InputDataConfig": [_channel(name, uri) for name, uri in sources.items()],
        "OutputDataConfig": {"S3OutputPath": bucket.uri(MODELS), "CompressionType": "NONE", **kms},
        "CheckpointConfig": {"S3Uri": bucket.uri(checkpoints(key.file_prefix))},
        "ResourceConfig": {
            "InstanceType": instance_type(request.spec, settings),
            "InstanceCount": request.spec.resources.nodes,
            "VolumeSizeInGB": settings.volume_size,
        },
        "StoppingCondition": _stopping(request, settings),
        "HyperParameters": labels(key),
        "Environment": {"HF_HOME": HUB_FOLDER},
        "Tags": [{"Key": f"finetune-{name}", "Value": value} for name, value in labels(key).items()],
        "EnableManagedSpotTraining": settings.spot.enabled,
        "EnableNetworkIsolation": settings.network_isolation,
    }
    return asked | ({"VpcConfig": vpc(settings)} if settings.vpc else {})


def labels(key: JobKey) -> dict[str, str]:
    """A training job's labels, for lookups and for users."""
    return dict(zip(_LABELS, (key.uid, str(key.attempt), key.namespace, key.name), strict=True))


def vpc(settings: SageMaker) -> dict[str, Any]:
    """The containers' network; only for settings that have one."""
    if settings.vpc is None:
        raise ValueError("the connection has no vpc")
    return {"Subnets": settings.vpc.subnets, "SecurityGroupIds": settings.vpc.security_group_ids}


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _stopping(request: JobRequest, settings: SageMaker) -> dict[str, int]:
    longest = longest_seconds(request.spec, settings)
    if not settings.spot.enabled:
        return {"MaxRuntimeInSeconds": longest}
    return {"MaxRuntimeInSeconds": longest, "MaxWaitTimeInSeconds": max(settings.spot.max_wait_seconds, longest)}


def job_of(wire: Wire) -> RemoteJob:
    """A training job, from its description or its summary in a list, which has less."""
    name, status, secondary = str(wire["TrainingJobName"]), wire["TrainingJobStatus"], wire.get("SecondaryStatus", "")
    output = str(wire.get("OutputDataConfig", {}).get("S3OutputPath", "")).rstrip("/")
    state: RemoteState = _ENDED.get(status, "Active" if secondary in _AT_WORK else "Queued")
    overrun = _overrun(secondary, name) if state == "Cancelled" else None
    told = _labels_of(wire, name)
    reports = str((wire.get("CheckpointConfig") or {}).get("S3Uri") or "").rstrip("/")
    return RemoteJob(
        id=name,
        state="Failed" if overrun else state,
        created=wire.get("CreationTime") or UNDATED,
        note=_NOTES.get(secondary, "") if status in {*_UNDER_WAY, *_ENDED} else unknown_state(str(status)),
        model=f"{output}/{name}/output/model/{ARTIFACT_FOLDER}" if output and told else None,
        billed_seconds=wire.get("BillableTimeInSeconds"),
        ends=wire.get("TrainingEndTime"),
        failure=overrun or (failure_of(str(wire.get("FailureReason") or "")) if state == "Failed" else None),
        results=(f"{reports}/{REPORT_FILE}",) if reports else (),
        labels=told,
        told_by_report=True,
        partial=not output,
    )


def _labels_of(wire: Wire, name: str) -> dict[str, str]:
    """The labels of a job of ours, from its hyperparameters, or from its name if these are not returned."""
    said = wire.get("HyperParameters")
    if said is None and is_own_name(name):
        prefix, attempt = attempt_of(name)
        return {"uid": prefix.removeprefix(NAME_PREFIX).removesuffix("-"), "attempt": str(attempt)}
    said = said or {}
    return {label: said[label] for label in _LABELS} if all(label in said for label in _LABELS) else {}


def name_of(name_or_arn: str) -> str:
    """A training job's name, the only form that the API accepts."""
    return name_or_arn.rpartition("/")[2]


def matches(name_or_arn: str, wire: Wire) -> bool:
    """Whether a description matches this name, or this ARN, which is compared case-insensitively."""
    return ":" not in name_or_arn or name_or_arn.casefold() == str(wire.get("TrainingJobArn")).casefold()


def is_own_name(name: str) -> bool:
    """Whether the name has the format of our own jobs."""
    return _OWN_NAME.fullmatch(name) is not None


def result_of(wire: Wire, artifact: ArtifactRef, report: Report | None) -> TrainingResult:
    """The result of an adopted job: from the trainer's report if there is one, or else from its metrics."""
    if report is not None and report.result is not None:
        return report.result.model_copy(update={"artifact": artifact})
    found = {str(one.get("MetricName")): one.get("Value") for one in wire.get("FinalMetricDataList") or ()}
    return TrainingResult(
        artifact=artifact,
        steps=report.progress.step if report and report.progress else 0,
        train_loss=_metric(found, _TRAIN_LOSS),
        eval_loss=_metric(found, _EVAL_LOSS),
        runtime_seconds=wire.get("TrainingTimeInSeconds"),
    )


def _metric(found: Mapping[str, Any], names: re.Pattern[str]) -> float | None:
    values = (value for name, value in found.items() if names.fullmatch(name))
    return next((float(value) for value in values if isinstance(value, int | float) and isfinite(value)), None)


def _overrun(secondary: str, name: str) -> Failure | None:
    """The failure of a job that exceeded a time limit, which SageMaker reports as stopped."""
    if secondary == "MaxRuntimeExceeded":
        message = f"training job {name} ran longer than spec.activeDeadlineSeconds, or the connection's maximum"
        return Failure.because(Reason.DEADLINE_EXCEEDED, message)
    if secondary == "MaxWaitTimeExceeded":
        message = f"training job {name} was not done within the connection's spot.maxWaitSeconds"
        return Failure.because(Reason.DEADLINE_EXCEEDED, message)
    return None


def failure_of(said: str) -> Failure:
    """Why a job failed, from FailureReason, with a next step for SageMaker."""
    found = _failure_of(said)
    return found.model_copy(update={"next_step": _STEPS.get(found.reason, found.next_step)})


def _failure_of(said: str) -> Failure:
    """By the kind of error, and for our own container by the failure file and the exit code."""
    kind, _, rest = said.partition(":")
    text = redact(rest.strip())[:MESSAGE_LIMIT]
    if kind == "CapacityError" or "InsufficientCapacity" in said[:200].replace(" ", ""):
        return Failure.because(Reason.NO_CAPACITY, f"SageMaker has no such instance now: {text}")
    if kind == "ClientError":
        return _client_failure(text)
    if kind == "AlgorithmError":
        return _trainer_failure(rest.strip())
    return failed(redact(said)[:MESSAGE_LIMIT] or "SageMaker gives no reason")


_OF_CLIENT: tuple[tuple[str, Reason, str], ...] = (
    (r"disk space|no space left", Reason.ARTIFACT_FAILED, "the instance's disk is full: "),
    (r"with more memory", Reason.INSUFFICIENT_MEMORY, ""),  # it would happen again on the same instance
    (r"algorithm container|\bECR\b|repository|registry", Reason.IMAGE_PULL_FAILED, ""),
    (
        r"access ?denied|not authorized|forbidden|403",
        Reason.ROLE_NOT_USABLE,
        "the connection's role may not do what the job needs: ",
    ),
    (
        f"(/|channel ){BASE_CHANNEL}",
        Reason.MODEL_NOT_IN_CACHE,
        "the connection's modelCache has no such base model: ",
    ),
    (r"no such bucket|NoSuchBucket|bucket .*does not exist", Reason.BUCKET_NOT_FOUND, ""),
    (r"\b(image|manifest)\b", Reason.IMAGE_PULL_FAILED, ""),
)
"""Pattern of SageMaker's message, reason, and a prefix for the message."""

_MORE_MEMORY = "Apply the job under a new name with a larger resources.instanceType, or a lower microBatchSize."
_STEPS = {
    Reason.OUT_OF_MEMORY: _MORE_MEMORY,
    Reason.INSUFFICIENT_MEMORY: _MORE_MEMORY,
    Reason.GPU_UNAVAILABLE: "Set spec.retryNonce for another instance, or apply the job under a new name with another "
    "resources.instanceType.",
    Reason.ARTIFACT_FAILED: "Ask an admin to raise sageMaker.volumeSize on the connection, then set spec.retryNonce.",
    Reason.IMAGE_PULL_FAILED: "Ask an admin to check sageMaker.trainerImage of the connection, and that roleARN may "
    "pull it.",
    Reason.MODEL_NOT_IN_CACHE: "Ask an admin to put the model's folder, ORG/NAME/, below sageMaker.modelCache of the "
    "connection, or check the spelling of spec.baseModel.",
    Reason.TRAINER_CRASHED: "Read the training job's log in CloudWatch; if the job is not at fault, report it as a "
    "bug.",
    Reason.CODE_FAILED: "Read the training job's log in CloudWatch, correct the code in its ConfigMap and set "
    "spec.retryNonce. `finetune-trainer run --code` runs it without a cluster.",
}
"""Next steps that differ from those on the cluster."""


def _client_failure(text: str) -> Failure:
    """The failure if SageMaker could not use its inputs or settings, before or after the container ran."""
    for pattern, reason, what in _OF_CLIENT:
        if re.search(pattern, text, re.IGNORECASE):
            return Failure.because(reason, f"{what}{text}")
    return failed(text)


def _trainer_failure(text: str) -> Failure:
    """The trainer's own failure message if it left one, or else the meaning of its exit code."""
    code = _EXIT_CODE.search(text)
    number = int(code[1]) if code else None
    quoted = _QUOTED.search(text)
    if quoted and quoted[1] in _REASONS:
        found = Failure.because(_REASONS[quoted[1]], redact(quoted[2]))
    elif number == _KILLED:
        found = Failure.because(
            Reason.OUT_OF_MEMORY, "the trainer was killed: it used more memory than the instance has"
        )
    elif number in REASON_OF_EXIT_CODE:
        known = ExitCode(number)
        message = f"the trainer ended with exit code {number} ({known.name})"
        found = Failure.because(REASON_OF_EXIT_CODE[known], message)
    else:
        where = "see the training job's log in CloudWatch, /aws/sagemaker/TrainingJobs"
        found = Failure.because(Reason.TRAINER_CRASHED, f"the trainer ended without a reason ({text[:100]}); {where}")
    return found.model_copy(update={"exit_code": number})
