"""Bedrock's settings, and its models with their prices."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from tests.simulators.aws.settings import AwsSettings

DAY = 86400.0
COMMITMENTS = {"OneMonth": 30 * DAY, "SixMonths": 180 * DAY}
UNIT_PER_HOUR = {None: Decimal(24), "OneMonth": Decimal(21), "SixMonths": Decimal(13)}
"""Dollars per hour of a model unit, by commitment."""


@dataclass(frozen=True)
class BaseModel:
    """A model that can be customized; prices in dollars per million tokens, limits of its hyperparameters."""

    name: str
    training: Decimal
    input: Decimal
    output: Decimal
    hyperparameters: Mapping[str, tuple[float, float]]
    conversations: bool


NOVA = {"epochCount": (1, 5), "learningRate": (1e-6, 1e-4), "learningRateWarmupSteps": (0, 100)}
LLAMA = {"epochCount": (1, 10), "batchSize": (1, 1), "learningRate": (0, 0.1)}
MODELS = {
    "amazon.nova-micro-v1:0:128k": BaseModel("Nova Micro", Decimal(1), Decimal("0.035"), Decimal("0.14"), NOVA, True),
    "amazon.nova-lite-v1:0:300k": BaseModel("Nova Lite", Decimal(2), Decimal("0.06"), Decimal("0.24"), NOVA, True),
    "amazon.nova-pro-v1:0:300k": BaseModel("Nova Pro", Decimal(8), Decimal("0.80"), Decimal("3.20"), NOVA, True),
    "meta.llama3-1-8b-instruct-v1:0:128k": BaseModel(
        "Llama 3.1 8B Instruct", Decimal("1.49"), Decimal("0.22"), Decimal("0.22"), LLAMA, False
    ),
}


class BedrockSettings(AwsSettings):
    """Times are simulated seconds."""

    validation_seconds: float = 300.0
    processing_seconds: float = 300.0
    step_seconds: float = 1.0
    stop_seconds: float = 60.0
    deploy_seconds: float = 300.0
    provision_seconds: float = 900.0
    delete_seconds: float = 0.0
    """How long deleted resources are still shown unchanged, as there is no status for deletion."""
    job_limit: int = 2
    deployment_regions: frozenset[str] = frozenset({"us-east-1", "us-west-2"})
    units_without_commitment: int = 2
    fail_next_job: str | None = None
    fail_next_deployment: str | None = None
