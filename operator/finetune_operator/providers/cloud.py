"""Training at a provider outside of the cluster: a pod checks the data here, then one job there, watched by polling.

Knows no provider: what one is asked goes through its FineTuningApi.
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
from finetune_operator.decide.job.versions import compared_with
from finetune_operator.desired import names
from finetune_operator.providers.account import Account
from finetune_operator.providers.accounts import Accounts
from finetune_operator.providers.cloud_files import CloudFiles
from finetune_operator.providers.cloud_pods import CloudPods
from finetune_operator.providers.errors import (
    Elsewhere,
    Ended,
    NotThere,
    ProviderError,
    TryLater,
    Unknown,
    Unreadable,
    understood,
)
from finetune_operator.providers.job_record import begun_at, connection_of, is_held, key_of, noted
from finetune_operator.providers.ports import FineTuningApi, JobRequest
from finetune_operator.providers.sdks import is_remote
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS
from finetune_operator.runtime.queue import Key
from finetune_operator.runtime.store import Store

T = TypeVar("T")

CLOCK_SKEW = timedelta(days=1)
"""A provider's clock may be behind ours, or ours be wrong: what it made is looked for from so much earlier on. What is
overlooked is made twice, and a day of jobs is few pages."""

LOOKS = 2
"""How often a job is looked for of which status knows nothing."""

SUFFIX_LIMIT = 40
FURTHER_ATTEMPTS = 5
"""So many attempts after the last one that is known are looked for where status is lost: some never get that far."""

_WITHOUT_RESULT = frozenset({"Absent", "Failed", "ResultUnknown"})
_UNDER_WAY = frozenset({"Queued", "Active"})


class CloudTraining:
    """A TrainingProvider over the providers' accounts: a pod checks the data (`start`), then the provider makes a job.

    All of it raises ProviderError's children, as `errors` draws them.

    Args:
        store: watched models.
        accounts: the providers.
        pods: those that check the data, and ask the model.
        clock: now, with a time zone.
    """

    def __init__(self, store: Store, accounts: Accounts, pods: CloudPods, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._accounts = accounts
        self._pods = pods
        self._clock = clock
        self._files = CloudFiles(accounts, clock)

    def output_uri(self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec) -> str:  # noqa: ARG002 - the port's
        """Nowhere: what the job makes stays at the provider."""
        return ""

    def made_by(self, connection: LLMConnectionSpec) -> str:
        """A digest of what connection and chart say of pods; empty where the connection is one to this cluster."""
        return self._pods.made_by(connection) if is_remote(connection) else ""

    def has_live_pods(self, job: Manifest) -> bool:
        """Whether a check's pod may still pass data on."""
        return self._pods.may_pass_on(job)

    async def latest_attempt(self, job: Manifest, status: FineTuneJobStatus) -> int:
        """By the check's Job. Where status has lost all of it, our finalizer tells that the provider may have more."""
        latest = await self._pods.latest_attempt(job, status)
        number = last = max(latest, 1)
        lost = status.provider is None and is_held(job)
        if lost:
            await self._require_place(job, ProviderStatus())
        while lost and number < last + FURTHER_ATTEMPTS:
            number += 1
            if await self._finds(job, ProviderStatus(attempt=number)):
                latest = last = number
        return latest

    async def observe(self, job: Manifest, status: FineTuneJobStatus) -> Run:
        """The check's pod, until its data are there; then what the poller has seen of the provider's job."""
        provider = status.provider or ProviderStatus()
        if provider.asked_at is None:
            check = self._with_trouble(job, provider, await self._pods.checked(job, status))
            lost = check.state in _WITHOUT_RESULT or bool(job["spec"].get("suspend"))
            return await self._made_by_then(job, provider, check) if lost and not status.completion_time else check
        if provider.job_id is None:
            asked = Run("Checked")
            return await self._made_by_then(job, provider, asked) if job["spec"].get("suspend") else asked
        if status.completion_time is not None:
            if _is_adopted(job):  # nothing of it is there to be cleaned; who asks for it again wants a new look
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
        return await self._out_of_sight(job, provider, run) if gone else run

    async def _made_by_then(self, job: Manifest, provider: ProviderStatus, check: Run) -> Run:
        """The check's run, or that its work is done: the attempt's job is at the provider.

        Status does not know of it where somebody has emptied it, or put back one from before. It is looked for where
        the check is gone, or tells nothing, and where nothing is to go on: who rests has to know what there is.
        """
        if not _may_be_there(job, provider):
            return check
        job_id = check.job_id or names.training_job(job["metadata"]["name"], max(provider.attempt, 1))
        try:
            await self._require_place(job, provider)
            return Run("Checked", job_id=job_id, unknown=True) if await self._finds(job, provider) else check
        except ProviderError as error:
            if check.state in _UNDER_WAY:
                return check  # its data wait for the provider, too: nothing is known to be there
            return Run("Unreachable", failure=error.failure(), job_id=job_id)

    def _with_trouble(self, job: Manifest, provider: ProviderStatus, check: Run) -> Run:
        """The check's run, and what keeps its pod from passing the data on: it waits, and says nothing of that."""
        if check.state != "Active":
            return check
        key = key_of(job, provider)
        why = self._account(job).untaken(key.attempt_prefix)
        return replace(check, failure=why.failure()) if why is not None else check

    async def _require_place(self, job: Manifest, provider: ProviderStatus) -> None:
        """As `Account.require_same`. Who is led elsewhere looks each minute whether the key is another one by now.

        Of a status that does not tell more is at stake than one look: then it is asked whose account it is.

        Raises:
            ProviderError: its connection leads elsewhere, or that cannot be asked.
        """
        begun, account = begun_at(job), self._account(job)
        try:
            if begun[1] and not provider.account:
                await account.require_place(*begun)
            account.require_same(*begun)
        except Elsewhere:
            await account.require_place(*begun)

    async def _out_of_sight(self, job: Manifest, provider: ProviderStatus, run: Run) -> Run:
        """A job that is gone together with its data was not deleted alone: it is the credentials that lead elsewhere.

        A provider tells nobody of what is another account's, so a key of one makes jobs look deleted that go on.
        """
        file = next((file for file in provider.files or () if file.split == "train"), None)
        if file is None or run.job_id is None:
            return run
        try:
            await self._call(job, lambda api: api.file(file.id))
        except NotThere:
            failure = _hidden(run.job_id, file)
        except ProviderError as error:
            failure = error.failure()
        else:
            return run
        self._account(job).poller.look_again(run.job_id)
        return Run("Unreachable", failure=failure, job_id=run.job_id)

    def _polled(
        self, job: Manifest, provider: ProviderStatus, job_id: str, asked_at: str, status: FineTuneJobStatus
    ) -> Run:
        """What the poller has seen of the provider's job."""
        poller = self._account(job).poller
        seen = poller.watch(job_id, _queue_key(job), moment(asked_at) - SETTLE - CLOCK_SKEW)
        if poller.trouble is not None:
            return Run("Unreachable", failure=poller.trouble.failure(), job_id=job_id)
        if seen is None:
            return Run("Unseen", job_id=job_id)
        if seen.unread is not None:
            return Run("Unreachable", failure=seen.unread, job_id=job_id)
        if seen.job.state == "Gone" and not _is_adopted(job) and settles_in(asked_at, self._clock()):
            poller.look_again(job_id)
            return Run("Queued", job_id=job_id, note="made a moment ago, and not shown by the provider yet")
        try:
            with understood():  # a name, say, that is longer than any
                run = run_of(seen.job, seen.metrics, key_of(job, provider), status, self._clock())
        except Unreadable as error:
            return Run("Unreachable", failure=error.failure(), job_id=job_id)
        return run if _is_adopted(job) else replace(run, beside=seen.beside)

    async def start(
        self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec, status: FineTuneJobStatus
    ) -> str:
        """Make the Job of the check. Its name is fixed by the attempt: a second call changes nothing."""
        return await self._pods.check(job, spec, connection, status)

    async def _measured(
        self, job: Manifest, provider: ProviderStatus, evaluation: ProviderEvaluation, status: FineTuneJobStatus
    ) -> Run:
        """The model is there, whatever becomes of its job at the provider; beside it the pod that asks it."""
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
        """Delete the checks of earlier attempts; of one whose model is there, its own, and pods that have asked it."""
        await self._pods.end_earlier(job, status)

    async def stop(self, job: Manifest, status: FineTuneJobStatus) -> RemoteJob | None:
        """End the check's pod and cancel the provider's job.

        Returns:
            The provider's job, where that has ended: what it has billed.

        Raises:
            Ended: the job has succeeded meanwhile.
            TryLater: a create was asked for a moment ago, and what came of it does not show yet.
        """
        await self._pods.end_check(job, status)
        provider = status.provider or ProviderStatus()
        await self._pods.end_measuring(job, provider)
        unknown = provider.asked_at is None
        if status.completion_time is not None or (unknown and not _may_be_there(job, provider)):
            return None
        if unknown and self.has_live_pods(job) and not wants_deletion(job):
            return None  # the check is under way, and `observe` has looked: nothing was asked for
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
        """What does not show may be on its way, and would go on for nobody.

        Raises:
            TryLater: it may still show.
        """
        left = settles_in(asked_at, self._clock())
        if left > 0:
            message = "a job was asked for a moment ago; whether there is one to cancel does not show yet"
            raise TryLater(Reason.PROVIDER_UNAVAILABLE, message, min(left, 15.0))

    def account(self, job: Manifest) -> str | None:
        """Whose account the credentials of the job's connection lead to, as far as that is known by now."""
        return self._accounts.whose(connection_of(job))

    def note(self, job: Manifest) -> str | None:
        """What is to be noted with our finalizer of where the job was begun, or is now; None for no change."""
        return noted(job, self._accounts)

    @asynccontextmanager
    async def turn(self, job: Manifest) -> AsyncIterator[None]:
        """At the gate of the job's connection, if that leads where the job was begun."""
        account = self._account(job)
        await account.require_place(*begun_at(job))
        async with account.turn():
            yield

    async def find(self, job: Manifest, provider: ProviderStatus) -> list[RemoteJob]:
        """By the labels that the job carries, or by its training file where the provider keeps no labels."""
        key = key_of(job, provider)
        found = await self._call(job, lambda api: api.find(key, key.created - CLOCK_SKEW))
        files = [file.id for file in provider.files or () if file.split == "train"]
        if found and not files:  # of which a pod has told a status that is lost
            listed = await self._call(job, lambda api: api.files(f"{key.attempt_prefix}train-"))
            files = [file.id for file in listed] or [""]
        return [one for one in found if any(is_of(one, key, file) for file in files)]

    async def _finds(self, job: Manifest, provider: ProviderStatus) -> bool:
        """Whether one of several look-ups finds it: one alone may miss what is there, which would be paid for again."""
        for _ in range(LOOKS):
            if await self.find(job, provider):
                return True
        return False

    async def create(self, job: Manifest, spec: FineTuneJobSpec, provider: ProviderStatus) -> RemoteJob:
        """One call. The files are looked at before: their names say that they are of this attempt."""
        key = key_of(job, provider)
        try:
            await self._files.require_own(job, key, provider)
        except Unknown as error:
            # A look that failed: no job was asked for, and none can show.
            raise TryLater.because(error.failure(), error.retry_after) from None
        request = JobRequest(
            key=key,
            spec=spec,
            suffix=names.fit(spec.model_ref.name, SUFFIX_LIMIT),
            files=provider.files or [],
            active=compared_with(self._store.get(FINE_TUNED_MODELS, spec.model_ref.name, key.namespace), spec),
            short_of_memory=provider.was_short_of_memory,
        )
        account = self._account(job)
        try:
            with account.room.taken(_kind_of(spec)):
                return await account.call(lambda api: api.create(request))
        except NotThere as absent:
            raise self._files.unshown(provider.files_at) or absent from None

    def require_room(self, job: Manifest, spec: FineTuneJobSpec) -> None:
        """For a job that nobody has asked for.

        Raises:
            Crowded: the provider said a moment ago that it takes no more of its kind for now.
        """
        self._account(job).room.require(_kind_of(spec))

    async def cancel(self, job: Manifest, job_id: str) -> None:
        """Cancel one job."""
        with suppress(NotThere):
            await self._call(job, lambda api: api.cancel(job_id))

    async def end_surplus(self, job: Manifest, job_id: str, kept: str) -> bool:
        """Cancel a job that goes on beside another one; a list may be behind, so it is looked at before."""
        try:
            shown = await self._call(job, lambda api: api.job(job_id))
            if shown.ended:
                return False
            await self._call(job, lambda api: api.cancel(job_id))
        except NotThere:
            return False
        except ProviderError as error:
            if isinstance(error, TryLater) and error.reason is Reason.PROVIDER_BUSY:
                return True  # it takes its time to stop
            self._account(job).poller.look_again(kept)
            raise
        return True

    def doubt(self, job: Manifest, job_id: str) -> bool:
        """Have it asked anew about a job of which somebody else has told since; whether that is to be waited for."""
        return self._account(job).poller.doubt(job_id)

    async def clean(self, job: Manifest, known: Sequence[ProviderFile]) -> None:
        """Delete the files of all attempts; look at the provider's job no more.

        Raises:
            Busy: a file is still on its way there.
        """
        self._accounts.forget(_queue_key(job))
        await self._files.clean(job, known)

    async def _ended(self, job: Manifest, job_id: str, asked_at: str) -> RemoteJob | None:
        """A job that was cancelled; None where it is not shown to have ended.

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


def _kind_of(spec: FineTuneJobSpec) -> str:
    """By what providers count how many jobs run at once."""
    return f"{spec.base_model} {spec.resources.instance_type or ''}"


def _require_no_success(made: RemoteJob) -> None:
    """Of a job that was to be cancelled.

    Raises:
        Ended: it has succeeded.
    """
    if made.state == "Succeeded":
        made_it = f"; its model {made.model} stays at the provider" if made.model else ""
        raise Ended(Reason.SUCCEEDED, f"job {made.id} succeeded before it could be cancelled{made_it}", 5.0)


def _hidden(job_id: str, file: ProviderFile) -> Failure:
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
    """Whether the attempt's job may be at the provider though status does not say so, or does not know its name.

    What status says of an attempt that has yet to begin is by ourselves: it names the provider.
    """
    begun = provider.job_id is not None or provider.name is None or provider.asked_at is not None
    return is_held(job) and begun


def _is_adopted(job: Manifest) -> bool:
    """Whether somebody has written the name of the job at the provider: then it may be a wrong one."""
    return job["spec"].get("adopt") is not None


def _queue_key(job: Manifest) -> Key:
    return Key(FINE_TUNE_JOBS.kind, job["metadata"]["namespace"], job["metadata"]["name"])
