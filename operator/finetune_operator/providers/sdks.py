"""Clients of providers, whose SDKs are imported when the first connection of their kind is used.

They are two thirds of all modules, tens of MiB and seconds of a start: who trains on the cluster alone needs none.
"""

import asyncio
from collections.abc import Mapping
from importlib import import_module

from finetune_api.azure import AzureOpenAI, AzureResolved, AzureWorkspace
from finetune_api.connection import LLMConnectionSpec
from finetune_api.reasons import Reason
from finetune_operator.providers.errors import Refused
from finetune_operator.providers.ports import Credential, FineTuningApi

_ROOMS = {"openAI": "openai", "azureOpenAI": "azure", "bedrock": "bedrock", "sageMaker": "sagemaker"}
"""By the provider's block, the package here whose `api` imports its SDK."""

REMOTE = frozenset(_ROOMS)
"""Provider blocks of providers outside of the cluster that this release knows."""


async def imported(provider: str) -> None:
    """Wait until a provider's SDK is there: it is read in a thread, since the event loop has other work."""
    room = _ROOMS.get(provider)
    if room is not None:
        await asyncio.to_thread(import_module, f"{__package__}.{room}.api")


def build_api(spec: LLMConnectionSpec, secret: Mapping[str, str]) -> FineTuningApi:
    """The API of a connection.

    Raises:
        Refused: this release does not have its provider.
    """
    if spec.azure_open_ai is not None:
        from finetune_operator.providers.azure.api import AzureOpenAIApi

        return AzureOpenAIApi(spec.azure_open_ai, credential_of(spec.azure_open_ai, secret))
    if spec.bedrock is not None:
        from finetune_operator.providers.bedrock.api import BedrockApi

        return BedrockApi(spec.bedrock, secret)
    if spec.sage_maker is not None:
        from finetune_operator.providers.sagemaker.api import SageMakerApi

        return SageMakerApi(spec.sage_maker, secret)
    if spec.open_ai is None:
        raise Refused(Reason.PROVIDER_NOT_SUPPORTED, f"this release does not use {spec.provider} connections")
    from finetune_operator.providers.openai.api import OpenAIApi
    from finetune_operator.providers.openai.client import client

    settings = spec.open_ai
    key = secret[settings.api_key_secret_ref.key]
    address = settings.base_url.rstrip("/")
    return OpenAIApi(client(address, key, organization=settings.organization, project=settings.project))


def credential_of(settings: AzureOpenAI, secret: Mapping[str, str]) -> Credential:
    """The operator's identity at Azure."""
    from finetune_operator.providers.azure import entra

    return entra.credential_of(settings, secret)


async def resolve(azure: AzureOpenAI, workspace: AzureWorkspace, credential: Credential) -> AzureResolved:
    """Where an AzureML workspace leads.

    Raises:
        ProviderError: it cannot be found out.
    """
    from finetune_operator.providers.azure import workspace as azure_workspace
    from finetune_operator.providers.azure.arm import ArmRest

    arm = ArmRest(azure.management_endpoint, credential)
    try:
        return await azure_workspace.resolve(arm, azure, workspace)
    finally:
        await arm.close()


def is_remote(spec: LLMConnectionSpec | None) -> bool:
    """Whether the connection's provider is outside of the cluster, and one that this release knows."""
    return spec is not None and spec.provider in REMOTE
