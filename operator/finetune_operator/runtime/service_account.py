"""The pod's own identity at the API server: a token that the kubelet renews, and the cluster's CA."""

import os
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from finetune_operator.runtime.errors import NoCluster
from finetune_operator.runtime.uptime import Clock

CA_FILE = "ca.crt"

TOKEN_SECONDS = 60.0
"""How long a token is used before it is read again; the kubelet renews it long before it ends."""


class ServiceAccount:
    """Credentials from a folder.

    Args:
        folder: holds `token` and `ca.crt`.
        environment: holds the address of the API server.

    Raises:
        NoCluster: one of these is missing.
    """

    proxy: str | None = None
    server_name: str | None = None

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] = os.environ,
        clock: Clock = time.monotonic,
    ) -> None:
        self.server = _server(environment)
        self.ca = folder / CA_FILE
        self._file = folder / "token"
        self._clock = clock
        self._read_at = 0.0
        self.token = ""
        self._read()
        if not self.ca.is_file():
            raise NoCluster(f"{self.ca} is not there: no CA to know the API server by")

    def trust(self) -> ssl.SSLContext:
        """Trusts the cluster's CA only."""
        return ssl.create_default_context(cafile=self.ca)

    async def authorization(self) -> str | None:
        """The header's value now."""
        if self._clock() - self._read_at >= TOKEN_SECONDS:
            with suppress(NoCluster):  # the previous one may still be valid; else the API server says so
                self._read()
        return f"Bearer {self.token}"

    async def renew(self) -> None:
        """The API server refused the token."""
        self._read()

    def _read(self) -> None:
        try:
            token = self._file.read_text().strip()
        except OSError as error:
            raise NoCluster(f"no token for the API server: {error}") from error
        if not token:
            raise NoCluster(f"no token for the API server: {self._file} is empty")
        self.token, self._read_at = token, self._clock()


def changed_trust(folder: Path) -> Callable[[], str | None]:
    """A liveness check: reports once the cluster's CA differs from the present one.

    Every client has read it only once, kopf too: a replica that waits for the Lease would wait for ever.
    """
    known = _ca_of(folder)
    return lambda: (
        "the cluster has another CA than the one that this process has read"
        if _ca_of(folder) not in {known, None}
        else None
    )


def _ca_of(folder: Path) -> bytes | None:
    """The CA; None if it cannot be read, for example while the kubelet replaces it."""
    try:
        return (folder / CA_FILE).read_bytes()
    except OSError:
        return None


def is_in_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process runs in a pod."""
    return bool(environment.get("KUBERNETES_SERVICE_HOST"))


def namespace_in(folder: Path) -> str | None:
    """The pod's namespace, which the kubelet mounts beside its token; None if neither is mounted."""
    file = folder / "namespace"
    return file.read_text(encoding="utf-8").strip() or None if file.is_file() else None


def is_ipv6(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the cluster's first address family is IPv6: that of its API server's Service."""
    return ":" in environment.get("KUBERNETES_SERVICE_HOST", "")


def _server(environment: Mapping[str, str]) -> str:
    host, port = (environment.get(f"KUBERNETES_SERVICE_{part}") for part in ("HOST", "PORT"))
    if not host or not port:
        raise NoCluster("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT do not say where the API server is")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
