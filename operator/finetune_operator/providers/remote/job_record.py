"""What a FineTuneJob's manifest says about its attempt at a provider: its identity and where it was begun. No calls."""

from finetune_api.connection import LLMConnectionSpec
from finetune_api.job_status import FineTuneJobStatus, ProviderStatus
from finetune_api.manifest import Manifest, finalizers_of
from finetune_api.names import PROVIDER_FINALIZER
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.job.remote import JobKey
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.begun import Begun, begun, with_place


def key_of(job: Manifest, provider: ProviderStatus) -> JobKey:
    """The attempt's identity at the provider. A job restored from a backup has its original UID and time in status."""
    metadata, begun = job["metadata"], (job.get("status") or {}).get("startTime")
    created = moment(metadata["creationTimestamp"])
    return JobKey(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=recorded(job, "ownerUID") or metadata["uid"],
        attempt=max(provider.attempt, 1),
        created=min(created, moment(begun)) if begun else created,
    )


def connection_of(job: Manifest) -> str:
    """The name of the LLMConnection that the job names."""
    return str(job["spec"]["connectionRef"]["name"])


def begun_at(job: Manifest) -> tuple[str | None, str | None]:
    """The place and account where the job was begun: from the annotation, or else from status.

    Status may have those of an earlier attempt that ended elsewhere.
    """
    note = begun(job).get(connection_of(job), Begun(None, None))
    return note.place or recorded(job, "place"), note.account or recorded(job, "account")


def is_held(job: Manifest) -> bool:
    """Whether the job has our finalizer, which is added before anything is created at a provider."""
    return PROVIDER_FINALIZER in finalizers_of(job)


def noted(job: Manifest, accounts: Accounts) -> str | None:
    """The annotation to write: where the job was begun, or where its connection leads now; None for no change."""
    name = connection_of(job)
    place, account = begun_at(job)
    provider = recorded(job, "name") or accounts.provider(name)
    return with_place(job, name, place or accounts.place(name), account or accounts.whose(name), provider)


def remembered(job: Manifest, status: FineTuneJobStatus, connection: LLMConnectionSpec | None) -> FineTuneJobStatus:
    """The status with the job's provider from the annotation, if status lost it and no connection leads there now."""
    note = begun(job).get(str(((job.get("spec") or {}).get("connectionRef") or {}).get("name")))
    if note is None or note.provider is None or (status.provider and status.provider.name is not None):
        return status
    if connection is not None and connection.provider == note.provider:
        return status
    return status.with_provider(name=note.provider)


def recorded(job: Manifest, field: str) -> str | None:
    """A field of `status.provider`."""
    found = ((job.get("status") or {}).get("provider") or {}).get(field)
    return str(found) if found else None
