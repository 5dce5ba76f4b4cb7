"""AWS calls of one connection: its session, and threads beside the event loop. Independent of the services.

boto3 has no asyncio support. Each connection has its own threads, so that one that waits for AWS does not block others.
The SDK's retries are off: whether a call without an answer was carried out, only a lookup can tell.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

from botocore import __version__ as boto_version
from botocore import exceptions as boto
from botocore.config import Config
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from botocore.session import Session

from finetune_api import RELEASE
from finetune_api.aws import AwsCredentials
from finetune_api.reasons import Reason
from finetune_operator.providers.aws.answers import Bounded, require_answer
from finetune_operator.providers.aws.line import POOLS, Line
from finetune_operator.providers.aws.refusals import STORE, translated
from finetune_operator.providers.calls.errors import ProviderError, TryLater, Unreadable, limit_pages
from finetune_operator.providers.calls.failed_calls import unanswered
from finetune_operator.providers.calls.rate_limit import RateLimiter
from finetune_operator.providers.calls.timeouts import seconds_for
from finetune_operator.providers.calls.values import sanitized
from finetune_operator.providers.connection_secret import AWS_KEYS

T = TypeVar("T")

POD_METHODS = frozenset({"assume-role-with-web-identity", "container-role"})
"""Credential providers for a pod's own identity. The node's role and files in the image must not be used."""

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 20.0
THREADS = 16
AGENT = f"finetune-operator/{RELEASE} Botocore/{boto_version}"
"""The user agent in CloudTrail. Without it botocore builds its own for every request."""


def session_of(credentials: AwsCredentials, secret: Mapping[str, str], region: str) -> Session:
    """A session that signs with the Secret's keys, or with the identity of the operator's own pod.

    A botocore session, which boto3's are built on: unlike boto3's it can share the services' models.
    """
    session = Session()
    session.register_component("data_loader", _loader())
    session.set_config_variable("region", region)
    trusted = os.environ.get("SSL_CERT_FILE")
    if trusted and session.get_config_variable("ca_bundle") is None:
        session.set_config_variable("ca_bundle", trusted)  # as in the rest of the operator
    if credentials.secret_ref is not None:
        session.set_credentials(*(secret[name] for name in AWS_KEYS))
        return session
    resolver = session.get_component("credential_provider")
    for method in [provider.METHOD for provider in resolver.providers]:
        if method not in POD_METHODS:
            resolver.remove(method)
    return session


@cache
def _loader() -> Loader:
    """The services' models, loaded once for all connections: they take megabytes, and tenths of a second."""
    return create_loader()


