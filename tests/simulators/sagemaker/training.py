"""Training jobs: launched, run and ended as time passes, interrupted on spot instances, billed by the second."""

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.simulators.aws.pages import page
from tests.simulators.aws.protocol import Operation
from tests.simulators.aws.s3 import S3, MissingError
from tests.simulators.aws.settings import AwsSettings
from tests.simulators.clock import HOUR, Clock
from tests.simulators.ledger import Ledger
from tests.simulators.sagemaker import errors
from tests.simulators.sagemaker.settings import OTHER_PER_HOUR, PER_HOUR, SPOT_SHARE, SageMakerSettings

Asked = dict[str, Any]
Container = Callable[[Asked], None]
"""A job's container, called with the request; an exception is its failure."""

ENDED = ("Completed", "Failed", "Stopped")
KEPT = ("TrainingJobName", "HyperParameters", "AlgorithmSpecification", "RoleArn", "InputDataConfig",
        "OutputDataConfig", "ResourceConfig", "VpcConfig", "StoppingCondition", "CheckpointConfig",
        "EnableManagedSpotTraining", "EnableNetworkIsolation", "Environment")  # fmt: skip


@dataclass
class TrainingJob:
    """A job, its transitions, and the seconds that it trained."""

    arn: str
    request: Asked
    created_at: float
    status: str = "InProgress"
    secondary: str = "Starting"
    transitions: list[Asked] = field(default_factory=list)
    failure: str | None = None
    running_since: float | None = None
    ran_seconds: float = 0.0
    trained_seconds: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    changed_at: float = 0.0
    interruptions: int = 0
    turn: int = 0

    @property
    def name(self) -> str:
        return str(self.request["TrainingJobName"])

    @property
    def spot(self) -> bool:
        return bool(self.request.get("EnableManagedSpotTraining"))


