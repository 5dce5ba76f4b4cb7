"""Names of a ModelDeployment's deployments at a provider, and the calls on them through the connection's account."""

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import AzureServing, ModelDeploymentSpec
from finetune_operator.decide.deployment import Target
from finetune_operator.decide.hosted import Hosted, Wanted
from finetune_operator.desired import names
from finetune_operator.providers.accounts import Accounts
from finetune_operator.providers.ports import Manifest

NAME_LIMIT = 64
_VERSION_DIGITS = 6


class Hosting:
    """Calls on deployments, each through its connection's account."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def list(self, connection: str) -> dict[str, Hosted]:
        """All deployments of the account, by name."""
        states = await self._accounts.of(connection).host(lambda host: host.list())
        return {name: Hosted(name, state, connection) for name, state in states.items()}

    async def make(self, connection: str, name: str, model: str, serving: AzureServing, owner: str) -> None:
        """Have a deployment made."""
        await self._accounts.of(connection).host(lambda host: host.make(name, model, serving, owner))

    async def delete(self, connection: str, name: str) -> None:
        """Have a deployment deleted."""
        await self._accounts.of(connection).host(lambda host: host.delete(name))

    async def answers(self, connection: str, name: str) -> bool:
        """Whether a deployment answers."""
        return await self._accounts.of(connection).host(lambda host: host.answers(name))


def is_hosted(connection: LLMConnectionSpec | None) -> bool:
    """Whether the connection's provider serves by deployments that are made and billed."""
    return connection is not None and connection.azure_open_ai is not None


def prefix(deployment: Manifest, spec: ModelDeploymentSpec) -> str:
    """How the names of an object's deployments begin: its own, or the one that it asks for, and part of its UID."""
    metadata = deployment["metadata"]
    chosen = spec.azure_open_ai.name if spec.azure_open_ai else None
    uid = metadata["uid"].replace("-", "")[-6:]
    room = NAME_LIMIT - _VERSION_DIGITS - len(uid) - 3
    own = chosen or f"{metadata['namespace']}-{metadata['name']}"
    return f"{names.fit(own, room)}-{uid}-v"


def wanted(deployment: Manifest, spec: ModelDeploymentSpec, target: Target) -> Wanted:
    """The deployment of the version that should answer."""
    begins = prefix(deployment, spec)
    number = target.version.version
    return Wanted(f"{begins}{number}", number, target.version.connection, begins, spec.retry_nonce)


def settings_of(spec: ModelDeploymentSpec) -> AzureServing:
    """SKU and capacity."""
    return spec.azure_open_ai or AzureServing()
