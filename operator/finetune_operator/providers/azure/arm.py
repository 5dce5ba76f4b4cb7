"""Single GETs at ARM's REST API, and the conversion of its errors."""

import re
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from azure.core import AsyncPipelineClient
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy
from azure.core.rest import HttpRequest

from finetune_api.reasons import Reason
from finetune_operator.providers.azure.entra import UNKNOWN_SERVICE, token_refused
from finetune_operator.providers.azure.transport import CALL_SECONDS, RateLimitedTransport
from finetune_operator.providers.calls.errors import (
    RIGHTS_STEP,
    NotThere,
    ProviderError,
    Refused,
    TryLater,
    Unknown,
    Unreadable,
)
from finetune_operator.providers.calls.failed_calls import redirected, unanswered
from finetune_operator.providers.calls.retry_after import asked_pause
from finetune_operator.providers.calls.values import sanitized
from finetune_operator.runtime.http_date import http_date

T = TypeVar("T")

MANAGEMENT = "https://management.azure.com"
CONFLICT_PAUSE_SECONDS = 20.0
LONGEST_PATH = 512
"""Longest path that is recorded in status."""

_ACTION = re.compile(r"action '([A-Za-z./]{1,128})'")
_ADDRESS = (
    "Ask an admin to correct azureOpenAI.managementEndpoint of the LLMConnection, or to leave it out in Azure's public "
    "cloud; if the address is right, it is asked again automatically."
)
_SUBSCRIPTION = "Ask an admin to look at the Azure subscription; it is retried automatically."
_OBSTACLES = {
    "ScopeLocked": (
        "a lock is on the account, its resource group or subscription",
        "Ask an admin to take the lock off (az lock list); it is retried automatically.",
    ),
    "RequestDisallowed": (
        "a policy of Azure denies it",
        "Ask an admin for an exemption from the policy, or ask for what it allows; it is retried automatically.",
    ),
    "SubscriptionRegistration": (
        "the resource provider Microsoft.CognitiveServices is not registered in the subscription",
        "Ask an admin to register it (az provider register --namespace Microsoft.CognitiveServices); it is retried "
        "automatically.",
    ),
    "SubscriptionNotRegistered": ("the subscription is not registered for this", _SUBSCRIPTION),
    "DisabledSubscription": ("the subscription is disabled", _SUBSCRIPTION),
    "SubscriptionDisabled": ("the subscription is disabled", _SUBSCRIPTION),
    "ResourceGroupBeingDeleted": ("the resource group is being deleted", _SUBSCRIPTION),
}
"""Obstacles that an admin must remove, with message and next step, by a part of ARM's code, whatever the status."""


class Forbidden(TryLater):
    """403: the identity is valid but lacks a permission."""


