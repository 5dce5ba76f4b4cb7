"""Credentials of a kubeconfig in all its forms: the official client reads it and runs its plug-ins.

The client would be half of the operator's memory, so this module is imported only outside of pods.
"""

import os
import ssl
from pathlib import Path

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, list_kube_config_contexts, load_kube_config
from yaml import YAMLError

from finetune_operator.runtime.errors import NoCluster

_UNREADABLE = (ConfigException, YAMLError, OSError, ValueError, AttributeError, TypeError)
"""A missing or empty kubeconfig ends as a TypeError or AttributeError inside the official client."""


class Kubeconfig:
    """Credentials from a file. Created by `read`."""

    def __init__(self, path: Path, configuration: Configuration) -> None:
        self._path = path
        self._configuration = configuration
        self.server = str(configuration.host)
        self.proxy: str | None = configuration.proxy
        self.server_name: str | None = configuration.tls_server_name

    @classmethod
    async def read(cls, path: Path) -> "Kubeconfig":
        """The current context of the file.

        Raises:
            NoCluster: there are no credentials, or they cannot be read.
        """
        configuration = Configuration()
        await _load(path, configuration)
        return cls(path, configuration)

    def trust(self) -> ssl.SSLContext:
        """The trusted CAs, and our client certificate if there is one."""
        context: ssl.SSLContext = RESTClientObject(self._configuration).ssl_context
        return context

    async def authorization(self) -> str | None:
        """The header's value now."""
        value: str | None = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return value

    async def renew(self) -> None:
        """The API server refused the token: it may have been rotated since it was read."""
        await _load(self._path, self._configuration)


def namespace_of(path: Path) -> str | None:
    """The namespace of the current context, which kubectl uses by default.

    Raises:
        NoCluster: the file cannot be read.
    """
    _require_one_of(path)
    try:
        _, current = list_kube_config_contexts(config_file=str(path))  # type: ignore[no-untyped-call]
    except _UNREADABLE as error:
        raise NoCluster(f"no credentials for a cluster: {error}") from error
    namespace: str | None = current["context"].get("namespace")
    return namespace


def _require_one_of(path: Path) -> None:
    """Check first, since the official client only prints that a file does not exist, and fails later.

    Raises:
        NoCluster: none of the files exists.
    """
    if not any(Path(one).is_file() for one in str(path).split(os.pathsep)):
        raise NoCluster(f"no credentials for a cluster: {path} is not there; KUBECONFIG names another file")


async def _load(path: Path, configuration: Configuration) -> None:
    _require_one_of(path)
    try:
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(path), client_configuration=configuration, persist_config=False
        )
    except _UNREADABLE as error:
        raise NoCluster(f"no credentials for a cluster: {error}") from error
