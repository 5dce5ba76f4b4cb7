"""Resolves endpoint and account of Azure OpenAI from an AzureML workspace's connection: two GETs at ARM, without keys.

The workspace names the account, and ARM the account's endpoint, so that the operator's tokens are never sent to an
address that an editor of the workspace typed in.
"""

import re
from collections.abc import Mapping
from typing import Any

from finetune_api.azure import AzureOpenAI, AzureResolved, AzureWorkspace
from finetune_api.reasons import Reason
from finetune_operator.providers.azure.arm import ArmRest
from finetune_operator.providers.calls.errors import NotThere, Refused

WORKSPACES_VERSION, ACCOUNTS_VERSION = "2024-10-01", "2025-09-01"
CATEGORIES = frozenset({"AzureOpenAI", "AIServices"})
OPENAI_ENDPOINT = "OpenAI Language Model Instance API"
"""ARM's name of the Azure OpenAI endpoint of an account with several endpoints."""

_ACCOUNT = re.compile(
    r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/Microsoft\.CognitiveServices/accounts/([^/]+)/?",
    re.IGNORECASE,
)


async def resolve(arm: ArmRest, settings: AzureOpenAI, workspace: AzureWorkspace) -> AzureResolved:
    """Where the workspace's connection leads.

    Raises:
        ProviderError: workspace, connection or account cannot be read, or lead to no account of Azure OpenAI.
    """
    path = (
        f"/subscriptions/{settings.subscription_id}/resourceGroups/{settings.resource_group}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{workspace.name}/connections/{workspace.connection}"
    )
    try:
        connection = await arm.get(path, {"api-version": WORKSPACES_VERSION})
    except NotThere:
        said = (
            f"azureOpenAI.workspace: resource group {settings.resource_group} has no AzureML workspace "
            f"{workspace.name} with a connection {workspace.connection}"
        )
        raise NotThere(Reason.SPEC_INVALID, said) from None
    account = account_of(connection, settings, workspace)
    try:
        found = await arm.get(account, {"api-version": ACCOUNTS_VERSION})
    except NotThere:
        said = f"{_where(workspace)} leads to account {account}, which is not there"
        raise NotThere(Reason.SPEC_INVALID, said) from None
    return resolved(account, found, workspace)


def _where(workspace: AzureWorkspace) -> str:
    return f"azureOpenAI.workspace: connection {workspace.connection} of workspace {workspace.name}"


def account_of(connection: Mapping[str, Any], settings: AzureOpenAI, workspace: AzureWorkspace) -> str:
    """The account's resource identifier. Pure.

    Raises:
        Refused: the connection leads to something else, or does not name an account.
    """
    properties = connection.get("properties") or {}
    category, metadata = properties.get("category"), properties.get("metadata") or {}
    where = _where(workspace)
    if category not in CATEGORIES:
        raise Refused(Reason.SPEC_INVALID, f"{where} is to {category}, not to Azure OpenAI")
    named = next((str(value) for key, value in metadata.items() if key.lower() == "resourceid" and value), None)
    if named is None and settings.account is not None:
        group = f"/subscriptions/{settings.subscription_id}/resourceGroups/{settings.resource_group}"
        return f"{group}/providers/Microsoft.CognitiveServices/accounts/{settings.account}"
    if named is None or not _ACCOUNT.fullmatch(named):
        raise Refused(Reason.SPEC_INVALID, f"{where} does not say which account it is to: write azureOpenAI.account")
    return named.rstrip("/")


def resolved(account: str, found: Mapping[str, Any], workspace: AzureWorkspace) -> AzureResolved:
    """Endpoint and account from ARM's answer. Pure.

    Raises:
        Refused: it has no endpoint.
    """
    match = _ACCOUNT.fullmatch(account)
    properties = found.get("properties") or {}
    endpoint = (properties.get("endpoints") or {}).get(OPENAI_ENDPOINT) or properties.get("endpoint")
    if match is None or not endpoint:
        raise Refused(Reason.SPEC_INVALID, f"account {account.rpartition('/')[2]} has no endpoint yet")
    subscription, group, name = match.groups()
    return AzureResolved(
        workspace=workspace.name,
        connection=workspace.connection,
        endpoint=str(endpoint).rstrip("/"),
        subscription_id=subscription,
        resource_group=group,
        account=name,
    )
