"""One connection's provider: what is asked of it passes a gate, and whether it is the account that it was."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import TypeVar

from finetune_api.asking import Question, Reply
from finetune_api.azure import AzureResolved
from finetune_api.connection import THIS_CLUSTER, LLMConnectionSpec
from finetune_api.model import ModelVersion
from finetune_api.reasons import Reason
from finetune_operator.providers import sdks
from finetune_operator.providers.account_identity import account_of, require_same_account, require_same_place
from finetune_operator.providers.capacity import Room
from finetune_operator.providers.client import SECRET_SECONDS, Client
from finetune_operator.providers.errors import Busy, Elsewhere, ProviderError, Refused, understood
from finetune_operator.providers.gate import Gate
from finetune_operator.providers.poll import Poller
from finetune_operator.providers.ports import FineTuningApi, HostingApi, RemoteFile
from finetune_operator.providers.rate_limit import Pace
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.queue import Key

T = TypeVar("T")

UPLOADS_AT_ONCE = 4
"""Of one connection: files may take minutes each, and creates do not wait behind them."""


ANSWERS_AT_ONCE = 8
ANSWERS_PER_SECOND = 20.0
"""Of one connection. Evaluations wait for each other, and nothing else waits for them."""

ANSWER_SILENCE = 5.0
"""Seconds without questions after one that was not answered: one in a thousand is not, and the next one is."""

REMEMBERED = 1024
"""Files whose pods are known to wait."""

DOUBTS = 3
"""How often it is asked whose account a key leads to, before what was made with it is said to be in another."""


class Account:
    """Who asks passes its gate, its jobs are watched by its poller, all at one pace.

    Args:
        client: of the connection.
        wake: told of each job that has changed.
        doubt: told where the key was refused.
        poll_seconds: between two rounds of the poller; None where somebody calls its `round`.
    """

    def __init__(
        self, client: Client, wake: Callable[[Key], None], *, doubt: Callable[[], None], poll_seconds: float | None
    ) -> None:
        clock = client.sources.clock
        self.client = client
        self._guard = client.sources.guard
        self._doubt = doubt
        self._gate = Gate(refused=self._refused, clock=clock)
        self._uploads = Gate(at_once=UPLOADS_AT_ONCE, refused=self._refused, clock=clock)
        self._sent: list[str] = []
        self._untaken: LRUCache[ProviderError] = LRUCache(REMEMBERED)
        self._answers = Gate(
            at_once=ANSWERS_AT_ONCE, wary=False, silence=ANSWER_SILENCE, refused=self._refused, clock=clock
        )
        self._answers_pace = Pace(ANSWERS_PER_SECOND, clock)
        self._asking = asyncio.Semaphore(ANSWERS_AT_ONCE)
        self.room = Room(clock)
        self.poller = Poller(client.api, wake, refused=self._refused, seconds=poll_seconds)
        self.doubted = False
        """Whether the key was refused since it was checked last."""
        self._clock = clock
        self._answered: str | None = ""
        """Where the connection led when it was last found to be good."""
        self._another_at = float("-inf")
        """When it seemed last to lead to another account than what was made through it."""

    @property
    def place(self) -> str | None:
        """Where the connection leads now; None while that is not known."""
        spec = self.client.spec
        if spec is None:
            return None
        return THIS_CLUSTER if spec.hugging_face is not None else spec.place

    def turn(self) -> AbstractAsyncContextManager[None]:
        """A place for a task that makes several calls: see `Gate.turn`."""
        return self._gate.turn()

    def _refused(self) -> None:
        """Of a thousand calls that meet a bad key, the first has it checked."""
        if not self.doubted:
            self.doubted = True
            self._doubt()

    async def check(self) -> None:
        """Ask whether the connection can be used as it is, though its key was refused a moment ago.

        Raises:
            ProviderError: it cannot, or that cannot be asked.
        """
        place = self.place
        try:
            await self.call(lambda api: api.check(), probes=True)
        except Busy:
            raise  # nobody was asked: the doubt stays
        except ProviderError:
            self.doubted = False
            raise
        self.doubted, self._answered = False, place

    async def require_answer(self) -> None:
        """The place to which the connection leads has answered once: before, it may be one by mistake.

        Raises:
            ProviderError: as `check`.
        """
        if self._answered != self.place:
            await self.check()

    async def find(self) -> None:
        """Find out where the connection's credentials lead now, before anything is begun there, or compared with it.

        Raises:
            ProviderError: it cannot be asked.
        """
        try:
            if not self.client.is_fresh():
                with suppress(Elsewhere):  # than a moment ago: that is what was to be found out
                    await self._sign_in()
        except Busy:
            if self.client.account is None:
                raise  # else those who are inside see it change

    async def require_place(self, place: str | None, account: str | None) -> None:
        """Nothing is looked for where it was not made: it would be taken for gone, and go on costing.

        Args:
            place: where the connection led when that was made; None where that is not known.
            account: whose account that was; None where that is not known.

        Raises:
            Elsewhere: it leads elsewhere by now.
            ProviderError: whose account it leads to cannot be asked.
        """
        require_same_place(self.client.name, self.place, place, "begun")  # who is elsewhere cannot tell of the account
        await self._find_if_known(account)
        self.require_same(place, account)

    def require_same(self, place: str | None, account: str | None) -> None:
        """As `require_place`, by what is known of the connection: nobody is asked.

        Raises:
            Elsewhere: it leads elsewhere by now.
        """
        require_same_place(self.client.name, self.place, place, "begun")
        require_same_account(self.client.name, self.client.account, account, "this was begun in")

    async def require_models(self, version: ModelVersion) -> None:
        """As `require_place`, of a model that was tuned there: where its place is recorded, or its name tells it.

        Raises:
            Elsewhere: its connection leads elsewhere by now.
            ProviderError: as `require_place`.
        """
        spec, name = self.client.spec, self.client.name
        if spec is None:
            return
        require_same_place(name, spec.place_of_models, version.place, "made")
        made_by = account_of(version.artifact.provider_model_id or "")
        if spec.bedrock is not None and made_by is not None:
            require_same_place(name, account_of(spec.bedrock.role_arn), made_by, "made", what="AWS account ")
        await self._find_if_known(version.account)
        require_same_account(name, self.client.account, version.account, "this was made in")

    async def _find_if_known(self, account: str | None) -> None:
        """Find out whose account it is, to compare it with a known one: asked again before another one is told.

        Not more often than each minute: of a gateway each answer may differ. Two answers to one key that differ tell
        what the gateway did with it, and not whose it is.
        """
        if account is None:
            return
        await self.find()
        told, now = self.client.account, self._clock()
        if told in {None, account} or now - self._another_at < SECRET_SECONDS:
            return
        self._another_at = now
        with suppress(ProviderError):
            for _ in range(DOUBTS):
                if await self.pass_gate(self.client.whose) != told:
                    self.client.doubt()
                    return

    async def resolve(self, spec: LLMConnectionSpec) -> AzureResolved | None:
        """Where the AzureML workspace of the connection leads; None where it names none.

        Raises:
            ProviderError: it cannot be found out.
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
            probes: whether it is to find out if the key is good, and so is made though that was refused.

        Raises:
            ProviderError: it did not do what was asked, or was not made at all.
        """
        async with self._gate.passing(probes=probes):
            api = await self.client.api()
            self._guard()  # the Secret may just have been read
            with understood():
                return await do(api)

    async def _sign_in(self) -> None:
        """Have the client made, or its Secret read again, where that is due.

        Raises:
            ProviderError: as `call`.
        """
        async with self._gate.passing(asks=False):
            await self.client.api()

    async def host(self, do: Callable[[HostingApi], Awaitable[T]]) -> T:
        """Make one call on deployments.

        Raises:
            ProviderError: as `call`; or the provider has none.
        """

        async def ask(api: FineTuningApi) -> T:
            hosting = api.hosting()
            if hosting is None:
                raise Refused(Reason.PROVIDER_NOT_SUPPORTED, "the provider has no deployments")
            return await do(hosting)

        return await self.call(ask)

    async def answer(self, model: str, question: Question) -> Reply:
        """Ask a model one question, once the questions before it have been answered.

        Raises:
            ProviderError: as `call`; or the provider's models need deployments.
        """
        async with self._asking, self._answers.passing():
            await self._answers_pace.wait()
            answering = (await self.client.api()).answering()
            if answering is None:
                raise Refused(Reason.PROVIDER_NOT_SUPPORTED, "the provider's models answer in deployments only")
            self._guard()
            with understood():
                return await answering.answer(model, question)

    async def pass_gate(self, do: Callable[[], Awaitable[T]], *, probes: bool = False) -> T:
        """Make one call that needs no client of the connection; `probes`: as of `call`.

        Raises:
            ProviderError: as `call`.
        """
        async with self._gate.passing(probes=probes):
            with understood():
                return await do()

    def is_uploading(self, prefix: str) -> bool:
        """Whether a file whose name begins so is on its way to the provider, and may be there in a moment."""
        return any(name.startswith(prefix) for name in self._sent)

    @contextmanager
    def _on_its_way(self, name: str) -> Iterator[None]:
        self._sent.append(name)
        try:
            yield
        finally:
            self._sent.remove(name)

    def untaken(self, prefix: str) -> ProviderError | None:
        """Why the last try to pass on a file whose name begins so came to nothing; None where none has."""
        return next((why for name, why in self._untaken.items() if name.startswith(prefix)), None)

    @contextmanager
    def telling(self, name: str) -> Iterator[None]:
        """Keep in mind why a file is not taken that is to be passed on."""
        try:
            yield
        except Busy:
            raise  # our own limit, and no news of the provider
        except ProviderError as error:
            self._untaken.put(name, error)
            raise
        self._untaken.drop(name)

    async def upload(self, name: str, size: int, body: AsyncIterator[bytes]) -> RemoteFile:
        """Pass a file on, unless the provider has it already, from an upload whose answer was lost.

        Raises:
            ProviderError: as `call`.
        """
        async with self._uploads.passing():
            api = await self.client.api()
            self._guard()
            with understood(), self._on_its_way(name):
                there = next((file for file in await api.files(name) if file.bytes == size), None)
                self._guard()  # who leads by now may have deleted all that the job had there
                if there is None:
                    return await api.upload(name, size, body)
            async for _ in body:
                pass  # read to its end, so that the sender gets the answer
            return there
