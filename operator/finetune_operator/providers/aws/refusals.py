"""Converts AWS's errors, by code, or by message where there is no specific code. Pure."""

import re
from datetime import UTC, datetime

from botocore import exceptions as boto

from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import Denied, NotThere, ProviderError, Refused, TryLater, Unknown
from finetune_operator.providers.calls.failed_calls import redirected, unanswered
from finetune_operator.providers.calls.retry_after import asked_pause
from finetune_operator.providers.calls.values import sanitized

STORE = "s3"
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
_SKEWED = re.compile(r"signature (has )?expired|signature not yet current", re.IGNORECASE)
"""In messages about signatures: the clocks differ, but the keys are valid."""
_OTHER_REGION = frozenset(
    {
        *("PermanentRedirect", "TemporaryRedirect", "301", "307", "308"),
        *("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
    }
)
"""S3's codes for a bucket in another region."""
_NOT_RECEIVED = frozenset({"RequestTimeout", "RequestTimeoutException", "IDPCommunicationError", "BadGateway", "407"})
"""4xx errors because the request, or part of it, did not arrive."""
_NO_ANSWER = frozenset({408, 424})
"""Status when a model timed out or failed; it may answer the next question."""
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
"""In messages: SageMaker has no code for a missing object, and Bedrock does not always use its own."""
_NO_NAME = "validation error detected"
"""In messages of reads: nothing can have this name."""
NO_OPERATION = "UnknownOperationException"
"""AWS's code for an operation that the region does not have."""
_CONFLICT = frozenset({"ConflictException", "ResourceInUse", "ResourceInUseException", "409"})
_ROLE = re.compile(r"(could not|unable to|cannot) assume|iam:PassRole|trust (policy|relationship)", re.IGNORECASE)
"""In messages about the role that a service should assume: AWS has no code for this."""

_BUCKET_REGION = re.compile(
    r"bucket[^.]{0,80} (is in|not in|different|another|same) [^.]{0,20}region",
    re.IGNORECASE,
)
"""In messages about the bucket's region, for which AWS has no code either."""

_NO_DATA = "No S3 objects found"
_NO_DATA_STEP = (
    "If the connection's role may list the bucket, somebody has deleted the data there: set spec.retryNonce to have "
    "them checked and brought there again."
)


_NO_IDENTITY = (
    "Ask an admin to give the operator's service account an identity (EKS Pod Identity, or a role in the chart's "
    "serviceAccount.annotations), or name a Secret in credentials.secretRef."
)


class NoBucket(TryLater):
    """The bucket does not exist, so neither do objects in it; not for a bucket in another region."""


def translated(error: boto.ClientError | boto.BotoCoreError, service: str) -> ProviderError:
    """Convert an error. Raise the result `from None`: requests contain signatures."""
    if isinstance(error, boto.ClientError):
        return _refusal(error, service)
    kind = type(error).__name__
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
        message = f"the operator's pod has no identity at AWS ({kind}): check its service account"
        return TryLater(Reason.CREDENTIALS_INVALID, message, KEY_PAUSE_SECONDS, next_step=_NO_IDENTITY)
    if isinstance(error, boto.ParamValidationError | boto.InvalidRegionError):
        return Refused(Reason.PROVIDER_REFUSED, f"{service} cannot be asked that ({kind})")
    return unanswered(error, service)


def _refusal(error: boto.ClientError, service: str) -> ProviderError:
    code, said = str(error.response.get("Error", {}).get("Code", "")), _said(error)
    return _caller_error(error, service, code, said) or _request_error(error, service, code, said)


def _caller_error(  # noqa: PLR0911 - a table
    error: boto.ClientError, service: str, code: str, said: str
) -> TryLater | None:
    """Errors about the caller or location: keys, clock, permissions, role, bucket; None for others."""
    if code in _CLOCK or (code in _KEYS and _SKEWED.search(said)):
        message = f"{service} refuses the time of the operator's requests ({code}): its node's clock is wrong"
        return TryLater(Reason.PROVIDER_UNAVAILABLE, message, KEY_PAUSE_SECONDS)
    if code in _KEYS:
        # Without AWS's message, which may contain the signed request.
        message = f"{service} does not accept the connection's keys ({code})"
        return TryLater(Reason.CREDENTIALS_INVALID, message, KEY_PAUSE_SECONDS)
    if code == "NoSuchBucket":
        return NoBucket(Reason.BUCKET_NOT_FOUND, "the connection's S3 bucket does not exist", ROLE_PAUSE_SECONDS)
    if service == STORE and code in _OTHER_REGION:
        message = f"the connection's S3 bucket is in another region than the connection ({code})"
        return TryLater(Reason.BUCKET_NOT_FOUND, message, ROLE_PAUSE_SECONDS)
    if _BUCKET_REGION.search(said):
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


def _request_error(  # noqa: PLR0911 - a table
    error: boto.ClientError, service: str, code: str, said: str
) -> ProviderError:
    """Errors about the request itself, or its timing."""
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
    if code in _NOT_RECEIVED:
        return Unknown(Reason.PROVIDER_UNAVAILABLE, f"{service} did not get the request ({code})")
    if status >= 500 or not status:
        return Unknown(Reason.PROVIDER_UNAVAILABLE, f"{service} answers with status {status} ({code})")
    if status < 400:
        return redirected(service, status, "")
    if _action(error).startswith("AssumeRole"):
        # From the SDK's own call for credentials: the connection's request was never sent.
        message = f"the operator's pod gets no credentials at AWS ({code}): {said}"
        return TryLater(Reason.CREDENTIALS_INVALID, message, KEY_PAUSE_SECONDS)
    step = _NO_DATA_STEP if _NO_DATA in said else None
    kind = _refused(error, service, code)
    return kind(Reason.PROVIDER_REFUSED, f"{service} refuses ({code}): {said}", next_step=step)


def _refused(error: boto.ClientError, service: str, code: str) -> type[Refused]:
    """NotThere if the error says that the object does not exist, unless it is about a create's arguments."""
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
    return sanitized(str(error.response.get("Error", {}).get("Message", "")))


def _action(error: boto.ClientError) -> str:
    return str(getattr(error, "operation_name", "")) or "do that"
