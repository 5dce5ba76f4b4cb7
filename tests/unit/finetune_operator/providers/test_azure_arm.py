"""What refusals on the way to ARM mean to us, of Entra and of ARM itself; how ARM names models."""

from types import SimpleNamespace

import pytest
from azure.core.exceptions import ClientAuthenticationError

from finetune_api.reasons import Reason
from finetune_operator.providers.azure_arm import ask
from finetune_operator.providers.azure_deployments import named_base
from finetune_operator.providers.errors import TryLater


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (400, "Entra gives no token for ARM"),  # no such client, tenant or scope
        (401, "ARM refuses the operator's identity (401"),
    ],
)
async def test_an_identity_that_is_not_taken_is_one_that_is_invalid(status: int, says: str) -> None:
    async def refused() -> None:
        response = SimpleNamespace(status_code=status, reason="Bad Request")
        raise ClientAuthenticationError("a word of the secret", response=response)

    with pytest.raises(TryLater) as error:
        await ask(refused())
    assert error.value.reason is Reason.CREDENTIALS_INVALID
    assert says in error.value.message
    assert "secret" not in error.value.message


@pytest.mark.parametrize(
    ("model", "name", "version"),
    [
        ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini", "2025-04-14"),
        ("gpt-4.1-mini", "gpt-4.1-mini", None),
        ("gpt-4o-2024-08-06.ft-0123456789abcdef-tone", "gpt-4o-2024-08-06.ft-0123456789abcdef-tone", "1"),
    ],
)
def test_a_base_model_has_its_name_and_version_and_a_tuned_one_is_version_1(
    model: str, name: str, version: str | None
) -> None:
    assert named_base(model) == (name, version)
