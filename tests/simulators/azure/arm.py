"""ARM's calls on the account and its deployments, validated by the models of azure-mgmt-cognitiveservices."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from azure.core.exceptions import DeserializationError
from azure.mgmt.cognitiveservices import models as arm_models
from azure.mgmt.cognitiveservices.models import DeploymentProvisioningState

from tests.simulators.azure import errors
from tests.simulators.azure.deployments import Deployment, Deployments, Operation
from tests.simulators.azure.settings import AzureSettings
from tests.simulators.http import ApiError, Call, Reply, Route
from tests.simulators.openai.models import Models
from tests.simulators.shapes import DriftError

ACCOUNTS = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.CognitiveServices/accounts"
ACCOUNT = ACCOUNTS + "/{account}"
DEPLOYMENT = ACCOUNT + "/deployments/{deployment}"
OPERATIONS = "/subscriptions/{subscription}/providers/Microsoft.CognitiveServices/locations/{location}/asyncOperations"


class Arm:
    """The account as ARM shows it."""

    def __init__(self, settings: AzureSettings, deployments: Deployments, models: Models) -> None:
        self._settings, self._deployments, self._models = settings, deployments, models

    def routes(self) -> list[Route]:
        """ARM's paths."""
        return [
            Route("GET", ACCOUNT, "accounts.get", self.account),
            Route("GET", ACCOUNT + "/deployments", "deployments.list", self.list),
            Route("PUT", DEPLOYMENT, "deployments.create_or_update", self.put),
            Route("GET", DEPLOYMENT, "deployments.get", self.get),
            Route("DELETE", DEPLOYMENT, "deployments.delete", self.delete),
            Route("GET", OPERATIONS + "/{operation}", "operations.get", self.operation),
        ]

    def account(self, call: Call) -> Reply:
        """The account, with the endpoint of its data plane."""
        self.locate(call)
        settings = self._settings
        body = {"id": self._deployments.account_id, "name": settings.account, "kind": "OpenAI",
                "type": "Microsoft.CognitiveServices/accounts", "location": settings.location, "sku": {"name": "S0"},
                "properties": {"provisioningState": "Succeeded", "endpoint": call.url + "/"}}  # fmt: skip
        return Reply.json(conform_arm(arm_models.Account, body))

    def list(self, call: Call) -> Reply:
        """All deployments, on one page."""
        self.locate(call)
        return Reply.json({"value": [self.shown(found) for found in self._deployments.found.values()]})

    def get(self, call: Call) -> Reply:
        """One deployment."""
        self.locate(call)
        return Reply.json(self.shown(self._find(call)))

    def put(self, call: Call) -> Reply:
        """Create or change a deployment: 201 or 200, and an operation to follow."""
        self.locate(call)
        self._may("write", call)
        request = _understood(call)
        deployment, operation, new = self._deployments.put(call.path["deployment"], request, self._models)
        headers = self._follow(call, operation)
        if self._settings.answers_put == "Accepted":
            return Reply(202, headers={"Location": next(iter(headers.values())), **headers})
        return Reply.json(self.shown(deployment), 201 if new else 200, headers)

    def delete(self, call: Call) -> Reply:
        """Delete a deployment: 202 and an operation to follow, or 204 when there is none."""
        self.locate(call)
        self._may("delete", call)
        operation = self._deployments.delete(call.path["deployment"])
        if operation is None:
            return Reply(204)
        headers = self._follow(call, operation)
        return Reply(202, headers={"Location": next(iter(headers.values())), **headers})

    def operation(self, call: Call) -> Reply:
        """An operation's state."""
        operation = self._deployments.operations.get(call.path["operation"])
        if operation is None:
            raise ApiError(404, "OperationNotFound", "The operation does not exist.")
        how = self._settings.answers_polls
        if how == "Nothing" or (how == "Location" and operation.status == "Succeeded"):
            return Reply(204)
        if how == "Location" and operation.error:
            raise ApiError(400, operation.error["code"], operation.error["message"])
        if how == "Location":
            return Reply(202, headers={"Location": call.url + call.raw_path})
        body: dict[str, Any] = {"id": call.path["operation"], "name": operation.id, "status": operation.status}
        if operation.error:
            body["error"] = operation.error
        return Reply.json(body, 200, {"Retry-After": str(self._settings.retry_after_seconds)})

    def shown(self, deployment: Deployment) -> dict[str, Any]:
        """A deployment as ARM shows it."""
        created = datetime.fromtimestamp(deployment.created_at, UTC).isoformat(timespec="milliseconds")
        asked = deployment.request
        body = {
            "id": f"{self._deployments.account_id}/deployments/{deployment.name}", "name": deployment.name,
            "type": "Microsoft.CognitiveServices/accounts/deployments", "sku": asked["sku"],
            "etag": f'"{deployment.etag}"',
            "systemData": {"createdByType": "Application", "createdAt": created.replace("+00:00", "Z")},
            "properties": {**asked["properties"], "provisioningState": deployment.state,
                           "capabilities": {"chatCompletion": "true"}},
        }  # fmt: skip
        if asked.get("tags"):
            body["tags"] = asked["tags"]
        if deployment.state not in set(DeploymentProvisioningState):
            raise DriftError(f"{deployment.state} is not a provisioning state")
        return conform_arm(arm_models.Deployment, body)

    def _follow(self, call: Call, operation: Operation) -> dict[str, str]:
        path = OPERATIONS.format(subscription=self._settings.subscription, location=self._settings.location)
        url = f"{call.url}{path}/{operation.id}?api-version={call.query['api-version']}"
        how = "Azure-AsyncOperation" if self._settings.answers_polls == "Status" else "Location"
        return {how: url, "Retry-After": str(self._settings.retry_after_seconds)}

    def _find(self, call: Call) -> Deployment:
        name = call.path["deployment"]
        if deployment := self._deployments.found.get(name):
            return deployment
        kind = f"Microsoft.CognitiveServices/accounts/{self._settings.account}/deployments"
        raise errors.no_resource(kind, name, self._settings.resource_group)

    def locate(self, call: Call) -> None:
        """Refuse a call that is about another account than this one."""
        if "api-version" not in call.query:
            raise ApiError(400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is "
                                                              "required for all requests.")  # fmt: skip
        settings = self._settings
        if call.path["subscription"] != settings.subscription:
            raise ApiError(404, "SubscriptionNotFound", f"The subscription '{call.path['subscription']}' could not be "
                                                        "found.")  # fmt: skip
        if call.path["group"].lower() != settings.resource_group.lower():
            message = f"Resource group '{call.path['group']}' could not be found."
            raise ApiError(404, "ResourceGroupNotFound", message)
        if call.path["account"] != settings.account:
            raise errors.no_resource("Microsoft.CognitiveServices/accounts", call.path["account"], call.path["group"])

    def _may(self, verb: str, call: Call) -> None:
        if not self._settings.may_deploy:
            scope = f"{self._deployments.account_id}/deployments/{call.path['deployment']}"
            raise errors.no_rights(f"Microsoft.CognitiveServices/accounts/deployments/{verb}", scope)


