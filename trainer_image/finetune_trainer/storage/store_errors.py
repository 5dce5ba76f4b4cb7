"""What the errors of stores and servers mean: fsspec's, and those of the libraries below it. Quotes none of them."""

import errno
import socket
from collections.abc import Iterator

from finetune_api.reasons import Reason

_DENIED_STATUS = (401, 403, 407)
_MISSING_STATUS = (404, 410)
# Errors of the stores' libraries that say "no or wrong credentials" without a number.
_DENIED_NAMES = {
    "ClientAuthenticationError", "CredentialRetrievalError", "DefaultCredentialsError", "GatedRepoError",
    "LocalTokenNotFoundError", "NoCredentialsError", "NoTokenError", "PartialCredentialsError", "PermissionError",
    "RefreshError", "TokenRetrievalError", "UnauthorizedSSOTokenError",
}  # fmt: skip
_WITHOUT_KEYS = {"NoCredentialsError", "DefaultCredentialsError", "LocalTokenNotFoundError"}
_SPENT_TOKENS = {
    "ExpiredToken", "ExpiredTokenException", "InvalidIdentityToken", "InvalidToken", "TokenRefreshRequired",
}  # fmt: skip
"""Codes by which S3, and what gives keys for it, refuse keys with status 400, which others have for a bad request."""
_DENIED_BY_GCSFS = "Forbidden: "  # how its OSError begins for status 403
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
"""By the name of an error or of what it came of, the plainest first: libraries raise their own around them."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
_NO_SUCH_NAME = (errno.ELOOP, errno.ENAMETOOLONG)


class NoTokenError(Exception):
    """Azure gives no token: neither an identity of the pod or shell nor a client's secret was accepted."""


def lacks_keys(error: BaseException) -> bool:
    """Whether nobody has given any: neither a Secret, nor an environment, nor an identity of the pod."""
    return any(type(one).__name__ in _WITHOUT_KEYS for one in chain(error))


def status_of(error: BaseException) -> int | None:
    """The HTTP status that the error, or one that caused it, carries."""
    return next((found for one in chain(error) if (found := _status(one)) is not None), None)


def reason_of(error: BaseException) -> Reason:
    """What it means: DatasetNotFound for what is not there, AccessDenied or StoreUnavailable.

    A status says most; fsspec gives FileNotFoundError for whatever a web server does not deliver.
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
    """Why a server was not heard, in words, where the error or what it came of tells; None for what it has answered."""
    found = list(chain(error))
    if any(getattr(one, "reason", None) in _NO_TLS for one in found):
        return NO_TLS
    names = {type(one).__name__ for one in found}
    return next((why for name, why in _TROUBLES.items() if name in names), None)


def may_be_back(error: BaseException) -> bool:
    """Whether what was not heard may be heard in a while: not under a name that nobody has, nor untrusted."""
    unknown = any(isinstance(one, socket.gaierror) and one.errno == socket.EAI_NONAME for one in chain(error))
    return not unknown and trouble_of(error) != UNTRUSTED


def why_silent(error: BaseException) -> str:
    """The same, or the kind of the error where nothing more is known."""
    return trouble_of(error) or type(error).__name__


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that caused it, at most eight."""
    following: BaseException | None = error
    for _ in range(8):
        if following is None:
            return
        yield following
        following = following.__cause__ or following.__context__


def _code(error: BaseException) -> str | None:
    """The word for what is wrong that an error of botocore carries."""
    response = getattr(error, "response", None)
    said = response.get("Error") if isinstance(response, dict) else None
    return said.get("Code") if isinstance(said, dict) else None


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of aiohttp, requests, botocore, azure or google carries."""
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
