"""Names of a ModelDeployment's deployments at a provider, and calls on these through the connection's account."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import HostedDeployment, ModelDeploymentSpec
from finetune_api.job_status import ArtifactRef
from finetune_api.manifest import Manifest
from finetune_api.model import ModelVersion
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.hosted import Wanted
from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.decide.deployment.hosting_terms import terms_of
from finetune_operator.decide.deployment.idle import Figures
from finetune_operator.decide.deployment.serving_target import Target
from finetune_operator.desired import names
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.begun import Begun, with_place
from finetune_operator.providers.calls.errors import ProviderError, Refused, model_gone
from finetune_operator.providers.ports import HostingApi, HostRequest
from finetune_operator.runtime.kube import owner_uids

HOSTED = frozenset({"azureOpenAI", "bedrock", "sageMaker"})
"""Provider blocks of the providers that serve models only through deployments."""

GONE_PAUSE_SECONDS = 60.0
"""Between two tries to deploy a model that is gone: a user may restore it, for example files in a bucket."""

_VERSION_DIGITS = 6
_UID_LETTERS = 6


class Hosting:
    """Calls on deployments, each through its connection's account.

    Args:
        accounts: the providers.
        ahead: how far the API server's clock, which the times passed in follow, is ahead of this process's clock.
            Providers follow the latter, since they accept our signatures and tokens.
    """

    def __init__(self, accounts: Accounts, ahead: Callable[[], timedelta] = timedelta) -> None:
        self._accounts = accounts
        self._ahead = ahead

    async def require_place(self, recorded: HostedDeployment) -> None:
        """As `Account.require_place`, for a deployment."""
        await self._accounts.of(recorded.connection).require_place(recorded.place, recorded.account)

    async def require_begun(self, connection: str, begun: Begun) -> None:
        """As `Account.require_place`, for a place from the annotation, which status may have lost."""
        await self._accounts.of(connection).require_place(begun.place, begun.account)

    def note(self, deployment: Manifest, connection: str) -> str | None:
        """The annotation to write with the finalizer once a connection has deployments; None for no change."""
        return with_place(deployment, connection, self.place(connection), self.account(connection))

    async def require_models(self, version: ModelVersion) -> None:
        """As `Account.require_models`, for a version to deploy."""
        await self._accounts.of(version.connection).require_models(version)

    def place(self, connection: str) -> str | None:
        """Where a connection leads now."""
        return self._accounts.place(connection)

    def account(self, connection: str) -> str | None:
        """The account of its credentials, if it is known yet."""
        return self._accounts.whose(connection)

    async def standing(
        self, connections: Sequence[str], recorded: Sequence[HostedDeployment], *wanted: str
    ) -> dict[str, Hosted]:
        """All deployments of the accounts, by name; for equal names, that of the last account."""
        found: dict[str, Hosted] = {}
        for connection in connections:
            found |= await self.list(connection, [*(one.name for one in recorded), *wanted])
        return found

    async def list(self, connection: str, known: Iterable[str] = ()) -> dict[str, Hosted]:
        """All deployments of the account, by name; where case does not matter, in the spelling of `known`."""

        async def look(host: HostingApi) -> dict[str, Hosted]:
            found = await host.list()
            ours = {} if host.names_have_case else {name.casefold(): name for name in known}
            names = [ours.get(one.name.casefold(), one.name) for one in found]
            # Requests use the provider's own spelling: some of a provider's APIs accept no other.
            return {
                name: replace(one, name=name, address=one.address or one.name, connection=connection)
                for name, one in zip(names, found, strict=True)
            }

        return await self._accounts.of(connection).host(look)

    async def details(self, hosted: Hosted) -> Hosted:
        """A listed deployment, with the details that the list omits."""
        return await self._accounts.of(hosted.connection).host(lambda host: host.details(hosted))

    async def make(self, connection: str, request: HostRequest) -> str | None:
        """Request a deployment; returns the operation that describes it, if the provider has one.

        Raises:
            ProviderError: it was not created, as far as is known; the message says so if its model is gone.
        """
        try:
            return await self._accounts.of(connection).host(lambda host: host.make(request))
        except Refused as error:
            if error.reason is Reason.PROVIDER_REFUSED and await self._lacks_model(connection, request):
                raise model_gone(request.model, GONE_PAUSE_SECONDS) from None
            raise

    async def _lacks_model(self, connection: str, request: HostRequest) -> bool:
        """Whether the model to deploy is known to be gone: each provider words this refusal differently."""
        if request.is_base:
            return False
        with suppress(ProviderError):
            return not await self._accounts.of(connection).call(lambda api: api.has_model(request.model))
        return False

    async def delete(self, hosted: Hosted) -> None:
        """Request the deletion of a deployment."""
        await self._accounts.of(hosted.connection).host(lambda host: host.delete(hosted))

    async def answers(self, hosted: Hosted) -> bool:
        """Whether a deployment answers."""
        return await self._accounts.of(hosted.connection).host(lambda host: host.answers(hosted))

    async def usage(self, hosted: Hosted, since: datetime, now: datetime) -> Figures:
        """The provider's metrics of a deployment's requests since a time."""
        ahead = self._ahead()
        account = self._accounts.of(hosted.connection)
        figures = await account.host(lambda host: host.usage(hosted, since - ahead, now - ahead))
        return Figures(figures.last and figures.last + ahead, figures.until + ahead)


def is_hosted(connection: LLMConnectionSpec | None) -> bool:
    """Whether the connection's provider serves models through billed deployments."""
    return connection is not None and connection.provider in HOSTED


