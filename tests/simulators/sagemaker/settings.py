"""SageMaker's settings, and prices of instances."""

from decimal import Decimal

from pydantic import Field

from tests.simulators.aws.settings import AwsSettings

PER_HOUR = {
    "ml.m5.large": Decimal("0.115"),
    "ml.m5.xlarge": Decimal("0.23"),
    "ml.g4dn.xlarge": Decimal("0.7364"),
    "ml.g5.xlarge": Decimal("1.408"),
    "ml.g5.2xlarge": Decimal("1.515"),
    "ml.g5.12xlarge": Decimal("7.09"),
    "ml.p4d.24xlarge": Decimal("37.688"),
}
OTHER_PER_HOUR = Decimal(2)
SPOT_SHARE = Decimal("0.3")
"""The billed share of spot training's time."""


class SageMakerSettings(AwsSettings):
    """Times are simulated seconds. `interrupt_after_seconds`: how long each spot instance trains before it is taken."""

    launch_seconds: float = 120.0
    download_seconds: float = 60.0
    train_seconds: float = 600.0
    upload_seconds: float = 30.0
    stop_seconds: float = 60.0
    spot_wait_seconds: float = 300.0
    interrupt_after_seconds: list[float] = Field(default=[])
    endpoint_seconds: float = 300.0
    delete_seconds: float = 60.0
    instance_limits: dict[str, int] = Field(default={})
    final_metrics: dict[str, float] = Field(default={"train_loss": 0.42, "eval_loss": 0.47})
    fail_next_job: str | None = None
    fail_next_endpoint: str | None = None
