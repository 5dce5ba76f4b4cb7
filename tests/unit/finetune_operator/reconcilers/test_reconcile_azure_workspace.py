"""A connection to Azure OpenAI whose endpoint and account an AzureML workspace knows."""

from typing import Any

import pytest

from finetune_api.azure import AzureOpenAI, AzureWorkspace
from finetune_api.connection import LLMConnectionSpec, LLMConnectionStatus
from finetune_operator.decide.connection import with_resolved
from finetune_operator.providers.azure.workspace import OPENAI_ENDPOINT, account_of, resolved
from finetune_operator.providers.calls.errors import Refused
from finetune_operator.runtime.kube import CONNECTIONS
from finetune_operator.runtime.queue import Key
from tests.simulators.azure import AzureSimulator
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, Token, azure, rows

__all__ = ["start"]

OPENAI = Key(CONNECTIONS.kind, "", "openai")
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
ACCOUNT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a"
WORKSPACE = AzureWorkspace(name="ml", connection="aoai")
SETTINGS = AzureOpenAI.model_validate(
    {"subscriptionID": SUBSCRIPTION, "resourceGroup": "g", "workspace": {"name": "ml", "connection": "aoai"}}
    | {"credentials": {"workloadIdentity": True}}
)


class WorkspaceCluster(AzureCluster):
    """With a connection that names a workspace instead of an account."""

    def connect(self) -> None:
        self.sign_in = lambda *_: Token()
        super().connect()
        self.restart()
        spec = self.kube.objects[CONNECTIONS, "", "openai"]["spec"]
        block = {key: value for key, value in spec["azureOpenAI"].items() if key not in {"endpoint", "account"}}
        block["workspace"] = {"name": "ml", "connection": "aoai"}
        self.kube.put(CONNECTIONS, {"metadata": {"name": "openai"}, "spec": {**spec, "azureOpenAI": block}})


@pytest.fixture
def provider() -> AzureSimulator:
    return azure()


@pytest.fixture
async def cluster(provider: AzureSimulator, start: Any) -> WorkspaceCluster:
    return WorkspaceCluster(provider, start(provider))


def know(provider: AzureSimulator, **properties: Any) -> None:
    """Let the workspace have its connection."""
    metadata = {"ApiType": "Azure", "ResourceId": provider.deployments.account_id}
    found = {
        "authType": "ApiKey",
        "category": "AzureOpenAI",
        "target": "https://typed-in.example/",
        "metadata": metadata,
    }
    provider.set(workspace_connections={"aoai": found | properties})


async def test_a_job_is_tuned_by_the_account_that_the_workspace_names(cluster, provider):
    know(provider)
    await cluster.settle()
    found = cluster.status(OPENAI)["azureOpenAI"]
    assert (found["account"], found["endpoint"]) == ("simulated", cluster.url), "ARM's word, not the workspace's"
    assert cluster.condition("Ready", OPENAI)["status"] == "True"
    cluster.add_cloud_job()
    await cluster.settle()
    await cluster.check(b"\xef\xbb\xbf" + rows())
    await cluster.settle()
    await cluster.pass_time(3600)
    assert cluster.status()["phase"] == "Succeeded"


async def test_a_workspace_without_the_connection_is_said_and_looked_at_again(cluster, provider):
    await cluster.settle()
    stalled = cluster.condition("Stalled", OPENAI)
    assert stalled["reason"] == "SpecInvalid"
    assert "no AzureML workspace ml with a connection aoai" in stalled["message"]
    know(provider)
    await cluster.wait(120)
    assert cluster.condition("Ready", OPENAI)["status"] == "True"


async def test_one_that_was_found_goes_on_while_the_workspace_cannot_be_read(cluster, provider):
    know(provider)
    await cluster.settle()
    provider.set(workspace_connections={})
    await cluster.wait(4000)
    assert cluster.condition("Stalled", OPENAI)["status"] == "True"
    assert cluster.status(OPENAI)["azureOpenAI"]["account"] == "simulated"


async def test_a_connection_to_something_else_is_refused(cluster, provider):
    know(provider, category="S3")
    await cluster.settle()
    assert "is to S3, not to Azure OpenAI" in cluster.condition("Stalled", OPENAI)["message"]


