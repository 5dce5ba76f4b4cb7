"""Microsoft Entra's token endpoint: client secret, and a federated service-account token (workload identity)."""

import base64
import binascii
from typing import Any
from urllib.parse import parse_qs

import orjson

from tests.simulators.azure.settings import AzureSettings
from tests.simulators.http import ApiError, Call, Reply, Route
from tests.simulators.ids import Ids

DATA_PLANE, ARM = "https://cognitiveservices.azure.com", "https://management.azure.com"
AUDIENCES = {ARM: ARM, DATA_PLANE: DATA_PLANE, "https://ai.azure.com": DATA_PLANE}
EXCHANGE = "api://AzureADTokenExchange"


class Entra:
    """Issues tokens, and validates them by audience."""

    def __init__(self, settings: AzureSettings, ids: Ids) -> None:
        self._settings, self._ids = settings, ids
        self._given: dict[str, str] = {}

    def routes(self) -> list[Route]:
        """The paths of a tenant's authority."""
        return [
            Route("GET", "/{tenant}/v2.0/.well-known/openid-configuration", "entra.configuration", self.configuration),
            Route("POST", "/{tenant}/oauth2/v2.0/token", "entra.token", self.token),
        ]

    def is_good(self, token: str, audience: str) -> bool:
        """Whether a token is valid for an audience."""
        return token in self._settings.static_tokens or self._given.get(token) == audience

    def configuration(self, call: Call) -> Reply:
        """The tenant's OpenID configuration."""
        self._known_tenant(call)
        base = f"{call.url}/{call.path['tenant']}"
        return Reply.json({"issuer": f"{base}/v2.0", "token_endpoint": f"{base}/oauth2/v2.0/token",
                           "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                           "jwks_uri": f"{base}/discovery/v2.0/keys"})  # fmt: skip

    def token(self, call: Call) -> Reply:
        """A token for the requested scope."""
        self._known_tenant(call)
        form = {key: values[0] for key, values in parse_qs(call.body.decode()).items()}
        client = form.get("client_id", "")
        if form.get("grant_type") != "client_credentials":
            raise ApiError(400, "unsupported_grant_type", "The grant type is not supported.", number=70003)
        if client not in self._settings.clients:
            raise ApiError(400, "unauthorized_client", f"Application with identifier '{client}' was not found in the "
                           f"directory '{self._settings.tenant}'.", number=700016)  # fmt: skip
        self._proven(form, client)
        own = {call.url: ARM}  # an Azure cloud of its own
        audience = (AUDIENCES | own).get(form.get("scope", "").removesuffix("/.default").rstrip("/"))
        if audience is None:
            raise ApiError(400, "invalid_scope", "The provided value for scope is not valid.", number=70011)
        given = self._ids.new("token-", 40)
        self._given[given] = audience
        seconds = self._settings.token_seconds
        return Reply.json({"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds,
                           "access_token": given})  # fmt: skip

    def _known_tenant(self, call: Call) -> None:
        if call.path["tenant"] != self._settings.tenant:
            message = f"Tenant '{call.path['tenant']}' not found."
            raise ApiError(400, "invalid_request", message, number=90002)

    def _proven(self, form: dict[str, str], client: str) -> None:
        if assertion := form.get("client_assertion"):
            claims = _claims(assertion)
            if claims.get("sub") not in self._settings.federated_subjects or EXCHANGE not in _many(claims.get("aud")):
                raise ApiError(401, "invalid_client", "No matching federated identity record found for presented "
                               "assertion subject.", number=700213)  # fmt: skip
        elif form.get("client_secret") != self._settings.clients[client]:
            raise ApiError(401, "invalid_client", "Invalid client secret provided. Ensure the secret being sent in the "
                           "request is the client secret value, not the client secret ID, for a secret added to app "
                           f"'{client}'.", number=7000215)  # fmt: skip


def _claims(token: str) -> dict[str, Any]:
    """The claims of a JWT; its signature is Kubernetes' and is not verified."""
    try:
        part = token.split(".")[1]
        claims: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError, binascii.Error) as error:
        raise ApiError(401, "invalid_client", "Client assertion is not a JWT.", number=50027) from error
    return claims


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
