"""The SDK client of an LLMConnection, built from its spec and Secret, and the account that it leads to.

The Secret is read again every minute, to pick up a renewed key.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from finetune_api.azure import AzureOpenAI
from finetune_api.connection import LLMConnectionSpec
from finetune_api.job_status import Failure
from finetune_operator.providers import sdks
from finetune_operator.providers.accounts.identity import require_same_account
from finetune_operator.providers.calls.errors import ProviderError, TryLater, parsing_answer
from finetune_operator.providers.calls.rate_limit import CALLS_PER_SECOND, RateLimiter
from finetune_operator.providers.connection_secret import ConnectionSecrets
from finetune_operator.providers.ports import Credential, FineTuningApi
from finetune_operator.runtime.uptime import Clock

logger = logging.getLogger(__name__)

SECRET_SECONDS = 60.0
"""How long a Secret's value is used before it is read again."""

RETIRE_SECONDS = 600.0
"""How long a replaced client is kept open: longer than any call through it."""

Build = Callable[[LLMConnectionSpec, Mapping[str, str]], FineTuningApi]
SignIn = Callable[[AzureOpenAI, Mapping[str, str]], Credential]


@dataclass(frozen=True)
class Sources:
    """What all clients are built from."""

    secrets: ConnectionSecrets
    spec: Callable[[str], LLMConnectionSpec | None]
    """A connection's spec by its name."""
    lacking: Callable[[str], Failure]
    """The failure for a connection that does not exist."""
    guard: Callable[[], None]
    """Raises LeadershipLost if another replica may lead by now; called right before each call to a provider."""
    build: Build = sdks.build_api
    """Builds a connection's API from its spec and Secret."""
    sign_in: SignIn = sdks.credential_of
    """Builds an Azure connection's credential from its Secret."""
    clock: Clock = time.monotonic
    rate: float = CALLS_PER_SECOND
    """Calls per second of each connection."""


class Retired:
    """Replaced clients, kept open while calls through them may still be running."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: list[tuple[float, FineTuningApi]] = []

    async def add(self, api: FineTuningApi) -> None:
        """Add one, and close those old enough for all their calls to have ended."""
        now = self._clock()
        self._since.append((now, api))
        while self._since and now - self._since[0][0] >= RETIRE_SECONDS:
            await self._since.pop(0)[1].close()

    async def close(self) -> None:
        """Close all of them."""
        for _, api in self._since:
            await api.close()


@dataclass(frozen=True)
class _Built:
    """A client and what it was built from."""

    api: FineTuningApi
    spec: LLMConnectionSpec
    secret: Mapping[str, str]
    read_at: float
    account: str | None
    """The account that it leads to; None if the provider does not say."""
    told: bool
    """Whether the account could be asked for."""


class Client:
    """The client of one LLMConnection.

    Args:
        name: of the connection.
        sources: what it is built from.
        retired: takes it once it is replaced.
    """

    def __init__(self, name: str, sources: Sources, retired: Retired) -> None:
        self.name = name
        self.sources = sources
        self._retired = retired
        self._limiter = RateLimiter(sources.rate, guard=sources.guard)
        self._built: _Built | None = None
        self._gone = False

    @property
    def spec(self) -> LLMConnectionSpec | None:
        """The connection's current spec."""
        return self.sources.spec(self.name)

    @property
    def account(self) -> str | None:
        """The account of the connection's credentials, if it is known yet."""
        return self._built.account if self._built is not None else None

    def is_fresh(self) -> bool:
        """Whether it was built from the current spec, and its Secret was read recently."""
        built, now = self._built, self.sources.clock()
        return built is not None and built.spec == self.spec and now - built.read_at < SECRET_SECONDS

    async def api(self) -> FineTuningApi:
        """The client, rebuilt if spec or Secret have changed.

        Raises:
            ProviderError: the connection or its Secret cannot be used.
            ConnectionMoved: it leads to another account than before.
        """
        sources, spec, built = self.sources, self.spec, self._built
        if spec is None:
            raise TryLater.because(sources.lacking(self.name))
        if built is not None and self.is_fresh():
            return built.api
        secret = await sources.secrets.of(spec)
        if built is not None and built.spec == spec and built.secret == secret:
            api = built.api
        else:
            await sdks.imported(spec.provider)
            api = sources.build(spec, secret)
            api.use_limiter(self._limiter)
        before = built.account if built is not None else None
        known = built is not None and built.api is api and built.told
        account, told = (before, True) if known else await _whose(api)
        # Not `built`: another task may have replaced it meanwhile.
        replaced, self._built = self._built, _Built(api, spec, secret, sources.clock(), account, told)
        if self._gone:
            if built is None or built.api is not api:
                await self._retired.add(api)  # built while its connection was deleted: nothing else would close it
        elif replaced is not None and replaced.api is not api:
            await self._retired.add(replaced.api)
        # The caller may have checked the account just before it changed.
        require_same_account(self.name, account, before, "what was made until now is in")
        return api

    async def whose(self) -> str | None:
        """The account that it leads to, asked for now.

        Raises:
            ProviderError: it cannot be asked for.
        """
        return await self._built.api.account() if self._built is not None else None

    def forget_account(self) -> None:
        """Treat the account as unknown; it is not asked for again."""
        if self._built is not None:
            self._built = replace(self._built, account=None)

    async def credential(self, azure: AzureOpenAI, spec: LLMConnectionSpec) -> Credential:
        """The credential of an Azure connection; the caller closes it.

        Raises:
            TryLater: its Secret cannot be used.
        """
        await sdks.imported(spec.provider)
        return self.sources.sign_in(azure, await self.sources.secrets.of(spec))

    async def retire(self) -> None:
        """Retire it: the connection was deleted."""
        self._gone = True
        built, self._built = self._built, None
        if built is not None:
            await self._retired.add(built.api)

    async def close(self) -> None:
        """Close it at once."""
        if self._built is not None:
            await self._built.api.close()


async def _whose(api: FineTuningApi) -> tuple[str | None, bool]:
    """The account of the credentials, and whether it could be asked for. An unknown account blocks no call."""
    try:
        with parsing_answer():
            return await api.account(), True
    except ProviderError as error:
        logger.info("whose account a connection leads to cannot be asked: %s", error.message)
        return None, False