def maker(deployment: Manifest, model: Manifest, first: Manifest | None) -> str:
    """The UID of the object's creator: the model's first job, or the model; "" if a user created the object.

    Users write references and names, and backups restore them in other clusters. Only an existing owner with that UID
    proves that the object was created in this cluster for this model.

    Args:
        deployment: the object.
        model: its model.
        first: the job that made the model's first version, if it exists: it may have created the model, too.
    """
    metadata = model["metadata"]
    if metadata["name"] != deployment["metadata"]["name"] or metadata["uid"] not in owner_uids(deployment):
        return ""
    return str((first if first is not None else model)["metadata"]["uid"])


def prefix(deployment: Manifest, spec: ModelDeploymentSpec, maker: str = "", found: Iterable[str] = ()) -> str:
    """The prefix of the names of an object's deployments: its own name or the requested one, and parts of UIDs.

    These are the object's UID and, if a model created the object, that of its maker. An object restored from a backup
    has another UID, so deployments in its status keep their names. An object that is created again after etcd was
    restored to an earlier state has another UID, too: it finds its deployments by its maker's.

    Args:
        deployment: the object.
        spec: its spec.
        maker: the UID of its creator, or "".
        found: names of existing deployments.
    """
    begins, ends = _name_parts(deployment, spec)
    own, made_by = _uid_part(deployment["metadata"]["uid"]), _uid_part(maker)
    recorded = ((deployment.get("status") or {}).get("hosted")) or ()
    known = [_uid_in(one["name"], begins, ends) for one in recorded if not one.get("attached", True)]
    standing = [uid for name in found if (uid := _uid_in(name, begins, ends))]
    known += [uid for uid in standing if uid.startswith(own)]
    known += [uid for uid in standing if made_by and uid[_UID_LETTERS:] == made_by]
    return begins + next((uid for uid in known if uid), own + made_by) + ends


def _uid_part(uid: str) -> str:
    """The part of a UID that is used in names."""
    return uid.replace("-", "")[-_UID_LETTERS:]


def begins(deployment: Manifest, spec: ModelDeploymentSpec) -> str:
    """The prefix of the names of its deployments, without UIDs."""
    return _name_parts(deployment, spec)[0]


