"""The wire to the API server: one pooled session, credentials, rate limit, time-outs, retries of reads, error mapping.

Sends and receives JSON bytes. What the requests are is `kube`'s matter. Generated model classes are never touched:
of the official client this uses the configuration (in-cluster and kubeconfig) and the set-up of its session.
"""

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from yaml import YAMLError
from yarl import URL

from finetune_operator.runtime import metrics
from finetune_operator.runtime.errors import KubeError, Transient, error_for
from finetune_operator.runtime.limits import TokenBucket
from finetune_operator.runtime.settings import Settings

logger = logging.getLogger(__name__)

READ_ATTEMPTS = 4
LONGEST_READ_DELAY = 10.0  # seconds; a server that asks for more gets its answer from the caller's own backoff
_CONNECT_SECONDS = 10.0
_USER_AGENT = "finetune-operator"


class NoCluster(Exception):  # noqa: N818 - says what is the case
    """There are no credentials for a cluster, or they cannot be read."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: `verb` and `resource` are for the metrics alone; `path` is quoted already."""

    verb: str
    resource: str
    method: str
    path: str
    params: Mapping[str, str] | None = None
    body: bytes | None = None
    content_type: str = "application/json"


class _Rest(RESTClientObject):
    """The official client's session (TLS, client certificate, proxy), without its own JSON coding."""

    def session(self) -> aiohttp.ClientSession:
        """A new session; the caller closes it."""
        made: aiohttp.ClientSession = self._create_pool_manager()
        return made


class Connection:
    """A pooled connection to one API server. Made by `connect`."""

    def __init__(self, configuration: Configuration, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._configuration = configuration
        self._session = session
        self._settings = settings
        self._base = configuration.host.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=settings.kube_timeout_seconds, sock_connect=_CONNECT_SECONDS)
        self._bucket = TokenBucket(settings.kube_qps, settings.kube_burst, asyncio.get_running_loop().time)
        self._proxy = configuration.proxy or proxy_from_environment(URL(self._base))
        self._server_name: str | None = configuration.tls_server_name

    async def throttle(self) -> None:
        """Waits for the client's own rate limit."""
        delay = self._bucket.reserve()
        if delay > 0:
            metrics.API_THROTTLED_SECONDS.inc(delay)
            await asyncio.sleep(delay)

    async def read(self, request: Request) -> bytes:
        """Sends a request that changes nothing; a few transient failures are repeated with growing, jittered delays.

        Raises:
            KubeError: by the answer's status; Transient after the last attempt.
        """
        for attempt in range(1, READ_ATTEMPTS):
            await self.throttle()
            try:
                return await self.send(request)
            except Transient as error:
                delay = max(0.2 * 2**attempt * random.uniform(0.5, 1), error.retry_after or 0)  # noqa: S311 - jitter
                if delay > LONGEST_READ_DELAY:
                    raise
                logger.debug("%s %s: %s; again in %.1f s", request.verb, request.path, error, delay)
            await asyncio.sleep(delay)
        await self.throttle()
        return await self.send(request)

    async def send(self, request: Request) -> bytes:
        """Sends a request once (twice if the credentials were refused and could be read anew) and returns the body.

        Raises:
            KubeError: by the answer's status; Transient without an answer.
        """
        try:
            return await self._send(request)
        except KubeError as error:
            if error.status != 401:
                raise
        # The token may have been rotated since it was read. A 401 was not acted upon, so any verb may be sent again.
        await load_credentials(self._configuration, self._settings.kubeconfig)
        return await self._send(request)

    async def _send(self, request: Request) -> bytes:
        started = asyncio.get_running_loop().time()
        code = 0
        try:
            async with self._open(request, await self._headers(request)) as response:
                code = response.status
                body = await response.read()
                if code >= 300:
                    raise _error(response, body)
                return body
        except TimeoutError:
            raise Transient(0, "Timeout", f"no answer within {self._settings.kube_timeout_seconds:g} s") from None
        except aiohttp.ClientError as error:
            raise Transient(0, "Unreachable", f"{type(error).__name__}: {error}") from error
        finally:
            metrics.API_REQUESTS.labels(request.verb, request.resource, str(code)).inc()
            metrics.API_SECONDS.labels(request.verb).observe(asyncio.get_running_loop().time() - started)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[aiohttp.StreamReader]:
        """Sends a read once and yields the body as it comes.

        Raises:
            KubeError: by the answer's status; Transient without an answer.
        """
        await self.throttle()
        code = 0
        try:
            async with self._open(request, await self._headers(request)) as response:
                code = response.status
                if code >= 300:
                    raise _error(response, await response.read())
                yield response.content
        except TimeoutError:
            raise Transient(0, "Timeout", f"no answer within {self._settings.kube_timeout_seconds:g} s") from None
        except aiohttp.ClientError as error:
            raise Transient(0, "Unreachable", f"{type(error).__name__}: {error}") from error
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
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        return headers


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Connection]:
    """Opens the pooled session with the pod's service account, or with a kubeconfig.

    Raises:
        NoCluster: neither is there, or what is there cannot be read.
    """
    configuration = Configuration()
    await load_credentials(configuration, settings.kubeconfig)
    configuration.connection_pool_maxsize = max(32, 2 * settings.workers)
    configuration.client_session_kwargs = {
        "cookie_jar": aiohttp.DummyCookieJar(),
        "auto_decompress": True,
        # It would read the environment and ~/.netrc in a thread, twice for each request.
        "trust_env": False,
    }
    async with _Rest(configuration).session() as session:
        yield Connection(configuration, session, settings)


def proxy_from_environment(server: URL) -> str | None:
    """HTTPS_PROXY and its like, unless NO_PROXY names the server."""
    return None if proxy_bypass(server.host or "") else getproxies().get(server.scheme)


async def load_credentials(configuration: Configuration, kubeconfig: Path | None) -> None:
    """Reads host, CA and credentials into `configuration`; again whenever they may have been rotated.

    Raises:
        NoCluster: there are none, or they cannot be read.
    """
    try:
        if kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return
        path = kubeconfig or Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        if kubeconfig is not None and not path.is_file():
            raise NoCluster(f"kubeconfig {path} is not there; FINETUNE_KUBECONFIG names it")
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(path), client_configuration=configuration, persist_config=False
        )
    except (ConfigException, YAMLError, OSError, ValueError, AttributeError, TypeError) as error:
        # A missing or empty kubeconfig ends as a TypeError or AttributeError inside the official client.
        raise NoCluster(f"no credentials for a cluster: {error}") from error


def _error(response: aiohttp.ClientResponse, body: bytes) -> KubeError:
    """The exception for an answer that is a Status object, or whatever a proxy on the way has made of it."""
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
        str(status.get("message") or ""),
        _retry_after(response.headers.get("Retry-After"), details.get("retryAfterSeconds")),
    )


def _retry_after(*values: object) -> float | None:
    for value in values:
        if isinstance(value, int | str) and str(value).isdigit():
            return float(value)
    return None
