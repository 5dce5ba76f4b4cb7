"""Checks that a job's files at its provider belong to it, by their names, and deletes them."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from finetune_api.job_status import ProviderFile, ProviderStatus
from finetune_api.manifest import Manifest
from finetune_api.reasons import Reason
from finetune_operator.decide.job.remote import JobKey, settles_in
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.calls.errors import BRING_AGAIN_STEP, Busy, NotThere, Refused, TryLater
from finetune_operator.providers.ports import FineTuningApi, RemoteFile
from finetune_operator.providers.remote.job_record import connection_of, key_of, recorded

T = TypeVar("T")

LOOKUPS = 2
"""How often the files to delete are listed."""

LOOK_AGAIN_SECONDS = 10.0


class CloudFiles:
    """The files of jobs, through the providers' accounts.

    Args:
        accounts: the providers.
        clock: now, with a time zone.
    """

    def __init__(self, accounts: Accounts, clock: Callable[[], datetime]) -> None:
        self._accounts = accounts
        self._clock = clock

    async def require_own(self, job: Manifest, key: JobKey, provider: ProviderStatus) -> None:
        """Check that the files belong to the job. Their IDs come from a pod, which could name someone else's data.

        Raises:
            NotThere: a file no longer exists.
            Refused: a file is not of this attempt, or the provider cannot use it.
            TryLater: a file is not visible yet, or the provider still processes it.
        """
        for file in provider.files or ():
            try:
                found = await self._call(job, partial(_file, file_id=file.id))
            except NotThere as absent:
                raise self.unshown(provider.files_at) or _gone(file, absent) from None
            if found.name != key.file_name(file.split, file.sha256):
                raise Refused(Reason.PROVIDER_REFUSED, f"file {file.id} at the provider is not of this job")
            if found.unusable:
                said = f"the provider cannot use the file of dataset.{file.split}; it shows why at file {file.id}"
                raise Refused(Reason.DATASET_INVALID, said)
            if not found.ready:
                raise TryLater(Reason.PROVIDER_UNAVAILABLE, "the provider still looks at the files", LOOK_AGAIN_SECONDS)

    def unshown(self, files_at: str | None) -> TryLater | None:
        """The error while recently uploaded files may not be visible yet; None once they must be."""
        left = settles_in(files_at, self._clock())
        said = "the provider does not show the files yet"
        return TryLater(Reason.PROVIDER_UNAVAILABLE, said, min(left, LOOK_AGAIN_SECONDS)) if left > 0 else None

    async def clean(self, job: Manifest, known: Sequence[ProviderFile]) -> None:
        """Delete the files of all attempts: those listed, and those that pods reported.

        Raises:
            Busy: a file is still being uploaded.
        """
        prefix = key_of(job, ProviderStatus()).file_prefix
        if self._accounts.of(connection_of(job)).is_uploading(prefix):
            raise Busy(Reason.PENDING, "a file of the job is still on its way to the provider", 1.0)
        # One list may lack an existing file: for example one uploaded twice because the first answer was lost.
        lists = [await self._call(job, lambda api: api.files(prefix)) for _ in range(LOOKUPS)]
        listed = {file.id for files in lists for file in files}
        hidden = [file.id for file in known if file.id not in listed]
        await self._call(job, lambda api: api.end_uploads(prefix))
        for file_id in [*listed, *[one for one in hidden if await self._has_name(job, one, prefix)]]:
            await self._call(job, partial(_delete_file, file_id=file_id))

    async def _has_name(self, job: Manifest, file_id: str, prefix: str) -> bool:
        """Whether a file that a pod reported exists and belongs to this job.

        Raises:
            Busy: it was uploaded recently and may still become visible.
        """
        try:
            return (await self._call(job, partial(_file, file_id=file_id))).name.startswith(prefix)
        except NotThere:
            left = settles_in(recorded(job, "filesAt"), self._clock())
            if left > 0:
                message = "a file that was brought there a moment ago may still show"
                raise Busy(Reason.PENDING, message, min(left, LOOK_AGAIN_SECONDS)) from None
            return False

    async def _call(self, job: Manifest, do: Callable[[FineTuningApi], Awaitable[T]]) -> T:
        return await self._accounts.of(connection_of(job)).call(do)


def _file(api: FineTuningApi, file_id: str) -> Awaitable[RemoteFile]:
    return api.file(file_id)


def _delete_file(api: FineTuningApi, file_id: str) -> Awaitable[None]:
    return api.delete_file(file_id)


def _gone(file: ProviderFile, absent: NotThere) -> NotThere:
    """The error for a vanished file. If the provider does not tell a key's account, the key may be the cause."""
    message = f"spec.dataset.{file.split}: its file {file.id} is not to be seen any more: {absent.message}"
    found = NotThere(absent.reason, message)
    found.next_step = (
        f"Somebody has deleted the file there, or the connection's credentials are of another account by now: then it "
        f"stays in the account that had it, until it is deleted there. {BRING_AGAIN_STEP}"
    )
    return found
