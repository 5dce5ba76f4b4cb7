"""Addresses of a connection: what is sent there is a secret, so it is not sent in the clear."""

import pytest
from pydantic import ValidationError

from finetune_api.aws import BedrockEndpoints
from finetune_api.connection import LLMConnectionSpec

KEY = {"apiKeySecretRef": {"name": "openai", "key": "api-key"}}
AZURE = {
    "subscriptionID": "11111111-2222-3333-4444-555555555555",
    "resourceGroup": "models",
    "account": "res",
    "credentials": {"workloadIdentity": True},
}


@pytest.mark.parametrize("field", ["endpoint", "authorityHost", "managementEndpoint"])
@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://res.openai.azure.com", True),
        ("https://[2001:db8::1]:8443/azure", True),
        ("http://127.0.0.1:8080", True),
        ("http://localhost/azure", True),
        ("http://[::1]:8080", True),
        ("http://res.openai.azure.com", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://127.0.0.1@example.com", False),
        ("ftp://res.openai.azure.com", False),
        ("https://", False),
        ("", False),
    ],
)
def test_azure_is_spoken_to_by_https_but_on_this_machine(field: str, url: str, taken: bool) -> None:
    block = {"endpoint": "https://res.openai.azure.com", **AZURE, field: url}
    if taken:
        assert LLMConnectionSpec.model_validate({"azureOpenAI": block}).azure_open_ai is not None
        return
    with pytest.raises(ValidationError, match="azureOpenAI"):
        LLMConnectionSpec.model_validate({"azureOpenAI": block})


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("http://vllm.team-a.svc/v1", True),
        ("http://openai.com.example.com/v1", True),
        ("http://api.openai.com/v1", False),
        ("http://eu.api.openai.com:80/v1", False),
        ("http://res.openai.azure.com/openai/v1", False),
        ("http://res.openai.azure.us/openai/v1", False),
    ],
)
def test_services_within_reach_may_be_without_tls_and_those_in_the_internet_may_not(url: str, taken: bool) -> None:
    block = {"baseURL": url, **KEY}
    if taken:
        assert LLMConnectionSpec.model_validate({"openAI": block}).open_ai is not None
        return
    with pytest.raises(ValidationError, match="http keeps no secret"):
        LLMConnectionSpec.model_validate({"openAI": block})


@pytest.mark.parametrize("field", ["organization", "project"])
@pytest.mark.parametrize("text", ["", " ", "proj_1\n", "<project>"])
def test_an_organization_or_a_project_that_is_no_id_is_refused(field: str, text: str) -> None:
    with pytest.raises(ValidationError, match="openAI"):
        LLMConnectionSpec.model_validate({"openAI": {field: text, **KEY}})


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("http://minio.storage.svc:9000", True),
        ("https://vpce-1.s3.us-east-1.vpce.amazonaws.com", True),
        ("http://amazonaws.com.example.com", True),
        ("http://s3.us-east-1.amazonaws.com", False),
        ("http://s3.cn-north-1.amazonaws.com.cn:80/", False),
    ],
)
def test_data_go_to_s3_in_the_internet_by_https(url: str, taken: bool) -> None:
    if taken:
        assert BedrockEndpoints.model_validate({"s3": url}).by_service() == {"s3": url}
        return
    with pytest.raises(ValidationError, match="http keeps no secret"):
        BedrockEndpoints.model_validate({"s3": url})


@pytest.mark.parametrize("host", ["[::1", "::1", "x:y", "x:", "x:123456", "a\\b", "[x]", "a[1]"])
def test_what_no_client_takes_for_a_host_is_refused(host: str) -> None:
    for block in (
        {"openAI": {"baseURL": f"https://{host}/v1", **KEY}},
        {"azureOpenAI": {"endpoint": f"https://{host}", **AZURE}},
    ):
        with pytest.raises(ValidationError, match="should match pattern"):
            LLMConnectionSpec.model_validate(block)
    with pytest.raises(ValidationError, match="should match pattern"):
        BedrockEndpoints.model_validate({"control": f"https://{host}"})
