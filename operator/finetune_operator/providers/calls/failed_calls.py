"""Explains why a call got no answer, and whether the request was sent. Pure.

SDKs wrap the cause in nested errors of their own.
"""

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import TryLater, Unknown, Unreached, Unreadable
from finetune_operator.providers.calls.values import sanitized

REDIRECT_PAUSE_SECONDS = 60.0

ANSWER_MAX_BYTES = 32 * 1024 * 1024
"""Maximum uncompressed size of an answer read into memory: the longest list of a thousand files has 1 MiB."""

_NEVER_SENT = frozenset(
    {
        *("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"),
        *("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"),
    }
)
"""Errors of httpx and botocore that are raised before a request is sent."""

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL"})
"""OpenSSL's reasons for a plaintext answer."""

_TRUST = (
    "Ask an admin to name a bundle with that authority's certificate as SSL_CERT_FILE in the chart's extraEnv; it is "
    "retried automatically."
)


def unanswered(error: BaseException, who: str) -> Unknown:
    """Convert the error of a call without an answer. `who`: the service's name for users."""
    found = list(_causes(error))
    kind = Unreached if any(type(one).__name__ in _NEVER_SENT for one in found) else Unknown
    why = _known(found, "SSL_CERT_FILE") or _by_class_name(found)
    step = _TRUST if any(isinstance(one, ssl.SSLCertVerificationError) for one in found) else None
    return kind(Reason.PROVIDER_UNAVAILABLE, f"{who}{_host(found)} {why}", next_step=step)


def too_long(who: str | None) -> Unreadable:
    """The error for an answer longer than ANSWER_MAX_BYTES. `who`: the service's name for users."""
    return Unreadable(f"{who} answers with more than {ANSWER_MAX_BYTES // 2**20} MiB")


def redirected(who: str, status: int, location: str, asked: str = "asked for") -> TryLater:
    """The error for a redirect. It is not followed with key or data, so nothing was done.

    Args:
        who: the service's name for users.
        status: of the answer.
        location: the redirect's target; its query may be secret and is not shown.
        asked: how it was called.
    """
    where = sanitized(location.partition("?")[0])[:200]
    told = f"{status}, {where}" if where else str(status)
    message = f"{who} sends what is {asked} to another address ({told}): let the LLMConnection lead there itself"
    return TryLater(Reason.PROVIDER_UNAVAILABLE, message, REDIRECT_PAUSE_SECONDS)


def known_cause(error: BaseException, bundle: str) -> str | None:
    """The cause, as a phrase to follow the service's name; None if the errors do not tell.

    Args:
        error: as it was raised.
        bundle: the environment variable that names the trusted CA bundle.
    """
    return _known(list(_causes(error)), bundle)


def _host(found: list[BaseException]) -> str:
    """The host of botocore's errors, in parentheses: AWS services have one per region, or the connection's own.

    Only the host: the rest of the URL has names of objects in buckets, and signatures.
    """
    urls = (str((getattr(one, "kwargs", None) or {}).get("endpoint_url") or "") for one in found)
    host = next((host for url in urls if (host := urlsplit(url).netloc.rpartition("@")[2])), None)
    return f" ({host})" if host else ""


def _known(found: list[BaseException], bundle: str) -> str | None:
    for one in found:
        verdict = getattr(one, "verify_message", None)  # aiohttp's subclass has none
        if isinstance(one, ssl.SSLCertVerificationError) and verdict:
            return (
                f"shows a certificate that is not trusted ({verdict}): is its authority in the bundle that {bundle} "
                "names?"
            )
        if isinstance(one, ssl.SSLError) and getattr(one, "reason", None) in _NO_TLS:
            return "does not speak TLS: does its address begin with http:// instead of https://?"
        if isinstance(one, socket.gaierror):
            return "has a name that cannot be resolved"
        if isinstance(one, ConnectionRefusedError):
            return "refuses connections"
    names = {type(one).__name__ for one in found}
    if "ProxyError" in names or "ProxyConnectionError" in names:
        return "cannot be reached through the proxy that HTTPS_PROXY, or HTTP_PROXY, names"
    return None


def _by_class_name(found: list[BaseException]) -> str:
    names = {type(one).__name__ for one in found}
    late = any("Timeout" in name for name in names)
    return "does not answer in time" if late else f"does not answer ({type(found[0]).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, outermost first; each once."""
    left, seen = [error], set()
    while left:
        one = left.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = [one.__cause__, one.__context__, getattr(one, "kwargs", None) or {}, getattr(one, "reason", None)]
        inner += [getattr(one, "inner_exception", None), *getattr(one, "exceptions", ())]
        left += [found for found in map(_inner, inner) if found is not None]


def _inner(value: object) -> BaseException | None:
    """The value if it is an error, or the error among the arguments of a botocore error."""
    found = value.get("error") if isinstance(value, dict) else value
    return found if isinstance(found, BaseException) else None