class ArmRest:
    """GETs with a credential's token.

    Args:
        base: ARM's address.
        credential: of azure-identity.
        transport: sends the requests.
    """

    def __init__(self, base: str | None, credential: Any, transport: RateLimitedTransport | None = None) -> None:
        base = (base or MANAGEMENT).rstrip("/")
        self._base = base
        policy = AsyncBearerTokenCredentialPolicy(credential, f"{base}/.default")
        self._options: dict[str, Any] = {"enforce_https": not base.startswith("http://"), "read_timeout": CALL_SECONDS}
        self._client: AsyncPipelineClient[Any, Any] = AsyncPipelineClient(
            base_url=base, policies=[policy], transport=transport
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def path_of(self, url: str) -> str | None:
        """Path and query of a URL that ARM returned; None if it leads elsewhere or is too long."""
        path = url.removeprefix(self._base)
        return path if path.startswith("/") and len(path) <= LONGEST_PATH else None

    async def get(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        """The JSON object at a path.

        Raises:
            ProviderError: ARM refuses, or does not answer.
        """
        return (await self.get_dated(path, params))[0]

    async def get_dated(self, path: str, params: Mapping[str, str]) -> tuple[dict[str, Any], datetime | None]:
        """The JSON object at a path, and ARM's `Date`, if it sends one.

        Raises:
            ProviderError: ARM refuses, or does not answer.
        """

        async def read() -> tuple[dict[str, Any], datetime | None]:
            request = HttpRequest("GET", f"{self._base}{path}", params=dict(params))
            response = await self._client.send_request(request, **self._options)
            if response.status_code == 404:
                raise ResourceNotFoundError(response=response)
            if response.status_code >= 300:
                raise HttpResponseError(response=response)
            return _object(response), http_date(response.headers.get("Date"))

        return await ask(read(), self._base)


def _object(response: Any) -> dict[str, Any]:
    """The JSON object of an answer; one without a body is empty.

    Raises:
        Unreadable: the body is something else.
    """
    try:
        found = response.json() if response.content else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Unreadable("ARM's address answers with something else")
    return found


async def ask(call: Awaitable[T], base: str = MANAGEMENT) -> T:
    """The answer of a call to ARM at `base`.

    Raises:
        ProviderError: ARM refuses, or does not answer.
    """
    try:
        return await call
    except HttpResponseError as error:
        raise _with_field(_refused(error), base) from None
    except AzureError as error:
        kind = type(error).__name__
        if "Authentication" in kind or "Credential" in kind:
            raise _with_field(token_refused(error, "ARM"), base) from None
        raise _with_field(unanswered(error, "ARM"), base) from None


def _with_field(error: ProviderError, base: str) -> ProviderError:
    """Add the field of ARM's address to the error, if the address is configured and may be wrong."""
    no_such_service = UNKNOWN_SERVICE in error.message
    if base.rstrip("/") == MANAGEMENT or not (no_such_service or error.reason is Reason.PROVIDER_UNAVAILABLE):
        return error
    error.message = (
        f"{error.message}; ARM's address is azureOpenAI.managementEndpoint of the LLMConnection, "
        f"{sanitized(base)[:200]}: if that is wrong, an admin corrects it there"
    )
    error.next_step = error.next_step or _ADDRESS
    return error


def _refused(error: HttpResponseError) -> ProviderError:
    status = error.status_code or 0
    if _is_page(error) and status < 500:
        return Unreadable(f"ARM's address answers with a web page and status {status}")
    if isinstance(error, ResourceNotFoundError):
        return NotThere(Reason.PROVIDER_REFUSED, f"ARM has no such thing: {_said(error)}")
    # ARM answers with 401 or 403; any other status means that Entra refused before ARM was called.
    if isinstance(error, ClientAuthenticationError) and status not in {401, 403}:
        return token_refused(error, "ARM")
    if status in range(200, 300):
        return Unreadable(f"ARM's address answers with something else, {type(error).__name__}")
    if status in range(300, 400):
        return redirected("ARM", status, _headers(error).get("location", ""))
    return _obstacle(error) or _translated(error)


def _is_page(error: HttpResponseError) -> bool:
    """Whether it is a proxy's HTML page: ARM's errors are JSON."""
    return error.error is None and "html" in str(_headers(error).get("content-type", "")).casefold()


def _headers(error: HttpResponseError) -> dict[str, str]:
    found = getattr(error.response, "headers", None) or {}
    return {str(name).casefold(): str(value) for name, value in found.items()}


def _translated(error: HttpResponseError) -> ProviderError:
    """Convert ARM's errors. A 409 means that another operation on the account is running."""
    status, code = error.status_code or 0, _code(error)
    said, pause = f"{code}: {_said(error)}", asked_pause(_headers(error), datetime.now(UTC))
    if status in {401, 403}:
        kind = Forbidden if status == 403 else TryLater
        lacks = _ACTION.search(_said(error))
        right = f": it lacks the right {lacks[1]}" if lacks else ""
        message = f"ARM refuses the operator's identity ({status} {code}){right}"
        step = RIGHTS_STEP if kind is Forbidden else None
        return kind(Reason.CREDENTIALS_INVALID, message, 60.0, next_step=step)
    if status == 409:
        said = f"the account is busy with another deployment ({code})"
        return TryLater(Reason.RATE_LIMITED, said, pause or CONFLICT_PAUSE_SECONDS)
    if status == 429:
        return TryLater(Reason.RATE_LIMITED, "ARM asks for patience", pause or 30.0)
    if "Quota" in code:
        return TryLater(Reason.QUOTA_EXCEEDED, f"the account has no room: {said}", 300.0)
    if status >= 500 or status in {0, 407}:  # 407 is from a proxy: the request did not reach ARM
        return Unknown(Reason.PROVIDER_UNAVAILABLE, f"ARM answers with status {status}", pause)
    return Refused(Reason.PROVIDER_REFUSED, f"ARM refuses ({status}): {said}")


def _obstacle(error: HttpResponseError) -> Forbidden | None:
    """The error for an obstacle that an admin must remove; None for others."""
    code = _code(error)
    what, step = next((said for words, said in _OBSTACLES.items() if words in code), ("", ""))
    if not what:
        return None
    message = f"ARM refuses ({error.status_code} {code}): {what}"
    return Forbidden(Reason.PROVIDER_REFUSED, message, 60.0, next_step=step)


def _code(error: HttpResponseError) -> str:
    return str(getattr(error.error, "code", "") or "")


def _said(error: HttpResponseError) -> str:
    return sanitized(str(getattr(error.error, "message", "") or error.reason or ""))
