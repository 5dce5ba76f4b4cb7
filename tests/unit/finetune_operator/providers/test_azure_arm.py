"""What refusals on the way to ARM mean to us, of Entra and of ARM itself."""

from types import SimpleNamespace

import pytest
from azure.core.exceptions import ClientAuthenticationError

from finetune_api.reasons import Reason
from finetune_operator.providers.azure_arm import ask
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
