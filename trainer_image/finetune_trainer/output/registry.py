"""Pushes an artifact to an OCI registry: missing blobs first, then the manifest under its tag.

Uses OCI's distribution API over httpx. `model_pack.py` describes the artifact; callers decide when to push.
"""

import contextlib
import json
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urljoin

import httpx

from finetune_trainer.output.model_pack import IMAGE_MANIFEST, digest_of, pack
from finetune_trainer.storage.store_errors import NO_TLS, why_unreachable

T = TypeVar("T")

TRIES = 5
PAUSE_SECONDS = 1.0
"""Pause before the second try; it doubles after each."""

_BLOCK = 1 << 20
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_DOCKER_HUB_KEYS = "https://index.docker.io/v1/"
_NO_CONFIG = "the Secret for the registry holds no docker config.json with auths"
_TIMEOUT = httpx.Timeout(60, connect=10, write=300)


class PushError(Exception):
    """The registry refuses the push; the text says why, without the registry's own words."""


@dataclass(frozen=True)
class Reference:
    """oci://HOST/REPOSITORY:TAG."""

    host: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse a URI that was validated as spec.artifact.push.oci."""
        place, _, tag = uri.removeprefix("oci://").rpartition(":")
        host, _, repository = place.partition("/")
        if host in _DOCKER_HUB:
            host, repository = _DOCKER_HUB[-1], repository if "/" in repository else f"library/{repository}"
        return cls(host, repository, tag)


def keys_for(host: str, docker_config: str | None) -> tuple[str, str] | None:
    """User and password for the registry, from a docker config.json.

    Raises:
        PushError: it is not a docker config.json.
    """
    if not docker_config:
        return None
    names = [host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/"]
    if host in _DOCKER_HUB:
        names += [*_DOCKER_HUB, _DOCKER_HUB_KEYS]
    entries = entries_of(docker_config)
    try:
        entry = next((entries[name] for name in names if name in entries), None)
        if entry is None:
            return None
        if "auth" in entry:
            user, _, password = b64decode(entry["auth"]).decode().partition(":")
            return user, password
        return entry["username"], entry["password"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PushError(_NO_CONFIG) from None


def entries_of(docker_config: str) -> dict[str, Any]:
    """The entries of a docker config.json by registry.

    Raises:
        PushError: it is not a docker config.json.
    """
    try:
        entries = json.loads(docker_config)["auths"]
    except (ValueError, KeyError, TypeError):
        entries = None
    if not isinstance(entries, dict):
        raise PushError(_NO_CONFIG)
    return entries


class Registry:
    """Client for pushing to one repository of a registry."""

    def __init__(self, reference: Reference, keys: tuple[str, str] | None, *, plain_http: bool) -> None:
        self._reference = reference
        self._has_keys = keys is not None
        root = f"{'http' if plain_http else 'https'}://{reference.host}/v2/{reference.repository}/"
        self._client = httpx.Client(
            base_url=root, auth=_Keys(keys, httpx.URL(root)), timeout=_TIMEOUT, follow_redirects=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def push(self, folder: Path) -> str:
        """Push a complete folder under the tag; returns the digest of its manifest there.

        Raises:
            PushError: the registry refuses it.
        """
        packed = pack(folder)
        digest = digest_of(packed.manifest)
        if self._tagged() == digest:
            return digest
        for layer in packed.layers:
            self._blob(layer.digest, layer.size, layer.content)
        self._blob(digest_of(packed.config), len(packed.config), packed.config)
        self._try(lambda: self._put_manifest(packed.manifest, digest), "the manifest")
        return digest

    def _tagged(self) -> str | None:
        """The digest that the tag currently points to."""
        accept = {"Accept": IMAGE_MANIFEST}
        answer = self._try(lambda: self._ask("HEAD", f"manifests/{self._reference.tag}", headers=accept), "the tag")
        return answer.headers.get("Docker-Content-Digest") if answer.status_code == HTTPStatus.OK else None

    def _blob(self, digest: str, size: int, content: bytes | Path) -> None:
        """Upload a blob unless it exists. A retry starts a new upload: the registry discards the old one."""

        def upload() -> None:
            if self._ask("HEAD", f"blobs/{digest}").status_code == HTTPStatus.OK:
                return
            begun = self._ask("POST", "blobs/uploads/")
            if begun.status_code != HTTPStatus.ACCEPTED or "Location" not in begun.headers:
                raise _RefusedError(begun.status_code)
            place = _upload_to(begun).copy_merge_params({"digest": digest})
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            body = _Body(content) if isinstance(content, Path) else content
            _require_created(self._ask("PUT", place, content=body, headers=headers))

        self._try(upload, f"blob {digest[:19]}")

    def _put_manifest(self, manifest: bytes, digest: str) -> None:
        headers = {"Content-Type": IMAGE_MANIFEST}
        answer = self._ask("PUT", f"manifests/{self._reference.tag}", content=manifest, headers=headers)
        _require_created(answer)
        if answer.headers.get("Docker-Content-Digest", digest) != digest:
            raise PushError("the registry has stored another manifest than was sent")

    def _ask(self, method: str, path: str | httpx.URL, **more: Any) -> httpx.Response:
        answer = self._client.request(method, path, **more)
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise PushError(f"{self._why_denied(answer.status_code)} (status {answer.status_code})")
        if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS or answer.status_code >= 500:
            raise _BusyError(answer.status_code)
        return answer

    def _why_denied(self, status: int) -> str:
        if not self._has_keys:
            host = self._reference.host
            return f"the registry asks for keys, and there are none for {host} (oci.secretRef, or docker login {host})"
        if status == HTTPStatus.FORBIDDEN:
            return f"the registry does not let these keys push to {self._reference.repository}"
        return "the registry refuses its keys"

    def _try(self, action: Callable[[], T], what: str) -> T:
        for tried in range(1, TRIES + 1):
            try:
                return action()
            except _RefusedError as error:
                raise PushError(f"the registry does not take {what} (status {error.status})") from error
            except (httpx.TransportError, _BusyError) as error:
                if tried == TRIES:
                    message = f"status {error.status}" if isinstance(error, _BusyError) else why_unreachable(error)
                    if message == NO_TLS:
                        message += "; plainHTTP: true (--plain-http) is for a registry without it"
                    raise PushError(f"the registry does not answer as it should for {what} ({message})") from error
            except OSError as error:  # from the file: httpx's errors are none
                raise PushError(f"{what} cannot be read: {error.strerror}") from error
            time.sleep(PAUSE_SECONDS * 2 ** (tried - 1))
        raise AssertionError("the last try returns or raises")


def _upload_to(begun: httpx.Response) -> httpx.URL:
    try:
        place = httpx.URL(urljoin(str(begun.url), begun.headers["Location"]))
    except (ValueError, httpx.InvalidURL) as error:
        raise PushError("the registry names no place to upload to") from error
    if begun.url.scheme == "https" != place.scheme:
        raise PushError("the registry asks for the model to be sent without TLS")
    return place


class _StatusError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _RefusedError(_StatusError):
    """A response that a retry does not change."""


class _BusyError(_StatusError):
    """A response that a retry may change."""


class _Keys(httpx.Auth):
    """Sends user and password, or the token that the registry's token service issues for them (or anonymously).

    They are sent only to the registry at `root`: it may direct uploads to another host, with a signed URL.
    """

    requires_response_body = True

    def __init__(self, keys: tuple[str, str] | None, root: httpx.URL) -> None:
        self._root = root
        self._basic = f"Basic {b64encode(':'.join(keys).encode()).decode()}" if keys else None
        self._header: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Authenticate in httpx's protocol: send, read the challenge, send again."""
        if request.url.netloc != self._root.netloc:
            yield request
            return
        if self._header:
            request.headers["Authorization"] = self._header
        answer = yield request
        asked = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code != HTTPStatus.UNAUTHORIZED:
            return
        if asked.lower().startswith("bearer "):
            given = yield self._token_request(asked)
            if given.status_code != HTTPStatus.OK:
                return  # httpx then returns this response for the request
            self._header = f"Bearer {_token_in(given)}"
        elif self._basic and asked.lower().startswith("basic"):
            self._header = self._basic
        if self._header:
            request.headers["Authorization"] = self._header
            yield request

    def _token_request(self, asked: str) -> httpx.Request:
        said = dict(re.findall(r'(\w+)="([^"]*)"', asked))
        realm = said.get("realm", "")
        if not realm.startswith("https://") and self._root.scheme == "https":
            raise PushError("the registry asks for its keys to be sent without TLS")
        query = {name: said[name] for name in ("service", "scope") if name in said}
        header = {"Authorization": self._basic} if self._basic else {}
        return httpx.Request("GET", realm, params=query, headers=header)


def _require_created(answer: httpx.Response) -> None:
    if answer.status_code != HTTPStatus.CREATED:
        raise _RefusedError(answer.status_code)


def _token_in(given: httpx.Response) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        body = given.json()
        if token := body.get("token") or body.get("access_token"):
            return str(token)
    raise PushError("the registry's token service gives no token")


class _Body:
    """A file's blocks; can be iterated several times."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
