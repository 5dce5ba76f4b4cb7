"""An account at Bedrock: names, tags, idempotency tokens, and all resources."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.simulators.bedrock.settings import COMMITMENTS, MODELS, BaseModel, BedrockSettings
from tests.simulators.clock import Clock
from tests.simulators.http import ApiError
from tests.simulators.ids import LOWER, Ids
from tests.simulators.ledger import Ledger
from tests.simulators.openai.training import Course, Data

PHASES = ("validationDetails", "dataProcessingDetails", "trainingDetails")


@dataclass
class Job:
    """A customization job. `phases` are the states of validation, data processing and training."""

    arn: str
    request: dict[str, Any]
    base: str
    created_at: float
    changed_at: float
    status: str = "InProgress"
    phases: dict[str, str] = field(default_factory=lambda: dict.fromkeys(PHASES, "NotStarted"))
    ended_at: float | None = None
    failure: str | None = None
    model_arn: str | None = None
    data: Data = field(default_factory=Data)
    validation: Data | None = None
    course: Course | None = None
    losses: list[dict[str, float]] = field(default_factory=list)
    turn: int = 0


@dataclass(frozen=True)
class CustomModel:
    """A model that a job made."""

    arn: str
    job: Job
    created_at: float

    @property
    def name(self) -> str:
        return str(self.job.request["customModelName"])


@dataclass
class Deployment:
    """A deployment for on-demand inference. It serves `model_arn`, and a new one once the update is complete."""

    arn: str
    name: str
    model_arn: str
    description: str | None
    created_at: float
    status: str = "Creating"
    failure: str | None = None
    update: dict[str, str] | None = None
    updated_at: float | None = None
    turn: int = 0


@dataclass
class Throughput:
    """Provisioned throughput."""

    arn: str
    name: str
    model_arn: str
    base: str
    units: int
    commitment: str | None
    created_at: float
    changed_at: float
    status: str = "Creating"
    turn: int = 0

    @property
    def bound_until(self) -> float | None:
        """When its commitment ends."""
        return None if self.commitment is None else self.created_at + COMMITMENTS[self.commitment]


class Account:
    """Jobs, models, deployments and throughputs by their names (ARN)."""

    def __init__(self, clock: Clock, ids: Ids, ledger: Ledger, settings: BedrockSettings) -> None:
        self.clock, self.ids, self.ledger, self.settings = clock, ids, ledger, settings
        self.jobs: dict[str, Job] = {}
        self.models: dict[str, CustomModel] = {}
        self.deployments: dict[str, Deployment] = {}
        self.throughputs: dict[str, Throughput] = {}
        self.tags: dict[str, list[dict[str, str]]] = {}
        self._tokens: dict[str, tuple[dict[str, Any], str]] = {}

    def arn(self, kind: str, base: str = "") -> str:
        """A new resource's name."""
        middle = f"{base}/" if base else ""
        own = self.ids.new(length=12, letters=LOWER)
        return self.settings.arn("bedrock", f"{kind}/{middle}{own}")

    def base_arn(self, base: str) -> str:
        """A base model's name."""
        return f"arn:{self.settings.partition}:bedrock:{self.settings.region}::foundation-model/{base}"

    def base_of(self, identifier: str) -> tuple[str, BaseModel]:
        """The base model with this identifier or name.

        Raises:
            ApiError: it is none that can be customized.
        """
        name = identifier.removeprefix(self.base_arn(""))
        if name not in MODELS:
            raise invalid("The provided model identifier is invalid.")
        return name, MODELS[name]

    def once(self, request: dict[str, Any], make: Callable[[], str]) -> str:
        """Create once per request token; a repeated request returns the first one's result.

        Raises:
            ApiError: another request had the same token.
        """
        token = request.get("clientRequestToken")
        if token in self._tokens:
            first, arn = self._tokens[token]
            if first != request:
                raise invalid("The client request token was used for another request.")
            return arn
        arn = make()
        if token is not None:
            self._tokens[token] = (request, arn)
        return arn

    def assume(self, role: str) -> None:
        """Refuse a role that Bedrock cannot assume."""
        if role in self.settings.unassumable_roles:
            raise invalid("Could not assume provided IAM role. Please provide valid IAM role and try again.")


def invalid(message: str) -> ApiError:
    """A ValidationException."""
    return ApiError(400, "ValidationException", message)


def missing(kind: str) -> ApiError:
    """A ResourceNotFoundException."""
    return ApiError(404, "ResourceNotFoundException", f"The provided {kind} identifier does not exist.")


def conflict(message: str) -> ApiError:
    """A ConflictException."""
    return ApiError(400, "ConflictException", message)


def over_quota(message: str) -> ApiError:
    """A ServiceQuotaExceededException."""
    return ApiError(400, "ServiceQuotaExceededException", message)
