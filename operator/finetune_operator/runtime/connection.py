"""The HTTP client of the API server: pooled session, credentials, rate limit, time-outs, retries of reads, errors.

Sends and receives JSON bytes; `kube` makes the requests.
"""

import asyncio
import logging
import os
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

from finetune_operator.runtime import metrics
from finetune_operator.runtime.errors import KubeError, NoCluster, Transient, Unadmitted, error_for
from finetune_operator.runtime.server_clock import ServerClock
from finetune_operator.runtime.service_account import ServiceAccount, is_in_cluster
from finetune_operator.runtime.settings import Settings
from finetune_operator.runtime.token_bucket import TokenBucket

logger = logging.getLogger(__name__)

READ_ATTEMPTS = 4
LONGEST_READ_DELAY = 10.0  # seconds; if the server asks for more, the caller's own backoff waits instead
_CONNECT_SECONDS = 10.0
_USER_AGENT = "finetune-operator"


@dataclass(frozen=True, slots=True)
class Request:
    """One request: `verb` and `resource` are only for metrics; `path` is already quoted."""

    verb: str
    resource: str
    method: str
    path: str
    params: Mapping[str, str] | None = None
    body: bytes | None = None
    content_type: str = "application/json"


class Credentials(Protocol):
    """Our identity, and the API server's address."""

    @property
    def server(self) -> str:
        """The API server's URL."""

    @property
    def proxy(self) -> str | None:
        """The proxy, if the credentials name one."""

    @property
    def server_name(self) -> str | None:
        """The name in the API server's certificate, if it is not the one in its URL."""

    def trust(self) -> ssl.SSLContext:
        """The trusted CAs, and our client certificate if there is one."""

    async def authorization(self) -> str | None:
        """The Authorization header's present value."""

    async def renew(self) -> None:
        """Read them again, after the API server refused them.

        Raises:
            NoCluster: they are gone.
        """


_ASKED_BY_PROXY = (
    "; the API server was asked by the proxy of HTTPS_PROXY: where it is not behind that, write {host} into NO_PROXY"
)


