"""Training jobs at SageMaker with our own trainer: one call per method. What answers mean is `sagemaker_wire`.

Data, checkpoints and artifact are in S3. So is the report: no container reaches the operator.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import orjson
from pydantic import ValidationError

from finetune_api.aws import SageMaker
from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_api.trainer import Report
from finetune_operator.decide.remote import JobKey, Metrics, RemoteJob
from finetune_operator.providers import sagemaker_wire as wire
from finetune_operator.providers.aws import Aws, session_of
from finetune_operator.providers.errors import NotThere, ProviderError, Refused, TryLater, Unknown
from finetune_operator.providers.ports import HostingApi, JobRequest, RemoteFile
from finetune_operator.providers.s3 import Bucket, place_of
from finetune_operator.providers.sagemaker_endpoints import SERVICE, SageMakerEndpoints, absent, cached

REPORT_MAX_BYTES = 1024 * 1024
MANIFEST_MAX_BYTES = 4 * 1024 * 1024
STOPPING_PAUSE_SECONDS = 20.0
PAGE = 100


class SageMakerApi:
    """A FineTuningApi over boto3."""

    def __init__(self, settings: SageMaker, secret: Mapping[str, str]) -> None:
        self._settings = settings
        self._aws = self._connect(settings, secret)
        self._bucket = Bucket(self._aws, settings.s3)
        self._endpoints = SageMakerEndpoints(settings, self._aws)

    def _connect(self, settings: SageMaker, secret: Mapping[str, str]) -> Aws:
        session = session_of(settings.credentials, secret, settings.region)
        return Aws(session, settings.endpoints.by_service() if settings.endpoints else None)

    async def close(self) -> None:
        """Close the connections."""
        await self._aws.close()

    def keep_pace(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Each request waits, but for S3's."""
        self._aws.keep_pace(wait)

    async def check(self) -> None:
        """Ask for one job and for the bucket: the keys are good for both."""
        await self._ask("list_training_jobs", MaxResults=1)
        await self._bucket.check()

    async def upload(self, name: str, size: int, body: AsyncIterator[bytes]) -> RemoteFile:
        """Write an object. Its name is its id."""
        await self._bucket.write(name, body)
        return RemoteFile(id=name, name=name, bytes=size)

    async def file(self, file_id: str) -> RemoteFile:
        """One object."""
        found = await self._bucket.look(file_id)
        return RemoteFile(id=found.name, name=found.name, bytes=found.bytes)

    async def files(self, prefix: str) -> list[RemoteFile]:
        """Objects whose names begin so; those in a folder count as one."""
        sizes: dict[str, int] = {}
        for one in await self._bucket.objects(prefix):
            folder, slash, _ = one.name.partition("/")
            sizes[folder + slash] = sizes.get(folder + slash, 0) + one.bytes
        return [RemoteFile(id=name, name=name, bytes=size) for name, size in sizes.items()]

    async def delete_file(self, file_id: str) -> None:
        """Delete an object, or all of a folder."""
        await (self._bucket.delete_all if file_id.endswith("/") else self._bucket.delete)(file_id)

    async def end_uploads(self, prefix: str) -> None:
        """Give up uploads that were never ended: S3 bills for their parts."""
        await self._bucket.end_uploads(prefix)

    async def create(self, request: JobRequest) -> RemoteJob:
        """Write what the container is told, then CreateTrainingJob, once: its name is taken once."""
        settings = self._settings
        told = wire.container_job(request, settings, self._bucket)
        try:
            await self._bucket.write(wire.job_file(request.key), _once(orjson.dumps(told.wire())))
        except Unknown as error:
            raise TryLater(error.reason, error.message, 30.0) from None  # no job was asked for
        name = wire.job_name(request.key)
        base = cached(self._aws, settings, request.spec.base_model)
        try:
            await self._ask("create_training_job", **wire.training_job(request, settings, self._bucket, base))
        except TryLater as error:
            if error.reason is not Reason.PROVIDER_BUSY:
                raise
            return await self._ours(name, request)
        return await self.job(name)

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
        return [wire.job_of(one) for one in found]

    async def job(self, job_id: str) -> RemoteJob:
        """DescribeTrainingJob."""
        return wire.job_of(await self._described(job_id))

    async def metrics(self, job: RemoteJob) -> Metrics:
        """The trainer's own report, from among the checkpoints or, once it is done, from beside the artifact."""
        if job.state == "Succeeded":
            return _metrics(await self._finished(job.id))
        prefix, attempt = wire.attempt_of(job.id)
        report = await self._report(wire.progress_report(prefix))
        if report.attempt != attempt:
            raise NotThere(Reason.PROVIDER_REFUSED, "the report is of an earlier attempt")
        return _metrics(report)

    async def cancel(self, job_id: str) -> None:
        """StopTrainingJob; the trainer writes a checkpoint first. One that has ended, or is not there, is no error.

        Raises:
            TryLater: it has not ended yet. Until then it may write to S3, where the next attempt or nobody should.
        """
        try:
            status = (await self._described(job_id))["TrainingJobStatus"]
            if status == "InProgress":
                await self._ask("stop_training_job", TrainingJobName=job_id)
        except NotThere:
            return
        if status in {"InProgress", "Stopping"}:
            message = f"training job {job_id} is being stopped: it writes a checkpoint first"
            raise TryLater(Reason.PROVIDER_BUSY, message, STOPPING_PAUSE_SECONDS)

    async def has_model(self, model: str) -> bool:
        """Whether an artifact is in S3, whole as far as its manifest says that it was."""
        place, key = place_of(model)
        try:
            await Bucket(self._aws, place).look(f"{key}/manifest.json")
        except NotThere:
            return False
        return True

    async def delete_model(self, model: str) -> None:
        """Delete what a training job has left in S3, by the URI of its artifact."""
        place, key = place_of(model)
        found = re.fullmatch(rf"(?P<job>(.*/)?{wire.MODELS}{wire.NAME_PREFIX}[^/]+-\d+/)output/model/[^/]+", key)
        if found is None:
            raise Refused(Reason.PROVIDER_REFUSED, f"{model} is no artifact of a training job")
        await Bucket(self._aws, place).delete_all(found["job"])

    def hosting(self) -> HostingApi:
        """Endpoints of the account."""
        return self._endpoints

    def answering(self) -> None:
        """No model answers without an endpoint."""

    async def _ours(self, name: str, request: JobRequest) -> RemoteJob:
        """The job that has the name: an earlier call of ours made it, whose answer was lost."""
        found = await self.job(name)
        if found.labels != wire.labels(request.key):
            raise Refused(Reason.PROVIDER_REFUSED, f"training job {name} exists, and is not of this job")
        return found

    async def _described(self, name: str) -> dict[str, Any]:
        return await self._ask("describe_training_job", TrainingJobName=name)

    async def _report(self, name: str) -> Report:
        """A report in S3.

        Raises:
            NotThere: there is none that this release can read.
        """
        raw = await self._bucket.read(name, REPORT_MAX_BYTES)
        try:
            return Report.model_validate_json(raw)
        except ValidationError:
            raise NotThere(Reason.PROVIDER_REFUSED, f"{name} is no report") from None

    async def _finished(self, name: str) -> Report:
        """The last report of a job that is done; one that says Failed where its artifact is not whole."""
        report: Report | None = None
        try:
            report = await self._report(wire.final_report(name))
            problem = await self._incomplete(name, report)
        except NotThere:
            problem = "its manifest is missing" if report else "it left no report"
        if report is not None and problem is None:
            return report
        message = f"training job {name} is done, but its model is not whole: {problem}"
        step = f"Look at {self._bucket.uri(wire.model_folder(name))}, then set spec.retryNonce to train it again."
        failure = Failure(reason=Reason.ARTIFACT_FAILED, message=message, next_step=step)
        report = report or Report(namespace="-", name="-", uid="-", attempt=1, phase="Failed")
        return report.model_copy(update={"phase": "Failed", "failure": failure})

    async def _incomplete(self, name: str, report: Report) -> str | None:
        """What of the artifact is missing or differs, by its manifest; contents are looked at when it is served."""
        folder = wire.artifact_folder(name) + "/"
        manifest = await self._bucket.read(f"{folder}manifest.json", MANIFEST_MAX_BYTES)
        if report.result is None or hashlib.sha256(manifest).hexdigest() != report.result.artifact.sha256:
            return "its manifest is not the one that was reported"
        there = {one.name.removeprefix(folder): one.bytes for one in await self._bucket.objects(folder)}
        files = orjson.loads(manifest)["files"]
        wrong = [file for file, entry in files.items() if there.get(file) != entry["bytes"]]
        return f"{wrong[0]} is missing or cut short" if wrong else None

    async def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            return await self._aws.call(SERVICE, operation, **arguments)
        except ProviderError as error:
            raise absent(error) from None


def _metrics(report: Report) -> Metrics:
    progress, loss = report.progress, report.loss
    return Metrics(
        train=tuple(loss.train) if loss else (),
        validation=tuple(loss.validation) if loss else (),
        step=progress.step if progress else 0,
        total_steps=progress.total_steps if progress else 0,
        report=report,
    )


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
