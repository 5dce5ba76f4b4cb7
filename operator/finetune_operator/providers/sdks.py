"""Builds providers' clients, importing an SDK when the first connection of its kind is used.

SDKs are two thirds of all modules, tens of MiB and seconds of startup, and not needed for training on the cluster.
"""

import asyncio
from collections.abc import Mapping
from importlib import import_module

from finetune_api.azure import AzureOpenAI, AzureResolved, AzureWorkspace
from finetune_api.connection import LLMConnectionSpec
from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import Refused
from finetune_operator.providers.ports import Credential, FineTuningApi

_PACKAGES = {"openAI": "openai", "azureOpenAI": "azure", "bedrock": "bedrock", "sageMaker": "sagemaker"}
"""By provider block, the package whose `api` module imports its SDK."""

REMOTE = frozenset(_PACKAGES)
"""Provider blocks outside of the cluster that this release supports."""


async def imported(provider: str) -> None:
    """Import a provider's SDK, in a thread so that the event loop is not blocked."""
    room = _PACKAGES.get(provider)
    if room is not None:
        await asyncio.to_thread(import_module, f"{__package__}.{room}.api")


def build_api(spec: LLMConnectionSpec, secret: Mapping[str, str]) -> FineTuningApi:
    """The API of a connection.

    Raises:
        Refused: this release does not support its provider.
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
        ProviderError: it cannot be resolved.
    """
    from finetune_operator.providers.azure import workspace as azure_workspace
    from finetune_operator.providers.azure.arm import ArmRest

    arm = ArmRest(azure.management_endpoint, credential)
    try:
        return await azure_workspace.resolve(arm, azure, workspace)
    finally:
        await arm.close()


def is_remote(spec: LLMConnectionSpec | None) -> bool:
    """Whether the connection's provider is outside of the cluster and supported by this release."""
    return spec is not None and spec.provider in REMOTE