class Connection:
    """A pooled connection to one API server. Created by `connect`."""

    def __init__(self, credentials: Credentials, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._credentials = credentials
        self._session = session
        self._settings = settings
        self._base = credentials.server.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=settings.kube_timeout_seconds, sock_connect=_CONNECT_SECONDS)
        self._bucket = TokenBucket(settings.kube_qps, settings.kube_burst, asyncio.get_running_loop().time)
        found = None if credentials.proxy else proxy_from_environment(URL(self._base))
        self._proxy = credentials.proxy or found
        self._by_proxy = _ASKED_BY_PROXY.format(host=URL(self._base).host) if found else ""
        self._server_name = credentials.server_name
        self.clock = ServerClock()

    async def throttle(self) -> None:
        """Waits for the client's own rate limit."""
        delay = self._bucket.reserve()
        if delay > 0:
            metrics.API_THROTTLED_SECONDS.inc(delay)
            await asyncio.sleep(delay)

    async def read(self, request: Request) -> bytes:
        """Sends a request that changes nothing; retries transient failures with exponential, jittered delays.

        Raises:
            KubeError: by the answer's status; Transient after the last attempt.
        """
        for attempt in range(1, READ_ATTEMPTS):
            await self.throttle()
            try:
                return await self.send(request)
            except Unadmitted:  # a dry run, which has waited for the webhook's full time-out
                raise
            except Transient as error:
                delay = max(0.2 * 2**attempt * random.uniform(0.5, 1), error.retry_after or 0)  # noqa: S311 - jitter
                if delay > LONGEST_READ_DELAY:
                    raise
                logger.debug("%s %s: %s; again in %.1f s", request.verb, request.path, error, delay)
            await asyncio.sleep(delay)
        await self.throttle()
        return await self.send(request)

    async def send(self, request: Request) -> bytes:
        """Sends a request once (twice if renewed credentials replace refused ones) and returns the body.

        Raises:
            KubeError: by the answer's status; Transient without an answer.
        """
        try:
            return await self._send(request)
        except KubeError as error:
            if error.status != 401:
                raise
        # The token may have been rotated since it was read. A 401 has no effect, so any verb may be sent again.
        await self._credentials.renew()
        return await self._send(request)

    async def _send(self, request: Request) -> bytes:
        started, sent = asyncio.get_running_loop().time(), self.clock.local()
        try:
            async with self._answer(request) as response:
                body = await response.read()
                self.clock.observe(response.headers.get("Date"), sent)
                return body
        finally:
            metrics.API_SECONDS.labels(request.verb).observe(asyncio.get_running_loop().time() - started)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[aiohttp.StreamReader]:
        """Sends a read once and yields the body as it arrives.

        Raises:
            KubeError: by the answer's status; Transient without an answer.
        """
        await self.throttle()
        async with self._answer(request) as response:
            yield response.content

    @asynccontextmanager
    async def _answer(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer whose body has not been read yet."""
        code = 0
        try:
            async with self._open(request, await self._headers(request)) as response:
                code = response.status
                if code >= 300:
                    raise _error(response, await response.read())
                yield response
        except TimeoutError:
            message = f"no answer within {self._settings.kube_timeout_seconds:g} s{self._by_proxy}"
            raise Transient(0, "Timeout", message) from None
        except aiohttp.ClientError as error:
            raise Transient(0, "Unreachable", f"{type(error).__name__}: {error}{self._by_proxy}") from error
        finally:
            metrics.API_REQUESTS.labels(request.verb, request.resource, str(code)).inc()

    def _open(self, request: Request, headers: dict[str, str]) -> "aiohttp.client._RequestContextManager":
        url = URL(self._base + request.path, encoded=True)
        if request.params:
            url = url.with_query(request.params)
        return self._session.request(
            request.method,
            url,
            data=request.body,
            headers=headers,
            timeout=self._timeout,
            allow_redirects=False,
            proxy=self._proxy,
            server_hostname=self._server_name,
        )

    async def _headers(self, request: Request) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": _USER_AGENT}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        authorization = await self._credentials.authorization()
        if authorization:
            headers["Authorization"] = authorization
        return headers


def pool_size(workers: int) -> int:
    """The maximum number of connections, including idle ones: one per worker, and as many for watches and status."""
    return max(32, 2 * workers)


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Connection]:
    """Opens the pooled session with the pod's service account, or with a kubeconfig.

    Raises:
        NoCluster: neither exists, or it cannot be read.
    """
    credentials = await credentials_of(settings)
    connector = aiohttp.TCPConnector(limit=pool_size(settings.workers), ssl=credentials.trust())
    # Otherwise it would read the environment and ~/.netrc in a thread, twice for each request.
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
    async with session:
        yield Connection(credentials, session, settings)


def proxy_from_environment(server: URL) -> str | None:
    """The proxy of HTTPS_PROXY or a similar variable, unless NO_PROXY names the server."""
    return None if proxy_bypass(server.host or "") else getproxies().get(server.scheme)


async def credentials_of(settings: Settings) -> Credentials:
    """The credentials of the pod's service account, or of a kubeconfig.

    Raises:
        NoCluster: there are none, or they cannot be read.
    """
    if settings.kubeconfig is None and is_in_cluster():
        return ServiceAccount(settings.service_account)
    if settings.kubeconfig is not None and not settings.kubeconfig.is_file():
        raise NoCluster(f"kubeconfig {settings.kubeconfig} is not there; FINETUNE_KUBECONFIG names it")
    from finetune_operator.runtime.kubeconfig import Kubeconfig

    return await Kubeconfig.read(settings.kubeconfig or kubeconfig_path())


def kubeconfig_path() -> Path:
    """Where kubectl looks: one file, or several separated by colons."""
    return Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")


def _message(status: Mapping[str, Any]) -> str:
    """The message of a Status object or, if a Service was called through the proxy, of an OpenAI-style error."""
    error = status.get("error")
    text = error.get("message") if isinstance(error, dict) else error
    return str(status.get("message") or text or "")


def _error(response: aiohttp.ClientResponse, body: bytes) -> KubeError:
    """The exception for an error answer: a Status object, or whatever a proxy in between returned."""
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if not isinstance(status, dict):
        status = {"message": body[:300].decode(errors="replace").strip()}
    details = status.get("details") or {}
    return error_for(
        response.status,
        str(status.get("reason") or response.reason or "Unknown"),
        _message(status),
        _retry_after(response.headers.get("Retry-After"), details.get("retryAfterSeconds")),
    )


def _retry_after(*values: object) -> float | None:
    for value in values:
        if isinstance(value, int | str) and str(value).isdigit():
            return float(value)
    return None
