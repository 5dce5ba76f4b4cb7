"""Training at a provider outside of the cluster: a pod checks the data here, then a job runs there and is polled.

Provider-neutral: all calls go through FineTuningApi.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, FineTuneJobStatus, ProviderEvaluation, ProviderFile, ProviderStatus
from finetune_api.manifest import Manifest, wants_deletion
from finetune_api.reasons import Reason
from finetune_api.trainer import Report
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.job.remote import SETTLE, RemoteJob, is_of, run_of, settles_in
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.versions import version_to_compare
from finetune_operator.desired import names
from finetune_operator.providers.accounts.account import Account
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.calls.errors import (
    ConnectionMoved,
    Ended,
    NotThere,
    ProviderError,
    TryLater,
    Unknown,
    Unreadable,
    parsing_answer,
)
from finetune_operator.providers.ports import FineTuningApi, JobRequest
from finetune_operator.providers.remote.files import CloudFiles
from finetune_operator.providers.remote.job_record import begun_at, connection_of, is_held, key_of, noted
from finetune_operator.providers.remote.pods import CloudPods
from finetune_operator.providers.sdks import is_remote
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS
from finetune_operator.runtime.queue import Key
from finetune_operator.runtime.store import Store

T = TypeVar("T")

CLOCK_SKEW = timedelta(days=1)
"""How much earlier than our own timestamps to search, since either clock may be wrong. A job that is overlooked is
created twice, and a day of jobs is only a few pages."""

LOOKUPS = 2
"""How many lookups decide that a job without a trace in status does not exist."""

SUFFIX_LIMIT = 40
FURTHER_ATTEMPTS = 5
"""How many attempts after the last known one to look up if status is lost: some attempts never reach the provider."""

_WITHOUT_RESULT = frozenset({"Absent", "Failed", "ResultUnknown"})
_UNDER_WAY = frozenset({"Queued", "Active"})


class CloudTraining:
    """A TrainingProvider over the providers' accounts: a pod checks the data (`start`), then the provider runs a job.

    Every method raises subclasses of ProviderError; see `errors`.

    Args:
        store: watched models.
        accounts: the providers.
        pods: those that check the data, and those that query the model.
        clock: now, with a time zone.
    """

    def __init__(self, store: Store, accounts: Accounts, pods: CloudPods, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._accounts = accounts
        self._pods = pods
        self._clock = clock
        self._files = CloudFiles(accounts, clock)

    def output_uri(self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec) -> str:  # noqa: ARG002 - the port's
        """Empty: the job's results stay at the provider."""
        return ""

    def made_by(self, connection: LLMConnectionSpec) -> str:
        """A digest of the pod settings in connection and chart; empty for a connection to this cluster."""
        return self._pods.made_by(connection) if is_remote(connection) else ""

    def has_live_pods(self, job: Manifest) -> bool:
        """Whether a check pod may still upload data."""
        return self._pods.may_pass_on(job)

    async def latest_attempt(self, job: Manifest, status: FineTuneJobStatus) -> int:
        """By the check's Job. If status was lost, the finalizer shows that the provider may have later attempts."""
        latest = await self._pods.latest_attempt(job, status)
        number = last = max(latest, 1)
        lost = status.provider is None and is_held(job)
        if lost:
            await self._require_place(job, ProviderStatus())
        while lost and number < last + FURTHER_ATTEMPTS:
            number += 1
            if await self._exists(job, ProviderStatus(attempt=number)):
                latest = last = number
        return latest

    async def observe(self, job: Manifest, status: FineTuneJobStatus) -> Run:
        """The state of the check pod until the data are uploaded, then that of the provider's job by the poller."""
        provider = status.provider or ProviderStatus()
        if provider.asked_at is None:
            check = self._with_upload_error(job, provider, await self._pods.checked(job, status))
            lost = check.state in _WITHOUT_RESULT or bool(job["spec"].get("suspend"))
            return await self._or_created(job, provider, check) if lost and not status.completion_time else check
        if provider.job_id is None:
            asked = Run("Checked")
            return await self._or_created(job, provider, asked) if job["spec"].get("suspend") else asked
        if status.completion_time is not None:
            if _is_adopted(job):  # it leaves nothing to clean up there; if adopted again it must be fetched again
                self._accounts.forget(_queue_key(job))
            return Run("Unseen", job_id=provider.job_id)
        if provider.evaluation is not None and status.result is not None:
            return await self._measured(job, provider, provider.evaluation, status)
        try:
            await self._require_place(job, provider)
        except ProviderError as error:
            self._accounts.forget(_queue_key(job))
            return Run("Unreachable", failure=error.failure(), job_id=provider.job_id)
        run = self._polled(job, provider, provider.job_id, provider.asked_at, status)
        gone = run.failure is not None and run.failure.reason == Reason.DELETED_AT_PROVIDER
        return await self._unless_hidden(job, provider, run) if gone else run

    async def _or_created(self, job: Manifest, provider: ProviderStatus, check: Run) -> Run:
        """The check's run, or that its work is done: the attempt's job is at the provider.

        Status does not know of it where somebody has emptied it, or put back one from before. It is looked for where
        the check is gone, or tells nothing, and where nothing is to go on: who rests has to know what there is.
        """
        if not _may_be_there(job, provider):
            return check
        job_id = check.job_id or names.training_job(job["metadata"]["name"], max(provider.attempt, 1))
        try:
            await self._require_place(job, provider)
            return Run("Checked", job_id=job_id, unknown=True) if await self._exists(job, provider) else check
        except ProviderError as error:
            if check.state in _UNDER_WAY:
                return check  # its upload waits for the provider, too: no job is known to exist there
            return Run("Unreachable", failure=error.failure(), job_id=job_id)

    def _with_upload_error(self, job: Manifest, provider: ProviderStatus, check: Run) -> Run:
        """The check's run, with the upload error that its pod waits out without reporting it."""
        if check.state != "Active":
            return check
        key = key_of(job, provider)
        why = self._account(job).upload_error(key.attempt_prefix)
        return replace(check, failure=why.failure()) if why is not None else check

    async def _require_place(self, job: Manifest, provider: ProviderStatus) -> None:
        """As `Account.require_same`. If the connection leads elsewhere, asks each minute whether the key has changed.

        A status without an account gives nothing to compare, so the account is asked for.

        Raises:
            ProviderError: the connection leads elsewhere, or its account cannot be asked for.
        """
        begun, account = begun_at(job), self._account(job)
        try:
            if begun[1] and not provider.account:
                await account.require_place(*begun)
            account.require_same(*begun)
        except ConnectionMoved:
            await account.require_place(*begun)

    async def _unless_hidden(self, job: Manifest, provider: ProviderStatus, run: Run) -> Run:
        """Report a job that vanished together with its data as hidden: the credentials probably lead elsewhere.

        Providers hide what belongs to other accounts, so with another account's key running jobs seem deleted.
        """
        file = next((file for file in provider.files or () if file.split == "train"), None)
        if file is None or run.job_id is None:
            return run
        try:
            await self._call(job, lambda api: api.file(file.id))
        except NotThere:
            failure = _hidden_failure(run.job_id, file)
        except ProviderError as error:
            failure = error.failure()
        else:
            return run
        self._account(job).poller.discard(run.job_id)
        return Run("Unreachable", failure=failure, job_id=run.job_id)

    def _polled(
        self, job: Manifest, provider: ProviderStatus, job_id: str, asked_at: str, status: FineTuneJobStatus
    ) -> Run:
        """The state of the provider's job as the poller last saw it."""
        poller = self._account(job).poller
        seen = poller.watch(job_id, _queue_key(job), moment(asked_at) - SETTLE - CLOCK_SKEW)
        if poller.trouble is not None:
            return Run("Unreachable", failure=poller.trouble.failure(), job_id=job_id)
        if seen is None:
            return Run("Unseen", job_id=job_id)
        if seen.unread is not None:
            return Run("Unreachable", failure=seen.unread, job_id=job_id)
        if seen.job.state == "Gone" and not _is_adopted(job) and settles_in(asked_at, self._clock()):
            poller.discard(job_id)
            return Run("Queued", job_id=job_id, note="made a moment ago, and not shown by the provider yet")
        try:
            with parsing_answer():  # e.g. a name longer than allowed
                run = run_of(seen.job, seen.metrics, key_of(job, provider), status, self._clock())
        except Unreadable as error:
            return Run("Unreachable", failure=error.failure(), job_id=job_id)
        return run if _is_adopted(job) else replace(run, beside=seen.beside)

    async def start(
        self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec, status: FineTuneJobStatus
    ) -> str:
        """Create the check's Job. Its name follows from the attempt, so a second call changes nothing."""
        return await self._pods.check(job, spec, connection, status)

    async def _measured(
        self, job: Manifest, provider: ProviderStatus, evaluation: ProviderEvaluation, status: FineTuneJobStatus
    ) -> Run:
        """A succeeded run, since the model exists whatever happens to its job, and the state of the evaluation pod."""
        key = key_of(job, provider)
        report = Report(
            namespace=key.namespace,
            name=key.name,
            uid=key.uid,
            attempt=key.attempt,
            phase="Succeeded",
            evaluation=status.evaluation,
            result=status.result,
        )
        run = Run("Succeeded", report=report, job_id=provider.job_id)
        if evaluation.ended:
            return run
        return replace(run, measuring=await self._pods.measured(job, key, evaluation))

    async def end_earlier(self, job: Manifest, status: FineTuneJobStatus) -> None:
        """Delete check pods of earlier attempts; once the model exists, also this one's and earlier evaluation pods."""
        await self._pods.end_earlier(job, status)

    async def stop(self, job: Manifest, status: FineTuneJobStatus) -> RemoteJob | None:
        """Stop the check pod and cancel the provider's job.

        Returns:
            The provider's job with its bill, if it has ended.

        Raises:
            Ended: the job has succeeded meanwhile.
            TryLater: a job was requested recently and is not visible yet.
        """
        await self._pods.end_check(job, status)
        provider = status.provider or ProviderStatus()
        await self._pods.end_measuring(job, provider)
        unknown = provider.asked_at is None
        if status.completion_time is not None or (unknown and not _may_be_there(job, provider)):
            return None
        if unknown and self.has_live_pods(job) and not wants_deletion(job):
            return None  # the check still runs, and `observe` has looked: no job was requested
        async with self.turn(job):
            if provider.asked_at is not None:
                return await self._end_remote(job, provider, provider.asked_at)
            found = await self.find(job, provider)
            for made in found:
                await self.cancel(job, made.id)
        for made in found:
            _require_no_success(made)
        return None

    async def _end_remote(self, job: Manifest, provider: ProviderStatus, asked_at: str) -> RemoteJob | None:
        if provider.job_id is not None:
            await self._cancel(job, provider.job_id, asked_at)
            return await self._ended(job, provider.job_id, asked_at)
        found = await self.find(job, provider)
        for made in found:
            await self._cancel(job, made.id, asked_at)
        if not found:
            self._require_settled(asked_at)
        for made in found:
            _require_no_success(made)
        return None

    async def _cancel(self, job: Manifest, job_id: str, asked_at: str) -> None:
        try:
            await self._call(job, lambda api: api.cancel(job_id))
        except NotThere:
            self._require_settled(asked_at)

    def _require_settled(self, asked_at: str) -> None:
        """Require that a job that is not visible does not exist: otherwise it would run uncancelled.

        Raises:
            TryLater: it may still become visible.
        """
        left = settles_in(asked_at, self._clock())
        if left > 0:
            message = "a job was asked for a moment ago; whether there is one to cancel does not show yet"
            raise TryLater(Reason.PROVIDER_UNAVAILABLE, message, min(left, 15.0))

    def account(self, job: Manifest) -> str | None:
        """The account of the credentials of the job's connection, if it is known yet."""
        return self._accounts.whose(connection_of(job))

    def note(self, job: Manifest) -> str | None:
        """The annotation to write with the finalizer: where the job was begun, or leads now; None for no change."""
        return noted(job, self._accounts)

    @asynccontextmanager
    async def turn(self, job: Manifest) -> AsyncIterator[None]:
        """Hold a slot at the gate of the job's connection, if that leads where the job was begun."""
        account = self._account(job)
        await account.require_place(*begun_at(job))
        async with account.turn():
            yield

    async def find(self, job: Manifest, provider: ProviderStatus) -> list[RemoteJob]:
        """The attempt's jobs, by their labels, or by their training file if the provider keeps no labels."""
        key = key_of(job, provider)
        found = await self._call(job, lambda api: api.find(key, key.created - CLOCK_SKEW))
        files = [file.id for file in provider.files or () if file.split == "train"]
        if found and not files:  # the pod reported them to a status that was lost
            listed = await self._call(job, lambda api: api.files(f"{key.attempt_prefix}train-"))
            files = [file.id for file in listed] or [""]
        return [one for one in found if any(is_of(one, key, file) for file in files)]

    async def _exists(self, job: Manifest, provider: ProviderStatus) -> bool:
        """Whether any of several lookups finds the job: one may miss it, and a second job would be billed."""
        for _ in range(LOOKUPS):
            if await self.find(job, provider):
                return True
        return False

    async def create(self, job: Manifest, spec: FineTuneJobSpec, provider: ProviderStatus) -> RemoteJob:
        """Create the provider's job, after checking by the files' names that they belong to this attempt."""
        key = key_of(job, provider)
        try:
            await self._files.require_own(job, key, provider)
        except Unknown as error:
            # Only a lookup failed: no job was requested, and none can appear.
            raise TryLater.because(error.failure(), error.retry_after) from None
        request = JobRequest(
            key=key,
            spec=spec,
            suffix=names.fit(spec.model_ref.name, SUFFIX_LIMIT),
            files=provider.files or [],
            active=version_to_compare(self._store.get(FINE_TUNED_MODELS, spec.model_ref.name, key.namespace), spec),
            short_of_memory=provider.was_short_of_memory,
        )
        account = self._account(job)
        try:
            with account.capacity.creating(_capacity_kind(spec)):
                return await account.call(lambda api: api.create(request))
        except NotThere as absent:
            raise self._files.unshown(provider.files_at) or absent from None

    def require_capacity(self, job: Manifest, spec: FineTuneJobSpec) -> None:
        """Require capacity for a job that has not been requested yet.

        Raises:
            AtCapacity: the provider recently said that it takes no more jobs of this kind for now.
        """
        self._account(job).capacity.require(_capacity_kind(spec))

    async def cancel(self, job: Manifest, job_id: str) -> None:
        """Cancel one job."""
        with suppress(NotThere):
            await self._call(job, lambda api: api.cancel(job_id))

    async def end_surplus(self, job: Manifest, job_id: str, kept: str) -> bool:
        """Cancel a duplicate job; whether it was still running. Lists may be stale, so it is fetched first."""
        try:
            shown = await self._call(job, lambda api: api.job(job_id))
            if shown.ended:
                return False
            await self._call(job, lambda api: api.cancel(job_id))
        except NotThere:
            return False
        except ProviderError as error:
            if isinstance(error, TryLater) and error.reason is Reason.PROVIDER_BUSY:
                return True  # it is still stopping
            self._account(job).poller.discard(kept)
            raise
        return True

    def recheck(self, job: Manifest, job_id: str) -> bool:
        """Fetch a job again after another source reported news of it; whether the caller should wait for the result."""
        return self._account(job).poller.recheck(job_id)

    async def clean(self, job: Manifest, known: Sequence[ProviderFile]) -> None:
        """Delete the files of all attempts, and stop polling the provider's job.

        Raises:
            Busy: a file is still being uploaded.
        """
        self._accounts.forget(_queue_key(job))
        await self._files.clean(job, known)

    async def _ended(self, job: Manifest, job_id: str, asked_at: str) -> RemoteJob | None:
        """A job that was cancelled; None if it has not ended yet.

        Raises:
            Ended: it has succeeded.
        """
        try:
            made = await self._call(job, lambda api: api.job(job_id))
        except NotThere:
            self._require_settled(asked_at)
            return None
        _require_no_success(made)
        return made if made.ended else None

    def _account(self, job: Manifest) -> Account:
        return self._accounts.of(connection_of(job))

    async def _call(self, job: Manifest, do: Callable[[FineTuningApi], Awaitable[T]]) -> T:
        return await self._account(job).call(do)


