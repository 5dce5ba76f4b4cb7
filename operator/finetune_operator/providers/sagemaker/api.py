"""Training jobs at SageMaker with this project's trainer: one call per method. `wire.py` interprets the answers.

Data, checkpoints, artifact and report are in S3: the container cannot reach the operator.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from finetune_api.aws import SageMaker
from finetune_api.job_status import ArtifactRef, Failure
from finetune_api.names import ARTIFACT_FOLDER, MANIFEST
from finetune_api.reasons import Reason
from finetune_api.sagemaker import REPORT_FILE
from finetune_api.trainer import Report, read_report
from finetune_operator.decide.cloud_job.cloud_cost import instance_type
from finetune_operator.decide.cloud_job.cloud_policy import ARCHIVE
from finetune_operator.decide.job.remote import JobKey, Metrics, RemoteJob
from finetune_operator.providers.aws.api import AwsApi
from finetune_operator.providers.aws.client import Aws, session_of
from finetune_operator.providers.aws.s3 import Bucket, place_of
from finetune_operator.providers.calls.errors import AtCapacity, NotThere, ProviderError, Refused, TryLater, Unknown
from finetune_operator.providers.ports import HostingApi, JobRequest, RemoteFile
from finetune_operator.providers.sagemaker import wire
from finetune_operator.providers.sagemaker.endpoints import SERVICE, SageMakerEndpoints, cached
from finetune_operator.providers.sagemaker.output import (
    ADAPTER_CONFIG,
    MODEL_CONFIG,
    adopted,
    checked,
    failure_of,
    is_about_output,
)

REPORT_MAX_BYTES = 1024 * 1024
STOPPING_PAUSE_SECONDS = 20.0
PAGE = 100


class SageMakerApi(AwsApi):
    """A FineTuningApi over boto3."""

    def __init__(self, settings: SageMaker, secret: Mapping[str, str]) -> None:
        self._settings = settings
        super().__init__(self._connect(settings, secret), settings.s3)
        self._endpoints = SageMakerEndpoints(settings, self._aws)

    def _connect(self, settings: SageMaker, secret: Mapping[str, str]) -> Aws:
        session = session_of(settings.credentials, secret, settings.region)
        return Aws(session, settings.endpoints.by_service() if settings.endpoints else None)

    async def check(self) -> None:
        """List one job and check the bucket: this proves that the keys are valid for both."""
        await self._ask("list_training_jobs", MaxResults=1)
        await self._bucket.check()

    async def files(self, prefix: str) -> list[RemoteFile]:
        """Objects with this prefix; a folder counts as one file."""
        sizes: dict[str, int] = {}
        for one in await self._objects(prefix):
            folder, slash, _ = one.name.partition("/")
            sizes[folder + slash] = sizes.get(folder + slash, 0) + one.bytes
        return [RemoteFile(id=name, name=name, bytes=size) for name, size in sizes.items()]

    async def delete_file(self, file_id: str) -> None:
        """Delete an object, or a whole folder."""
        await (self._bucket.delete_all if file_id.endswith("/") else self._bucket.delete)(file_id)

    async def create(self, request: JobRequest) -> RemoteJob:
        """Write the container's job file, then CreateTrainingJob; idempotent, as the name can be used only once."""
        settings = self._settings
        told = wire.container_job(request, settings, self._bucket)
        base = cached(self._aws, settings, request.spec.base_model)
        models = wire.Models(base=base, active=await self._readable_active(request))
        try:
            await self._bucket.write(wire.job_file(request.key), _single_chunk(orjson.dumps(told.wire())))
        except Unknown as error:
            raise TryLater.because(error.failure(), 30.0) from None  # no job was requested
        name = wire.job_name(request.key)
        try:
            await self._ask("create_training_job", **wire.training_job(request, settings, self._bucket, models))
        except TryLater as error:
            if error.reason is Reason.QUOTA_EXCEEDED and wire.fits_quota_later(error.message):
                raise AtCapacity(error.message, error.retry_after) from None
            if error.reason is not Reason.PROVIDER_BUSY:
                raise
            return await self._existing(name, request)
        except Refused as error:
            asked = instance_type(request.spec, settings)
            raise wire.with_instance_field(error, "spec.resources.instanceType", asked) from None
        # Not read back: it may not be visible yet, and the create has certainly succeeded.
        return RemoteJob(id=name, state="Queued", created=request.key.created)

    async def find(self, key: JobKey, since: datetime) -> list[RemoteJob]:  # noqa: ARG002 - a name says it all
        """The job with the attempt's name."""
        try:
            return [await self.job(wire.job_name(key))]
        except NotThere:
            return []

    async def jobs(self, since: datetime) -> list[RemoteJob]:
        """ListTrainingJobs, running ones only. Ended jobs are described by name, since the list lacks details."""
        found = await self._aws.pages(
            SERVICE,
            "list_training_jobs",
            "TrainingJobSummaries",
            CreationTimeAfter=since,
            NameContains=wire.NAME_PREFIX,
            StatusEquals="InProgress",
            PaginationConfig={"PageSize": PAGE},
        )
        return [wire.job_of(one) for one in found if wire.is_own_name(one["TrainingJobName"])]

    async def job(self, job_id: str) -> RemoteJob:
        """DescribeTrainingJob. The ID stays as given: an adopted job may have been given by its ARN."""
        return replace(wire.job_of(await self._described(job_id)), id=job_id)

    async def metrics(self, job: RemoteJob) -> Metrics:
        """From the trainer's report, which is among the checkpoints, and beside the artifact once the job is done.

        A job not created by this operator may have none; once done, it is judged by its model alone.
        """
        if not job.labels and not job.partial:
            return await self._adopted_metrics(job)
        if job.state == "Succeeded":
            return _metrics(await self._finished(job))
        prefix, attempt = wire.attempt_of(wire.name_of(job.id))
        report = await self._report(self._bucket, wire.progress_report(prefix))
        if report.attempt != attempt:
            raise NotThere(Reason.PROVIDER_REFUSED, "the report is of an earlier attempt")
        return _metrics(report)

    async def cancel(self, job_id: str) -> None:
        """StopTrainingJob; the trainer writes a checkpoint first. No error if the job has ended.

        Raises:
            NotThere: there is no such job.
            TryLater: it has not ended yet, and may still write to S3.
        """
        status = (await self._described(job_id))["TrainingJobStatus"]
        if status == "InProgress":
            await self._ask("stop_training_job", TrainingJobName=job_id)
        if status in {"InProgress", "Stopping"}:
            message = f"training job {job_id} is being stopped: it writes a checkpoint first"
            raise TryLater(Reason.PROVIDER_BUSY, message, STOPPING_PAUSE_SECONDS)

    async def has_model(self, model: str) -> bool:
        """Whether a model's files are in S3: its manifest or configuration, or its archive."""
        place, key = place_of(model)
        names = (
            (key,)
            if key.endswith(ARCHIVE)
            else tuple(f"{key}/{file}" for file in (MANIFEST, ADAPTER_CONFIG, MODEL_CONFIG))
        )
        for name in names:
            with suppress(NotThere):
                await Bucket(self._aws, place).head(name)
                return True
        return False

    async def delete_model(self, model: str) -> None:
        """Delete a training job's output in S3, by the URI of its artifact."""
        place, key = place_of(model)
        found = re.fullmatch(rf"(?P<job>(.*/)?{wire.MODELS}{wire.NAME_PREFIX}[^/]+-\d+/)output/model/[^/]+", key)
        if found is None:
            raise Refused(Reason.PROVIDER_REFUSED, f"{model} is not an artifact of a training job")
        await Bucket(self._aws, place).delete_all(found["job"])

    def hosting(self) -> HostingApi:
        """Endpoints of the account."""
        return self._endpoints

    def answering(self) -> None:
        """None: models answer only through endpoints."""

    async def _readable_active(self, request: JobRequest) -> str | None:
        """The active version's folder, if the connection's role can read it: otherwise the job would fail.

        Excludes archives, which the job would have to unpack, and versions of other connections, and so accounts.
        """
        active = request.active
        uri = active.uri if active else None
        if active is None or uri is None or uri.endswith(ARCHIVE):
            return None
        if active.connection != request.spec.connection_ref.name or self._bucket.name_of(uri) is None:
            return None
        return f"{uri}/" if await self.has_model(uri) else None

    async def _existing(self, name: str, request: JobRequest) -> RemoteJob:
        """The job that already has the name: created by an earlier call of ours whose answer was lost."""
        try:
            found = await self.job(name)
        except NotThere:
            message = f"training job {name} exists, and is not shown yet"
            raise Unknown(Reason.PROVIDER_UNAVAILABLE, message) from None
        if not found.labels or not found.labels.items() <= wire.labels(request.key).items():
            raise Refused(Reason.PROVIDER_REFUSED, f"training job {name} exists, and is not of this job")
        return found

    async def _described(self, name: str) -> dict[str, Any]:
        """Describe a job by its name; if given as an ARN, the rest of it must match, too.

        Raises:
            NotThere: there is none with this name, or the ARN is of another account or region.
        """
        shown = await self._ask("describe_training_job", TrainingJobName=wire.name_of(name))
        if not wire.matches(name, shown):
            raise NotThere(Reason.PROVIDER_REFUSED, f"{SERVICE} has no {name}")
        return shown

    async def _report(self, bucket: Bucket, name: str) -> Report:
        """A report in S3.

        Raises:
            NotThere: there is none, or this release cannot read it.
        """
        raw = await bucket.read(name, REPORT_MAX_BYTES)
        try:
            return read_report(raw)
        except ValueError:
            raise NotThere(Reason.PROVIDER_REFUSED, f"{name} is not a report") from None

    async def _finished(self, job: RemoteJob) -> Report:
        """The last report of a completed job; changed to Failed if its artifact is incomplete."""
        report: Report | None = None
        place, key = place_of(str(job.model))
        bucket, folder = Bucket(self._aws, place), key.removesuffix(ARTIFACT_FOLDER)
        try:
            report = await self._report(bucket, f"{folder}{REPORT_FILE}")
            problem = await self._incomplete(bucket, f"{key}/", report)
        except NotThere:
            problem = "its manifest is missing" if report else "it left no report"
        if report is not None and problem is None:
            return report
        message = f"training job {job.id} is done, but its model is not whole: {problem}"
        step = f"Look at {bucket.uri(folder)}, then set spec.retryNonce to train it again."
        return _failed(report, Failure(reason=Reason.ARTIFACT_FAILED, message=message, next_step=step))

    async def _incomplete(self, bucket: Bucket, folder: str, report: Report) -> str | None:
        """What is missing or differs from the artifact's manifest; contents are verified when it is served."""
        there = {one.name.removeprefix(folder): one.bytes for one in await bucket.objects(folder)}
        digest, wrong = await checked(bucket, folder, there)
        if report.result is None or digest != report.result.artifact.sha256:
            return "its manifest is not the one that was reported"
        return wrong

    async def _adopted_metrics(self, job: RemoteJob) -> Metrics:
        """Progress and result of a job that was not created by this operator.

        If its location in S3 cannot be read, only this job fails, and not the connection's other calls.
        """
        report = await self._report_at(job)
        if job.state != "Succeeded":
            if report is None:
                raise NotThere(Reason.PROVIDER_REFUSED, "it tells nothing of its progress")
            return _metrics(report)
        shown = await self._described(job.id)
        try:
            artifact = await adopted(self._aws, str(shown["ModelArtifacts"]["S3ModelArtifacts"]))
            self._require_base(artifact)
        except ProviderError as error:
            if not is_about_output(error):
                raise
            return _metrics(_failed(report, failure_of(error)))
        result = wire.result_of(shown, artifact, report)
        done = {"phase": "Succeeded", "result": result, "failure": None}
        return _metrics((report or _empty_report()).model_copy(update=done))

    async def _report_at(self, job: RemoteJob) -> Report | None:
        if not job.results:
            return None
        place, key = place_of(job.results[0])
        try:
            return await self._report(Bucket(self._aws, place), key)
        except ProviderError as error:
            if not is_about_output(error):
                raise
            return None

    def _require_base(self, artifact: ArtifactRef) -> None:
        """Check that an adapter's base model can be found: by a hub name in the adapter, or in the model cache."""
        if artifact.kind == "Adapter" and artifact.base_model is None and self._settings.model_cache is None:
            said = "the adapter names no base model of a hub, so the connection's sageMaker.modelCache has to have it"
            raise Refused(Reason.MODEL_NOT_IN_CACHE, f"spec.adopt: {said}")

    async def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        return await self._aws.call(SERVICE, operation, **arguments)


def _metrics(report: Report) -> Metrics:
    progress, loss = report.progress, report.loss
    return Metrics(
        train=tuple(loss.train) if loss else (),
        validation=tuple(loss.validation) if loss else (),
        step=progress.step if progress else 0,
        total_steps=progress.total_steps if progress else 0,
        report=report,
    )


def _failed(report: Report | None, failure: Failure) -> Report:
    return (report or _empty_report()).model_copy(update={"phase": "Failed", "failure": failure, "result": None})


def _empty_report() -> Report:
    """An empty report for a job without one; its names are not used."""
    return Report(namespace="-", name="-", uid="-", attempt=1, phase="Running")


async def _single_chunk(content: bytes) -> AsyncIterator[bytes]:
    yield content
