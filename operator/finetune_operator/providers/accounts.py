"""The providers' accounts behind LLMConnections: who reads their Secrets, and keeps one client for each connection.

A Secret is read from the operator's own namespace, again every minute, so that a renewed key is found. Its value goes
to the SDK and nowhere else.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from finetune_api.azure import AzureOpenAI, AzureResolved
from finetune_api.connection import LLMConnectionSpec
from finetune_api.model import ModelVersion
from finetune_api.reasons import Reason
from finetune_operator.providers import sdks
from finetune_operator.providers.account import Account
from finetune_operator.providers.connection_secret import NAMES, lacks, not_alone, secret_of
from finetune_operator.providers.errors import Busy, Elsewhere, ProviderError, TryLater, understood
from finetune_operator.providers.pace import CALLS_PER_SECOND, Pace
from finetune_operator.providers.poll import POLL_SECONDS
from finetune_operator.providers.ports import ClosableApi, Credential
from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import SECRETS, Kube, secret_value
from finetune_operator.runtime.logs import hide
from finetune_operator.runtime.queue import Key

logger = logging.getLogger(__name__)

SECRET_SECONDS = 60.0
"""How long a Secret's value is used before it is read again."""

RETIRE_SECONDS = 600.0
"""How long a client that nobody is given any more is kept open: longer than any call through it."""

DOUBTS = 3
"""How often it is asked whose account a key leads to, before what was made with it is said to be in another."""

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


