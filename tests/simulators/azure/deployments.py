"""Deployments: one operation at a time on an account, billed by the hour, deleted by Azure itself when idle."""

from dataclasses import dataclass, field
from typing import Any

from tests.simulators.azure import errors
from tests.simulators.azure.settings import HOURLY, AzureSettings
from tests.simulators.clock import Clock
from tests.simulators.http import ApiError
from tests.simulators.ids import Ids
from tests.simulators.ledger import Ledger
from tests.simulators.openai.models import Models
from tests.simulators.openai.settings import ALIASES

DEVELOPER = "developertier"


@dataclass
class Deployment:
    """A deployment as requested, and its state."""

    name: str
    request: dict[str, Any]
    created_at: float
    state: str = "Creating"
    etag: str = ""
    answers_from: float | None = None
    serving: str = ""
    last_used: float = 0.0
    turn: int = 0

    @property
    def model(self) -> str:
        return str(self.request["properties"]["model"]["name"])

    @property
    def version(self) -> str:
        return str(self.request["properties"]["model"].get("version") or "")

    @property
    def sku(self) -> str:
        return str(self.request["sku"]["name"]).lower()

    @property
    def capacity(self) -> int:
        return int(self.request["sku"].get("capacity") or 1)


@dataclass
class Operation:
    """A long-running operation of ARM."""

    id: str
    status: str = "InProgress"
    error: dict[str, str] | None = None

    def fails(self, code: str, message: str, status: str = "Failed") -> None:
        """Mark it as failed."""
        self.status, self.error = status, {"code": code, "message": message}


