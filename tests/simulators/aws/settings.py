"""Settings of all AWS services."""

from pydantic import Field

from finetune_api.aws import partition_of
from tests.simulators.simulator import Settings


class AwsSettings(Settings):
    """`access_keys` are secret keys by identifier; IAM refuses `denied` operations and `unassumable_roles`.

    `temporary_keys` accepts any key that another STS (moto's) may have issued: their signatures cannot be verified.
    """

    account: str = "123456789012"
    region: str = "us-east-1"
    access_keys: dict[str, str] = Field(default={"AKIASIMULATED": "simulated-secret"})
    temporary_keys: bool = False
    revoked_keys: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    unassumable_roles: frozenset[str] = frozenset()
    s3_endpoint: str | None = None
    list_lag_seconds: float = 0.0
    page_size: int | None = None
    """Maximum number of items on a page of a list."""
    empty_pages: bool = False
    """Whether each page is preceded by an empty one with a token, as when AWS scanned items without a match."""

    @property
    def partition(self) -> str:
        """As ARNs have it."""
        return partition_of(self.region)

    def arn(self, service: str, thing: str) -> str:
        """The name of something of the account's."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{thing}"
