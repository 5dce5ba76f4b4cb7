"""The meaning of errors from stores and servers: fsspec's, and those of the libraries below it. Quotes none of them."""

import errno
import socket
from collections.abc import Iterator

from finetune_api.reasons import Reason

_DENIED_STATUS = (401, 403, 407)
_MISSING_STATUS = (404, 410)
# Library errors that mean missing or wrong credentials, but have no status.
_DENIED_NAMES = {
    "ClientAuthenticationError", "CredentialRetrievalError", "DefaultCredentialsError", "GatedRepoError",
    "LocalTokenNotFoundError", "NoCredentialsError", "NoTokenError", "PartialCredentialsError", "PermissionError",
    "RefreshError", "TokenRetrievalError", "UnauthorizedSSOTokenError",
}  # fmt: skip
_WITHOUT_KEYS = {"NoCredentialsError", "DefaultCredentialsError", "LocalTokenNotFoundError"}
_SPENT_TOKENS = {
    "ExpiredToken", "ExpiredTokenException", "InvalidIdentityToken", "InvalidToken", "TokenRefreshRequired",
}  # fmt: skip
"""Codes of refused credentials with status 400, by S3 and its token services; otherwise 400 means a bad request."""
_DENIED_BY_GCSFS = "Forbidden: "  # prefix of its OSError for status 403
_AWAY_NAMES = {"ConnectionError", "ClientConnectionError", "TimeoutError", "HTTPClientError"}
_MISSING_NAMES = {
    "EntryNotFoundError", "FileNotFoundError", "NoSuchBucket", "NotADirectoryError", "RepositoryNotFoundError",
    "ResourceNotFoundError",
}  # fmt: skip
UNTRUSTED = "its certificate is not trusted"
NO_TLS = "it does not speak TLS"
TRUST_STEP = (
    "Have its CA trusted: an admin names the bundle of certificates in huggingFace.podTemplate.caBundleRef "
    "of the connection; at a shell SSL_CERT_FILE does, for s3:// AWS_CA_BUNDLE."
)
_KINDS_OF_TROUBLE = {
    UNTRUSTED: "SSLCertVerificationError ClientConnectorCertificateError SSLError",
    "its name cannot be resolved": "gaierror NameResolutionError",
    "nothing listens at its address": "ConnectionRefusedError",
    "it leads from one address to the next without an end": "TooManyRedirects",
    "it broke off in the middle": "ClientPayloadError IncompleteRead IncompleteReadError",
    "its address cannot be reached": "ConnectTimeout ConnectTimeoutError",
    "it takes too long": "ReadTimeout ReadTimeoutError TimeoutError",
    "it cannot be reached": "ConnectionError",
    "its address is invalid": "InvalidUrlException",
    "it broke the connection off, or speaks no HTTP": "BrokenPipeError ConnectionResetError ReadError WriteError "
    "RemoteDisconnected RemoteProtocolError ServerDisconnectedError",
}
_TROUBLES = {name: why for why, names in _KINDS_OF_TROUBLE.items() for name in names.split()}
"""By class of an error or its cause, the clearest first: libraries wrap errors into their own."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
_NO_SUCH_NAME = (errno.ELOOP, errno.ENAMETOOLONG)


class NoTokenError(Exception):
    """Azure issues no token: neither an identity of the pod or shell nor a client secret was accepted."""


def lacks_keys(error: BaseException) -> bool:
    """Whether there are no credentials at all: no Secret, no environment variable, no identity of the pod."""
    return any(type(one).__name__ in _WITHOUT_KEYS for one in chain(error))


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the error or of one of its causes."""
    return next((found for one in chain(error) if (found := _status(one)) is not None), None)


def reason_of(error: BaseException) -> Reason:
    """Its meaning: DatasetNotFound if something does not exist, AccessDenied or StoreUnavailable.

    Prefers the status; fsspec raises FileNotFoundError for anything that a web server does not deliver.
    """
    status = status_of(error)
    names = {kind.__name__ for one in chain(error) for kind in type(one).__mro__}
    if status is not None:
        if status in _DENIED_STATUS or any(_code(one) in _SPENT_TOKENS for one in chain(error)):
            return Reason.ACCESS_DENIED
        return Reason.DATASET_NOT_FOUND if status in _MISSING_STATUS else Reason.STORE_UNAVAILABLE
    if names & _DENIED_NAMES or any(str(one).startswith(_DENIED_BY_GCSFS) for one in chain(error)):
        return Reason.ACCESS_DENIED
    if names & _AWAY_NAMES:
        return Reason.STORE_UNAVAILABLE
    if names & _MISSING_NAMES or (isinstance(error, OSError) and error.errno in _NO_SUCH_NAME):
        return Reason.DATASET_NOT_FOUND
    return Reason.STORE_UNAVAILABLE


def trouble_of(error: BaseException) -> str | None:
    """Why a server could not be reached, if the error or a cause says so; None for an error response."""
    found = list(chain(error))
    if any(getattr(one, "reason", None) in _NO_TLS for one in found):
        return NO_TLS
    names = {type(one).__name__ for one in found}
    return next((why for name, why in _TROUBLES.items() if name in names), None)


def may_be_back(error: BaseException) -> bool:
    """Whether an unreachable server may be back later: not if its name does not exist or it is not trusted."""
    unknown = any(isinstance(one, socket.gaierror) and one.errno == socket.EAI_NONAME for one in chain(error))
    return not unknown and trouble_of(error) != UNTRUSTED


def why_unreachable(error: BaseException) -> str:
    """The same, or the class of the error if nothing more is known."""
    return trouble_of(error) or type(error).__name__


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, at most eight."""
    following: BaseException | None = error
    for _ in range(8):
        if following is None:
            return
        yield following
        following = following.__cause__ or following.__context__


def _code(error: BaseException) -> str | None:
    """The error code in an error of botocore."""
    response = getattr(error, "response", None)
    said = response.get("Error") if isinstance(response, dict) else None
    return said.get("Code") if isinstance(said, dict) else None


def _status(error: BaseException) -> int | None:
    """The HTTP status in an error of aiohttp, requests, botocore, azure or google."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        response = response.get("ResponseMetadata", {})
        return response.get("HTTPStatusCode") if isinstance(response, dict) else None
    for holder in (error, response):
        for attribute in ("status", "status_code", "code"):
            value = getattr(holder, attribute, None)
            if isinstance(value, int):
                return value
    return None
