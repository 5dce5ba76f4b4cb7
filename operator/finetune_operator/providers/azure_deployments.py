"""Deployments of an Azure OpenAI account by ARM: listed, made by name, deleted, and asked whether they answer."""

from collections.abc import Awaitable
from typing import Any, TypeVar

import openai
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.mgmt.cognitiveservices import models as arm
from azure.mgmt.cognitiveservices.aio import CognitiveServicesManagementClient

from finetune_api.connection import AzureOpenAI
from finetune_api.deployment import AzureServing, DeploymentTemplate
from finetune_api.reasons import Reason
from finetune_operator.decide.hosted import Hosted, HostedState
from finetune_operator.providers import openai_wire
from finetune_operator.providers.errors import NotThere, ProviderError, Refused, TryLater, Unknown
from finetune_operator.providers.ports import HostRequest

T = TypeVar("T")

MANAGEMENT = "https://management.azure.com"
OWNER_TAG = "finetune-uid"
CONFLICT_PAUSE_SECONDS = 20.0
CALL_SECONDS = 30

_STATES: dict[str, HostedState] = {
    "Succeeded": "Ready",
    "Failed": "Failed",
    "Canceled": "Failed",
    "Disabled": "Failed",
    "Deleting": "Deleting",
}


class AzureDeployments:
    """The deployments of one account: one call each, never repeated here. PUT and DELETE by name do nothing twice."""

    def __init__(self, settings: AzureOpenAI, credential: Any, sdk: openai.AsyncOpenAI) -> None:
        base = settings.management_endpoint or MANAGEMENT
        self._place = (settings.resource_group, settings.account or "")
        self._options: dict[str, Any] = {"enforce_https": not base.startswith("http://"), "read_timeout": CALL_SECONDS}
        self._arm = CognitiveServicesManagementClient(
            credential,
            settings.subscription_id,
            base_url=base,
            retry_total=0,
            credential_scopes=[f"{base.rstrip('/')}/.default"],
        )
        self._sdk = sdk

    async def close(self) -> None:
        """Close the connections."""
        await self._arm.close()

    async def list(self) -> list[Hosted]:
        """All deployments of the account."""

        async def read() -> list[Hosted]:
            pages = self._arm.deployments.list(*self._place, **self._options)
            return [Hosted(str(one.name), _state(one)) async for one in pages]

        return await _ask(read())

    async def make(self, request: HostRequest) -> None:
        """PUT a deployment. It is not waited for: the next look sees how far it is."""
        put = self._arm.deployments.begin_create_or_update
        await _ask(put(*self._place, request.name, wanted(request), polling=False, **self._options))

    async def delete(self, name: str) -> None:
        """DELETE a deployment; one that is not there is no error."""
        try:
            await _ask(self._arm.deployments.begin_delete(*self._place, name, polling=False, **self._options))
        except NotThere:
            return

    async def answers(self, name: str) -> bool:
        """Whether a deployment answers a question of one token: ARM says Succeeded some minutes before it does."""
        question: Any = [{"role": "user", "content": "ok?"}]
        try:
            await self._sdk.chat.completions.create(model=name, messages=question, max_tokens=1)
        except openai.NotFoundError:
            return False
        except openai.APIError as error:
            raise Unknown(
                Reason.PROVIDER_UNAVAILABLE, f"deployment {name} does not answer ({type(error).__name__})"
            ) from None
        return True


def wanted(request: HostRequest) -> arm.Deployment:
    """The deployment as ARM's PUT takes it. Pure."""
    serving = serving_of(request.template)
    model = arm.DeploymentModel(format="OpenAI", name=request.model, version="1")
    return arm.Deployment(
        sku=arm.Sku(name=serving.sku, capacity=serving.capacity),
        properties=arm.DeploymentProperties(model=model),
        tags={OWNER_TAG: request.owner},
    )


def serving_of(template: DeploymentTemplate) -> AzureServing:
    """SKU and capacity; those of the defaults where the template has no block."""
    return template.azure_open_ai or AzureServing()


def _state(one: arm.Deployment) -> HostedState:
    """A state that nobody knows is one in which something happens."""
    state = one.properties.provisioning_state if one.properties else None
    return _STATES.get(str(getattr(state, "value", state)), "Creating")


async def _ask(call: Awaitable[T]) -> T:
    try:
        return await call
    except ResourceNotFoundError as error:
        raise NotThere(Reason.PROVIDER_REFUSED, f"ARM has no such thing: {_said(error)}") from None
    except HttpResponseError as error:
        raise _translated(error) from None
    except AzureError as error:
        kind = type(error).__name__
        if "Authentication" in kind or "Credential" in kind:
            raise TryLater(Reason.CREDENTIALS_INVALID, f"Entra gives no token for ARM ({kind})", 60.0) from None
        raise Unknown(Reason.PROVIDER_UNAVAILABLE, f"ARM does not answer ({kind})") from None


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
