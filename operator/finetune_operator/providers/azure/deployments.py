"""Deployments of an Azure OpenAI account through ARM: lists, creates, deletes and probes them."""

import re
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, get_args

import openai
from azure.core.exceptions import HttpResponseError
from azure.mgmt.cognitiveservices import models as arm
from azure.mgmt.cognitiveservices.aio import CognitiveServicesManagementClient

from finetune_api.azure import AzureOpenAI
from finetune_api.catalogue import tuned_from
from finetune_api.deployment import AzureServing, DeploymentTemplate
from finetune_api.names import OWNER_TAG
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.hosted_record import Hosted, HostedState
from finetune_operator.decide.deployment.hosting_terms import azure_units, in_words
from finetune_operator.decide.deployment.idle import Figures
from finetune_operator.providers.azure.arm import MANAGEMENT, ArmRest, Forbidden, ask
from finetune_operator.providers.azure.monitor import AzureMonitor
from finetune_operator.providers.azure.transport import CALL_SECONDS, RateLimitedTransport
from finetune_operator.providers.calls.errors import Denied, NotThere, Refused, TryLater, Unreadable, limit_pages
from finetune_operator.providers.calls.rate_limit import RateLimiter
from finetune_operator.providers.calls.values import sanitized
from finetune_operator.providers.openai.models import OpenAIModels
from finetune_operator.providers.ports import HostRequest

_DATED = re.compile(r"(.+)-(\d{4}-\d{2}-\d{2})")

_STATES: dict[str, HostedState] = {
    "succeeded": "Ready",
    "failed": "Failed",
    "canceled": "Failed",
    "cancelled": "Failed",
    "disabled": "Failed",
    "deleting": "Deleting",
}
_SKUS = {sku.casefold(): sku for sku in get_args(AzureServing.model_fields["sku"].annotation)}
"""ARM's values are case-insensitive."""


class AzureDeployments:
    """The deployments of one account: one call each, without retries. PUT and DELETE by name are idempotent."""

    names_have_case = False

    def __init__(self, settings: AzureOpenAI, credential: Any, sdk: openai.AsyncOpenAI) -> None:
        self._base = base = settings.management_endpoint or MANAGEMENT
        self._place = (settings.resource_group, settings.account or "")
        self._options: dict[str, Any] = {"enforce_https": not base.startswith("http://"), "read_timeout": CALL_SECONDS}
        self._transport = RateLimitedTransport()
        self._arm = CognitiveServicesManagementClient(
            credential,
            settings.subscription_id,
            base_url=base,
            retry_total=0,
            permit_redirects=False,
            credential_scopes=[f"{base.rstrip('/')}/.default"],
            transport=self._transport,
        )
        self._sdk = sdk
        self._rest = ArmRest(base, credential, self._transport)
        self._monitor = AzureMonitor(self._rest, account_path(settings))

    async def close(self) -> None:
        """Close the connections."""
        await self._arm.close()
        await self._rest.close()

    def use_limiter(self, limiter: RateLimiter) -> None:
        """Each request to ARM waits for the rate limiter."""
        self._transport.turn = limiter.wait

    async def list(self) -> list[Hosted]:
        """All deployments of the account."""

        async def read() -> dict[str, Hosted]:
            found: dict[str, Hosted] = {}
            links = set[str]()
            standing: Any = self._arm.deployments.list(*self._place, **self._options)
            pages = standing.by_page()
            async for page in pages:  # an empty page may be followed by others
                found |= {one.name: one for one in [shown(each) async for each in page]}
                if pages.continuation_token in links:
                    break  # the list repeats a page for ever
                links.add(pages.continuation_token)
                limit_pages(len(links), "ARM")
            return found

        return [*(await ask(read(), self._base)).values()]

    async def details(self, hosted: Hosted) -> Hosted:
        """The deployment, with why it failed: only the operation that created it has this, the list has the rest."""
        why = await self._why(hosted.operation) if hosted.operation else ""
        return replace(hosted, state="Failed", failure=why) if why else hosted

    async def _why(self, operation: str) -> str:
        """Why an operation failed; "" if it did not, or ARM has dropped it, as it does after some days."""
        try:
            found = await self._rest.get(operation, {})
        except (NotThere, Unreadable, Forbidden):
            return ""
        except (Refused, TryLater) as error:
            if error.reason in {Reason.PROVIDER_REFUSED, Reason.QUOTA_EXCEEDED}:
                return error.message  # polling by Location ends with the error that the PUT would have had
            raise
        said, how = found.get("error") or {}, str(found.get("status") or "")
        words = sanitized(": ".join(str(said[part]) for part in ("code", "message") if said.get(part)))
        return words or how if _STATES.get(how.casefold()) == "Failed" else ""

    async def make(self, request: HostRequest) -> str | None:
        """PUT a deployment, without waiting: later lists show its state, and its operation why it failed."""
        followed: list[str] = []

        def note(answer: Any) -> None:
            headers = answer.http_response.headers
            followed.append(headers.get("Azure-AsyncOperation") or headers.get("Location") or "")

        async def put() -> None:
            begin, options = self._arm.deployments.begin_create_or_update, {**self._options, "raw_response_hook": note}
            try:
                await begin(*self._place, request.name, wanted(request), polling=False, **options)
            except HttpResponseError as error:
                if error.status_code != HTTPStatus.ACCEPTED:  # allowed by ARM, but not known to the SDK here
                    raise

        await ask(put(), self._base)
        return self._rest.path_of(followed[-1]) if followed else None

    async def delete(self, hosted: Hosted) -> None:
        """DELETE a deployment in ARM's spelling of its name; no error if it does not exist."""
        name = hosted.address or hosted.name
        try:
            call = self._arm.deployments.begin_delete(*self._place, name, polling=False, **self._options)
            await ask(call, self._base)
        except NotThere:
            return
        except Forbidden as error:
            # Denied, so that a deployment that may not be deleted does not stop calls on others.
            raise Denied.because(error.failure(), error.retry_after) from None

    async def answers(self, hosted: Hosted) -> bool:
        """Whether a deployment answers a request for one token: ARM shows Succeeded some minutes before it does."""
        return await OpenAIModels(self._sdk).answers(hosted.address or hosted.name)

    async def usage(self, hosted: Hosted, since: datetime, now: datetime) -> Figures:
        """The time of a deployment's last request, by Azure Monitor."""
        return await self._monitor.usage(hosted.address or hosted.name, since, now)