class TrainingJobs:
    """All training jobs of the account."""

    def __init__(self, clock: Clock, ledger: Ledger, settings: SageMakerSettings) -> None:
        self._clock, self._ledger, self._settings = clock, ledger, settings
        self._s3 = S3(settings)
        self.found: dict[str, TrainingJob] = {}
        self.container: Container | None = None

    def operations(self) -> dict[str, Operation]:
        """The operations on jobs."""
        return {
            "CreateTrainingJob": self.create,
            "DescribeTrainingJob": self.describe,
            "ListTrainingJobs": self.list,
            "StopTrainingJob": self.stop,
            "DeleteTrainingJob": self.delete,
        }

    def create(self, asked: Asked) -> Asked:
        name = asked["TrainingJobName"]
        arn = self._settings.arn("sagemaker", f"training-job/{name}")
        if name in self.found:
            raise errors.in_use("Training job names must be unique within an AWS account and region, and a training "
                                f"job with this name already exists ({arn})")  # fmt: skip
        self._check(asked)
        job = TrainingJob(arn, asked, self._clock.now)
        self.found[name] = job
        self._enter(job, "Starting", "Starting the training job")
        self._clock.later(job, self._settings.launch_seconds, self._download)
        if job.spot:
            self._clock.after(asked["StoppingCondition"]["MaxWaitTimeInSeconds"], lambda: self._waited(job))
        return {"TrainingJobArn": arn}

    def _check(self, asked: Asked) -> None:
        if asked["RoleArn"] in self._settings.unassumable_roles:
            raise errors.role_not_assumed(asked["RoleArn"])
        for required in ("AlgorithmSpecification", "ResourceConfig", "StoppingCondition"):
            if required not in asked:
                raise errors.invalid(f"{required} is required without ServerlessJobConfig")
        condition = asked["StoppingCondition"]
        if asked.get("EnableManagedSpotTraining"):
            if condition.get("MaxWaitTimeInSeconds", 0) < condition.get("MaxRuntimeInSeconds", DAY):
                raise errors.invalid("Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
                                     "MaxRuntimeInSeconds")  # fmt: skip
        elif "MaxWaitTimeInSeconds" in condition:
            raise errors.invalid("MaxWaitTimeInSeconds is only valid with EnableManagedSpotTraining")
        kind, count = _instances(asked)
        limit = self._settings.instance_limits.get(kind)
        running = [_instances(job.request) for job in self.found.values() if job.status not in ENDED]
        used = sum(other for name, other in running if name == kind)
        if limit is not None and used + count > limit:
            usage = "spot training job" if asked.get("EnableManagedSpotTraining") else "training job"
            raise errors.over_limit(kind, usage, limit, used, count)

    def _enter(self, job: TrainingJob, secondary: str, message: str) -> None:
        now = self._clock.now
        if job.transitions:
            job.transitions[-1]["EndTime"] = now
        job.transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
        job.secondary, job.changed_at = secondary, now

    def _download(self, job: TrainingJob) -> None:
        job.started_at = job.started_at or self._clock.now
        job.running_since = self._clock.now
        self._enter(job, "Downloading", "Downloading input data")
        for channel in job.request.get("InputDataConfig", []):
            source = channel["DataSource"].get("S3DataSource")
            if source and not self._s3.has(source["S3Uri"]):
                self._fail(job, f"ClientError: Data download failed: no objects under {source['S3Uri']}")
                return
        self._clock.later(job, self._settings.download_seconds, self._train)

    def _train(self, job: TrainingJob) -> None:
        self._enter(job, "Training", "Training image download completed. Training in progress.")
        failure, self._settings.fail_next_job = self._settings.fail_next_job, None
        if failure:
            self._fail(job, failure)
            return
        interruptions = self._settings.interrupt_after_seconds if job.spot else []
        left = self._settings.train_seconds - job.trained_seconds
        if job.interruptions < len(interruptions) and interruptions[job.interruptions] < left:
            self._clock.later(job, interruptions[job.interruptions], self._interrupt)
        else:
            self._clock.later(job, left, self._upload)
        runtime = job.request["StoppingCondition"].get("MaxRuntimeInSeconds", DAY)
        self._clock.later(job, max(0.0, runtime - self._ran(job)), self._ran_out)

    def _interrupt(self, job: TrainingJob) -> None:
        """Interrupt a spot instance; with checkpoints the training time is not lost."""
        if "CheckpointConfig" in job.request:
            job.trained_seconds += self._settings.interrupt_after_seconds[job.interruptions]
        job.interruptions += 1
        job.turn += 1
        self._pause_billing(job)
        self._enter(job, "Interrupted", "Training job interrupted: spot capacity was reclaimed")
        self._clock.later(job, self._settings.spot_wait_seconds, self._launch_again)

    def _launch_again(self, job: TrainingJob) -> None:
        self._enter(job, "Starting", "Launching requested ML instances")
        self._clock.later(job, self._settings.launch_seconds, self._download)

    def _upload(self, job: TrainingJob) -> None:
        job.turn += 1
        try:
            if self.container:
                self.container(job.request)
            self._enter(job, "Uploading", "Uploading generated training model")
            if _is_archived(job) and not self._s3.has(artifact(job)):
                self._s3.write(artifact(job), _empty_archive())
        except MissingError as error:
            self._fail(job, f"ClientError: Artifact upload failed: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a container raises is its failure
            self._fail(job, f"AlgorithmError: {error}, exit code: {getattr(error, 'exit_code', 1)}")
        else:
            self._clock.later(job, self._settings.upload_seconds, self._complete)

    def _complete(self, job: TrainingJob) -> None:
        self._end(job, "Completed", "Completed", "Training job completed")

    def _fail(self, job: TrainingJob, reason: str) -> None:
        job.failure = reason
        self._end(job, "Failed", "Failed", reason)

    def _ran_out(self, job: TrainingJob) -> None:
        self._end(job, "Stopped", "MaxRuntimeExceeded", "Training job runtime exceeded MaxRuntimeInSeconds")

    def _waited(self, job: TrainingJob) -> None:
        if job.status not in ENDED:
            self._end(job, "Stopped", "MaxWaitTimeExceeded", "Training job exceeded MaxWaitTimeInSeconds")

    def _end(self, job: TrainingJob, status: str, secondary: str, message: str) -> None:
        job.turn += 1
        self._pause_billing(job)
        job.status, job.ended_at = status, self._clock.now
        self._enter(job, secondary, message)
        job.transitions[-1]["EndTime"] = self._clock.now
        kind, count = _instances(job.request)
        if amount := billable_seconds(job) * count * PER_HOUR.get(kind, OTHER_PER_HOUR) / Decimal(HOUR):
            self._ledger.charge(job.name, "training", amount)

    def _ran(self, job: TrainingJob) -> float:
        now_running = 0.0 if job.running_since is None else self._clock.now - job.running_since
        return job.ran_seconds + now_running

    def _pause_billing(self, job: TrainingJob) -> None:
        job.ran_seconds, job.running_since = self._ran(job), None

    def stop(self, asked: Asked) -> Asked:
        job = self._get(asked)
        if job.status != "InProgress":
            raise errors.invalid(f"The request was rejected because the training job is in status {job.status}.")
        job.turn += 1
        job.status = "Stopping"
        self._enter(job, "Stopping", "Stopping the training job")
        self._clock.later(job, self._settings.stop_seconds, self._stopped)
        return {}

    def _stopped(self, job: TrainingJob) -> None:
        self._end(job, "Stopped", "Stopped", "Training job stopped")

    def delete(self, asked: Asked) -> Asked:
        job = self._get(asked)
        if job.status not in ENDED:
            raise errors.in_use(f"The training job {job.name} has not ended.")
        del self.found[job.name]
        return {}

    def describe(self, asked: Asked) -> Asked:
        job = self._get(asked)
        shown = {name: job.request[name] for name in KEPT if name in job.request} | {
            "TrainingJobArn": job.arn, "TrainingJobStatus": job.status, "SecondaryStatus": job.secondary,
            "ModelArtifacts": {"S3ModelArtifacts": artifact(job)}, "SecondaryStatusTransitions": job.transitions,
            "CreationTime": job.created_at, "LastModifiedTime": job.changed_at,
        }  # fmt: skip
        optional: Asked = {
            "TrainingStartTime": job.started_at,
            "TrainingEndTime": job.ended_at,
            "FailureReason": job.failure,
        }
        if job.ended_at is not None and job.ran_seconds >= 1:
            optional |= {"TrainingTimeInSeconds": int(job.ran_seconds), "BillableTimeInSeconds": billable_seconds(job)}
        if job.status == "Completed":
            optional["FinalMetricDataList"] = self._metrics(job)
        return shown | {key: value for key, value in optional.items() if value is not None}

    def _metrics(self, job: TrainingJob) -> list[Asked]:
        names = [metric["Name"] for metric in job.request["AlgorithmSpecification"].get("MetricDefinitions", [])]
        known = self._settings.final_metrics
        return [
            {"MetricName": name, "Value": known[name], "Timestamp": job.ended_at} for name in names if name in known
        ]

    def list(self, asked: Asked) -> Asked:
        seen = self._clock.now - self._settings.list_lag_seconds
        jobs = [job for job in reversed(self.found.values())
                if asked.get("CreationTimeAfter", 0) <= job.created_at <= seen
                and asked.get("NameContains", "") in job.name
                and asked.get("StatusEquals", job.status) == job.status]  # fmt: skip
        shown = [{"TrainingJobName": job.name, "TrainingJobArn": job.arn, "CreationTime": job.created_at,
                  "TrainingJobStatus": job.status, "SecondaryStatus": job.secondary} for job in jobs]  # fmt: skip
        return page_of("TrainingJobSummaries", shown, asked, self._settings)

    def _get(self, asked: Asked) -> TrainingJob:
        if job := self.found.get(asked["TrainingJobName"]):
            return job
        raise errors.no_job()


DAY = 86400


def billable_seconds(job: TrainingJob) -> int:
    """The billed seconds of a job."""
    return int(Decimal(job.ran_seconds) * (SPOT_SHARE if job.spot else 1))


def artifact(job: TrainingJob) -> str:
    """A job's model: an archive or, without compression, the folder that the container has written."""
    place = f"{job.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{job.name}/output/model"
    return f"{place}.tar.gz" if _is_archived(job) else f"{place}/"


def _is_archived(job: TrainingJob) -> bool:
    return job.request["OutputDataConfig"].get("CompressionType") != "NONE"


def page_of(key: str, shown: list[Asked], asked: Asked, settings: AwsSettings) -> Asked:
    """The requested part of a list."""
    here, token = page(shown, asked.get("NextToken", ""), asked.get("MaxResults", 10), settings)
    return {key: here} | ({"NextToken": token} if token else {})


def _instances(asked: Asked) -> tuple[str, int]:
    config = asked["ResourceConfig"]
    return config.get("InstanceType", ""), config.get("InstanceCount", 1)


def _empty_archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz"):
        pass
    return content.getvalue()
