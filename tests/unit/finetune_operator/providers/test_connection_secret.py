"""A connection's Secret without the keys that are needed: what it has instead is told, and nothing that may be one."""

from typing import Any

import pytest

from finetune_operator.providers.connection_secret import AWS_KEYS, lacks, not_alone

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
    assert (not not_alone(value)) is ALONE[value]
