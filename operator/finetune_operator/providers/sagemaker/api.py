"""Training jobs at SageMaker with our own trainer: one call per method. What answers mean is `wire.py`.

Data, checkpoints and artifact are in S3. So is the report: no container reaches the operator.
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
from finetune_operator.providers.errors import Crowded, NotThere, ProviderError, Refused, TryLater, Unknown
from finetune_operator.providers.ports import HostingApi, JobRequest, RemoteFile
from finetune_operator.providers.sagemaker import wire
from finetune_operator.providers.sagemaker.endpoints import SERVICE, SageMakerEndpoints, cached
from finetune_operator.providers.sagemaker.output import ADAPTER, WHOLE, adopted, checked, failure_of, is_of_its_place

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
        """Ask for one job and for the bucket: the keys are good for both."""
        await self._ask("list_training_jobs", MaxResults=1)
        await self._bucket.check()

    async def files(self, prefix: str) -> list[RemoteFile]:
        """Objects whose names begin so; those in a folder count as one."""
        sizes: dict[str, int] = {}
        for one in await self._objects(prefix):
            folder, slash, _ = one.name.partition("/")
            sizes[folder + slash] = sizes.get(folder + slash, 0) + one.bytes
        return [RemoteFile(id=name, name=name, bytes=size) for name, size in sizes.items()]

    async def delete_file(self, file_id: str) -> None:
        """Delete an object, or all of a folder."""
        await (self._bucket.delete_all if file_id.endswith("/") else self._bucket.delete)(file_id)

    async def create(self, request: JobRequest) -> RemoteJob:
        """Write what the container is told, then CreateTrainingJob, once: its name is taken once."""
        settings = self._settings
        told = wire.container_job(request, settings, self._bucket)
        base = cached(self._aws, settings, request.spec.base_model)
        models = wire.Models(base=base, active=await self._within_reach(request))
        try:
            await self._bucket.write(wire.job_file(request.key), _once(orjson.dumps(told.wire())))
        except Unknown as error:
            raise TryLater.because(error.failure(), 30.0) from None  # no job was asked for
        name = wire.job_name(request.key)
        try:
            await self._ask("create_training_job", **wire.training_job(request, settings, self._bucket, models))
        except TryLater as error:
            if error.reason is Reason.QUOTA_EXCEEDED and wire.has_room_later(error.message):
                raise Crowded(error.message, error.retry_after) from None
            if error.reason is not Reason.PROVIDER_BUSY:
                raise
            return await self._ours(name, request)
        except Refused as error:
            asked = instance_type(request.spec, settings)
            raise wire.of_the_instances(error, "spec.resources.instanceType", asked) from None
        # It may not be shown yet, so it is not looked at: of the create nothing is unknown.
        return RemoteJob(id=name, state="Queued", created=request.key.created)

    async def find(self, key: JobKey, since: datetime) -> list[RemoteJob]:  # noqa: ARG002 - a name says it all
        """The one job that has the attempt's name."""
        try:
            return [await self.job(wire.job_name(key))]
        except NotThere:
            return []

    async def jobs(self, since: datetime) -> list[RemoteJob]:
        """ListTrainingJobs of those under way. One that has ended is asked for by its name: a list says too little."""
        found = await self._aws.pages(
            SERVICE,
            "list_training_jobs",
            "TrainingJobSummaries",
            CreationTimeAfter=since,
            NameContains=wire.NAME_PREFIX,
            StatusEquals="InProgress",
            PaginationConfig={"PageSize": PAGE},
        )
        return [wire.job_of(one) for one in found if wire.is_named_by_us(one["TrainingJobName"])]

    async def job(self, job_id: str) -> RemoteJob:
        """DescribeTrainingJob. It goes on being called as it was asked for: an adopted one perhaps by its ARN."""
        return replace(wire.job_of(await self._described(job_id)), id=job_id)

    async def metrics(self, job: RemoteJob) -> Metrics:
        """The trainer's own report, from among the checkpoints or, once it is done, from beside the artifact.

        A job that others have made may have none: then its model alone is looked for, once it is done.
        """
        if not job.labels and not job.partial:
            return await self._of_others(job)
        if job.state == "Succeeded":
            return _metrics(await self._finished(job))
        prefix, attempt = wire.attempt_of(wire.name_of(job.id))
        report = await self._report(self._bucket, wire.progress_report(prefix))
        if report.attempt != attempt:
            raise NotThere(Reason.PROVIDER_REFUSED, "the report is of an earlier attempt")
        return _metrics(report)

    async def cancel(self, job_id: str) -> None:
        """StopTrainingJob; the trainer writes a checkpoint first. One that has ended is no error.

        Raises:
            NotThere: there is no such job.
            TryLater: it has not ended yet. Until then it may write to S3, where the next attempt or nobody should.
        """
        status = (await self._described(job_id))["TrainingJobStatus"]
        if status == "InProgress":
            await self._ask("stop_training_job", TrainingJobName=job_id)
        if status in {"InProgress", "Stopping"}:
            message = f"training job {job_id} is being stopped: it writes a checkpoint first"
            raise TryLater(Reason.PROVIDER_BUSY, message, STOPPING_PAUSE_SECONDS)

    async def has_model(self, model: str) -> bool:
        """Whether a model's files are in S3: by its manifest or configuration, or by its archive."""
        place, key = place_of(model)
        names = (key,) if key.endswith(ARCHIVE) else tuple(f"{key}/{file}" for file in (MANIFEST, ADAPTER, WHOLE))
        for name in names:
            with suppress(NotThere):
                await Bucket(self._aws, place).look(name)
                return True
        return False

    async def delete_model(self, model: str) -> None:
        """Delete what a training job has left in S3, by the URI of its artifact."""
        place, key = place_of(model)
        found = re.fullmatch(rf"(?P<job>(.*/)?{wire.MODELS}{wire.NAME_PREFIX}[^/]+-\d+/)output/model/[^/]+", key)
        if found is None:
            raise Refused(Reason.PROVIDER_REFUSED, f"{model} is not an artifact of a training job")
        await Bucket(self._aws, place).delete_all(found["job"])

    def hosting(self) -> HostingApi:
        """Endpoints of the account."""
        return self._endpoints

    def answering(self) -> None:
        """No model answers without an endpoint."""

    async def _within_reach(self, request: JobRequest) -> str | None:
        """The active version's folder, if it is where the connection's role may read: else the job would fail for it.

        An archive would have to be unpacked there, and what another connection has made is another account's.
        """
        active = request.active
        uri = active.uri if active else None
        if active is None or uri is None or uri.endswith(ARCHIVE):
            return None
        if active.connection != request.spec.connection_ref.name or self._bucket.name_of(uri) is None:
            return None
        return f"{uri}/" if await self.has_model(uri) else None

    async def _ours(self, name: str, request: JobRequest) -> RemoteJob:
        """The job that has the name: an earlier call of ours made it, whose answer was lost."""
        try:
            found = await self.job(name)
        except NotThere:
            message = f"training job {name} exists, and is not shown yet"
            raise Unknown(Reason.PROVIDER_UNAVAILABLE, message) from None
        if not found.labels or not found.labels.items() <= wire.labels(request.key).items():
            raise Refused(Reason.PROVIDER_REFUSED, f"training job {name} exists, and is not of this job")
        return found

    async def _described(self, name: str) -> dict[str, Any]:
        """By the name alone; of an ARN the rest has to be that of the job, too.

        Raises:
            NotThere: there is none of this name, or it is another account's or region's that is meant.
        """
        shown = await self._ask("describe_training_job", TrainingJobName=wire.name_of(name))
        if not wire.is_meant(name, shown):
            raise NotThere(Reason.PROVIDER_REFUSED, f"{SERVICE} has no {name}")
        return shown

    async def _report(self, bucket: Bucket, name: str) -> Report:
        """A report in S3.

        Raises:
            NotThere: there is none that this release can read.
        """
        raw = await bucket.read(name, REPORT_MAX_BYTES)
        try:
            return read_report(raw)
        except ValueError:
            raise NotThere(Reason.PROVIDER_REFUSED, f"{name} is not a report") from None

    async def _finished(self, job: RemoteJob) -> Report:
        """The last report of a job that is done; one that says Failed where its artifact is not whole."""
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
        """What of the artifact is missing or differs, by its manifest; contents are looked at when it is served."""
        there = {one.name.removeprefix(folder): one.bytes for one in await bucket.objects(folder)}
        digest, wrong = await checked(bucket, folder, there)
        if report.result is None or digest != report.result.artifact.sha256:
            return "its manifest is not the one that was reported"
        return wrong

    async def _of_others(self, job: RemoteJob) -> Metrics:
        """How a job goes that was not made by this operator, and what it has left once it is done.

        What keeps its place in S3 from being read is that job's trouble, and not that of all of the connection.
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
            if not is_of_its_place(error):
                raise
            return _metrics(_failed(report, failure_of(error)))
        result = wire.result_of(shown, artifact, report)
        done = {"phase": "Succeeded", "result": result, "failure": None}
        return _metrics((report or _silent()).model_copy(update=done))

    async def _report_at(self, job: RemoteJob) -> Report | None:
        if not job.results:
            return None
        place, key = place_of(job.results[0])
        try:
            return await self._report(Bucket(self._aws, place), key)
        except ProviderError as error:
            if not is_of_its_place(error):
                raise
            return None

    def _require_base(self, artifact: ArtifactRef) -> None:
        """An adapter needs its base model, and a server fetches that by the name in the adapter, or from the cache."""
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
    return (report or _silent()).model_copy(update={"phase": "Failed", "failure": failure, "result": None})


def _silent() -> Report:
    """Of a trainer that has said nothing. Whose it is stands in the job."""
    return Report(namespace="-", name="-", uid="-", attempt=1, phase="Running")


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
