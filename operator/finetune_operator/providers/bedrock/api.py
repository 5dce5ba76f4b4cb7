"""AWS Bedrock's model customization: one call per method. `wire.py` interprets the answers.

Data and results are exchanged through the connection's S3 location. A job's name and request token follow from the
attempt: Bedrock creates one job per token, and a lookup by name is consistent.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from finetune_api.aws import Bedrock
from finetune_api.reasons import Reason
from finetune_operator.decide.job.remote import JobKey, Metrics, RemoteJob
from finetune_operator.providers.aws.api import AwsApi
from finetune_operator.providers.aws.client import Aws, session_of
from finetune_operator.providers.aws.s3 import Bucket, place_of
from finetune_operator.providers.bedrock import wire
from finetune_operator.providers.bedrock.deployments import BedrockDeployments
from finetune_operator.providers.bedrock.models import ANSWER_SECONDS, RUNTIME, BedrockModels
from finetune_operator.providers.calls.errors import AtCapacity, Denied, NotThere, ProviderError, Refused, TryLater
from finetune_operator.providers.calls.values import RESULTS_MAX_BYTES
from finetune_operator.providers.ports import AnsweringApi, HostingApi, JobRequest, RemoteFile

logger = logging.getLogger(__name__)

SERVICE = "bedrock"
STOP_PAUSE_SECONDS = 10.0


class BedrockApi(AwsApi):
    """A FineTuningApi over boto3."""

    def __init__(self, settings: Bedrock, secret: Mapping[str, str]) -> None:
        self._settings = settings
        session = session_of(settings.credentials, secret, settings.region)
        endpoints = settings.endpoints.by_service() if settings.endpoints else None
        super().__init__(Aws(session, endpoints, {RUNTIME: ANSWER_SECONDS}), settings.s3)
        self._models = BedrockModels(self._aws, settings.region)

    async def check(self) -> None:
        """List one job, and check the bucket."""
        await self._aws.call(SERVICE, "list_model_customization_jobs", maxResults=1)
        await self._bucket.check()

    async def files(self, prefix: str) -> list[RemoteFile]:
        """Objects in the connection's S3 location: data, and results unless these are kept."""
        found = await self._objects(prefix)
        keep = self._settings.results == "Keep"
        return [
            RemoteFile(one.name, one.name, one.bytes) for one in found if not (keep and wire.is_of_results(one.name))
        ]

    async def delete_file(self, file_id: str) -> None:
        """Delete an object."""
        await self._bucket.delete(file_id)

    async def create(self, request: JobRequest) -> RemoteJob:
        """CreateModelCustomizationJob, with the attempt's token."""
        asked = wire.creation(request, self._settings, self._bucket.uri)
        try:
            made = await self._aws.call(SERVICE, "create_model_customization_job", **asked)
        except Refused as error:
            raise wire.with_spec_field(error) from None
        except TryLater as error:
            if error.reason is not Reason.QUOTA_EXCEEDED or not (running := await self._running()):
                raise
            message = f"{error.message} (customization jobs in progress there: {running})"
            raise AtCapacity(message, error.retry_after) from None
        return RemoteJob(id=made["jobArn"], state="Queued", created=request.key.created)

    async def _running(self) -> int:
        """How many jobs run in the account; 0 if it cannot be asked.

        Tells whether the quota of concurrent jobs is used up, since AWS's message does not name the quota.
        """
        key = "modelCustomizationJobSummaries"
        try:
            answer = await self._aws.call(SERVICE, "list_model_customization_jobs", statusEquals="InProgress")
        except ProviderError:
            return 0
        return len(answer.get(key) or ())

    async def find(self, key: JobKey, since: datetime) -> list[RemoteJob]:  # noqa: ARG002 - the name tells
        """Find by name, which is unique to the attempt."""
        try:
            return [wire.job(await self._shown(wire.job_name(key)))]
        except NotThere:
            return []

    async def jobs(self, since: datetime) -> list[RemoteJob]:
        """ListModelCustomizationJobs."""
        key = "modelCustomizationJobSummaries"
        found = await self._aws.pages(SERVICE, "list_model_customization_jobs", key, creationTimeAfter=since)
        return [wire.listed(one) for one in found]

    async def job(self, job_id: str) -> RemoteJob:
        """GetModelCustomizationJob. The ID stays as given: an adopted job may have been given by name."""
        return replace(wire.job(await self._shown(job_id)), id=job_id)

    async def metrics(self, job: RemoteJob) -> Metrics:
        """From the two files that Bedrock writes to S3; empty until they exist."""
        results = job.results or (await self.job(job.id)).results
        contents = await asyncio.gather(*(self._content(uri) for uri in results))
        training, validation = contents[0], contents[1] if len(contents) > 1 else b""
        return await asyncio.to_thread(wire.metrics, training, validation)  # they may be long

    async def cancel(self, job_id: str) -> None:
        """StopModelCustomizationJob. A refusal because the job has ended, or is being stopped, counts as success.

        Raises:
            NotThere: there is no such job.
            TryLater: accepted, but the job still runs: a proxy may have answered.
        """
        message = f"job {job_id} was to be stopped at Bedrock, and continues"
        why: ProviderError = TryLater(Reason.PROVIDER_BUSY, message, STOP_PAUSE_SECONDS)
        try:
            await self._aws.call(SERVICE, "stop_model_customization_job", jobIdentifier=job_id)
        except NotThere:
            raise
        except (Refused, TryLater) as error:
            if error.reason not in {Reason.PROVIDER_REFUSED, Reason.PROVIDER_BUSY}:
                raise
            why = error
        if (await self._shown(job_id)).get("status", "InProgress") == "InProgress":
            raise why

    async def has_model(self, model: str) -> bool:
        """GetCustomModel."""
        try:
            shown = await self._aws.call(SERVICE, "get_custom_model", modelIdentifier=model)
        except NotThere:
            return False
        return bool(shown["modelArn"])

    async def delete_model(self, model: str) -> None:
        """Delete the job's results first, if these were kept: only the model says where they are."""
        try:
            shown = await self._aws.call(SERVICE, "get_custom_model", modelIdentifier=model)
            # Imported models have none, and the field is optional.
            folder = self._bucket.name_of(str((shown.get("outputDataConfig") or {}).get("s3Uri")))
            if folder is not None and wire.is_of_results(f"{folder}/"):
                await self._bucket.delete_all(f"{folder}/")
            await self._aws.call(SERVICE, "delete_custom_model", modelIdentifier=model)
        except NotThere:
            return

    def hosting(self) -> HostingApi:
        """On-demand deployments and provisioned throughput."""
        return BedrockDeployments(self._aws)

    def answering(self) -> AnsweringApi:
        """Converse, with deployments and base models."""
        return self._models

    async def _shown(self, name_or_arn: str) -> dict[str, Any]:
        return await self._aws.call(SERVICE, "get_model_customization_job", jobIdentifier=name_or_arn)

    async def _content(self, uri: str) -> bytes:
        """An object's content from any bucket, as an adopted job may have another one; empty if it does not exist.

        Losses that may not be read must neither fail the job nor the polling of others.
        """
        place, name = place_of(uri)
        try:
            return await Bucket(self._aws, place).read(name, RESULTS_MAX_BYTES)
        except NotThere:
            return b""
        except TryLater as error:
            if error.reason != Reason.BUCKET_NOT_FOUND and not isinstance(error, Denied):
                raise
            logger.warning("a record of losses cannot be read: %s", error.message)
            return b""
