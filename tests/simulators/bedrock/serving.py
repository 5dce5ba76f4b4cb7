"""Serving of custom models: on-demand deployments, provisioned throughput, and answers."""

from collections.abc import Callable
from typing import Any, TypeVar

from tests.simulators.bedrock.account import (
    Account,
    CustomModel,
    Deployment,
    Throughput,
    conflict,
    invalid,
    missing,
    over_quota,
)  # fmt: skip
from tests.simulators.bedrock.data import text_of
from tests.simulators.bedrock.settings import MODELS, UNIT_PER_HOUR
from tests.simulators.clock import HOUR
from tests.simulators.http import ApiError
from tests.simulators.openai.training import BYTES_PER_TOKEN

T = TypeVar("T", Deployment, Throughput)

PROFILE = (
    "Invocation of model ID {} with on-demand throughput isn\u2019t supported. Retry your request with the ID or ARN "
    "of an inference profile that contains this model."
)


class Serving:
    """Creates and deletes deployments and throughput, and answers requests."""

    def __init__(self, account: Account) -> None:
        self._account, self._clock, self._settings = account, account.clock, account.settings
        self._ending: set[str] = set()

    def deploy(self, request: dict[str, Any]) -> str:
        """Make a deployment; returns its name."""
        if self._settings.region not in self._settings.deployment_regions:
            raise invalid("Custom model deployments are not supported in this Region.")
        self._model(request["modelArn"])
        if any(found.name == request["modelDeploymentName"] for found in self._account.deployments.values()):
            raise invalid("The provided deployment name is currently in use.")
        found = Deployment(self._account.arn("custom-model-deployment"), request["modelDeploymentName"],
                           request["modelArn"], request.get("description"), self._clock.now)  # fmt: skip
        self._account.deployments[found.arn] = found
        self._account.tags[found.arn] = request.get("tags", [])
        self._clock.later(found, self._settings.deploy_seconds, self._deployed)
        return found.arn

    def _deployed(self, found: Deployment) -> None:
        failure, self._settings.fail_next_deployment = self._settings.fail_next_deployment, None
        found.failure = failure
        found.status = "Failed" if failure else "Active"

    def change(self, found: Deployment, model_arn: str) -> None:
        """Give a deployment another model; the earlier one answers until then."""
        self._model(model_arn)
        if found.status != "Active":
            raise invalid("The deployment is not active.")
        found.update = {"modelArn": model_arn, "updateStatus": "Updating"}
        found.updated_at = self._clock.now
        found.turn += 1

        def changed(found: Deployment) -> None:
            found.model_arn = model_arn
            found.update = {"modelArn": model_arn, "updateStatus": "UpdateCompleted"}

        self._clock.later(found, self._settings.deploy_seconds, changed)

    def undeploy(self, found: Deployment) -> None:
        """Delete a deployment."""
        self._end(found, lambda found: self._account.deployments.pop(found.arn))

    def provision(self, request: dict[str, Any]) -> str:
        """Provision throughput; returns its name. Each started hour is billed once it is in service."""
        model_arn, base = self._servable(request["modelId"])
        commitment = request.get("commitmentDuration")
        name, units = request["provisionedModelName"], request["modelUnits"]
        free = self._settings.units_without_commitment
        taken = sum(found.units for found in self._account.throughputs.values() if found.commitment is None)
        if commitment is None and units + taken > free:
            raise over_quota(f"The model units without commitment exceed the quota of {free}.")
        if any(found.name == name for found in self._account.throughputs.values()):
            raise invalid("The provided provisioned model name is currently in use.")
        now = self._clock.now
        found = Throughput(self._account.arn("provisioned-model"), name, model_arn, base, units, commitment, now, now)
        self._account.throughputs[found.arn] = found
        self._account.tags[found.arn] = request.get("tags", [])
        self._clock.later(found, self._settings.provision_seconds, self._in_service)
        return found.arn

    def _in_service(self, found: Throughput) -> None:
        found.status, found.changed_at = "InService", self._clock.now
        per_hour = UNIT_PER_HOUR[found.commitment] * found.units
        self._account.ledger.start(found.arn, "throughput", per_hour, step_seconds=HOUR)

    def release(self, found: Throughput) -> None:
        """Delete provisioned throughput.

        Raises:
            ApiError: its commitment is not over.
        """
        if found.bound_until is not None and self._clock.now < found.bound_until:
            raise conflict("You can't delete a Provisioned Throughput before the commitment term is over.")
        self._account.ledger.stop(found.arn)
        self._end(found, lambda found: self._account.throughputs.pop(found.arn))

    def _end(self, found: T, gone: Callable[[T], Any]) -> None:
        if found.arn in self._ending:
            raise conflict("The resource is being deleted.")
        self._ending.add(found.arn)
        found.turn += 1
        if self._settings.delete_seconds:
            self._clock.later(found, self._settings.delete_seconds, gone)
        else:
            gone(found)

    def delete_model(self, model: CustomModel) -> None:
        """Delete a model that nothing serves."""
        serving: list[Any] = [*self._account.deployments.values(), *self._account.throughputs.values()]
        if any(found.model_arn == model.arn for found in serving):
            raise conflict("The model is in use by a deployment or Provisioned Throughput. Delete that first.")
        self._account.ledger.stop(model.arn)
        del self._account.models[model.arn]

    def _model(self, arn: str) -> CustomModel:
        if arn not in self._account.models:
            raise missing("model")
        return self._account.models[arn]

    def _servable(self, identifier: str) -> tuple[str, str]:
        if identifier in self._account.models:
            return identifier, self._account.models[identifier].job.base
        for model in self._account.models.values():
            if model.name == identifier:
                return model.arn, model.job.base
        base, _ = self._account.base_of(identifier)
        return self._account.base_arn(base), base

    def converse(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The answer of the deployment or throughput that `modelId` names."""
        arn, base = self._reached(asked["modelId"])
        model = self._account.models.get(arn)
        messages = asked.get("messages", [])
        if not messages or messages[-1]["role"] != "user":
            raise invalid("A conversation must end with a user message. Try again with a conversation that ends with "
                          "a user message.")  # fmt: skip
        prompt = text_of(messages[-1]["content"])
        text = model.job.data.answers.get(prompt, prompt) if model else prompt
        limit = asked.get("inferenceConfig", {}).get("maxTokens")
        cut = limit is not None and len(text) > limit * BYTES_PER_TOKEN
        text = text[: limit * BYTES_PER_TOKEN] if cut else text
        read, said = max(1, len(str(messages)) // BYTES_PER_TOKEN), max(1, len(text) // BYTES_PER_TOKEN)
        self._bill(asked["modelId"], base, read, said)
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": "max_tokens" if cut else "end_turn",
            "usage": {"inputTokens": read, "outputTokens": said, "totalTokens": read + said},
            "metrics": {"latencyMs": 42},
        }

    def _reached(self, identifier: str) -> tuple[str, str]:
        if identifier in self._ending:
            raise missing("model")
        if found := self._account.deployments.get(identifier):
            if found.status != "Active":
                raise ApiError(429, "ModelNotReadyException", "The model is not ready to serve inference requests.")
            return found.model_arn, self._model(found.model_arn).job.base
        if provisioned := self._account.throughputs.get(identifier):
            if provisioned.status != "InService":
                raise ApiError(429, "ModelNotReadyException", "The model is not ready to serve inference requests.")
            return provisioned.model_arn, provisioned.base
        if ":custom-model-deployment/" in identifier or ":provisioned-model/" in identifier:
            raise missing("model")
        for base in MODELS if identifier.startswith("us.") else ():
            if base.startswith(identifier.removeprefix("us.")):
                return self._account.base_arn(base), base
        raise invalid(PROFILE.format(identifier))

    def _bill(self, identifier: str, base: str, read: int, said: int) -> None:
        if identifier not in self._account.throughputs:
            price = MODELS[base]
            cost = (price.input * read + price.output * said) / 1_000_000
            self._account.ledger.charge(identifier, "inference", cost)
