"""The report server's certificate, kept in a Secret and in an SSL context that is reloaded in place.

Two sources: our own CA in a Secret of the operator's namespace (`authority` decides, this reads and writes), or a
folder filled by others (cert-manager's csi driver or a mounted Secret). Every replica may renew: the Secret's
resourceVersion lets one of them win, and the others use what it wrote.
"""

import asyncio
import base64
import logging
import os
import ssl
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

from finetune_api.manifest import Manifest
from finetune_api.names import COMPONENT_LABEL, FIELD_MANAGER, MANAGED_BY_LABEL
from finetune_operator.runtime import metrics
from finetune_operator.runtime.authority import Action, Material, carry_out, decide, expiries, is_displaced
from finetune_operator.runtime.errors import Conflict, Forbidden, KubeError, NoCluster, NotFound, Transient
from finetune_operator.runtime.kube import SECRETS, Kube
from finetune_operator.runtime.repeats import Repeats
from finetune_operator.runtime.settings import Settings

CHECK_SECONDS = 300.0
FIRST_RETRY_SECONDS = 3.0
PATIENCE_SECONDS = 900.0
"""How long to wait inside the process for the API server: restarts of a container that exits instead are delayed longer
and longer, also after the API server is back. More than the ten minutes after which the kubelet resets that delay."""
UNSETTLED_SECONDS = 10.0
"""An API server that has just started denies all requests until it has read all roles."""
_ATTEMPTS = 8

logger = logging.getLogger(__name__)


class CertificatesUnusable(Exception):
    """There is no certificate to serve with; the message says what to do."""


class Source(Protocol):
    """Where certificates come from."""

    async def current(self) -> tuple[bytes, bytes, bytes]:
        """Bundle, serving certificate and its key, as PEM, renewed first if due.

        Raises:
            CertificatesUnusable: there are none.
            KubeError: they could not be read or written.
        """


class OwnAuthority:
    """Our own CA in a Secret.

    Args:
        kube: unguarded, since a follower may have to renew.
        namespace: the operator's own.
        secret: the Secret's name.
        names: DNS names of the report Service.
        now: the wall clock, with a time zone.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        secret: str,
        names: tuple[str, ...],
        now: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._secret = secret
        self._names = names
        self._now = now
        self._known: Material | None = None
        """What was read last: if the Secret is deleted this is written back, so running pods still trust it."""

    async def current(self) -> tuple[bytes, bytes, bytes]:
        """See Source."""
        for _ in range(_ATTEMPTS):
            secret = await self._kube.get(SECRETS, self._secret, self._namespace)
            found, now = None if secret is None else Material.from_secret_data(_decoded(secret)), self._now()
            if found is not None and self._known is not None and is_displaced(self._known, found, now):
                found = None  # a replica that started meanwhile found no Secret, and made a CA that no pod trusts
            material = found or self._known
            action = decide(now, material, self._names)
            if action is Action.KEEP and material is not None and material is found:
                self._known = material
                for certificate, end in expiries(material).items():
                    metrics.CERTIFICATE_EXPIRY.labels(certificate).set(end)
                return material.bundle, material.serving, material.serving_key
            if found is None and material is not None:
                logger.warning("Secret %s/%s was deleted or overwritten: it is restored", self._namespace, self._secret)
            elif action is Action.MAKE_ALL and secret is not None and secret.get("data"):
                logger.error(
                    "Secret %s/%s holds no usable certificates: all are recreated, training pods that run now"
                    " will not trust them and leave their result in the termination message",
                    self._namespace,
                    self._secret,
                )
            try:
                await self._write(secret, carry_out(action, material, now, self._names))
                logger.info("certificates: %s", action.value)
            except (Conflict, NotFound):
                logger.info("another replica has written the certificates meanwhile: reading them again")
        raise CertificatesUnusable(f"Secret {self._namespace}/{self._secret} kept changing while it was written")

    async def _write(self, secret: Manifest | None, material: Material) -> None:
        data = {key: base64.b64encode(value).decode() for key, value in material.secret_data().items()}
        if secret is None:
            labels = {MANAGED_BY_LABEL: FIELD_MANAGER, COMPONENT_LABEL: "reports"}
            metadata = {"name": self._secret, "namespace": self._namespace, "labels": labels}
            await self._kube.create(
                SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
            )
            return
        gone = dict.fromkeys(set(secret.get("data") or {}) - set(data))
        version = {"resourceVersion": secret["metadata"]["resourceVersion"]}
        await self._kube.merge_patch(SECRETS, self._secret, self._namespace, {"metadata": version, "data": data | gone})


class MountedFolder:
    """tls.crt, tls.key and ca.crt that others keep up to date."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def current(self) -> tuple[bytes, bytes, bytes]:
        """See Source."""
        try:
            bundle, serving, key = ((self._folder / name).read_bytes() for name in ("ca.crt", "tls.crt", "tls.key"))
        except OSError as error:
            raise CertificatesUnusable(
                f"{error.filename} cannot be read ({error.strerror});"
                " FINETUNE_TLS_DIR needs tls.crt, tls.key and ca.crt"
            ) from error
        return bundle, serving, key


