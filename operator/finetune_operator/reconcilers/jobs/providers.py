"""Which provider runs a job: the one recorded in status, else that of its connection."""

from collections.abc import Callable

from finetune_api.catalogue import Catalogue, ProviderFacts
from finetune_api.connection import LLMConnectionSpec
from finetune_api.job_status import FineTuneJobStatus
from finetune_api.manifest import Manifest
from finetune_operator.providers.catalogue import catalogue_name
from finetune_operator.providers.ports import TrainingProvider
from finetune_operator.providers.remote.training import CloudTraining
from finetune_operator.providers.sdks import REMOTE, is_remote


class Providers:
    """The providers of this process.

    Args:
        here: trains on this cluster.
        remote: trains at providers outside of it.
        catalogue: returns the currently known prices and dates.
    """

    def __init__(self, here: TrainingProvider, remote: CloudTraining, catalogue: Callable[[], Catalogue]) -> None:
        self._here = here
        self._remote = remote
        self._catalogue = catalogue

    def is_remote(self, status: FineTuneJobStatus, connection: LLMConnectionSpec | None) -> bool:
        """Whether the attempt runs outside of the cluster; the recorded provider counts even without its connection."""
        recorded = status.provider.name if status.provider else None
        return recorded in REMOTE if recorded else is_remote(connection)

    def of(self, status: FineTuneJobStatus, connection: LLMConnectionSpec | None) -> TrainingProvider:
        """The provider that runs the job."""
        return self._remote if self.is_remote(status, connection) else self._here

    def account(self, job: Manifest) -> str | None:
        """The account of the job's connection outside of the cluster, as far as it is known yet."""
        return self._remote.account(job)

    def know(self, connection: LLMConnectionSpec) -> bool:
        """Whether this process has a provider for the connection."""
        return connection.hugging_face is not None or is_remote(connection)

    def facts(self, connection: LLMConnectionSpec | None) -> ProviderFacts:
        """Prices and dates of the connection's provider."""
        return self._catalogue().of(catalogue_name(connection)) if connection is not None else ProviderFacts()
