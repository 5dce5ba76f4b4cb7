"""The providers' accounts behind LLMConnections, by the connections' names."""

from collections.abc import Callable

from finetune_operator.providers.accounts.account import Account
from finetune_operator.providers.accounts.client import Client, Retired, Sources
from finetune_operator.providers.accounts.polling import POLL_SECONDS
from finetune_operator.runtime.kube import CONNECTIONS
from finetune_operator.runtime.queue import Key


class Accounts:
    """Accounts are created on first use.

    Args:
        sources: what the connections' clients are built from.
        wake: called for each job that has changed at its provider, and for each connection whose key was refused.
        poll_seconds: between two rounds of a poller; None if the owner calls `poll`.
    """

    def __init__(
        self, sources: Sources, *, wake: Callable[[Key], None], poll_seconds: float | None = POLL_SECONDS
    ) -> None:
        self._sources = sources
        self._wake = wake
        self._poll_seconds = poll_seconds
        self._retired = Retired(sources.clock)
        self._accounts: dict[str, Account] = {}

    def of(self, name: str) -> Account:
        """The account of a connection, usable or not."""
        if name not in self._accounts:
            self._accounts[name] = Account(
                Client(name, self._sources, self._retired),
                self._wake,
                on_refused=lambda: self._wake(Key(CONNECTIONS.kind, "", name)),
                poll_seconds=self._poll_seconds,
            )
        return self._accounts[name]

    def place(self, name: str) -> str | None:
        """Where a connection leads now."""
        spec = self._sources.spec(name)
        return spec.place if spec is not None else None

    def provider(self, name: str) -> str | None:
        """A connection's provider block."""
        spec = self._sources.spec(name)
        return spec.provider if spec is not None else None

    def whose(self, name: str) -> str | None:
        """The account of a connection's credentials, if it is known yet."""
        account = self._accounts.get(name)
        return account.client.account if account is not None else None

    def forget(self, key: Key) -> None:
        """Stop watching the jobs of an object that has ended or was deleted."""
        for account in self._accounts.values():
            account.poller.forget(key)

    async def drop(self, name: str) -> None:
        """Release a deleted connection and its client, so that they do not pile up over the operator's lifetime.

        Objects that wait for news of a job are reconciled: the next poller says why there are none.
        """
        account = self._accounts.pop(name, None)
        if account is None:
            return
        await account.client.retire()
        await account.poller.close()
        for key in account.poller.watchers():
            self._wake(key)

    async def poll(self) -> None:
        """Run one round of every poller, if these were created without `poll_seconds`."""
        for account in list(self._accounts.values()):
            await account.poller.round()

    async def close(self) -> None:
        """End polling and close all connections."""
        for account in list(self._accounts.values()):
            await account.poller.close()
            await account.client.close()
        await self._retired.close()
