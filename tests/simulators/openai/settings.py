"""OpenAI's settings, and its models with their list prices."""

from datetime import UTC, datetime
from decimal import Decimal

from pydantic import BaseModel

from tests.simulators.simulator import Settings

CLOSES_FOR_ALL = datetime(2027, 1, 6, tzinfo=UTC).timestamp()
SHUTDOWN = "2027-01-14"


class Price(BaseModel):
    """US dollars per million tokens."""

    training: Decimal
    input: Decimal
    output: Decimal


TUNABLE = {
    "gpt-4o-2024-08-06": Price(training=Decimal("25.00"), input=Decimal("3.75"), output=Decimal("15.00")),
    "gpt-4o-mini-2024-07-18": Price(training=Decimal("3.00"), input=Decimal("0.30"), output=Decimal("1.20")),
    "gpt-4.1-2025-04-14": Price(training=Decimal("25.00"), input=Decimal("3.00"), output=Decimal("12.00")),
    "gpt-4.1-mini-2025-04-14": Price(training=Decimal("5.00"), input=Decimal("0.80"), output=Decimal("3.20")),
    "gpt-4.1-nano-2025-04-14": Price(training=Decimal("1.50"), input=Decimal("0.20"), output=Decimal("0.80")),
}
LEARN_PAIRS = frozenset(name for name in TUNABLE if not name.startswith("gpt-4o-mini"))
"""Models with method dpo: the guide's list, and the model of its example."""
ALIASES = {name.rsplit("-", 3)[0]: name for name in TUNABLE}


class Failure(BaseModel):
    """A job that fails: after so many seconds of training, with this error."""

    code: str = "training_failed"
    message: str = "The job failed while it was training."
    param: str | None = None
    after_seconds: float = 0.0


class OpenAISettings(Settings):
    """Times are simulated seconds."""

    keys: frozenset[str] = frozenset({"sk-simulated"})
    revoked_keys: frozenset[str] = frozenset()
    organization: str = "org-simulated"
    project: str = "proj-simulated"
    organization_name: str = "simulated"
    tells_account: bool = True
    """Whether answers name organization and project: compatible services do not."""
    projects_in_turn: tuple[str, ...] = ()
    """Projects that answers name in turn instead, as behind a gateway with several keys."""
    file_processing_seconds: float = 0.0
    validation_seconds: float = 60.0
    queue_seconds: float = 120.0
    step_seconds: float = 1.0
    list_lag_seconds: float = 0.0
    ignore_metadata_filter: bool = False
    drop_metadata: bool = False
    list_oldest_first: bool = False
    job_limit: int = 3
    running_limit: int = 1000
    daily_job_limit: int | None = None
    fine_tuning_closed: bool = False
    closes_at: float = CLOSES_FOR_ALL
    shutdown_dates: dict[str, str] = dict.fromkeys(TUNABLE, SHUTDOWN)
    credit: Decimal | None = None
    fail_next_job: Failure | None = None
    unlisted_status: str | None = None
    encode_results: bool = True
    learn_pairs: frozenset[str] = LEARN_PAIRS
    tell_usage: bool = True
    """Whether answers say how many tokens are billed."""
    send_rewards: bool = False
    """Whether jobs of method dpo report undocumented values: accuracy and margin of rewards."""
