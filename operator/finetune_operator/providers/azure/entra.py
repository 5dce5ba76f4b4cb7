"""The operator's credential at Entra ID, and Entra's errors by code, since the messages may contain secrets."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.identity.aio import ClientSecretCredential, WorkloadIdentityCredential

from finetune_api.azure import AzureOpenAI
from finetune_api.reasons import Reason
from finetune_operator.providers.azure.transport import RateLimitedTransport
from finetune_operator.providers.calls.errors import ProviderError, TryLater, Unknown, Unreadable
from finetune_operator.providers.calls.failed_calls import unanswered
from finetune_operator.providers.calls.retry_after import asked_pause
from finetune_operator.providers.connection_secret import AZURE_KEYS
from finetune_operator.providers.ports import Credential

PAUSE_SECONDS = 60.0

UNKNOWN_SERVICE = "AADSTS500011"
"""The tenant does not know the token's audience: ARM's address is wrong, or of another cloud."""

_CODE = re.compile(r"AADSTS(\d{4,8})")
_MEANS = {
    "500011": "the tenant knows no service at the address that the token is to be for",
    "90002": "there is no tenant tenantID",
    "900023": "tenantID is not the ID of a tenant",
    "700016": "the tenant has no application clientID",
    "7000215": "clientSecret is not the value of a secret of that application",
    "7000222": "clientSecret has expired",
    "70021": "no federated credential of that application matches the service account of the operator's pod",
    "700213": "no federated credential of that application matches the service account of the operator's pod",
}
"""By number, from Entra's documentation of AADSTS codes."""

_NO_WORKLOAD_IDENTITY = (
    "Ask an admin to set the annotation and the label that Azure's workload identity requires, in the chart's "
    "serviceAccount.annotations and podLabels, or name a Secret in azureOpenAI.credentials.secretRef."
)


def credential_of(settings: AzureOpenAI, secret: Mapping[str, str]) -> Credential:
    """The operator's identity at Azure: a client with its secret, or the pod's own federated one.

    Raises:
        TryLater: the pod has none, or the Secret's values are malformed.
    """
    options: dict[str, Any] = {"transport": RateLimitedTransport("Entra"), "retry_total": 0}
    if settings.authority_host is not None:
        options |= {"authority": settings.authority_host, "disable_instance_discovery": True}
    try:
        if settings.credentials.secret_ref is None:
            return WorkloadIdentityCredential(**options)
        tenant, client_id, client_secret = (secret[key] for key in AZURE_KEYS)
        return ClientSecretCredential(tenant, client_id, client_secret, **options)
    except ValueError:
        raise _no_identity(settings) from None


def _no_identity(settings: AzureOpenAI) -> TryLater:
    if settings.credentials.secret_ref is not None:
        message = "tenantID of the connection's Secret is not the ID or the domain of a tenant"
        return TryLater(Reason.CREDENTIALS_INVALID, message, PAUSE_SECONDS)
    message = "the operator's pod has no workload identity of Azure: its environment lacks what Azure's webhook adds"
    return TryLater(Reason.CREDENTIALS_INVALID, message, PAUSE_SECONDS, next_step=_NO_WORKLOAD_IDENTITY)


def token_error(error: AzureError, what: str) -> ProviderError:
    """The error for a missing token: Entra refuses, does not answer, or something else does. `what`: its purpose."""
    if isinstance(error, ClientAuthenticationError):
        return token_refused(error, what)
    if isinstance(error, HttpResponseError):
        return Unreadable(f"Entra's address answers with something else, {type(error).__name__}")
    return unanswered(error, "Entra")


def token_refused(error: AzureError, what: str) -> ProviderError:
    """The error if Entra gives no token, or not now. `what`: its purpose."""
    status, headers = _answer(error)
    pause = asked_pause(headers, datetime.now(UTC))
    if status == 429:
        return TryLater(Reason.RATE_LIMITED, "Entra asks for patience", pause or PAUSE_SECONDS)
    if status >= 500:
        return Unknown(Reason.PROVIDER_UNAVAILABLE, f"Entra answers with status {status}", pause)
    found = _CODE.search(str(error))
    why = found[0] if found else type(error).__name__
    means = f": {_MEANS[found[1]]}" if found and found[1] in _MEANS else ""
    return TryLater(Reason.CREDENTIALS_INVALID, f"Entra gives no token for {what} ({why}){means}", PAUSE_SECONDS)


def _answer(error: AzureError) -> tuple[int, Mapping[str, str]]:
    """Status and headers of an error's answer; 0 if there was none."""
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or {}
    return getattr(response, "status_code", 0), {str(name).casefold(): str(value) for name, value in headers.items()}
