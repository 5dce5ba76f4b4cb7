"""AWS for one connection: whose keys sign, calls beside the event loop, and what its refusals mean. Knows no service.

boto3 has no asyncio: each connection has threads of its own, so that one that waits for AWS holds up no other. The
SDK repeats nothing here: whether a call that was not answered was done, only a look-up can tell.
"""

import asyncio
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
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
from finetune_operator.providers.connection_secret import AWS_KEYS
from finetune_operator.providers.errors import (
    Denied,
    NotThere,
    ProviderError,
    Refused,
    TryLater,
    Unknown,
    Unreadable,
    require_end,
)
from finetune_operator.providers.in_time import seconds_for
from finetune_operator.providers.pace import Pace
from finetune_operator.providers.retry_after import asked_pause
from finetune_operator.providers.unanswered import moved, unanswered
from finetune_operator.providers.values import plain

T = TypeVar("T")

POD_METHODS = frozenset({"assume-role-with-web-identity", "container-role"})
"""How a pod has an identity of its own. Neither the node's role nor a file in the image is the operator's."""

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 20.0
THREADS = 16
STORE = "s3"
AGENT = f"finetune-operator/{RELEASE} Botocore/{boto_version}"
"""Who asks, as CloudTrail shows it. Without one botocore puts its own together at every request."""
KEY_PAUSE_SECONDS, ROLE_PAUSE_SECONDS, CONFLICT_PAUSE_SECONDS = 60.0, 60.0, 30.0
THROTTLE_PAUSE_SECONDS, QUOTA_PAUSE_SECONDS = 30.0, 300.0

_KEYS = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidToken",
        "RequestExpired",
        "AuthFailure",
        "InvalidIdentityToken",
        "TokenRefreshRequired",
    }
)
_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
_LATE = re.compile(r"signature (has )?expired|signature not yet current", re.IGNORECASE)
"""In messages about signatures: the clocks differ, and the keys are good."""
_ELSEWHERE = frozenset(
    {
        *("PermanentRedirect", "TemporaryRedirect", "301", "307", "308"),
        *("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
    }
)
"""S3's ways to say that a bucket is in another region."""
_UNHEARD = frozenset({"RequestTimeout", "RequestTimeoutException", "IDPCommunicationError", "BadGateway", "407"})
"""Refusals with a 4xx status that tell nothing of what was asked: it, or part of it, did not come through."""
_NO_ANSWER = frozenset({408, 424})
"""Of a model that took too long, or broke: it may answer the next question."""
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "OptInRequired", "403"})
_THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "429",
    }
)
_QUOTA = frozenset({"ServiceQuotaExceededException", "LimitExceededException", "ResourceLimitExceeded"})
_ABSENT = frozenset({"ResourceNotFoundException", "ResourceNotFound", "NoSuchKey", "NoSuchUpload", "NotFound", "404"})
_MISSING = re.compile(
    "not found|(could not|cannot|unable to) find|does not exist|no such|identifier is invalid", re.IGNORECASE
)
"""In refusals: SageMaker has no code of its own for what is not there, and Bedrock does not always use its own."""
_NO_NAME = "validation error detected"
"""Of what is asked about: nothing can have such a name."""
NO_OPERATION = "UnknownOperationException"
"""What AWS says where a region does not have what is called."""
_CONFLICT = frozenset({"ConflictException", "ResourceInUse", "ResourceInUseException", "409"})
_ROLE = re.compile(r"(could not|unable to|cannot) assume|iam:PassRole|trust (policy|relationship)", re.IGNORECASE)
"""In messages about the role that a service is to take: AWS has no code for that."""

_OF_BUCKET = re.compile(
    r"bucket[^.]{0,80} (is in|not in|different|another|same) [^.]{0,20}region",
    re.IGNORECASE,
)
"""In messages about the place of the data, for which AWS has no code either."""

_NO_DATA = "No S3 objects found"
_NO_DATA_STEP = (
    "If the connection's role may list the bucket, somebody has deleted the data there: set spec.retryNonce to have "
    "them checked and brought there again."
)


def session_of(credentials: AwsCredentials, secret: Mapping[str, str], region: str) -> Session:
    """A session that signs with the Secret's keys, or with the identity of the operator's own pod.

    boto3's clients are made by botocore's sessions; these, unlike boto3's own, can share what they know of services.
    """
    session = Session()
    session.register_component("data_loader", _loader())
    session.set_config_variable("region", region)
    trusted = os.environ.get("SSL_CERT_FILE")
    if trusted and session.get_config_variable("ca_bundle") is None:
        session.set_config_variable("ca_bundle", trusted)  # whom all else of the operator trusts
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
    """The services' models, read once for all connections: they take megabytes, and tenths of a second."""
    return create_loader()