def conform_arm(model: Any, body: dict[str, Any]) -> dict[str, Any]:
    """Return `body` if the SDK parses it and serializes the same.

    Raises:
        DriftError: it does not.
    """
    again = _again(model, orjson.dumps(body))
    if again != body:
        raise DriftError(f"{model.__name__}: {body} is read as {again}")
    return body


@lru_cache(maxsize=1024)
def _again(model: Any, body: bytes) -> dict[str, Any]:
    """Serialize a parsed body; cached, as lists repeat the same items."""
    again: dict[str, Any] = model.deserialize(orjson.loads(body)).serialize(keep_readonly=True)
    return again


def _understood(call: Call) -> dict[str, Any]:
    """The request, when it is a deployment as the SDK would write it."""
    try:
        request: dict[str, Any] = call.json()
        again = arm_models.Deployment.deserialize(request).serialize()
    except (ValueError, AttributeError, DeserializationError) as error:
        raise ApiError(400, "InvalidRequestContent", f"The request content was invalid: {error}") from error
    if again != request:
        raise ApiError(400, "InvalidRequestContent", "The request content has fields that a deployment does not have.")
    if not request.get("sku") or not request.get("properties", {}).get("model", {}).get("name"):
        raise ApiError(400, "InvalidResourceProperties", "The deployment needs a sku and a model.")
    return request
