"""Who the operator is at Entra, and what is told where Entra, or its own SDK, does not take it."""

from typing import Any

import pytest
from azure.core.exceptions import AzureError, ClientAuthenticationError

from finetune_api.connection import LLMConnectionSpec
from finetune_api.reasons import Reason
from finetune_operator.providers.azure.entra import token_refused
from finetune_operator.providers.calls.errors import TryLater
from finetune_operator.providers.connection_secret import AZURE_KEYS
from finetune_operator.providers.sdks import build_api
from tests.unit.finetune_operator.decide.given import azure_connection

OF_THE_POD = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE")


def test_a_pod_without_a_workload_identity_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OF_THE_POD:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TryLater, match="the operator's pod has no workload identity of Azure") as told:
        build_api(azure_connection(), {})
    failure = told.value.failure()
    assert (failure.reason, "podLabels" in str(failure.next_step)) == (Reason.CREDENTIALS_INVALID, True)


@pytest.mark.parametrize("tenant", ["my tenant", "https://login.microsoftonline.com/contoso", "contoso/"])
def test_a_tenant_that_is_none_is_told(tenant: str) -> None:
    block = azure_connection().wire()["azureOpenAI"] | {"credentials": {"secretRef": {"name": "azure"}}}
    spec = LLMConnectionSpec.model_validate({"namespaceSelector": {}, "azureOpenAI": block})
    with pytest.raises(TryLater, match="tenantID of the connection's Secret is not") as told:
        build_api(spec, dict(zip(AZURE_KEYS, (tenant, "client", "a-secret"), strict=True)))
    assert told.value.reason is Reason.CREDENTIALS_INVALID


REFUSALS: dict[str, tuple[AzureError, str]] = {
    "a wrong secret": (
        ClientAuthenticationError("AADSTS7000215: Invalid client secret 'my-value'. Trace ID: 1"),
        "(AADSTS7000215): clientSecret is not the value of a secret of that application",
    ),
    "an old one": (ClientAuthenticationError("(invalid_client) AADSTS7000222: my-value"), ": clientSecret has expired"),
    "no such tenant": (ClientAuthenticationError("AADSTS90002: Tenant 'my-value'"), ": there is no tenant tenantID"),
    "another number": (ClientAuthenticationError("AADSTS50034: my-value"), "connection (AADSTS50034)"),
    "no number": (ClientAuthenticationError("my-value"), "connection (ClientAuthenticationError)"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_entras_refusal_is_told_by_its_code_and_never_by_its_words(name: str) -> None:
    error, said = REFUSALS[name]
    found: Any = token_refused(error, "the connection")
    assert found.message.endswith(said)
    assert "my-value" not in found.message