class Aws:
    """Calls on AWS's services with one connection's session.

    Args:
        session: whose keys sign.
        endpoints: addresses of services where they are not AWS's public ones, by boto3's names of the services.
        patience: seconds for an answer of services that take longer than others, by the same names.
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
        self._pace: Pace | None = None
        self._building = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="aws")

    async def close(self) -> None:
        """Take no more calls; those on their way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    def keep_pace(self, pace: Pace) -> None:
        """Each request waits, but for those to S3: its limits are a thousand times as high, and nobody else's."""
        self._pace = pace

    async def account(self) -> str | None:
        """Whose keys sign, by STS, which asks for no right; None where private endpoints leave it out.

        Raises:
            ProviderError: as `translated` says.
        """
        if self._endpoints and "sts" not in self._endpoints:
            return None
        return f"AWS account {(await self.call('sts', 'get_caller_identity'))['Account']}"

    async def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """One call, by boto3's names of service and operation.

        Raises:
            ProviderError: as `translated` says.
        """
        sent = len(arguments.get("Body", b""))
        return await self.run(service, lambda client: getattr(client, operation)(**arguments), size=sent)

    async def pages(self, service: str, operation: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
        """What a list has under `key`, all pages of it.

        Raises:
            ProviderError: as `translated` says.
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
            # To ask the iterator would take another turn, for no call.
            return page, any(pages._get_next_token(page).values())  # noqa: SLF001 - nothing public tells

        found: list[dict[str, Any]] = []
        count, more = 0, True
        while more:
            page, more = await self.run(service, read)
            found += page.get(key) or []
            require_end(count := count + 1, service)
        return found

    async def run(self, service: str, do: Callable[[Any], T], *, paced: bool = True, size: int = 0) -> T:
        """What `do` makes of the service's client, in a thread.

        Args:
            service: by boto3's name.
            do: one call.
            paced: once it is this call's turn.
            size: bytes that it sends or reads, where they are many.

        Raises:
            ProviderError: as `translated` says.
        """
        if self._pace is not None and paced and service != STORE:
            await self._pace.wait()
        loop, line = asyncio.get_running_loop(), Line()
        try:
            async with asyncio.timeout(seconds_for(self._patience.get(service, ANSWER_SECONDS), size)):
                return await loop.run_in_executor(self._threads, partial(self._run, service, do, line))
        except TimeoutError as error:
            line.hang_up()
            raise unanswered(error, service) from None
        except (boto.ClientError, boto.BotoCoreError) as error:
            raise translated(error, service) from None
        except (ResponseParserError, RuntimeError):  # the second one of moments that no calendar has
            raise Unreadable(f"{service} answers with something else") from None

    def _run(self, service: str, do: Callable[[Any], T], line: Line) -> T:
        with line.held():
            return do(self._client(service))

    def _client(self, service: str) -> Any:
        """Made when it is first asked for, in a thread: reading a service's model takes a while."""
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
                except ValueError:  # of its host, or its port
                    raise _no_address(service, str(endpoint)) from None
                client.meta.events.register("before-send", self._require_pace)
                client.meta.events.register("before-parse", require_answer)
                http = client._endpoint.http_session  # noqa: SLF001 - no setting has it, nor the next two
                http._pool_classes_by_scheme.update(POOLS)  # noqa: SLF001
                client._endpoint.http_session = Bounded(http)  # noqa: SLF001
                self._clients[service] = client
            return self._clients[service]

    def _require_pace(self, **_: Any) -> None:
        """A thread may have waited for its start, or for credentials, after its turn had come."""
        if self._pace is not None:
            self._pace.require()


_NO_IDENTITY = (
    "Ask an admin to give the operator's service account an identity (EKS Pod Identity, or a role in the chart's "
    "serviceAccount.annotations), or to name a Secret in credentials.secretRef."
)


def _no_address(service: str, endpoint: str) -> ProviderError:
    """Nobody is asked: no client is made for such an address."""
    found = TryLater(
        Reason.PROVIDER_UNAVAILABLE, f"{plain(endpoint)}, where {service} is to be, can be no host's address"
    )
    found.next_step = (
        "Ask an admin to correct the LLMConnection's endpoints: a host's name has letters, digits and dashes."
    )
    return found


def translated(error: boto.ClientError | boto.BotoCoreError, service: str) -> ProviderError:
    """AWS's refusal, or its silence, in our own terms. Raise it `from None`: requests have signatures."""
    if isinstance(error, boto.ClientError):
        return _refusal(error, service)
    kind = type(error).__name__
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
        message = f"the operator's pod has no identity at AWS ({kind}): check its service account"
        refused = TryLater(Reason.CREDENTIALS_INVALID, message, KEY_PAUSE_SECONDS)
        refused.next_step = _NO_IDENTITY
        return refused
    if isinstance(error, boto.ParamValidationError | boto.InvalidRegionError):
        return Refused(Reason.PROVIDER_REFUSED, f"{service} cannot be asked that ({kind})")
    return unanswered(error, service)


def _refusal(error: boto.ClientError, service: str) -> ProviderError:
    code, said = str(error.response.get("Error", {}).get("Code", "")), _said(error)
    return _of_the_asker(error, service, code, said) or _of_what_was_asked(error, service, code, said)


def _of_the_asker(  # noqa: PLR0911 - a table
    error: boto.ClientError, service: str, code: str, said: str
) -> TryLater | None:
    """A no to whoever asks, or to the place: keys, clock, rights, role, bucket. None where it is another one."""
    if code in _CLOCK or (code in _KEYS and _LATE.search(said)):
        message = f"{service} refuses the time of the operator's requests ({code}): its node's clock is wrong"
        return TryLater(Reason.PROVIDER_UNAVAILABLE, message, KEY_PAUSE_SECONDS)
    if code in _KEYS:
        # Not AWS's own words: they may hold what was signed.
        message = f"{service} does not accept the connection's keys ({code})"
        return TryLater(Reason.CREDENTIALS_INVALID, message, KEY_PAUSE_SECONDS)
    if code == "NoSuchBucket":
        return TryLater(Reason.BUCKET_NOT_FOUND, "the connection's S3 bucket does not exist", ROLE_PAUSE_SECONDS)
    if service == STORE and code in _ELSEWHERE:
        message = f"the connection's S3 bucket is in another region than the connection ({code})"
        return TryLater(Reason.BUCKET_NOT_FOUND, message, ROLE_PAUSE_SECONDS)
    if _OF_BUCKET.search(said):
        message = f"{service} cannot use the connection's s3.bucket ({code}): {said}"
        return TryLater(Reason.BUCKET_NOT_FOUND, message, ROLE_PAUSE_SECONDS)
    if _ROLE.search(said):
        message = f"{service} cannot use the connection's roleARN: {said}"
        return TryLater(Reason.ROLE_NOT_USABLE, message, ROLE_PAUSE_SECONDS)
    if code.startswith("KMS"):
        message = f"{service} cannot use the key that encrypts there ({code}): {said}"
        return Denied(Reason.CREDENTIALS_INVALID, message, KEY_PAUSE_SECONDS)
    if code in _DENIED or (_status(error) == 403 and code not in _THROTTLED | _QUOTA):
        message = f"{service} does not let the operator's identity {_action(error)} ({code}): {said}"
        return Denied(Reason.CREDENTIALS_INVALID, message, KEY_PAUSE_SECONDS)
    return None


def _of_what_was_asked(  # noqa: PLR0911 - a table
    error: boto.ClientError, service: str, code: str, said: str
) -> ProviderError:
    """A no to what was asked, or to its time."""
    status = _status(error)
    if code in _THROTTLED or status == 429:
        pause = _asked_pause(error) or THROTTLE_PAUSE_SECONDS
        return TryLater(Reason.RATE_LIMITED, f"{service} asks for patience ({code})", pause)
    if code in _QUOTA:
        return TryLater(Reason.QUOTA_EXCEEDED, f"{service}: {said}", QUOTA_PAUSE_SECONDS)
    if code in _ABSENT:
        return NotThere(Reason.PROVIDER_REFUSED, f"{service} has no such thing ({code}): {said}")
    if code in _CONFLICT:
        return TryLater(Reason.PROVIDER_BUSY, f"{service} ({code}): {said}", CONFLICT_PAUSE_SECONDS)
    if status in _NO_ANSWER:
        return Unknown(Reason.PROVIDER_UNAVAILABLE, f"{service} gives no answer ({code})")
    if code in _UNHEARD:
        return Unknown(Reason.PROVIDER_UNAVAILABLE, f"{service} did not get the request ({code})")
    if status >= 500 or not status:
        return Unknown(Reason.PROVIDER_UNAVAILABLE, f"{service} answers with status {status} ({code})")
    if status < 400:
        return moved(service, status, "")
    if _action(error).startswith("AssumeRole"):
        # Asked by the SDK, before the service was: what the connection wants was never looked at.
        message = f"the operator's pod gets no credentials at AWS ({code}): {said}"
        return TryLater(Reason.CREDENTIALS_INVALID, message, KEY_PAUSE_SECONDS)
    refused = _refused(error, service, code)(Reason.PROVIDER_REFUSED, f"{service} refuses ({code}): {said}")
    refused.next_step = _NO_DATA_STEP if _NO_DATA in said else None
    return refused


def _refused(error: boto.ClientError, service: str, code: str) -> type[Refused]:
    """Whether a refusal tells that what is asked about is not there: not of a wish that names what nobody has."""
    wishes, asks = _action(error).startswith("Create"), _action(error).startswith(("Describe", "Get"))
    absent = code == NO_OPERATION or (_MISSING.search(_said(error)) and not wishes)
    absent = absent or (asks and _NO_NAME in _said(error))
    return NotThere if service != STORE and absent else Refused


def _status(error: boto.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _asked_pause(error: boto.ClientError) -> float | None:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders") or {}
    return asked_pause({str(name): str(value) for name, value in headers.items()}, datetime.now(UTC))


def _said(error: boto.ClientError) -> str:
    return plain(str(error.response.get("Error", {}).get("Message", "")))


def _action(error: boto.ClientError) -> str:
    return str(getattr(error, "operation_name", "")) or "do that"