def namesakes(deployment: Manifest, spec: ModelDeploymentSpec, found: Collection[str], maker: str = "") -> list[str]:
    """Deployments of an object with the same name and another UID: an earlier one, or one of another cluster.

    Names chosen by users are left out: another namespace may have chosen the same.
    """
    if terms_of(spec).name is not None:
        return []
    begins, ends = _name_parts(deployment, spec)
    ours = prefix(deployment, spec, maker, found)
    chosen = spec.attach.id if spec.attach else None
    return sorted(
        name for name in found if _uid_in(name, begins, ends) and not name.startswith(ours) and name != chosen
    )


def _name_parts(deployment: Manifest, spec: ModelDeploymentSpec) -> tuple[str, str]:
    """The parts of a name before and after the UIDs."""
    metadata, terms = deployment["metadata"], terms_of(spec)
    ends = f"-{terms.kind}v"
    own = terms.name or f"{metadata['namespace']}-{metadata['name']}"
    fitting = names.fit(own, terms.name_limit - _VERSION_DIGITS - 2 * _UID_LETTERS - 1 - len(ends))
    return (re.sub("-+", "-", fitting) if terms.strict_names else fitting) + "-", ends


def _uid_in(name: str, begins: str, ends: str) -> str | None:
    """The parts of UIDs in a deployment's name; None if the name has another format."""
    part = f"[0-9a-z]{{{_UID_LETTERS}}}"
    found = re.fullmatch(f"{re.escape(begins)}({part}(?:{part})?){re.escape(ends)}[0-9]+", name)
    return found[1] if found else None


def wanted(
    deployment: Manifest,
    spec: ModelDeploymentSpec,
    target: Target,
    versions: Iterable[ModelVersion] = (),
    *,
    maker: str = "",
    found: Iterable[str] = (),
) -> Wanted:
    """The deployment of the version to serve: the attached one, or one created for the object.

    `versions`: the model's other versions, whose deployments may serve until it does. `maker`, `found`: see `prefix`.
    """
    begins = prefix(deployment, spec, maker, found)
    number, connection = target.version.version, target.version.connection
    others = [one for one in versions if one.connection == connection and one.version != number]
    terms = terms_of(spec)
    return Wanted(
        name=spec.attach.id if spec.attach else f"{begins}{number}",
        version=number,
        connection=connection,
        prefix=begins,
        nonce=spec.retry_nonce,
        terms=terms.in_place,
        made_as=terms.made_as,
        model=_shown_model(target.connection, target.version),
        models={one.version: _shown_model(target.connection, one) for one in others},
        one_at_a_time=one_at_a_time(spec),
    )


def _shown_model(connection: LLMConnectionSpec, version: ModelVersion) -> str:
    """The model that the provider shows for a version's deployment; "" if it shows none."""
    model = named(version.artifact)
    shows = (
        connection.azure_open_ai is not None
        or connection.sage_maker is not None
        or (connection.bedrock is not None and model.startswith("arn:"))
    )
    return model if shows else ""


def named(artifact: ArtifactRef) -> str:
    """How a provider identifies tuned weights: by their name there, or by their URI."""
    return artifact.provider_model_id or artifact.uri or ""


def one_at_a_time(spec: ModelDeploymentSpec | None) -> bool:
    """Whether the account allows only one change at a time; assumed for attached deployments."""
    return terms_of(spec).one_at_a_time or (spec is not None and spec.attach is not None)


def request(deployment: Manifest, spec: ModelDeploymentSpec, target: Target, recorded: HostedDeployment) -> HostRequest:
    """The request for a recorded deployment."""
    artifact = target.version.artifact
    return HostRequest(
        name=recorded.name,
        model=named(artifact),
        template=spec,
        owner=str(deployment["metadata"]["uid"]),
        recorded_at=recorded.created_at,
        base_model=None if artifact.kind == "Full" else target.version.base_model,
    )
