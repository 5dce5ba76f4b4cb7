"""Addresses of a connection: what is sent there is a secret, so it is not sent in the clear."""

import re
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_api.aws import BedrockEndpoints
from finetune_api.connection import LLMConnectionSpec
from finetune_api.evaluation import Judge, stays_in_cluster
from finetune_api.hosts import HOST
from finetune_api.push import PushToHub, PushToRegistry
from finetune_api.trackers import MLflow, WandB
from finetune_api.uris import UriError, parse_uri

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


ANYWHERE: tuple[Callable[[str], Any], ...] = (
    lambda host: LLMConnectionSpec.model_validate({"openAI": {"baseURL": f"https://{host}/v1", **KEY}}),
    lambda host: LLMConnectionSpec.model_validate({"azureOpenAI": {"endpoint": f"https://{host}", **AZURE}}),
    lambda host: BedrockEndpoints.model_validate({"control": f"https://{host}"}),
    lambda host: Judge.model_validate({"url": f"https://{host}/v1", "model": "m"}),
    lambda host: MLflow.model_validate({"trackingURI": f"http://{host}"}),
    lambda host: WandB.model_validate({"secretRef": {"name": "wandb"}, "baseURL": f"https://{host}"}),
    lambda host: PushToHub.model_validate(
        {"repository": "a/b", "tokenSecretRef": {"name": "hub", "key": "token"}, "endpointURL": f"https://{host}"}
    ),
)
"""Parts of a manifest with a URL, by its host."""

NO_HOSTS = (
    "[::1",
    "::1",
    "x:y",
    "x:",
    "x:123456",
    "a\\b",
    "[x]",
    "a[1]",
    "a b",
    "[1]",
    "[1:2]",
    "",
    "[1:2:3]",
    "[:::]",
    "[1::2::3]",
    "[1:2:3:4:5:6:7::1:2]",
    "a..b",
    ".a",
)
NO_PORTS = ("x:0", "x:00000", "x:65536", "x:65600", "x:66000", "x:70000", "x:99999", "[::1]:70000")
HOSTS = ("x:1", "x:0443", "x:9999", "x:59999", "x:64999", "x:65535", "my_service:9000", "10.0.0.1:80", "exämple.com")
ADDRESSES = (
    "[::1]",
    "[::]",
    "[fe80::1:2]",
    "[64:ff9b::10.0.0.1]",
    "[1:2:3:4:5:6:7::]",
    "[1:2:3:4:5:6:10.0.0.1]",
    "a.b.",
    "[2001:db8::1]:65535",
    "[::ffff:10.0.0.1]:80",
    "[1:2:3:4:5:6:7:8]",
)


@pytest.mark.parametrize("host", [*NO_HOSTS, *NO_PORTS])
def test_what_no_client_takes_for_a_host_with_a_port_is_refused_wherever_a_url_stands(host: str) -> None:
    for made in ANYWHERE:
        with pytest.raises(ValidationError, match="should match pattern"):
            made(host)
    with pytest.raises(UriError):
        parse_uri(f"https://{host}/train.csv")


@pytest.mark.parametrize("host", [*HOSTS, *ADDRESSES])
def test_every_host_and_port_that_there_can_be_is_taken(host: str) -> None:
    for made in ANYWHERE:
        made(host)
    assert parse_uri(f"https://{host}/train.csv").root == host


@pytest.mark.parametrize(("port", "taken"), [("", True), (":5000", True), (":0", False), (":65536", False)])
def test_services_by_their_clear_addresses_have_ports_that_there_can_be(port: str, taken: bool) -> None:
    clear: tuple[Callable[[], Any], ...] = (
        lambda: PushToRegistry.model_validate({"uri": f"oci://registry.example.com{port}/team/sentiment:1"}),
        lambda: Judge.model_validate({"url": f"http://judge.team-a.svc{port}/v1", "model": "m"}),
        lambda: LLMConnectionSpec.model_validate({"azureOpenAI": {"endpoint": f"http://localhost{port}", **AZURE}}),
    )
    assert stays_in_cluster(f"http://judge.team-a.svc{port}/v1") == taken
    for made in clear:
        if taken:
            made()
            continue
        with pytest.raises(ValidationError, match="should match pattern"):
            made()


@given(st.from_regex(r"\A[0-9a-f:]{2,24}\Z"))
def test_what_stands_in_brackets_is_an_address_of_ipv6_or_is_refused(text: str) -> None:
    try:
        is_address = bool(IPv6Address(text))
    except ValueError:
        is_address = False
    assert bool(re.fullmatch(HOST, f"[{text}]")) == is_address


@given(st.ip_addresses(v=6))
def test_every_address_of_ipv6_is_a_host(address: IPv6Address) -> None:
    assert re.fullmatch(HOST, f"[{address}]")
    assert re.fullmatch(HOST, f"[{address.exploded}]:65535")
