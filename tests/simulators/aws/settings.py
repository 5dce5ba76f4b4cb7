"""What a test may turn at any AWS service."""

from pydantic import Field

from tests.simulators.simulator import Settings


class AwsSettings(Settings):
    """`access_keys` are secret keys by identifier; `denied` operations and `unassumable_roles` are what IAM refuses.

    `temporary_keys` takes any key that an STS elsewhere (moto's) may have given: their signatures cannot be verified.
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
