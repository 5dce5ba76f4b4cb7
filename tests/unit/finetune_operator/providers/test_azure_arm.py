"""What refusals on the way to ARM mean to us, of Entra and of ARM itself; how ARM names models."""

from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.async_paging import AsyncItemPaged, AsyncList
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from azure.mgmt.cognitiveservices import models as arm

from finetune_api.azure import AzureOpenAI
from finetune_api.deployment import DeploymentTemplate
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.providers.azure.arm import ask
from finetune_operator.providers.azure.deployments import AzureDeployments, named_base, shown
from finetune_operator.providers.azure.monitor import figures
from finetune_operator.providers.calls.errors import Denied, ProviderError, Refused, TryLater, Unreadable
from finetune_operator.providers.ports import HostRequest
from tests.simulators.azure import AzureSimulator
from tests.unit.finetune_operator.reconcilers.cloud import Token


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


def answer(status: int, **headers: str) -> SimpleNamespace:
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimpleNamespace(status_code=status, reason="No", headers=found)


@pytest.mark.parametrize("kind", [HttpResponseError, ResourceNotFoundError, ClientAuthenticationError])
async def test_a_portals_page_is_no_word_of_arm(kind: type[HttpResponseError]) -> None:
    async def refused() -> None:
        raise kind(response=answer(404, Content_Type="text/html; charset=utf-8"))

    with pytest.raises(Unreadable, match="a web page and status 404"):
        await ask(refused())


@pytest.mark.parametrize("status", [409, 429, 503])
async def test_arm_is_left_alone_as_long_as_it_asks_for(status: int) -> None:
    async def refused() -> None:
        raise HttpResponseError(response=answer(status, Retry_After="77"))

    with pytest.raises(ProviderError) as error:
        await ask(refused())
    assert error.value.retry_after == 77


def no_answer() -> Exception:
    return ServiceRequestError("nobody", error=ConnectionRefusedError())


ELSEWHERE: dict[str, Callable[[], Exception]] = {
    "nobody listens": no_answer,
    "a page": lambda: HttpResponseError(response=answer(200, Content_Type="text/html")),
    "another address": lambda: HttpResponseError(response=answer(302, Location="https://login.example")),
    "a broken proxy": lambda: HttpResponseError(response=answer(502)),
    "nobody to have a token for": lambda: ClientAuthenticationError("AADSTS500011: The resource principal", None),
}
NAMED = "azureOpenAI.managementEndpoint of the LLMConnection"


@pytest.mark.parametrize("base", ["https://management.azure.com", "https://management.example"])
@pytest.mark.parametrize("found", ELSEWHERE)
async def test_an_address_of_arm_that_an_admin_has_written_is_named_where_it_may_be_wrong(
    found: str, base: str
) -> None:
    async def refused() -> None:
        raised = ELSEWHERE[found]()
        raise raised

    with pytest.raises(ProviderError) as error:
        await ask(refused(), base)
    own = base == "https://management.example"
    assert (NAMED in error.value.message, base in error.value.message) == (own, own), error.value.message
    assert (NAMED in str(error.value.next_step)) is own


@pytest.mark.parametrize("status", [403, 409, 429])
async def test_an_address_that_is_arms_is_not_doubted(status: int) -> None:
    async def refused() -> None:
        raise HttpResponseError(response=answer(status))

    with pytest.raises(ProviderError) as error:
        await ask(refused(), "https://management.example")
    assert NAMED not in error.value.message