def account_path(settings: AzureOpenAI) -> str:
    """The account's resource identifier."""
    return (
        f"/subscriptions/{settings.subscription_id}/resourceGroups/{settings.resource_group}"
        f"/providers/Microsoft.CognitiveServices/accounts/{settings.account}"
    )


def wanted(request: HostRequest) -> arm.Deployment:
    """The body of ARM's PUT. Pure."""
    serving = serving_of(request.template)
    name, version = named_base(request.model) if request.is_base else (request.model, "1")
    model = arm.DeploymentModel(format="OpenAI", name=name, version=version)
    return arm.Deployment(
        sku=arm.Sku(name=serving.sku, capacity=serving.capacity),
        properties=arm.DeploymentProperties(model=model),
        tags={OWNER_TAG: request.owner},
    )


def named_base(model: str) -> tuple[str, str | None]:
    """ARM's name and version of a base model: gpt-4o-mini and 2024-07-18, or None for Azure's default version.

    A tuned model always has version 1, also as the base of another job.
    """
    if tuned_from(model):
        return model, "1"
    dated = _DATED.fullmatch(model)
    return (dated[1], dated[2]) if dated else (model, None)


def serving_of(template: DeploymentTemplate) -> AzureServing:
    """SKU and capacity; the defaults if the template has no block."""
    return template.azure_open_ai or AzureServing()


def shown(one: arm.Deployment) -> Hosted:
    """Convert a deployment from ARM. Pure."""
    model = one.properties.model if one.properties else None
    sku, capacity = (str(one.sku.name or ""), one.sku.capacity) if one.sku else ("", 1)
    sku = _SKUS.get(sku.casefold(), sku)
    made = one.system_data.created_at if one.system_data else None
    return Hosted(
        str(one.name),
        _state(one),
        model=str((model.name if model else None) or ""),
        sku=sku,
        units=azure_units(sku, capacity or 1),
        terms=in_words(sku, capacity) if sku and capacity else "",
        created_at=made,
    )


def _state(one: arm.Deployment) -> HostedState:
    """The state; an unknown one counts as in progress."""
    state = one.properties.provisioning_state if one.properties else None
    return _STATES.get(str(getattr(state, "value", state)).casefold(), "Creating")
