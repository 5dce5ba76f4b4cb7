"""Azure's settings and prices."""

from decimal import Decimal
from typing import Any, Literal

from pydantic import Field

from tests.simulators.clock import DAY
from tests.simulators.openai.settings import OpenAISettings

STANDARD, GLOBAL, DEVELOPER = "Standard", "GlobalStandard", "developerTier"
TRAINING_FACTOR = {STANDARD: Decimal("1.1"), GLOBAL: Decimal(1), DEVELOPER: Decimal("0.5")}
"""Training price against OpenAI's list price, by training type."""

HOURLY = {
    "standard": Decimal("1.70"),
    "globalstandard": Decimal("1.70"),
    "developertier": Decimal(0),
    "provisionedmanaged": Decimal(1),
}
"""Dollars per hour of a deployment by the lower-case name of its SKU; of provisioned ones, per unit of capacity."""


class AzureSettings(OpenAISettings):
    """Times are simulated seconds."""

    keys: frozenset[str] = frozenset({"azure-key"})
    encode_results: bool = False
    closes_at: float = float("inf")
    learn_pairs: frozenset[str] = frozenset({"gpt-4o-2024-08-06", "gpt-4.1-2025-04-14", "gpt-4.1-mini-2025-04-14"})
    job_limit: int = 21
    running_limit: int = 1
    need_byte_order_mark: bool = True
    keep_metadata: bool = False
    training_types: dict[str, list[str]] = Field(
        default={
            "gpt-4o-2024-08-06": [STANDARD, GLOBAL, DEVELOPER],
            "gpt-4o-mini-2024-07-18": [STANDARD, GLOBAL, DEVELOPER],
            "gpt-4.1-2025-04-14": [GLOBAL, DEVELOPER],
            "gpt-4.1-mini-2025-04-14": [GLOBAL, DEVELOPER],
            "gpt-4.1-nano-2025-04-14": [GLOBAL, DEVELOPER],
        }
    )

    tenant: str = "tenant-simulated"
    token_seconds: int = 3599
    clients: dict[str, str] = Field(default={"client-simulated": "client-secret"})
    federated_subjects: frozenset[str] = frozenset()
    static_tokens: frozenset[str] = frozenset({"simulated-token"})
    may_tune: bool = True
    may_deploy: bool = True
    may_read_metrics: bool = True

    subscription: str = "00000000-0000-0000-0000-000000000001"
    resource_group: str = "models"
    account: str = "simulated"
    location: str = "swedencentral"
    workspace: str = "ml"
    workspace_connections: dict[str, dict[str, Any]] = Field(default={})
    """Properties of the connections of an AzureML workspace in the resource group, by name."""
    skus: frozenset[str] = frozenset(HOURLY)
    deploy_seconds: float = 600.0
    delete_seconds: float = 60.0
    spread_seconds: float = 300.0
    idle_seconds: float = 15 * DAY
    developer_seconds: float = DAY
    deployment_limit: int = 5
    capacity: int = 1000
    retry_after_seconds: int = 0
    fail_next_deployment: str | None = None
    failed_state: str = "Failed"
    """State of a failed deployment."""
    failed_ones_vanish: bool = False
    """Whether a failed deployment is removed, so that only the operation shows the failure."""
    fail_next_deletion: str | None = None
    """The next deletion is accepted and fails later: the deployment stays."""
    answers_put: Literal["Created", "Accepted"] = "Created"
    """Answer a PUT with the deployment, or with 202 and without a body."""
    answers_polls: Literal["Status", "Location", "Nothing"] = "Status"
    """How an operation is polled: by its status; as a Location, with 202 until it is over; or always with 204."""
