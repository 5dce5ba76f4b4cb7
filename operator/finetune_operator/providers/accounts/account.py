"""One connection's provider: its calls pass a gate, and its account is checked to be the same as before."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import TypeVar

from finetune_api.asking import ChatReply, ChatRequest
from finetune_api.azure import AzureResolved
from finetune_api.connection import THIS_CLUSTER, LLMConnectionSpec
from finetune_api.model import ModelVersion
from finetune_api.reasons import Reason
from finetune_operator.providers import sdks
from finetune_operator.providers.accounts.client import SECRET_SECONDS, Client
from finetune_operator.providers.accounts.identity import account_of, require_same_account, require_same_place
from finetune_operator.providers.accounts.polling import Poller
from finetune_operator.providers.calls.capacity import JobCapacity
from finetune_operator.providers.calls.errors import Busy, ConnectionMoved, ProviderError, Refused, parsing_answer
from finetune_operator.providers.calls.gate import Gate
from finetune_operator.providers.calls.rate_limit import RateLimiter
from finetune_operator.providers.ports import FineTuningApi, HostingApi, RemoteFile
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.queue import Key

T = TypeVar("T")

UPLOADS_AT_ONCE = 4
"""Per connection. Uploads may take minutes each, so they have a gate of their own: creates do not wait for them."""

ANSWERS_AT_ONCE = 8
ANSWERS_PER_SECOND = 20.0
"""Per connection. Evaluations wait for each other, and nothing else waits for them."""

ANSWER_SILENCE = 5.0
"""Pause in seconds after a question without an answer: that happens to one in a thousand, and the next succeeds."""

REMEMBERED = 1024
"""How many files' upload errors are kept."""

ACCOUNT_CHECKS = 3
"""How often the account of a key is asked for before an object is reported to be in another account."""


