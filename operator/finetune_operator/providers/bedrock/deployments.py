"""Serving tuned models at Bedrock: on-demand deployments, billed by token, and provisioned throughput, by the hour.

Both have names of ours, and creation is idempotent by the request's token.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from finetune_api.deployment import BedrockServing
from finetune_api.names import OWNER_TAG
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.hosted_record import Hosted, HostedState
from finetune_operator.decide.deployment.idle import Figures
from finetune_operator.providers.aws import cloudwatch
from finetune_operator.providers.aws.client import Aws
from finetune_operator.providers.aws.refusals import NO_OPERATION
from finetune_operator.providers.calls.errors import NotThere, Refused, TryLater
from finetune_operator.providers.calls.values import Wire, sanitized
from finetune_operator.providers.ports import HostRequest

SERVICE, RUNTIME = "bedrock", "bedrock-runtime"
ON_DEMAND = "create_custom_model_deployment"

_LACKS = re.compile(f"{NO_OPERATION}|not (supported|available)", re.IGNORECASE)
"""In an error: the region or the model has no on-demand deployments."""

HOURLY = (
    "There is nothing on demand for this region or model. Spell out throughput, which is billed by the hour: bedrock: "
    "{type: ProvisionedThroughput, modelUnits: 1, commitment: NoCommitment}."
)

_STATES: dict[str, HostedState] = {
    "Creating": "Creating",
    "Active": "Ready",
    "InService": "Ready",
    "Updating": "Ready",  # it continues to answer
    "Failed": "Failed",
    "Deleting": "Deleting",
}


class BedrockDeployments:
    """A HostingApi over boto3."""

    names_have_case = True

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    async def list(self) -> list[Hosted]:
        """ListCustomModelDeployments and ListProvisionedModelThroughputs."""
        on_demand, provisioned = await asyncio.gather(
            self._on_demand(),
            self._aws.pages(SERVICE, "list_provisioned_model_throughputs", "provisionedModelSummaries"),
        )
        return [*map(deployment, on_demand), *map(throughput, provisioned)]

    async def _on_demand(self) -> Sequence[Wire]:
        """On-demand deployments; empty in a region that does not support them."""
        try:
            return await self._aws.pages(SERVICE, "list_custom_model_deployments", "modelDeploymentSummaries")
        except NotThere as error:
            if NO_OPERATION not in error.message:
                raise
            return []

    async def details(self, hosted: Hosted) -> Hosted:
        """Unchanged: the list has everything."""
        return hosted

    async def make(self, request: HostRequest) -> None:
        """Create one of the two, without waiting: later lists show its state."""
        operation, asked = creation(request)
        try:
            await self._aws.call(SERVICE, operation, **asked)
        except Refused as error:
            if operation == ON_DEMAND and _LACKS.search(error.message):
                error.next_step = HOURLY
            raise

    async def delete(self, hosted: Hosted) -> None:
        """Delete it. Throughput cannot be deleted within its commitment, and is billed until that ends."""
        operation, identifier = (
            ("delete_provisioned_model_throughput", "provisionedModelId")
            if hosted.sku
            else ("delete_custom_model_deployment", "customModelDeploymentIdentifier")
        )
        with suppress(NotThere):
            await self._aws.call(SERVICE, operation, **{identifier: hosted.address})

    async def answers(self, hosted: Hosted) -> bool:
        """Whether it answers a request for one token by Converse: it may be shown as ready before it does."""
        question = [{"role": "user", "content": [{"text": "ok?"}]}]
        try:
            said = await self._aws.call(
                RUNTIME, "converse", modelId=hosted.address, messages=question, inferenceConfig={"maxTokens": 1}
            )
        except NotThere:
            return False
        except TryLater as error:
            if error.reason != Reason.RATE_LIMITED:
                raise
            return False  # ModelNotReadyException is a 429
        return bool(said["output"])

    async def usage(self, hosted: Hosted, since: datetime, now: datetime) -> Figures:
        """The time of its last request, by CloudWatch."""
        return await cloudwatch.usage(self._aws, "AWS/Bedrock", {"ModelId": hosted.address}, since, now)


def creation(request: HostRequest) -> tuple[str, dict[str, Any]]:
    """The operation and its arguments. Pure."""
    serving = request.template.bedrock or BedrockServing()
    shared = {"clientRequestToken": request.token, "tags": [{"key": OWNER_TAG, "value": request.owner}]}
    if serving.type == "OnDemand":
        asked = {"modelDeploymentName": request.name, "modelArn": request.model}
        return ON_DEMAND, asked | shared
    asked = {"provisionedModelName": request.name, "modelId": request.model}
    units: dict[str, Any] = {"modelUnits": serving.model_units}
    if serving.commitment != "NoCommitment":
        units["commitmentDuration"] = serving.commitment
    return "create_provisioned_model_throughput", asked | units | shared


def deployment(shown: Wire) -> Hosted:
    """An on-demand deployment, from a list's summary."""
    return Hosted(
        name=shown["customModelDeploymentName"],
        state=_STATES.get(shown["status"], "Creating"),
        address=shown["customModelDeploymentArn"],
        failure=sanitized(str(shown.get("failureMessage") or "")),
        model=str(shown.get("modelArn") or ""),
        created_at=shown.get("createdAt"),
    )


def throughput(shown: Wire) -> Hosted:
    """Provisioned throughput, from a list's summary."""
    return Hosted(
        name=shown["provisionedModelName"],
        state=_STATES.get(shown["status"], "Creating"),
        address=shown["provisionedModelArn"],
        bound_until=shown.get("commitmentExpirationTime"),
        model=str(shown.get("modelArn") or ""),
        sku=shown.get("commitmentDuration") or "NoCommitment",
        units=shown.get("modelUnits") or 1,
        created_at=shown.get("creationTime"),
    )