class Accounts:
    """Accounts by the name of their LLMConnection.

    Args:
        kube: the API.
        connection: a connection's spec by its name.
        namespace: the operator's own, where Secrets of connections are.
        guard: raises LeadershipLost where another replica may lead by now; asked right before each call on a provider.
        wake: told of each job that has changed at its provider.
        poll_seconds: between two rounds of a poller; None where somebody calls `poll`.
        build: makes the API of a connection with its secret.
        sign_in: makes the credential of an Azure connection with its secret.
        clock: seconds, never running backwards.
        rate: calls per second of each connection.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        connection: Callable[[str], LLMConnectionSpec | None],
        namespace: str,
        guard: Callable[[], None],
        wake: Callable[[Key], None],
        poll_seconds: float | None = POLL_SECONDS,
        build: Build | None = None,
        sign_in: SignIn = sdks.credential_of,
        clock: Callable[[], float] = time.monotonic,
        rate: float = CALLS_PER_SECOND,
    ) -> None:
        self._kube = kube
        self._connection = connection
        self._namespace = namespace
        self._guard = guard
        self._wake = wake
        self._poll_seconds = poll_seconds
        self._build = build or sdks.build_api
        self._sign_in = sign_in
        self._clock = clock
        self._rate = rate
        self._accounts: dict[str, Account] = {}
        self._paces: dict[str, Pace] = {}
        self._built: dict[str, _Built] = {}
        self._retired: list[tuple[float, ClosableApi]] = []
        """Clients that nobody is given any more, and since when."""
        self._doubted_at: dict[str, float] = {}
        """When a connection seemed last to lead to another account than what was made through it."""

    def of(self, name: str) -> Account:
        """The account of a connection, whether it can be used or not."""
        if name not in self._accounts:
            self._accounts[name] = Account(
                lambda: self._api(name),
                self._wake,
                guard=self._guard,
                poll_seconds=self._poll_seconds,
                clock=self._clock,
            )
        return self._accounts[name]

    def place(self, name: str) -> str | None:
        """Where a connection leads now."""
        spec = self._connection(name)
        return spec.place if spec is not None else None

    def account(self, name: str) -> str | None:
        """Whose account a connection's credentials lead to, as far as that is known by now."""
        built = self._built.get(name)
        return built.account if built is not None else None

    async def require_place(self, name: str, place: str | None, account: str | None) -> None:
        """Nothing is looked for where it was not made: it would be taken for gone, and go on costing.

        Args:
            name: of the connection.
            place: where it led when that was made; None where that is not known.
            account: whose account that was; None where that is not known.

        Raises:
            Elsewhere: it leads elsewhere by now.
            ProviderError: whose account it leads to cannot be asked.
        """
        await self._find_account(name, account)
        await self._doubt(name, account)
        self.require_same(name, place, account)

    def require_same(self, name: str, place: str | None, account: str | None) -> None:
        """As `require_place`, by what is known of the connection: nobody is asked.

        Raises:
            Elsewhere: it leads elsewhere by now.
        """
        _require_same(name, self.place(name), place, "begun")
        _require_same_account(name, self.account(name), account, "this was begun in")

    async def require_models(self, version: ModelVersion) -> None:
        """As `require_place`, of a model that was tuned there: where its place is recorded, or its name tells it.

        Raises:
            Elsewhere: its connection leads elsewhere by now.
            ProviderError: as `require_place`.
        """
        spec, name = self._connection(version.connection), version.connection
        if spec is None:
            return
        _require_same(name, spec.place_of_models, version.place, "made")
        made_by = account_of(version.artifact.provider_model_id or "")
        if spec.bedrock is not None and made_by is not None:
            _require_same(name, account_of(spec.bedrock.role_arn), made_by, "made", what="AWS account ")
        await self._find_account(name, version.account)
        await self._doubt(name, version.account)
        _require_same_account(name, self.account(name), version.account, "this was made in")

    async def _doubt(self, name: str, account: str | None) -> None:
        """Ask again whose account it is, each minute, before another one is told: of a gateway each answer may differ.

        Two answers to one key that differ tell what the gateway did with it, and not whose it is.
        """
        built, now = self._built.get(name), self._clock()
        if built is None or account is None or built.account in {None, account}:
            return
        if now - self._doubted_at.get(name, float("-inf")) < SECRET_SECONDS:
            return
        self._doubted_at[name] = now
        with suppress(ProviderError):
            for _ in range(DOUBTS):
                if await self.of(name).pass_gate(built.api.account) != built.account:
                    self._built[name] = replace(built, account=None)
                    return

    async def _find_account(self, name: str, account: str | None) -> None:
        """Find out whose account the connection leads to, if that is to be compared with one.

        Raises:
            ProviderError: it cannot be asked.
        """
        try:
            if account is not None and self._fresh(name) is None:
                with suppress(Elsewhere):  # than a moment ago: that is what was to be found out
                    await self.of(name).sign_in()
        except Busy:
            if self.account(name) is None:
                raise  # else those who are inside see it change

    def forget(self, key: Key) -> None:
        """An object has ended or is gone."""
        for account in self._accounts.values():
            account.poller.forget(key)

    async def drop(self, name: str) -> None:
        """A connection is gone, and with it its client: names come and go as long as the operator runs.

        Whoever waits for news of a job is told to look: the next poller says why there are none.
        """
        account, built = self._accounts.pop(name, None), self._built.pop(name, None)
        self._paces.pop(name, None)
        self._doubted_at.pop(name, None)
        if built is not None:
            await self._retire(built.api)
        if account is not None:
            await account.poller.close()
            for key in account.poller.watchers():
                self._wake(key)

    async def resolve(self, name: str, spec: LLMConnectionSpec) -> AzureResolved | None:
        """Where the AzureML workspace of a connection leads; None where the connection names none.

        Raises:
            ProviderError: it cannot be found out.
        """
        azure = spec.azure_open_ai
        workspace = azure.workspace if azure else None
        if azure is None or workspace is None:
            return None
        await sdks.imported(spec.provider)
        credential = self._sign_in(azure, await self._secret(spec))
        try:
            return await self.of(name).pass_gate(lambda: sdks.resolve(azure, workspace, credential))
        finally:
            await credential.close()

    async def poll(self) -> None:
        """One round of every poller, for those that do not poll by themselves."""
        for account in list(self._accounts.values()):
            await account.poller.round()

    async def close(self) -> None:
        """End polling and close all connections."""
        for account in self._accounts.values():
            await account.poller.close()
        for api in [*(built.api for built in self._built.values()), *(api for _, api in self._retired)]:
            await api.close()

    async def _retire(self, api: ClosableApi) -> None:
        """Calls may still be on their way through a client: it is closed when they must have ended."""
        now = self._clock()
        self._retired.append((now, api))
        while self._retired and now - self._retired[0][0] >= RETIRE_SECONDS:
            await self._retired.pop(0)[1].close()

    async def _api(self, name: str) -> ClosableApi:
        spec = self._connection(name)
        if spec is None:
            raise TryLater(Reason.CONNECTION_NOT_FOUND, f"LLMConnection {name} does not exist")
        fresh = self._fresh(name)
        if fresh is not None:
            return fresh.api
        built, secret = self._built.get(name), await self._secret(spec)
        if built is not None and built.spec == spec and built.secret == secret:
            api = built.api
        else:
            await sdks.imported(spec.provider)
            api = self._build(spec, secret)
            if built is not None:
                await self._retire(built.api)
            api.keep_pace(self._paces.setdefault(name, Pace(self._rate, guard=self._guard)))
        before = built.account if built is not None else None
        known = built is not None and built.api is api and built.told
        account, told = (before, True) if known else await _whose(api)
        self._built[name] = _Built(api, spec, secret, self._clock(), account, told)
        # Whoever asks now may have looked whose account it is a moment ago, when it was another's.
        _require_same_account(name, account, before, "what was made until now is in")
        return api

    def _fresh(self, name: str) -> _Built | None:
        """A connection's client, if it was made by the spec as it is, and its Secret was read a moment ago."""
        built = self._built.get(name)
        if built is None or built.spec != self._connection(name):
            return None
        return built if self._clock() - built.read_at < SECRET_SECONDS else None

    async def _secret(self, spec: LLMConnectionSpec) -> Mapping[str, str]:
        """The values of a connection's Secret that are needed, by their keys.

        Raises:
            TryLater: the Secret, or a key in it, is not there, or may not be read.
        """
        needed = secret_of(spec)
        if needed is None:
            return {}
        name, keys = needed
        try:
            secret = await self._kube.get(SECRETS, name, self._namespace)
        except Forbidden as refusal:
            raise _unreadable(f"{self._namespace}/{name}", refusal) from None
        if secret is None:
            raise TryLater(Reason.SECRET_NOT_FOUND, f"Secret {self._namespace}/{name} does not exist")
        values = {key: (secret_value(secret, key) or b"").decode(errors="replace").strip() for key in keys}
        for key in values.keys() - NAMES:
            hide(values[key])
        missing = [key for key, value in values.items() if not value]
        if missing:
            told = f"Secret {self._namespace}/{name} {lacks(missing, secret)}"
            raise TryLater(Reason.SECRET_NOT_FOUND, told)
        for key, value in values.items():
            if why := not_alone(value):
                message = (
                    f"Secret {self._namespace}/{name}: {key} has {why}, as no key has: write the key alone, once, and "
                    "not the file, the line or the Base64 that it came in"
                )
                raise TryLater(Reason.CREDENTIALS_INVALID, message)
        return values