class Aws:
    """Calls to AWS's services with one connection's session.

    Args:
        session: signs the requests.
        endpoints: addresses of services, if not AWS's public ones, by boto3's service names.
        patience: read timeouts of services that take longer than others, by the same names.
    """

    def __init__(
        self,
        session: Session,
        endpoints: Mapping[str, str] | None = None,
        patience: Mapping[str, float] | None = None,
    ) -> None:
        self._session = session
        self._endpoints = endpoints or {}
        self._patience = patience or {}
        self._clients: dict[str, Any] = {}
        self._limiter: RateLimiter | None = None
        self._building = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="aws")

    async def close(self) -> None:
        """Accept no more calls; running ones finish."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    def use_limiter(self, limiter: RateLimiter) -> None:
        """Each request waits for the rate limiter, except S3's, whose own limits are a thousand times as high."""
        self._limiter = limiter

    async def account(self) -> str | None:
        """The account by STS, which requires no permission; None if the private endpoints do not include STS.

        Raises:
            ProviderError: see `translated`.
        """
        if self._endpoints and "sts" not in self._endpoints:
            return None
        return f"AWS account {(await self.call('sts', 'get_caller_identity'))['Account']}"

    async def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """One call, by boto3's names of service and operation.

        Raises:
            ProviderError: see `translated`.
        """
        sent = len(arguments.get("Body", b""))
        return await self.run(service, lambda client: getattr(client, operation)(**arguments), size=sent)

    async def pages(self, service: str, operation: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
        """The items under `key` of all pages of a list.

        Raises:
            ProviderError: see `translated`.
            Unreadable: it has no end.
        """
        pages: Any = None
        listed: Iterator[dict[str, Any]] | None = None

        def read(client: Any) -> tuple[dict[str, Any], bool]:
            nonlocal pages, listed
            if listed is None:
                pages = client.get_paginator(operation).paginate(**arguments)
                listed = iter(pages)
            page = next(listed)
            # Asking the iterator for another page would wait for the rate limiter without making a call.
            return page, any(pages._get_next_token(page).values())  # noqa: SLF001 - there is no public way

        found: list[dict[str, Any]] = []
        count, more = 0, True
        while more:
            page, more = await self.run(service, read)
            found += page.get(key) or []
            limit_pages(count := count + 1, service)
        return found

    async def run(self, service: str, do: Callable[[Any], T], *, rate_limited: bool = True, size: int = 0) -> T:
        """Call `do` with the service's client, in a thread.

        Args:
            service: by boto3's name.
            do: one call.
            rate_limited: whether to wait for the rate limiter.
            size: bytes that it sends or reads, if many.

        Raises:
            ProviderError: see `translated`.
        """
        if self._limiter is not None and rate_limited and service != STORE:
            await self._limiter.wait()
        loop, line = asyncio.get_running_loop(), Line()
        try:
            async with asyncio.timeout(seconds_for(self._patience.get(service, ANSWER_SECONDS), size)):
                return await loop.run_in_executor(self._threads, partial(self._run, service, do, line))
        except TimeoutError as error:
            line.abort()
            raise unanswered(error, service) from None
        except (boto.ClientError, boto.BotoCoreError) as error:
            raise translated(error, service) from None
        except (ResponseParserError, RuntimeError):  # RuntimeError for invalid timestamps
            raise Unreadable(f"{service} answers with something else") from None

    def _run(self, service: str, do: Callable[[Any], T], line: Line) -> T:
        with line.tracking():
            return do(self._client(service))

    def _client(self, service: str) -> Any:
        """The service's client, created on first use in the call's thread: loading a service's model takes a while."""
        with self._building:
            if service not in self._clients:
                endpoint = self._endpoints.get(service)
                config = Config(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=self._patience.get(service, ANSWER_SECONDS),
                    retries={"total_max_attempts": 1},
                    max_pool_connections=THREADS,
                    user_agent=AGENT,
                    s3={"addressing_style": "path"} if endpoint else None,
                )
                try:
                    client = self._session.create_client(service, endpoint_url=endpoint, config=config)
                except ValueError:  # invalid host or port
                    raise _no_address(service, str(endpoint)) from None
                client.meta.events.register("before-send", self._require_limiter)
                client.meta.events.register("before-parse", require_answer)
                http = client._endpoint.http_session  # noqa: SLF001 - there is no setting for this and the next two
                http._pool_classes_by_scheme.update(POOLS)  # noqa: SLF001
                client._endpoint.http_session = Bounded(http)  # noqa: SLF001
                self._clients[service] = client
            return self._clients[service]

    def _require_limiter(self, **_: Any) -> None:
        """Check the guard once more: the thread may have waited for its start, or for credentials."""
        if self._limiter is not None:
            self._limiter.require()


def _no_address(service: str, endpoint: str) -> ProviderError:
    """The error for an invalid endpoint, for which no client can be created."""
    message = f"{sanitized(endpoint)}, where {service} is to be, can be no host's address"
    step = "Ask an admin to correct the LLMConnection's endpoints: a host's name has letters, digits and dashes."
    return TryLater(Reason.PROVIDER_UNAVAILABLE, message, next_step=step)
