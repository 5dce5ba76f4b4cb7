"""A connection's Secret without the keys that are needed: what it has instead is told, and nothing that may be one."""

from base64 import b64encode, encodebytes
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from finetune_api.connection import LLMConnectionSpec
from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import TryLater
from finetune_operator.providers.connection_secret import (
    AWS_KEYS,
    ConnectionSecrets,
    extra_characters,
    lacks,
)
from tests.unit.finetune_operator.decide.given import azure_connection, bedrock_connection, openai_connection

VALUE = "c2VjcmV0"
LACKING: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "another spelling": (("api-key",), {"data": {"apiKey": VALUE}}, "has no api-key; it has apiKey"),
    "names of the SDK": (
        AWS_KEYS,
        {"data": {"AWS_SECRET_ACCESS_KEY": VALUE, "AWS_ACCESS_KEY_ID": VALUE}},
        "has no accessKeyID, secretAccessKey; it has AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
    ),
    "nothing in it": (("api-key",), {"data": {"api-key": ""}}, "has nothing in api-key"),
    "a secret for a name": (
        ("api-key",),
        {"data": {"sk-proj-a1B2": VALUE}},
        "has no api-key; it has other keys, or none",
    ),
    "no data": (("api-key",), {}, "has no api-key; it has other keys, or none"),
}


@pytest.mark.parametrize("name", LACKING)
def test_what_a_secret_has_instead_is_told(name: str) -> None:
    missing, secret, told = LACKING[name]
    assert lacks(missing, secret) == told


async def test_of_a_secret_that_is_not_there_its_keys_are_told() -> None:
    class Nothing:
        async def get(self, *_: Any) -> None:
            return None

    with pytest.raises(TryLater) as error:
        await ConnectionSecrets(cast("Any", Nothing()), "finetune").of(with_secret("azureOpenAI"))
    assert error.value.message == "Secret finetune/keys does not exist; it needs tenantID, clientID, clientSecret"


ALONE: dict[str, bool] = {
    "sk-proj-a1B2_c3": True,
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY": True,
    "Ab8Q~x.Y-z_0": True,
    "eyJhbGciOiJI.eyJzdWIi==.c2ln": True,
    '"sk-1"': False,
    "'sk-1'": False,
    "Bearer sk-1": False,
    "OPENAI_API_KEY=sk-1": False,
    "sk-1 ": False,
    "a company's own key": True,
    "sk-1\nsk-2": False,
    "sk-\u00e4": False,
}


@pytest.mark.parametrize("value", ALONE)
def test_what_stands_around_a_key_is_seen_before_its_provider_is_asked(value: str) -> None:
    assert (not extra_characters(value)) is ALONE[value]


GUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
KEYS = {
    "openAI": {"api-key": "sk-proj-a1B2_c3D4"},
    "bedrock": {
        "accessKeyID": "AKIAIOSFODNN7EXAMPLE",
        "secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    },
    "azureOpenAI": {"tenantID": GUID, "clientID": GUID, "clientSecret": "Ab88Q~" + "x" * 34},
}
SPECS = {
    "openAI": openai_connection(),
    "bedrock": bedrock_connection(),
    "azureOpenAI": azure_connection(),
}


def with_secret(provider: str) -> LLMConnectionSpec:
    wire = SPECS[provider].wire()
    credentials = {} if provider == "openAI" else {"credentials": {"secretRef": {"name": "keys"}}}
    return LLMConnectionSpec.model_validate(wire | {provider: wire[provider] | credentials})


class Stored:
    """The API server with one Secret."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values

    async def get(self, *_: Any) -> Any:
        return {"data": {key: b64encode(value.encode()).decode() for key, value in self.values.items()}}


async def read(provider: str, values: dict[str, str]) -> Mapping[str, str]:
    return await ConnectionSecrets(cast("Any", Stored(values)), "finetune").of(with_secret(provider))


@pytest.mark.parametrize("command", [b64encode, encodebytes], ids=["in one line", "as the command base64 writes it"])
@pytest.mark.parametrize("after", ["", "\n"], ids=["", "with a line end"])
@pytest.mark.parametrize(("provider", "key"), [(provider, key) for provider in KEYS for key in KEYS[provider]])
async def test_a_key_that_was_encoded_twice_is_told_as_such_and_never_shown(
    provider: str, key: str, after: str, command: Callable[[bytes], bytes]
) -> None:
    value = KEYS[provider][key] * (20 if provider == "openAI" else 1)
    good = KEYS[provider] | {key: value}
    assert await read(provider, good) == good
    twice = command((value + after).encode()).decode()
    with pytest.raises(TryLater) as error:
        await read(provider, good | {key: twice})
    assert error.value.reason is Reason.CREDENTIALS_INVALID
    assert "Secret finetune/" in error.value.message
    assert f"{key} was encoded as Base64 twice" in error.value.message
    assert not any(part in error.value.message for part in (value, *twice.split()))


@pytest.mark.parametrize(
    "value", ["c2st", "c2stbm90IGEga2V5IQ==", "c2stw4TDhMOEw4TDhMOEw4TDhA==", "Z3NrXzEyMzQ1Njc4OTA="]
)
async def test_a_key_that_is_the_base64_of_no_key_is_left_to_the_provider(value: str) -> None:
    assert (await read("openAI", {"api-key": value}))["api-key"] == value