async def _whose(api: ClosableApi) -> tuple[str | None, bool]:
    """Whose account the credentials lead to, and whether that could be asked. What is not known holds up nobody."""
    try:
        with understood():
            return await api.account(), True
    except ProviderError as error:
        logger.info("whose account a connection leads to cannot be asked: %s", error.message)
        return None, False


def _unreadable(secret: str, refusal: Forbidden) -> TryLater:
    """The operator's rights lack, or an authorizer refuses it: whoever needs the provider says so."""
    error = TryLater(Reason.WRITE_REFUSED, f"Secret {secret} cannot be read: {refusal.message}", 60.0)
    error.next_step = "Ask an admin to let the operator read it: `helm upgrade` restores rights that were edited."
    return error


def account_of(arn: str) -> str | None:
    """The account that an ARN of AWS names; None where it names none."""
    parts = arn.split(":")
    return parts[4] or None if parts[0] == "arn" and len(parts) > 5 else None


def _require_same_account(name: str, now: str | None, before: str | None, done_in: str) -> None:
    if now is None or before is None or now == before:
        return
    message = (
        f"the credentials of LLMConnection {name} lead to {now} by now, and {done_in} {before}, where it may be billed"
    )
    other = Elsewhere(Reason.CREDENTIALS_INVALID, message, 60.0)
    other.next_step = (
        f"Ask an admin to let the connection lead to {before} again; another is for another LLMConnection."
    )
    raise other


def _require_same(name: str, now: str | None, before: str | None, done: str, *, what: str = "") -> None:
    if now is None or before is None or now == before:
        return
    message = (
        f"LLMConnection {name} leads to {what}{now} by now, and this was {done} at {what}{before}, where it may be "
        "billed: make the connection lead there as before"
    )
    elsewhere = Elsewhere(Reason.CONNECTION_NOT_FOUND, message, 60.0)
    elsewhere.next_step = "Ask an admin to make the connection as it was; another place is for another LLMConnection."
    raise elsewhere


def is_remote(spec: LLMConnectionSpec | None) -> bool:
    """Whether the connection's provider is outside of the cluster, and one that this release knows."""
    return spec is not None and spec.provider in sdks.REMOTE