FOR_EVER = {"value": [{"name": "one"}], "nextLink": "again"}
LISTS: dict[str, tuple[dict[str | None, dict[str, Any]], list[str]]] = {
    "one page forever": ({None: FOR_EVER, "again": FOR_EVER}, ["one"]),
    "an empty page forever": (
        {None: {"value": [], "nextLink": "again"}, "again": {"value": [], "nextLink": "again"}},
        [],
    ),
    "empty pages between": (
        {
            None: {"value": [], "nextLink": "2"},
            "2": {"value": [{"name": "one"}], "nextLink": "3"},
            "3": {"value": [], "nextLink": "4"},
            "4": {"value": [{"name": "two"}], "nextLink": None},
        },
        ["one", "two"],
    ),
}


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_is_read_over_empty_pages_to_its_end_and_never_for_ever(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """For a page that has nothing, what comes after it would be taken for deleted."""
    pages, names = LISTS[name]
    made = deployments()
    nothing = {"properties": None, "sku": None, "system_data": None}

    async def get_next(link: str | None) -> dict[str, Any]:
        return pages[link]

    async def extract(found: dict[str, Any]) -> tuple[str | None, AsyncList[Any]]:
        return found["nextLink"], AsyncList([SimpleNamespace(**nothing, **one) for one in found["value"]])

    listed = SimpleNamespace(list=lambda *_, **__: AsyncItemPaged(get_next, extract))
    monkeypatch.setattr(made._arm, "deployments", listed)
    assert [one.name for one in await made.list()] == names
    await made.close()


def deployments() -> AzureDeployments:
    settings = AzureSimulator().settings
    block = AzureOpenAI.model_validate(
        {
            "endpoint": "https://models.example",
            "subscriptionID": settings.subscription,
            "resourceGroup": settings.resource_group,
            "account": settings.account,
            "credentials": {"workloadIdentity": True},
        }
    )
    return AzureDeployments(block, Token(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [202, 400])
async def test_a_deployment_that_arm_has_accepted_is_asked_for(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    made = deployments()

    async def put(*_: Any, **__: Any) -> None:
        raise HttpResponseError(response=answer(status))

    monkeypatch.setattr(made._arm, "deployments", SimpleNamespace(begin_create_or_update=put))
    with nullcontext() if status == 202 else pytest.raises(Refused):
        await made.make(HostRequest("md-v1", "gpt.ft-1", DeploymentTemplate(), "uid"))
    await made.close()


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


SPELT: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "as documented": ({"sku": "GlobalStandard", "state": "Succeeded"}, ("Ready", "GlobalStandard")),
    "in lower case": ({"sku": "globalstandard", "state": "succeeded"}, ("Ready", "GlobalStandard")),
    "in capitals": ({"sku": "STANDARD", "state": "FAILED"}, ("Failed", "Standard")),
    "as the British do": ({"sku": "Standard", "state": "cancelled"}, ("Failed", "Standard")),
    "words that nobody knows": ({"sku": "Lunar", "state": "Orbiting"}, ("Creating", "Lunar")),
    "nothing": ({"sku": None, "state": None}, ("Creating", "")),
}


@pytest.mark.parametrize("name", SPELT)
def test_arms_words_have_no_case(name: str) -> None:
    said, understood = SPELT[name]
    properties = {"provisioningState": said["state"]} if said["state"] else {}
    sku = {"sku": {"name": said["sku"], "capacity": 3}} if said["sku"] else {}
    one = shown(arm.Deployment.from_dict({"name": "d", "properties": properties, **sku}))
    assert (one.state, one.sku) == understood


NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
METRICS: dict[str, dict[str, Any]] = {
    "as documented": {"name": {"value": "AzureOpenAIRequests"}, "errorCode": "Success"},
    "with another case": {"name": {"value": "azureopenairequests"}, "errorCode": "success"},
    "without a code": {"name": {"value": "AzureOpenAIRequests"}, "errorCode": None},
}


@pytest.mark.parametrize("stamp", ["2026-11-21T11:00:00Z", "2026-11-21T11:00:00.0000000Z", "2026-11-21T11:00:00"])
@pytest.mark.parametrize("name", METRICS)
def test_a_request_shows_however_azure_monitor_spells_it(name: str, stamp: str) -> None:
    points = [{"timeStamp": stamp, "total": 2.0}, {"timeStamp": "2026-11-21T11:30:00Z"}]
    answer = {"value": [METRICS[name] | {"timeseries": [{"data": points}]}]}
    assert figures(answer, timedelta(minutes=5), NOON).last == NOON - timedelta(minutes=55)


_LOCK = "The scope '/x' cannot perform delete operation because following scope(s) are locked: '/x'."
_RIGHT = (
    "The client '1' with object id '2' does not have authorization to perform action "
    "'Microsoft.CognitiveServices/accounts/deployments/write' over scope '/x' or the scope is invalid."
)
_SKU = "The specified SKU 'Standard' for model 'm' is not supported in this region 'westus'."
_QUOTA = "The specified capacity '9' of account deployment is bigger than available capacity '0'"
INVALID, QUOTA, NO = Reason.CREDENTIALS_INVALID, Reason.QUOTA_EXCEEDED, Reason.PROVIDER_REFUSED
REFUSED: dict[str, tuple[int, str, str, Reason, str, str]] = {
    "another operation": (
        409,
        "RequestConflict",
        "try again later",
        Reason.RATE_LIMITED,
        "another deployment",
        "Nothing",
    ),
    "another operation, in other words": (
        409,
        "Conflict",
        "busy",
        Reason.RATE_LIMITED,
        "another deployment",
        "Nothing",
    ),
    "a proxy that asks who asks": (407, "", "", Reason.PROVIDER_UNAVAILABLE, "status 407", "Nothing"),
    "a lock": (409, "ScopeLocked", _LOCK, NO, "a lock is on the account", "take the lock off"),
    "a policy": (403, "RequestDisallowedByPolicy", "no", NO, "policy of Azure denies", "exemption"),
    "not registered": (409, "MissingSubscriptionRegistration", "no", NO, "CognitiveServices is not", "register it"),
    "disabled": (409, "ReadOnlyDisabledSubscription", "no", NO, "is disabled", "subscription"),
    "group goes": (409, "ResourceGroupBeingDeleted", "no", NO, "being deleted", "subscription"),
    "a right": (403, "AuthorizationFailed", _RIGHT, INVALID, "the right Microsoft.CognitiveServices/acc", "admin"),
    "expired": (401, "ExpiredAuthenticationToken", "no", INVALID, "(401 ExpiredAuthenticationToken)", "admin"),
    "no SKU there": (
        400,
        "InvalidResourceProperties",
        _SKU,
        NO,
        "SKU 'Standard' for model 'm'",
        "Correct what the mess",
    ),
    "no model there": (400, "DeploymentModelNotSupported", "no such", NO, "no such", "Correct what the mess"),
    "no capacity": (400, "InsufficientQuota", _QUOTA, QUOTA, "capacity '0'", "Raise the quota"),
    "throttled": (429, "TooManyRequests", "no", Reason.RATE_LIMITED, "patience", "Nothing"),
    "broken": (500, "InternalServerError", "no", Reason.PROVIDER_UNAVAILABLE, "500", "Nothing"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_each_refusal_of_arm_has_its_reason_and_what_can_be_done(name: str) -> None:
    status, code, message, reason, words, step = REFUSED[name]

    async def refused() -> None:
        error = HttpResponseError(response=answer(status))
        error.error = SimpleNamespace(code=code, message=message)  # type: ignore[assignment]
        raise error

    with pytest.raises(ProviderError) as caught:
        await ask(refused())
    found = caught.value.failure()
    assert (found.reason, words in found.message, step in str(found.next_step)) == (reason, True, True), found


async def test_a_lock_is_in_the_way_of_one_deletion_and_of_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    made = deployments()

    async def delete(*_: Any, **__: Any) -> None:
        error = HttpResponseError(response=answer(409))
        error.error = SimpleNamespace(code="ScopeLocked", message=_LOCK)  # type: ignore[assignment]
        raise error

    monkeypatch.setattr(made._arm, "deployments", SimpleNamespace(begin_delete=delete))
    with pytest.raises(Denied) as caught:
        await made.delete(Hosted("md-v1", "Ready"))
    assert (caught.value.reason, "lock" in str(caught.value.failure().next_step)) == (NO, True)
    await made.close()
