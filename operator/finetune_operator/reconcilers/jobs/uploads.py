"""Passes a file from a check's pod on to the provider of its job's connection, under a name that identifies the job."""

import hashlib
from collections.abc import AsyncIterator

from finetune_api.job_status import FineTuneJobStatus, ProviderFile, ProviderStatus
from finetune_api.manifest import Manifest, wants_deletion
from finetune_api.names import PROVIDER_FINALIZER
from finetune_api.trainer import UploadTarget
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.calls.errors import ProviderError, Refused, TryLater
from finetune_operator.providers.remote.job_record import begun_at, connection_of, is_held, key_of, noted
from finetune_operator.providers.sdks import is_remote
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.watched.reading import parse_status
from finetune_operator.runtime.errors import Conflict
from finetune_operator.runtime.kube import FINE_TUNE_JOBS
from finetune_operator.runtime.queue import Key
from finetune_operator.runtime.report_server.refusals import Refusal

PAUSE_SECONDS = 10.0


class Uploads:
    """Accepts files; authorisation happens before."""

    def __init__(self, context: Context, accounts: Accounts) -> None:
        self._context = context
        self._accounts = accounts

    async def accept(self, target: UploadTarget, size: int, body: AsyncIterator[bytes]) -> ProviderFile:
        """Pass the body on. When this returns the provider has the file, exactly once.

        Raises:
            Refusal: with a sentence for the pod's termination message.
        """
        job = self._job(target)
        connection = connection_of(job)
        name = key_of(job, ProviderStatus(attempt=target.attempt)).file_name(target.split, target.sha256)
        account = self._accounts.of(connection)
        try:
            with account.recording_upload_error(name):
                if self._context.connection(connection) is None:
                    raise TryLater.because(self._context.lacking(connection))
                await (
                    account.find()
                )  # its place is recorded with the finalizer; the cached one may be of an earlier key
                if not is_held(self._job(target)):
                    await account.require_checked()  # from the finalizer on the job is bound to this place
                await account.require_place(*begun_at(await self._job_with_finalizer(target)))
                file = await account.upload(name, size, self._verified(body, size, target))
        except Refused as error:
            raise Refusal(424, error.message, close=True) from None
        except ProviderError as error:
            self._context.enqueue(Key(FINE_TUNE_JOBS.kind, target.namespace, target.name))  # so that status says it
            pause = error.retry_after or PAUSE_SECONDS
            raise Refusal(503, f"{error.reason.value}: {error.message}", retry_after=pause, close=True) from None
        return ProviderFile(split=target.split, id=file.id, bytes=size, sha256=target.sha256)

    async def _job_with_finalizer(self, target: UploadTarget) -> Manifest:
        """The job with our finalizer: it must not be deleted and leave its files outside of the cluster."""
        try:
            return await self._add_finalizer(self._job(target))
        except Conflict:
            await self._context.refresh(FINE_TUNE_JOBS, target.name, target.namespace)
            return await self._add_finalizer(self._job(target))

    async def _add_finalizer(self, job: Manifest) -> Manifest:
        return await self._context.add_finalizer(FINE_TUNE_JOBS, job, PROVIDER_FINALIZER, noted(job, self._accounts))

    def _job(self, target: UploadTarget) -> Manifest:
        """The job, if its present attempt waits for files.

        Raises:
            Refusal: it takes no files, or none any more.
        """
        job = self._context.store.get(FINE_TUNE_JOBS, target.name, target.namespace)
        connection = self._context.connection(connection_of(job)) if job else None
        if job is None or (connection is not None and not is_remote(connection)):
            raise Refusal(403, "the job's connection takes no files", close=True)
        if target.split == "code" and not job["spec"].get("code"):
            raise Refusal(403, "the job has no code of its own", close=True)
        status = parse_status(FineTuneJobStatus, job)
        if job["metadata"]["uid"] != target.uid or wants_deletion(job) or status.completion_time is not None:
            raise Refusal(403, "the job is not under way", close=True)
        if status.provider is None or status.provider.attempt != target.attempt or status.provider.asked_at is not None:
            raise Refusal(403, "the job is at another attempt", close=True)
        return job

    async def _verified(self, body: AsyncIterator[bytes], size: int, target: UploadTarget) -> AsyncIterator[bytes]:
        """The body; aborted before its end if it is not what the request said, or if the job no longer needs it.

        So the provider never gets a wrong file whole.

        Raises:
            Refusal: length or checksum differ, or the job has ended meanwhile.
        """
        digest, seen = hashlib.sha256(), 0
        async for chunk in body:
            digest.update(chunk)
            seen += len(chunk)
            if seen == size and digest.hexdigest() != target.sha256:
                raise Refusal(400, "the body does not have the checksum that the request gives", close=True)
            if seen == size:
                self._job(target)
            yield chunk
        if seen != size:
            raise Refusal(400, "the body is shorter than the request says", close=True)
