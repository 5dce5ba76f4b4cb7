"""The SDKs' clients of LLMConnections: one for each, made by its spec and its Secret, and whose account it leads to.

A Secret is read again every minute, so that a renewed key is found.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from finetune_api.azure import AzureOpenAI
from finetune_api.connection import LLMConnectionSpec
from finetune_api.job_status import Failure
from finetune_operator.providers import sdks
from finetune_operator.providers.connection_secret import ConnectionSecrets
from finetune_operator.providers.elsewhere import require_same_account
from finetune_operator.providers.errors import ProviderError, TryLater, understood
from finetune_operator.providers.pace import CALLS_PER_SECOND, Pace
from finetune_operator.providers.ports import ClosableApi, Credential

logger = logging.getLogger(__name__)

SECRET_SECONDS = 60.0
"""How long a Secret's value is used before it is read again."""

RETIRE_SECONDS = 600.0
"""How long a client that nobody is given any more is kept open: longer than any call through it."""

Build = Callable[[LLMConnectionSpec, Mapping[str, str]], ClosableApi]
SignIn = Callable[[AzureOpenAI, Mapping[str, str]], Credential]


@dataclass(frozen=True)
class _Built:
    """A client and what it was built from."""

    api: ClosableApi
    spec: LLMConnectionSpec
    secret: Mapping[str, str]
    read_at: float
    account: str | None
    """Whose account it leads to; None where the provider does not tell."""
    told: bool
    """Whether that could be asked."""


class Clients:
    """Clients by the name of their LLMConnection.

    Args:
        secrets: of the connections.
        spec: a connection's spec by its name.
        lacking: why there is none.
        guard: raises LeadershipLost where another replica may lead by now; asked right before each call on a provider.
        build: makes the API of a connection with its secret.
        sign_in: makes the credential of an Azure connection with its secret.
        clock: seconds, never running backwards.
        rate: calls per second of each connection.
    """

    def __init__(
        self,
        secrets: ConnectionSecrets,
        spec: Callable[[str], LLMConnectionSpec | None],
        *,
        lacking: Callable[[str], Failure],
        guard: Callable[[], None],
        build: Build | None = None,
        sign_in: SignIn = sdks.credential_of,
        clock: Callable[[], float] = time.monotonic,
        rate: float = CALLS_PER_SECOND,
    ) -> None:
        self._secrets = secrets
        self.spec = spec
        self._lacking = lacking
        self._guard = guard
        self._build = build or sdks.build_api
        self._sign_in = sign_in
        self._clock = clock
        self._rate = rate
        self._paces: dict[str, Pace] = {}
        self._built: dict[str, _Built] = {}
        self._retired: list[tuple[float, ClosableApi]] = []
        """Clients that nobody is given any more, and since when."""

    async def of(self, name: str) -> ClosableApi:
        """The client of a connection, made anew where its spec or its Secret has changed.

        Raises:
            ProviderError: the connection or its Secret cannot be used.
            Elsewhere: it leads to another account than a moment ago.
        """
        spec = self.spec(name)
        if spec is None:
            raise TryLater.because(self._lacking(name))
        fresh = self._fresh(name)
        if fresh is not None:
            return fresh.api
        built, secret = self._built.get(name), await self._secrets.of(spec)
        if built is not None and built.spec == spec and built.secret == secret:
            api = built.api
        else:
            await sdks.imported(spec.provider)
            api = self._build(spec, secret)
            api.keep_pace(self._paces.setdefault(name, Pace(self._rate, guard=self._guard)))
        before = built.account if built is not None else None
        known = built is not None and built.api is api and built.told
        account, told = (before, True) if known else await _whose(api)
        # Not the one of before: others may have made one meanwhile.
        replaced, self._built[name] = self._built.get(name), _Built(api, spec, secret, self._clock(), account, told)
        if replaced is not None and replaced.api is not api:
            await self._retire(replaced.api)
        # Whoever asks now may have looked whose account it is a moment ago, when it was another's.
        require_same_account(name, account, before, "what was made until now is in")
        return api

    def account(self, name: str) -> str | None:
        """Whose account a connection's credentials lead to, as far as that is known by now."""
        built = self._built.get(name)
        return built.account if built is not None else None

    async def whose(self, name: str) -> str | None:
        """The same, asked now.

        Raises:
            ProviderError: it cannot be asked.
        """
        built = self._built.get(name)
        return await built.api.account() if built is not None else None

    def is_fresh(self, name: str) -> bool:
        """Whether that was found out a moment ago, by the spec as it is."""
        return self._fresh(name) is not None

    def doubt(self, name: str) -> None:
        """What was told of the account is known no more, and not asked again either."""
        built = self._built.get(name)
        if built is not None:
            self._built[name] = replace(built, account=None)

    async def credential(self, azure: AzureOpenAI, spec: LLMConnectionSpec) -> Credential:
        """The credential of an Azure connection, which whoever asks for it closes.

        Raises:
            TryLater: its Secret cannot be used.
        """
        await sdks.imported(spec.provider)
        return self._sign_in(azure, await self._secrets.of(spec))

    async def drop(self, name: str) -> None:
        """A connection is gone."""
        self._paces.pop(name, None)
        built = self._built.pop(name, None)
        if built is not None:
            await self._retire(built.api)

    async def close(self) -> None:
        """Close all of them."""
        for api in [*(built.api for built in self._built.values()), *(api for _, api in self._retired)]:
            await api.close()

    async def _retire(self, api: ClosableApi) -> None:
        """Calls may still be on their way through a client: it is closed when they must have ended."""
        now = self._clock()
        self._retired.append((now, api))
        while self._retired and now - self._retired[0][0] >= RETIRE_SECONDS:
            await self._retired.pop(0)[1].close()

    def _fresh(self, name: str) -> _Built | None:
        """A connection's client, if it was made by the spec as it is, and its Secret was read a moment ago."""
        built = self._built.get(name)
        if built is None or built.spec != self.spec(name):
            return None
        return built if self._clock() - built.read_at < SECRET_SECONDS else None


async def _whose(api: ClosableApi) -> tuple[str | None, bool]:
    """Whose account the credentials lead to, and whether that could be asked. What is not known holds up nobody."""
    try:
        with understood():
            return await api.account(), True
    except ProviderError as error:
        logger.info("whose account a connection leads to cannot be asked: %s", error.message)
        return None, False
