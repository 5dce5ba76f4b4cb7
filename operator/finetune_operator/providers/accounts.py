"""The providers' accounts behind LLMConnections: what goes through each, and whether it is the one that it was."""

import time
from collections.abc import Callable
from contextlib import suppress

from finetune_api.azure import AzureResolved
from finetune_api.connection import LLMConnectionSpec
from finetune_api.model import ModelVersion
from finetune_operator.providers import sdks
from finetune_operator.providers.account import Account
from finetune_operator.providers.clients import SECRET_SECONDS, Clients
from finetune_operator.providers.elsewhere import account_of, require_same_account, require_same_place
from finetune_operator.providers.errors import Busy, Elsewhere, ProviderError
from finetune_operator.providers.poll import POLL_SECONDS
from finetune_operator.runtime.kube import CONNECTIONS
from finetune_operator.runtime.queue import Key

DOUBTS = 3
"""How often it is asked whose account a key leads to, before what was made with it is said to be in another."""


class Accounts:
    """Accounts by the name of their LLMConnection.

    Args:
        clients: of the connections.
        guard: raises LeadershipLost where another replica may lead by now; asked right before each call on a provider.
        wake: told of each job that has changed at its provider, and of each connection whose key was refused.
        poll_seconds: between two rounds of a poller; None where somebody calls `poll`.
        clock: seconds, never running backwards.
    """

    def __init__(
        self,
        clients: Clients,
        *,
        guard: Callable[[], None],
        wake: Callable[[Key], None],
        poll_seconds: float | None = POLL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clients = clients
        self._guard = guard
        self._wake = wake
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._answered: dict[str, str | None] = {}
        """Where a connection led when it was last found to be good."""
        self._doubted_at: dict[str, float] = {}
        """When a connection seemed last to lead to another account than what was made through it."""

    def of(self, name: str) -> Account:
        """The account of a connection, whether it can be used or not."""
        if name not in self._accounts:
            self._accounts[name] = Account(
                lambda: self._clients.of(name),
                self._wake,
                guard=self._guard,
                doubt=lambda: self._wake(Key(CONNECTIONS.kind, "", name)),
                poll_seconds=self._poll_seconds,
                clock=self._clock,
            )
        return self._accounts[name]

    def place(self, name: str) -> str | None:
        """Where a connection leads now."""
        spec = self._clients.spec(name)
        return spec.place if spec is not None else None

    def provider(self, name: str) -> str | None:
        """A connection's provider block."""
        spec = self._clients.spec(name)
        return spec.provider if spec is not None else None

    def account(self, name: str) -> str | None:
        """Whose account a connection's credentials lead to, as far as that is known by now."""
        return self._clients.account(name)

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
        if account is not None:
            await self.find(name)
        await self._doubt(name, account)
        self.require_same(name, place, account)

    def require_same(self, name: str, place: str | None, account: str | None) -> None:
        """As `require_place`, by what is known of the connection: nobody is asked.

        Raises:
            Elsewhere: it leads elsewhere by now.
        """
        require_same_place(name, self.place(name), place, "begun")
        require_same_account(name, self.account(name), account, "this was begun in")

    async def require_models(self, version: ModelVersion) -> None:
        """As `require_place`, of a model that was tuned there: where its place is recorded, or its name tells it.

        Raises:
            Elsewhere: its connection leads elsewhere by now.
            ProviderError: as `require_place`.
        """
        spec, name = self._clients.spec(version.connection), version.connection
        if spec is None:
            return
        require_same_place(name, spec.place_of_models, version.place, "made")
        made_by = account_of(version.artifact.provider_model_id or "")
        if spec.bedrock is not None and made_by is not None:
            require_same_place(name, account_of(spec.bedrock.role_arn), made_by, "made", what="AWS account ")
        if version.account is not None:
            await self.find(name)
        await self._doubt(name, version.account)
        require_same_account(name, self.account(name), version.account, "this was made in")

    async def _doubt(self, name: str, account: str | None) -> None:
        """Ask again whose account it is, each minute, before another one is told: of a gateway each answer may differ.

        Two answers to one key that differ tell what the gateway did with it, and not whose it is.
        """
        told, now = self.account(name), self._clock()
        if told is None or account in {None, told}:
            return
        if now - self._doubted_at.get(name, float("-inf")) < SECRET_SECONDS:
            return
        self._doubted_at[name] = now
        with suppress(ProviderError):
            for _ in range(DOUBTS):
                if await self.of(name).pass_gate(lambda: self._clients.whose(name)) != told:
                    self._clients.doubt(name)
                    return

    async def check(self, name: str) -> None:
        """Ask whether the connection can be used as it is.

        Raises:
            ProviderError: it cannot, or that cannot be asked.
        """
        place = self.place(name)
        await self.of(name).check()
        self._answered[name] = place

    async def require_answer(self, name: str) -> None:
        """The place to which the connection leads has answered once: before, it may be one by mistake.

        Raises:
            ProviderError: as `check`.
        """
        if self._answered.get(name, "") != self.place(name):
            await self.check(name)

    async def find(self, name: str) -> None:
        """Find out where a connection's credentials lead now, before anything is begun there, or compared with it.

        Raises:
            ProviderError: it cannot be asked.
        """
        try:
            if not self._clients.is_fresh(name):
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
        account = self._accounts.pop(name, None)
        self._doubted_at.pop(name, None)
        self._answered.pop(name, None)
        await self._clients.drop(name)
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
        credential = await self._clients.credential(azure, spec)
        try:
            return await self.of(name).pass_gate(lambda: sdks.resolve(azure, workspace, credential), probes=True)
        finally:
            await credential.close()

    def is_doubted(self, name: str) -> bool:
        """Whether the key of a connection was refused since it was checked last."""
        account = self._accounts.get(name)
        return account is not None and account.doubted

    async def poll(self) -> None:
        """One round of every poller, for those that do not poll by themselves."""
        for account in list(self._accounts.values()):
            await account.poller.round()

    async def close(self) -> None:
        """End polling and close all connections."""
        for account in self._accounts.values():
            await account.poller.close()
        await self._clients.close()
