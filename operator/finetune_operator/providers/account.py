"""One connection's calls: each passes its gate, uploads and answers theirs, all at the account's pace."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

from finetune_api.asking import Question, Reply
from finetune_api.reasons import Reason
from finetune_operator.providers.errors import Busy, ProviderError, Refused, understood
from finetune_operator.providers.gate import Gate
from finetune_operator.providers.pace import Pace
from finetune_operator.providers.poll import Poller
from finetune_operator.providers.ports import ClosableApi, FineTuningApi, HostingApi, RemoteFile
from finetune_operator.providers.room import Room
from finetune_operator.runtime.queue import Key
from finetune_operator.runtime.recent import Recent

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


class Account:
    """One connection's provider: who asks passes its gate, its jobs are watched by its poller, all at one pace."""

    def __init__(
        self,
        api: Callable[[], Awaitable[ClosableApi]],
        wake: Callable[[Key], None],
        *,
        guard: Callable[[], None],
        doubt: Callable[[], None],
        poll_seconds: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._guard = guard
        self._doubt = doubt
        self._gate = Gate(refused=self._refused, clock=clock)
        self._uploads = Gate(at_once=UPLOADS_AT_ONCE, refused=self._refused, clock=clock)
        self._sent: list[str] = []
        self._untaken: Recent[ProviderError] = Recent(REMEMBERED, lambda _: False)
        self._answers = Gate(
            at_once=ANSWERS_AT_ONCE, wary=False, silence=ANSWER_SILENCE, refused=self._refused, clock=clock
        )
        self._answers_pace = Pace(ANSWERS_PER_SECOND, clock)
        self._asking = asyncio.Semaphore(ANSWERS_AT_ONCE)
        self.room = Room(clock)
        self.poller = Poller(api, wake, refused=self._refused, seconds=poll_seconds)
        self.doubted = False
        """Whether the key was refused since it was checked last."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """A place for a task that makes several calls: see `Gate.turn`."""
        return self._gate.turn()

    def _refused(self) -> None:
        """Of a thousand calls that meet a bad key, the first has it checked."""
        if not self.doubted:
            self.doubted = True
            self._doubt()

    async def check(self) -> None:
        """Ask whether the key is good, though it was refused a moment ago.

        Raises:
            ProviderError: it is not, or that cannot be asked.
        """
        try:
            await self.call(lambda api: api.check(), probes=True)
        except Busy:
            raise  # nobody was asked: the doubt stays
        except ProviderError:
            self.doubted = False
            raise
        self.doubted = False

    async def call(self, do: Callable[[FineTuningApi], Awaitable[T]], *, probes: bool = False) -> T:
        """Make one call.

        Args:
            do: makes it.
            probes: whether it is to find out if the key is good, and so is made though that was refused.

        Raises:
            ProviderError: it did not do what was asked, or was not made at all.
        """
        async with self._gate.passing(probes=probes):
            api = await self._api()
            self._guard()  # the Secret may just have been read
            with understood():
                return await do(api)

    async def sign_in(self) -> None:
        """Have the client made, or its Secret read again, where that is due.

        Raises:
            ProviderError: as `call`.
        """
        async with self._gate.passing(asks=False):
            await self._api()

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
            answering = (await self._api()).answering()
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
            api = await self._api()
            self._guard()
            with understood(), self._on_its_way(name):
                there = next((file for file in await api.files(name) if file.bytes == size), None)
                self._guard()  # who leads by now may have deleted all that the job had there
                if there is None:
                    return await api.upload(name, size, body)
            async for _ in body:
                pass  # read to its end, so that the sender gets the answer
            return there
