"""ARM's REST interface where one GET is all that is wanted of it; and what its refusals mean to us."""

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from azure.core import AsyncPipelineClient
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy
from azure.core.rest import HttpRequest

from finetune_api.reasons import Reason
from finetune_operator.providers import openai_wire
from finetune_operator.providers.errors import NotThere, ProviderError, Refused, TryLater, Unknown, Unreadable
from finetune_operator.providers.silence import unanswered

T = TypeVar("T")

MANAGEMENT = "https://management.azure.com"
CONFLICT_PAUSE_SECONDS = 20.0
CALL_SECONDS = 30


class ArmRest:
    """GETs with a credential's token.

    Args:
        base: ARM's address.
        credential: what azure-identity has.
    """

    def __init__(self, base: str | None, credential: Any) -> None:
        base = (base or MANAGEMENT).rstrip("/")
        self._base = base
        policy = AsyncBearerTokenCredentialPolicy(credential, f"{base}/.default")
        self._options: dict[str, Any] = {"enforce_https": not base.startswith("http://"), "read_timeout": CALL_SECONDS}
        self._client: AsyncPipelineClient[Any, Any] = AsyncPipelineClient(base_url=base, policies=[policy])

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        """The JSON object at a path.

        Raises:
            ProviderError: ARM refuses, or does not answer.
        """

        async def read() -> dict[str, Any]:
            request = HttpRequest("GET", f"{self._base}{path}", params=dict(params))
            response = await self._client.send_request(request, **self._options)
            if response.status_code == 404:
                raise ResourceNotFoundError(response=response)
            response.raise_for_status()
            found: dict[str, Any] = response.json()
            return found

        return await ask(read())


async def ask(call: Awaitable[T]) -> T:
    """The answer of a call on ARM.

    Raises:
        ProviderError: ARM refuses, or does not answer.
    """
    try:
        return await call
    except ResourceNotFoundError as error:
        raise NotThere(Reason.PROVIDER_REFUSED, f"ARM has no such thing: {_said(error)}") from None
    except HttpResponseError as error:
        # ARM says 401 or 403; with any other status it is Entra that refused, before ARM was asked.
        if isinstance(error, ClientAuthenticationError) and error.status_code not in {401, 403}:
            raise _no_token(error) from None
        if (error.status_code or 0) in range(200, 300):
            raise Unreadable(f"ARM's address answers with something else, {type(error).__name__}") from None
        raise _translated(error) from None
    except AzureError as error:
        kind = type(error).__name__
        if "Authentication" in kind or "Credential" in kind:
            raise _no_token(error) from None
        raise unanswered(error, "ARM") from None


def _no_token(error: AzureError) -> ProviderError:
    """Without Entra's own words: they may hold parts of a secret."""
    return TryLater(Reason.CREDENTIALS_INVALID, f"Entra gives no token for ARM ({type(error).__name__})", 60.0)


def _translated(error: HttpResponseError) -> ProviderError:
    """ARM's refusals; a 409 is another operation on the account, of whomever."""
    status, code = error.status_code or 0, str(getattr(error.error, "code", "") or "")
    said = f"{code}: {_said(error)}"
    if status in {401, 403}:
        return TryLater(Reason.CREDENTIALS_INVALID, f"ARM refuses the operator's identity ({status} {code})", 60.0)
    if status == 409:
        return TryLater(Reason.RATE_LIMITED, "the account is busy with another deployment", CONFLICT_PAUSE_SECONDS)
    if status == 429:
        return TryLater(Reason.RATE_LIMITED, "ARM asks for patience", 30.0)
    if "Quota" in code:
        return TryLater(Reason.QUOTA_EXCEEDED, f"the account has no room: {said}", 300.0)
    if status >= 500 or not status:
        return Unknown(Reason.PROVIDER_UNAVAILABLE, f"ARM answers with status {status}")
    return Refused(Reason.PROVIDER_REFUSED, f"ARM refuses ({status}): {said}")


def _said(error: HttpResponseError) -> str:
    return openai_wire.plain(str(getattr(error.error, "message", "") or error.reason or ""))