async def test_an_account_that_is_not_there_is_told_with_the_connection_that_leads_to_it(cluster, provider):
    gone = provider.deployments.account_id.replace("accounts/simulated", "accounts/gone")
    know(provider, metadata={"ResourceId": gone})
    await cluster.settle()
    stalled = cluster.condition("Stalled", OPENAI)
    said = f"azureOpenAI.workspace: connection aoai of workspace ml leads to account {gone}, which is not there"
    assert (stalled["reason"], stalled["message"].startswith(said)) == ("SpecInvalid", True), stalled


@pytest.mark.parametrize("operation", ["workspaces.connections.get", "accounts.get"])
async def test_a_right_that_the_identity_lacks_is_named_and_asked_for_and_no_new_key(cluster, provider, operation):
    know(provider)
    right = "Microsoft.MachineLearningServices/workspaces/connections/read"
    message = f"The client 'x' does not have authorization to perform action '{right}' over scope '/'"
    provider.fault(operation, status=403, code="AuthorizationFailed", message=message, times=9)
    await cluster.settle()
    stalled = cluster.condition("Stalled", OPENAI)
    assert (stalled["reason"], right in stalled["message"]) == ("CredentialsInvalid", True)
    assert "Give the connection's identity, or its key, the right" in stalled["message"]
    assert "renew" not in stalled["message"]


def connection(metadata: dict[str, Any] | None, category: str = "AzureOpenAI") -> dict[str, Any]:
    return {"properties": {"category": category, "metadata": metadata}}


@pytest.mark.parametrize("key", ["ResourceId", "resourceid"])
@pytest.mark.parametrize("category", ["AzureOpenAI", "AIServices"])
def test_the_account_is_that_of_the_metadata(key: str, category: str) -> None:
    assert account_of(connection({key: ACCOUNT}, category), SETTINGS, WORKSPACE) == ACCOUNT


def test_an_account_that_is_not_named_is_the_one_that_is_written() -> None:
    written = SETTINGS.model_copy(update={"account": "a"})
    assert account_of(connection(None), written, WORKSPACE) == ACCOUNT


@pytest.mark.parametrize("named", [None, "https://x.openai.azure.com", ACCOUNT + "/deployments/x", "/subscriptions/s"])
def test_what_names_no_account_asks_for_one(named: str | None) -> None:
    with pytest.raises(Refused, match=r"write azureOpenAI\.account"):
        account_of(connection({"ResourceId": named}), SETTINGS, WORKSPACE)


def test_of_several_endpoints_it_is_that_of_azure_openai() -> None:
    several = {
        OPENAI_ENDPOINT: "https://a.openai.azure.com/",
        "Content Safety": "https://a.cognitiveservices.azure.com/",
    }
    found = resolved(ACCOUNT, {"properties": {"endpoint": "https://other/", "endpoints": several}}, WORKSPACE)
    assert found.endpoint == "https://a.openai.azure.com"
    with pytest.raises(Refused, match="no endpoint yet"):
        resolved(ACCOUNT, {"properties": {}}, WORKSPACE)


def test_what_is_written_counts_and_what_was_found_for_another_workspace_does_not() -> None:
    found = resolved(ACCOUNT, {"properties": {"endpoint": "https://found"}}, WORKSPACE)
    status = LLMConnectionStatus(azure_open_ai=found)
    spec = LLMConnectionSpec(azure_open_ai=SETTINGS.model_copy(update={"resource_group": "of-the-workspace"}))

    def merged(**fields: Any) -> tuple[str | None, str | None, str]:
        azure = with_resolved(
            spec.model_copy(update={"azure_open_ai": spec.azure_open_ai.model_copy(update=fields)}), status
        ).azure_open_ai
        return azure.endpoint, azure.account, azure.resource_group

    assert merged() == ("https://found", "a", "g")
    assert merged(endpoint="https://written") == ("https://written", "a", "g")
    assert merged(account="written") == ("https://found", "written", "of-the-workspace")
    assert merged(workspace=AzureWorkspace(name="ml", connection="b")) == (None, None, "of-the-workspace")
    assert merged(workspace=None) == (None, None, "of-the-workspace")