class Certificates:
    """The report server's SSL context, and the CA bundle for training pods.

    Loaded by `begin`; `keep` renews and reloads until cancelled.
    """

    def __init__(self, source: Source, scratch: Path | None = None) -> None:
        self._source = source
        self._scratch = scratch
        self._loaded: tuple[bytes, bytes, bytes] | None = None
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    @property
    def bundle(self) -> str:
        """PEM of all CAs that a pod started now must trust."""
        if self._loaded is None:
            raise RuntimeError("the certificates have not been loaded")
        return self._loaded[0].decode()

    async def load(self) -> None:
        """Renews if due, and loads what changed; new connections use it.

        Raises:
            CertificatesUnusable: there are none, or the key does not belong to the certificate.
            KubeError: they could not be read or written.
        """
        current = await self._source.current()
        if current == self._loaded:
            return
        _, serving, key = current
        try:
            _load_chain(self.context, serving, key, self._scratch)
        except ssl.SSLError as error:
            raise CertificatesUnusable(f"the serving certificate cannot be used: {error.reason}") from error
        self._loaded = current
        logger.info("report server: certificate loaded")

    def lacking(self) -> str | None:
        """A readiness check: what is wrong until the first ones are loaded."""
        return "the certificates have not been loaded" if self._loaded is None else None

    async def begin(self) -> None:
        """The first `load`: waits for an API server that does not answer (yet).

        Raises:
            CertificatesUnusable: see `load`.
            KubeError: they may not be read or written, or could not be for `PATIENCE_SECONDS`.
        """
        clock = asyncio.get_running_loop().time
        failures, given_up, settled = Repeats(clock), clock() + PATIENCE_SECONDS, clock()
        while True:
            try:
                await self.load()
                break
            except (Transient, Forbidden) as error:
                if isinstance(error, Transient):
                    settled = clock() + UNSETTLED_SECONDS
                if clock() >= min(given_up, settled):
                    raise
                if failures.is_news(error.reason):
                    logger.warning(
                        "the API server cannot be asked yet for the certificates, and nothing begins before; it is"
                        " tried again every %g s: %s", FIRST_RETRY_SECONDS, error,
                    )  # fmt: skip
            await asyncio.sleep(FIRST_RETRY_SECONDS)
        if failures.over():
            logger.info("the API server answers")

    async def keep(self) -> None:
        """Loads periodically; failures are logged and retried, while the old certificate stays in use."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.load()
            except (KubeError, NoCluster, CertificatesUnusable, OSError) as error:
                logger.error("certificates could not be renewed: %s", error)  # noqa: TRY400 - a sentence says it all


def source_of(settings: Settings, kube: Kube) -> Source:
    """The folder of the settings, or else our own CA."""
    if settings.tls_dir is not None:
        return MountedFolder(settings.tls_dir)
    return OwnAuthority(kube, settings.namespace, settings.tls_secret, settings.report_names, kube.now)


def _load_chain(context: ssl.SSLContext, certificate: bytes, key: bytes, scratch: Path | None) -> None:
    """Python loads key pairs only from files: writes a temporary one that only the owner can read."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "tls.pem"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.strip() + b"\n" + certificate)
        context.load_cert_chain(path)


def _decoded(secret: Manifest) -> dict[str, bytes]:
    decoded = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            decoded[key] = base64.b64decode(value, validate=True)
        except ValueError:
            continue  # the API server validates this; an invalid value counts as missing
    return decoded