@dataclass
class Deployments:
    """All deployments of the account."""

    clock: Clock
    ids: Ids
    ledger: Ledger
    settings: AzureSettings
    found: dict[str, Deployment] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    expired: list[str] = field(default_factory=list)
    asked: dict[str, list[float]] = field(default_factory=dict)
    """Times of requests by deployment name; they outlive the deployment, as metrics do."""

    def is_deployed(self, model: str) -> bool:
        """Whether a model or one of its checkpoints is deployed."""
        return any(deployment.model.partition(":ckpt-")[0] == model for deployment in self.found.values())

    def put(self, name: str, request: dict[str, Any], models: Models) -> tuple[Deployment, Operation, bool]:
        """Create or change a deployment; says whether it is new.

        Raises:
            ApiError: the account is busy, or cannot take it.
        """
        self._only_one()
        self._check(name, request, models)
        earlier = self.found.get(name)
        deployment = earlier or Deployment(name, request, self.clock.now)
        deployment.request = request
        deployment.turn += 1
        deployment.state, deployment.etag = "Creating", self.ids.new(length=16)
        self.found[name] = deployment
        operation = self._begin()
        self._finish_later(deployment, operation)
        return deployment, operation, earlier is None

    def delete(self, name: str) -> Operation | None:
        """Delete a deployment; None when there is none.

        Raises:
            ApiError: the account is busy.
        """
        if name not in self.found:
            return None
        self._only_one()
        deployment = self.found[name]
        failure, self.settings.fail_next_deletion = self.settings.fail_next_deletion, None
        before = deployment.state, deployment.answers_from
        deployment.turn += 1
        deployment.state, deployment.answers_from = "Deleting", None
        operation = self._begin()

        def gone() -> None:
            if failure:
                deployment.state, deployment.answers_from = before
                operation.fails("DeletionFailed", failure)
            else:
                self._remove(name)
                operation.status = "Succeeded"

        self.clock.after(self.settings.delete_seconds, gone)
        return operation

    def fail(self, name: str) -> None:
        """Let an existing deployment fail later."""
        self.found[name].state, self.found[name].answers_from = "Failed", None

    def use(self, name: str) -> Deployment:
        """The deployment that a call on the data plane reaches.

        Raises:
            ApiError: there is none, or the data plane does not know it yet.
        """
        deployment = self.found.get(name)
        if deployment is None or deployment.answers_from is None or self.clock.now < deployment.answers_from:
            raise errors.no_deployment()
        deployment.last_used = self.clock.now
        self.asked.setdefault(name, []).append(self.clock.now)
        return deployment

    def _only_one(self) -> None:
        if any(operation.status == "InProgress" for operation in self.operations.values()):
            raise errors.busy(self.account_id)

    @property
    def account_id(self) -> str:
        """The account's resource identifier."""
        settings = self.settings
        return (f"/subscriptions/{settings.subscription}/resourceGroups/{settings.resource_group}/providers/"
                f"Microsoft.CognitiveServices/accounts/{settings.account}")  # fmt: skip

    def _check(self, name: str, request: dict[str, Any], models: Models) -> None:
        wanted = Deployment(name, request, self.clock.now)
        tuned = wanted.model.partition(":ckpt-")[0] in models.tuned
        if not tuned and not _is_base(wanted):
            raise errors.unsupported_model(wanted.model, wanted.version)
        if wanted.sku not in self.settings.skus or (wanted.sku == DEVELOPER and not tuned):
            raise errors.unsupported_sku(request["sku"]["name"], wanted.model, self.settings.location)
        others = [other for other in self.found.values() if other.name != name]
        free = self.settings.capacity - sum(other.capacity for other in others)
        if wanted.capacity > free:
            raise errors.no_capacity(wanted.capacity, free)
        if len([other for other in others if other.model in models.tuned]) >= self.settings.deployment_limit:
            raise ApiError(400, "InsufficientQuota", "The account has its maximum number of fine-tuned deployments.")

    def _begin(self) -> Operation:
        operation = Operation(self.ids.new(length=32, letters="0123456789abcdef"))
        self.operations[operation.id] = operation
        return operation

    def _finish_later(self, deployment: Deployment, operation: Operation) -> None:
        failure, self.settings.fail_next_deployment = self.settings.fail_next_deployment, None

        def finish() -> None:
            if failure:
                deployment.state = self.settings.failed_state
                operation.fails("DeploymentFailed", failure, deployment.state)
            else:
                operation.status = deployment.state = "Succeeded"
                self._serve(deployment)
            if failure and self.settings.failed_ones_vanish:
                self._remove(deployment.name)
                return
            if deployment.serving:
                self._expire_later(deployment)

        self.clock.after(self.settings.deploy_seconds, finish)

    def _serve(self, deployment: Deployment) -> None:
        deployment.serving = deployment.model
        if deployment.answers_from is None:
            deployment.answers_from = self.clock.now + self.settings.spread_seconds
        deployment.last_used = self.clock.now
        provisioned = deployment.sku == "provisionedmanaged"
        units = deployment.capacity if provisioned else 1
        self.ledger.stop(deployment.name)
        by_tokens = deployment.model in ALIASES and not provisioned
        if (per_hour := HOURLY[deployment.sku] * units) and not by_tokens:
            self.ledger.start(deployment.name, "hosting", per_hour)

    def _expire_later(self, deployment: Deployment) -> None:
        """Azure deletes developer deployments after a day, others after 15 days without a call."""
        if deployment.sku == DEVELOPER:
            due = self.settings.developer_seconds
        else:
            due = max(1.0, deployment.last_used + self.settings.idle_seconds - self.clock.now)

        def look(_: Deployment) -> None:
            idle = self.clock.now - deployment.last_used
            if deployment.sku == DEVELOPER or idle >= self.settings.idle_seconds - 1:  # a float may fall short
                self.expired.append(deployment.name)
                self._remove(deployment.name)
            else:
                self._expire_later(deployment)

        self.clock.later(deployment, due, look)

    def _remove(self, name: str) -> None:
        self.found.pop(name).turn += 1
        self.ledger.stop(name)


def _is_base(wanted: Deployment) -> bool:
    """Whether a base model is requested; ARM has its date as the version, and not in the name."""
    dated = ALIASES.get(wanted.model)
    return dated is not None and wanted.version in {"", dated.removeprefix(f"{wanted.model}-")}
