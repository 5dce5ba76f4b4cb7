"""An artifact goes to an OCI registry: what is not there yet, then the manifest under its tag.

It speaks the distribution API of OCI over httpx. How an artifact is described there is in `model_pack.py`; when it is
pushed is not decided here.
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
from finetune_trainer.storage.store_errors import NO_TLS, why_silent

T = TypeVar("T")

TRIES = 5
PAUSE_SECONDS = 1.0
"""Before the second try; it doubles from there on."""

_BLOCK = 1 << 20
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_DOCKER_HUB_KEYS = "https://index.docker.io/v1/"
_NO_CONFIG = "the Secret for the registry holds no docker config.json with auths"
_TIMEOUT = httpx.Timeout(60, connect=10, write=300)


class PushError(Exception):
    """The registry does not take it; the text says why, without the registry's own words."""


@dataclass(frozen=True)
class Reference:
    """oci://HOST/REPOSITORY:TAG."""

    host: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Of a URI that spec.artifact.push.oci has let through."""
        place, _, tag = uri.removeprefix("oci://").rpartition(":")
        host, _, repository = place.partition("/")
        if host in _DOCKER_HUB:
            host, repository = _DOCKER_HUB[-1], repository if "/" in repository else f"library/{repository}"
        return cls(host, repository, tag)


def keys_for(host: str, docker_config: str | None) -> tuple[str, str] | None:
    """User and password for the registry, from the text of a docker config.json.

    Raises:
        PushError: it is no such text.
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
    """What the text of a docker config.json has for each registry.

    Raises:
        PushError: it is no such text.
    """
    try:
        entries = json.loads(docker_config)["auths"]
    except (ValueError, KeyError, TypeError):
        entries = None
    if not isinstance(entries, dict):
        raise PushError(_NO_CONFIG)
    return entries


class Registry:
    """One repository of a registry, as it is pushed to."""

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
        """Push a whole folder under the tag; the digest of its manifest there.

        Raises:
            PushError: the registry does not take it.
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
        """The digest that the tag stands for now."""
        accept = {"Accept": IMAGE_MANIFEST}
        answer = self._try(lambda: self._ask("HEAD", f"manifests/{self._reference.tag}", headers=accept), "the tag")
        return answer.headers.get("Docker-Content-Digest") if answer.status_code == HTTPStatus.OK else None

    def _blob(self, digest: str, size: int, content: bytes | Path) -> None:
        """Upload it unless it is there. A new try is a new upload: what broke off is the registry's to forget."""

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
                    said = f"status {error.status}" if isinstance(error, _BusyError) else why_silent(error)
                    if said == NO_TLS:
                        said += "; plainHTTP: true (--plain-http) is for a registry without it"
                    raise PushError(f"the registry does not answer as it should for {what} ({said})") from error
            except OSError as error:  # none of httpx's is one
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
    """An answer that another try does not change."""


class _BusyError(_StatusError):
    """An answer that another try may change."""


class _Keys(httpx.Auth):
    """User and password, or the token that the registry's token service gives for them (or for nobody).

    They are for the registry at `root` alone: it may name another place for an upload, whose address is signed.
    """

    requires_response_body = True

    def __init__(self, keys: tuple[str, str] | None, root: httpx.URL) -> None:
        self._root = root
        self._basic = f"Basic {b64encode(':'.join(keys).encode()).decode()}" if keys else None
        self._header: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """As httpx wants it: send, see what is asked for, send again."""
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
                return  # and httpx takes this answer for that to the request
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
    """A file's blocks, as often as they are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