def _capacity_kind(spec: FineTuneJobSpec) -> str:
    """The key by which providers limit concurrent jobs."""
    return f"{spec.base_model} {spec.resources.instance_type or ''}"


def _require_no_success(made: RemoteJob) -> None:
    """Check a job that was to be cancelled.

    Raises:
        Ended: it has succeeded.
    """
    if made.state == "Succeeded":
        made_it = f"; its model {made.model} stays at the provider" if made.model else ""
        raise Ended(Reason.SUCCEEDED, f"job {made.id} succeeded before it could be cancelled{made_it}", 5.0)


def _hidden_failure(job_id: str, file: ProviderFile) -> Failure:
    message = (
        f"neither job {job_id} nor its data ({file.id}) are visible with the connection's credentials: do these belong "
        "to another account, organization or project by now? Where it was begun the job may continue, and be billed"
    )
    step = (
        "Ask an admin to give the connection credentials of the account that it had. If job and data were both deleted "
        "there, delete the job here and apply it under a new name."
    )
    return Failure(reason=Reason.CREDENTIALS_INVALID, message=message, next_step=step)


def _may_be_there(job: Manifest, provider: ProviderStatus) -> bool:
    """Whether the attempt's job may exist at the provider although status does not have its name.

    A status that the operator wrote for an attempt that has not begun does name the provider.
    """
    begun = provider.job_id is not None or provider.name is None or provider.asked_at is not None
    return is_held(job) and begun


def _is_adopted(job: Manifest) -> bool:
    """Whether the user named an existing job at the provider, and so possibly a wrong one."""
    return job["spec"].get("adopt") is not None


def _queue_key(job: Manifest) -> Key:
    return Key(FINE_TUNE_JOBS.kind, job["metadata"]["namespace"], job["metadata"]["name"])
