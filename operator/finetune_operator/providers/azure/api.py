"""Azure OpenAI's data plane: OpenAI's API with a training type, shorter names, and Entra tokens instead of a key."""

import logging
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError

from finetune_api.azure import AzureOpenAI
from finetune_api.reasons import Reason
from finetune_operator.decide.job.remote import JobKey, RemoteJob
from finetune_operator.providers.azure.deployments import AzureDeployments
from finetune_operator.providers.azure.entra import token_error
from finetune_operator.providers.calls.errors import NotThere, ProviderError, Refused, TryLater
from finetune_operator.providers.calls.rate_limit import RateLimiter
from finetune_operator.providers.openai.api import OpenAIApi
from finetune_operator.providers.openai.client import client
from finetune_operator.providers.ports import Credential, HostingApi, JobRequest

logger = logging.getLogger(__name__)

_OWN_ADDRESS = re.compile(r"([a-z0-9-]+)\.(openai|cognitiveservices|services\.ai)\.azure\.(com|us|cn)")
TRAINING_TYPES = {"Standard": "Standard", "GlobalStandard": "GlobalStandard", "DeveloperTier": "developerTier"}
"""Azure's training types by ours."""


def resource_of(endpoint: str) -> str | None:
    """The resource of an endpoint, by the host's first label, which is unique.

    None for the address of a gateway or a region, which does not tell the resource.
    """
    found = _OWN_ADDRESS.fullmatch(urlsplit(endpoint).hostname or "")
    return f"Azure resource {found[1]}" if found else None


def scope_of(endpoint: str) -> str:
    """The token scope of an endpoint: the US government and China clouds have their own."""
    found = _OWN_ADDRESS.fullmatch(urlsplit(endpoint).hostname or "")
    return f"https://cognitiveservices.azure.{found[3] if found else 'com'}/.default"


class AzureOpenAIApi(OpenAIApi):
    """A FineTuningApi over OpenAI's SDK and Azure's `/openai/v1`."""

    suffix_limit = 18
    models_answer = False

    def __init__(self, settings: AzureOpenAI, credential: Credential) -> None:
        if settings.endpoint is None:
            message = "azureOpenAI.workspace has not been resolved yet: the status of its LLMConnection says why"
            raise TryLater(Reason.PROVIDER_UNAVAILABLE, message)
        tokens = token_of(credential, scope_of(settings.endpoint))
        super().__init__(client(f"{settings.endpoint.rstrip('/')}/openai/v1/", tokens))
        self._token = tokens
        self._endpoint = settings.endpoint
        self._credential = credential
        self._deployments = AzureDeployments(settings, credential, self._sdk)
        self._training_type = TRAINING_TYPES[settings.training_type]

    async def close(self) -> None:
        """Close the connections."""
        await super().close()
        await self._deployments.close()
        await self._credential.close()

    def use_limiter(self, limiter: RateLimiter) -> None:
        """Each request waits for the rate limiter, including those to ARM."""
        super().use_limiter(limiter)
        self._deployments.use_limiter(limiter)

    async def check(self) -> None:
        """As OpenAI's, and check that ARM has the account: otherwise the error would appear after a job was paid for.

        A missing permission at ARM is no error, since tuning needs none.
        """
        await super().check()
        try:
            await self._deployments.list()
        except NotThere as error:
            message = f"subscriptionID, resourceGroup or account of azureOpenAI is wrong: {error.message}"
            raise Refused(Reason.PROVIDER_REFUSED, message) from None
        except ProviderError as error:
            logger.info("ARM cannot be asked about the account: %s", error.message)

    async def account(self) -> str | None:
        """The endpoint's resource, if it is one of Azure's own addresses."""
        return resource_of(self._endpoint)

    async def find(self, key: JobKey, since: datetime) -> list[RemoteJob]:  # noqa: ARG002 - see there
        """All jobs since then: Azure may drop labels, and then a filter by labels would return nothing."""
        return await self.jobs(since)

    def hosting(self) -> HostingApi:
        """Deployments of the account, through ARM."""
        return self._deployments

    async def _wait(self) -> None:
        """As OpenAI's, but fetch a token first, so that this does not delay the request after its turn has come."""
        await self._token()
        await super()._wait()

    def _extra_arguments(self, request: JobRequest) -> dict[str, Any]:  # noqa: ARG002 - the same for every job
        """The training type, without which Azure says that the base model cannot be tuned."""
        return {"extra_body": {"trainingType": self._training_type}}


def token_of(credential: Credential, scope: str) -> Callable[[], Awaitable[str]]:
    """The function that the SDK calls for each request; azure-identity caches tokens.

    It raises ProviderError if Entra gives no token, without Entra's message, which may contain parts of a secret.
    """

    async def token() -> str:
        try:
            return str((await credential.get_token(scope)).token)
        except AzureError as error:
            raise token_error(error, "the connection's credentials") from None

    return token
