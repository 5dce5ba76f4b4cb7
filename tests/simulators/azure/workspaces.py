"""Connections of an AzureML workspace in ARM's form: without their keys."""

from azure.mgmt.cognitiveservices import models as arm_models

from tests.simulators.azure import errors
from tests.simulators.azure.arm import conform_arm
from tests.simulators.azure.settings import AzureSettings
from tests.simulators.http import ApiError, Call, Reply, Route

WORKSPACE = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.MachineLearningServices"
    "/workspaces/{workspace}"
)
KIND = "Microsoft.MachineLearningServices/workspaces"


class Workspaces:
    """The only workspace. Its connections have the schema of an account's, which the SDK knows."""

    def __init__(self, settings: AzureSettings) -> None:
        self._settings = settings

    def routes(self) -> list[Route]:
        """The one path."""
        return [Route("GET", WORKSPACE + "/connections/{connection}", "workspaces.connections.get", self.get)]

    def get(self, call: Call) -> Reply:
        """One connection."""
        if "api-version" not in call.query:
            raise ApiError(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        asked = call.path
        if asked["workspace"] != self._settings.workspace or asked["group"] != self._settings.resource_group:
            raise errors.no_resource(KIND, asked["workspace"], asked["group"])
        properties = self._settings.workspace_connections.get(asked["connection"])
        if properties is None:
            raise errors.no_resource(f"{KIND}/connections", asked["connection"], asked["group"])
        body = {
            "id": f"{WORKSPACE.format(**asked)}/connections/{asked['connection']}",
            "name": asked["connection"],
            "type": f"{KIND}/connections",
            "properties": properties,
        }
        return Reply.json(conform_arm(arm_models.ConnectionPropertiesV2BasicResource, body))
