"""What a person reads of a call that had no answer, and whether it may have been heard: with real sockets."""

import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from botocore.session import Session

from finetune_operator.providers.aws.client import Aws
from finetune_operator.providers.azure.arm import ArmRest
from finetune_operator.providers.calls.errors import ProviderError, Unknown, Unreached
from finetune_operator.providers.openai.api import OpenAIApi
from finetune_operator.providers.openai.client import client
from tests.simulators import certificates
from tests.simulators.openai import OpenAISimulator
from tests.simulators.server import serve
from tests.unit.finetune_operator.reconcilers.cloud import Token

Ask = Callable[[str], Awaitable[Any]]


async def openai(url: str) -> None:
    api = OpenAIApi(client(f"{url}/v1", "sk-canary"))
    try:
        await api.check()
    finally:
        await api.close()


async def aws(url: str) -> None:
    session = Session()
    session.set_config_variable("region", "us-east-1")
    session.set_credentials("AKIASIMULATED", "canary")
    api = Aws(session, {"bedrock": url})
    try:
        await api.call("bedrock", "list_custom_models")
    finally:
        await api.close()


async def arm(url: str) -> None:
    rest = ArmRest(url, Token())
    try:
        await rest.get("/subscriptions", {})
    finally:
        await rest.close()


ASK: dict[str, Ask] = {"openai": openai, "aws": aws, "arm": arm}


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: Any) -> Iterator[str]:
    """A server whose certificate nobody here trusts."""
    with serve(OpenAISimulator(), tls=certificates.make(tmp_path_factory.mktemp("tls"))) as url:
        yield url


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


async def told(ask: Ask, url: str) -> ProviderError:
    with pytest.raises(ProviderError) as found:
        await ask(url)
    assert "canary" not in found.value.message
    return found.value


@pytest.mark.parametrize("name", ASK)
async def test_a_certificate_that_is_not_trusted_is_called_one(name, stranger):
    error = await told(ASK[name], stranger)
    assert isinstance(error, Unknown)
    assert "certificate that is not trusted" in error.message
    assert "SSL_CERT_FILE" in error.message
    assert "bundle" in (error.failure().next_step or "")


@pytest.mark.parametrize("name", ["openai", "aws"])
async def test_a_server_without_tls_that_is_addressed_with_it_is_called_one(name):
    with serve(OpenAISimulator()) as url:
        error = await told(ASK[name], url.replace("http://", "https://"))
    assert "does not speak TLS: does its address begin with http://" in error.message


@pytest.mark.parametrize("name", ["openai", "aws"])
async def test_where_nobody_listens_nothing_was_done(name, nobody):
    error = await told(ASK[name], f"http://{nobody}")
    assert (type(error), "refuses connections" in error.message) == (Unreached, True), error.message
    assert nobody in error.message


async def test_a_name_that_does_not_exist_is_called_one():
    error = await told(openai, "http://nowhere.invalid")
    assert (type(error), "name that cannot be resolved" in error.message) == (Unreached, True), error.message


async def test_an_answer_that_breaks_off_may_have_been_one():
    provider = OpenAISimulator()
    provider.fault("fine_tuning.jobs.list", outcome="cut", after_commit=True)
    with serve(provider) as url:
        error = await told(openai, url)
    assert (type(error), "does not answer" in error.message) == (Unknown, True), error.message