class Account:
    """The gate, poller and rate limit of one connection's provider.

    Args:
        client: of the connection.
        wake: called for each job that has changed.
        on_refused: called when the key was refused.
        poll_seconds: between two rounds of the poller; None if the owner calls its `round`.
    """

    def __init__(
        self, client: Client, wake: Callable[[Key], None], *, on_refused: Callable[[], None], poll_seconds: float | None
    ) -> None:
        clock = client.sources.clock
        self.client = client
        self._guard = client.sources.guard
        self._on_refused = on_refused
        self._gate = Gate(refused=self._refused, clock=clock)
        self._uploads = Gate(at_once=UPLOADS_AT_ONCE, refused=self._refused, clock=clock)
        self._sent: list[str] = []
        self._upload_errors: LRUCache[ProviderError] = LRUCache(REMEMBERED)
        self._answers = Gate(
            at_once=ANSWERS_AT_ONCE, wary=False, silence=ANSWER_SILENCE, refused=self._refused, clock=clock
        )
        self._answers_limiter = RateLimiter(ANSWERS_PER_SECOND, clock)
        self._asking = asyncio.Semaphore(ANSWERS_AT_ONCE)
        self.capacity = JobCapacity(clock)
        self.poller = Poller(client.api, wake, refused=self._refused, seconds=poll_seconds)
        self.key_refused = False
        """Whether the key was refused since its last check."""
        self._clock = clock
        self._checked_place: str | None = ""
        """Where the connection led at its last successful check."""
        self._mismatch_at = float("-inf")
        """When it last seemed to lead to another account than that of its objects."""

    @property
    def place(self) -> str | None:
        """Where the connection leads now; None if that is not known."""
        spec = self.client.spec
        if spec is None:
            return None
        return THIS_CLUSTER if spec.hugging_face is not None else spec.place

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Hold a slot for a task that makes several calls: see `Gate.turn`."""
        return self._gate.turn()

    def _refused(self) -> None:
        """Request a check of the key, once, however many calls meet a bad key."""
        if not self.key_refused:
            self.key_refused = True
            self._on_refused()

    async def check(self) -> None:
        """Check whether the connection can be used, even if its key was refused recently.

        Raises:
            ProviderError: it cannot be used, or not be checked.
        """
        place = self.place
        try:
            await self.call(lambda api: api.check(), probes=True)
        except Busy:
            raise  # the provider was not called: the key remains to be checked
        except ProviderError:
            self.key_refused = False
            raise
        self.key_refused, self._checked_place = False, place

    async def require_checked(self) -> None:
        """Require one successful check of the place that the connection leads to: it may be a mistake.

        Raises:
            ProviderError: as `check`.
        """
        if self._checked_place != self.place:
            await self.check()

    async def find(self) -> None:
        """Find out the account of the connection's credentials, before anything is created there or compared with it.

        Raises:
            ProviderError: it cannot be asked for.
        """
        try:
            if not self.client.is_fresh():
                with suppress(ConnectionMoved):  # the account has changed: this is what the caller wants to know
                    async with self._gate.passing(asks=False):
                        await self.client.api()
        except Busy:
            if self.client.account is None:
                raise  # with a known account, the callers inside the gate notice a change

    async def require_place(self, place: str | None, account: str | None) -> None:
        """Require that the connection still leads to where an object was created.

        Elsewhere the object would seem deleted, while it continues to cost.

        Args:
            place: where the connection led when the object was created; None if not known.
            account: the account then; None if not known.

        Raises:
            ConnectionMoved: it leads elsewhere by now.
            ProviderError: its account cannot be asked for.
        """
        require_same_place(self.client.name, self.place, place, "begun")  # another place cannot tell of the account
        await self._find_to_compare(account)
        self.require_same(place, account)

    def require_same(self, place: str | None, account: str | None) -> None:
        """As `require_place`, by what is already known of the connection, without a call.

        Raises:
            ConnectionMoved: it leads elsewhere by now.
        """
        require_same_place(self.client.name, self.place, place, "begun")
        require_same_account(self.client.name, self.client.account, account, "this was begun in")

    async def require_models(self, version: ModelVersion) -> None:
        """As `require_place`, for a tuned model whose place is recorded or follows from its name.

        Raises:
            ConnectionMoved: its connection leads elsewhere by now.
            ProviderError: as `require_place`.
        """
        spec, name = self.client.spec, self.client.name
        if spec is None:
            return
        require_same_place(name, spec.place_of_models, version.place, "made")
        made_by = account_of(version.artifact.provider_model_id or "")
        if spec.bedrock is not None and made_by is not None:
            require_same_place(name, account_of(spec.bedrock.role_arn), made_by, "made", what="AWS account ")
        await self._find_to_compare(version.account)
        require_same_account(name, self.client.account, version.account, "this was made in")

    async def _find_to_compare(self, account: str | None) -> None:
        """Find out the account to compare it with a known one; a different one is confirmed by asking again.

        At most once a minute: a gateway may give a different answer each time. Differing answers to one key reflect
        the gateway's routing and not the key's owner, so the account then counts as unknown.
        """
        if account is None:
            return
        await self.find()
        told, now = self.client.account, self._clock()
        if told in {None, account} or now - self._mismatch_at < SECRET_SECONDS:
            return
        self._mismatch_at = now
        with suppress(ProviderError):
            for _ in range(ACCOUNT_CHECKS):
                if await self.pass_gate(self.client.whose) != told:
                    self.client.forget_account()
                    return

    async def resolve(self, spec: LLMConnectionSpec) -> AzureResolved | None:
        """Where the AzureML workspace of the connection leads; None if it names none.

        Raises:
            ProviderError: it cannot be resolved.
        """
        azure = spec.azure_open_ai
        workspace = azure.workspace if azure else None
        if azure is None or workspace is None:
            return None
        credential = await self.client.credential(azure, spec)
        try:
            return await self.pass_gate(lambda: sdks.resolve(azure, workspace, credential), probes=True)
        finally:
            await credential.close()

    async def call(self, do: Callable[[FineTuningApi], Awaitable[T]], *, probes: bool = False) -> T:
        """Make one call.

        Args:
            do: makes it.
            probes: whether it tests the key, and so is made even though the key was refused.

        Raises:
            ProviderError: it failed, or was not made.
        """
        async with self._gate.passing(probes=probes):
            api = await self.client.api()
            self._guard()  # reading the Secret may have taken a while
            with parsing_answer():
                return await do(api)

    async def host(self, do: Callable[[HostingApi], Awaitable[T]]) -> T:
        """Make one call of the deployments API.

        Raises:
            ProviderError: as `call`; or the provider has no deployments.
        """

        async def ask(api: FineTuningApi) -> T:
            hosting = api.hosting()
            if hosting is None:
                raise Refused(Reason.PROVIDER_NOT_SUPPORTED, "the provider has no deployments")
            return await do(hosting)

        return await self.call(ask)

    async def answer(self, model: str, question: ChatRequest) -> ChatReply:
        """Ask a model one question, once the questions before it have been answered.

        Raises:
            ProviderError: as `call`; or the provider's models need deployments.
        """
        async with self._asking, self._answers.passing():
            await self._answers_limiter.wait()
            answering = (await self.client.api()).answering()
            if answering is None:
                raise Refused(Reason.PROVIDER_NOT_SUPPORTED, "the provider's models answer in deployments only")
            self._guard()
            with parsing_answer():
                return await answering.answer(model, question)

    async def pass_gate(self, do: Callable[[], Awaitable[T]], *, probes: bool = False) -> T:
        """Make one call that needs no client of the connection; `probes` as in `call`.

        Raises:
            ProviderError: as `call`.
        """
        async with self._gate.passing(probes=probes):
            with parsing_answer():
                return await do()

    def is_uploading(self, prefix: str) -> bool:
        """Whether a file with this prefix is being uploaded to the provider."""
        return any(name.startswith(prefix) for name in self._sent)

    @contextmanager
    def _uploading(self, name: str) -> Iterator[None]:
        self._sent.append(name)
        try:
            yield
        finally:
            self._sent.remove(name)

    def upload_error(self, prefix: str) -> ProviderError | None:
        """The error of the last upload of a file with this prefix; None if it succeeded."""
        return next((why for name, why in self._upload_errors.items() if name.startswith(prefix)), None)

    @contextmanager
    def recording_upload_error(self, name: str) -> Iterator[None]:
        """Record the error of a file's upload, for `upload_error`."""
        try:
            yield
        except Busy:
            raise  # the operator's own limit says nothing about the provider
        except ProviderError as error:
            self._upload_errors.put(name, error)
            raise
        self._upload_errors.drop(name)

    async def upload(self, name: str, size: int, body: AsyncIterator[bytes]) -> RemoteFile:
        """Upload a file, unless the provider has it already from an upload whose answer was lost.

        Raises:
            ProviderError: as `call`.
        """
        async with self._uploads.passing():
            api = await self.client.api()
            self._guard()
            with parsing_answer(), self._uploading(name):
                there = next((file for file in await api.files(name) if file.bytes == size), None)
                self._guard()  # a new leader may have deleted the job's files by now
                if there is None:
                    return await api.upload(name, size, body)
            async for _ in body:
                pass  # consume the body, so that the sender gets the answer
            return there
