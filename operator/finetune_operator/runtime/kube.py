"""The only access to the API server: raw dicts in and out, server-side apply, whole-status writes, typed errors.

Knows only the URLs of kinds (group, version, plural). Decides nothing, caches nothing.
"""

import base64
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import orjson

from finetune_api.manifest import Manifest, owners_of
from finetune_api.names import FIELD_MANAGER, GROUP, VERSION
from finetune_api.words import unstyled
from finetune_operator.runtime import connection
from finetune_operator.runtime.circuit_breaker import CircuitBreaker
from finetune_operator.runtime.connection import Connection, Request
from finetune_operator.runtime.errors import Conflict, Gone, Invalid, KubeError, NotFound
from finetune_operator.runtime.settings import Settings

PAGE_SIZE = 250
"""Objects per page: parsing one blocks the event loop, some 30 ms for pods of this size."""

LOG_READ_MAX_BYTES = 4 * 1024 * 1024
_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML
_STRICT = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
"""Parameters of each write: the server rejects unknown fields instead of dropping them silently."""
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


@dataclass(frozen=True, slots=True)
class Resource:
    """The API resource of one kind."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As in manifests: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path, quoted; without a namespace that of all namespaces.

        Raises:
            ValueError: a part cannot be a name and would change the path's meaning.
        """
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        for part in parts:
            if not _SEGMENT.fullmatch(part):
                raise ValueError(f"{part!r} cannot be a part of an API path")
        return "/" + "/".join(quote(part, safe=":") for part in parts)


JOBS = Resource("batch", "v1", "jobs", "Job")
JOB_SETS = Resource("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet")
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
SECRETS = Resource("", "v1", "secrets", "Secret")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
CONNECTIONS = Resource(GROUP, VERSION, "llmconnections", "LLMConnection", namespaced=False)
FINE_TUNE_JOBS = Resource(GROUP, VERSION, "finetunejobs", "FineTuneJob")
FINE_TUNED_MODELS = Resource(GROUP, VERSION, "finetunedmodels", "FineTunedModel")
MODEL_DEPLOYMENTS = Resource(GROUP, VERSION, "modeldeployments", "ModelDeployment")
OWN_KINDS: tuple[Resource, ...] = (CONNECTIONS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, FINE_TUNE_JOBS)


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """The owner of a token, as the API server says. Pod fields are set for tokens that are bound to a pod."""

    username: str
    uid: str
    groups: tuple[str, ...] = ()
    namespace: str | None = None
    service_account: str | None = None
    pod_name: str | None = None
    pod_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing."""

    items: list[Manifest]
    restarted: bool
    """Whether the listing starts over with this page: discard all earlier pages."""


class Kube:
    """The API server. Created by `connect`; all methods raise subclasses of KubeError, see `errors`.

    Args:
        wire: the pooled connection.
        guard: called right before each request that changes something; raises LeadershipLost to prevent it. A request
            that was sent already cannot be called back, so writes carry a resourceVersion where two writers could
            disagree.
    """

    def __init__(self, wire: Connection, guard: Callable[[], None] | None = None) -> None:
        self._wire = wire
        self._guard = guard
        self._breaker = CircuitBreaker(time.monotonic)

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings) -> AsyncIterator["Kube"]:
        """Connects with the pod's service account, or with a kubeconfig; closes the session at the end.

        Raises:
            NoCluster: there are no credentials.
        """
        async with connection.connect(settings) as wire:
            yield cls(wire)

    def guarded(self, guard: Callable[[], None]) -> "Kube":
        """The same connection and rate limit, with a guard before each change."""
        return Kube(self._wire, guard)

    def now(self) -> datetime:
        """The time by the API server's clock, according to its last answers."""
        return self._wire.clock.now()

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Manifest | None:
        """The object, or None if it does not exist."""
        request = Request("get", resource.plural, "GET", resource.path(namespace, name))
        try:
            return _object(await self._wire.read(request))
        except NotFound:
            return None

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[Manifest]:
        """All objects (of a namespace, with a label or a field). Each has its apiVersion and kind."""
        items: list[Manifest] = []
        async for page in self.pages(resource, namespace, label_selector, field_selector):
            if page.restarted:
                items.clear()
            items += page.items
        return items

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> AsyncIterator[Page]:
        """The result of `list` in pages, so that all objects need not be in memory at once."""
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}
        params = {"limit": str(PAGE_SIZE)}
        if label_selector:
            params["labelSelector"] = label_selector
        if field_selector:
            params["fieldSelector"] = field_selector
        restarted = True
        while True:
            request = Request("list", resource.plural, "GET", resource.path(namespace), dict(params))
            try:
                page = _object(await self._wire.read(request))
            except Gone:
                # The snapshot of the continue token was compacted: read the whole list again, without pages.
                params.pop("continue", None)
                if params.pop("limit", None) is None:
                    raise
                restarted = True
                continue
            yield Page([kind | item for item in page.get("items") or ()], restarted)
            restarted = False
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            params["continue"] = token

    async def create(self, resource: Resource, body: Manifest) -> Manifest:
        """Creates the object in its metadata's namespace.

        Raises:
            Conflict: an object of that name exists already.
        """
        namespace = body.get("metadata", {}).get("namespace")
        path = resource.path(namespace)
        request = Request("create", resource.plural, "POST", path, _STRICT, orjson.dumps(body))
        return await self._change(request, path)

    async def create_once(self, resource: Resource, body: Manifest) -> Manifest:
        """Creates the object, or returns the one that an earlier request for the same owner created.

        For objects that are never changed. Server-side apply of a Job costs the API server twice as much, and fails
        if the template would be different today.

        Raises:
            Conflict: an object of that name has another owner.
        """
        try:
            return await self.create(resource, body)
        except Conflict:
            found = await self.get(resource, body["metadata"]["name"], body["metadata"].get("namespace"))
            if found is None or not owner_uids(body) <= owner_uids(found):
                raise
            return found

    async def would_create(self, resource: Resource, body: Manifest) -> None:
        """Checks whether the object could be created now, without creating it (a dry run).

        Raises:
            KubeError: as `create` would.
        """
        path, params = resource.path(body["metadata"]["namespace"]), _STRICT | {"dryRun": "All"}
        await self._wire.read(Request("create", resource.plural, "POST", path, params, orjson.dumps(body)))

    async def apply(self, resource: Resource, body: Manifest) -> Manifest:
        """Server-side apply as FIELD_MANAGER, which takes fields over from other managers.

        Raises:
            Conflict: metadata.resourceVersion is outdated.
            Invalid: a field is unknown or invalid; or metadata.uid is that of another object.
        """
        metadata = body["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        full = {"apiVersion": resource.api_version, "kind": resource.kind} | body
        params = _STRICT | {"force": "true"}
        request = Request("apply", resource.plural, "PATCH", path, params, orjson.dumps(full), _APPLY_PATCH)
        return await self._change(request, resource.path(metadata.get("namespace")))

    async def patch_status(
        self,
        resource: Resource,
        name: str,
        namespace: str | None,
        status: dict[str, Any],
        resource_version: str | None = None,
    ) -> Manifest:
        """Replaces the whole status: fields that are not in `status` are removed. Changes nothing else.

        A JSON patch does this in one small request (`add` replaces an existing member). Writing the same status again
        does not change the object or its resourceVersion, and causes no watch event.

        Raises:
            Conflict: `resource_version` is given and outdated.
            NotFound: the object is gone.
        """
        operations: list[dict[str, Any]] = [{"op": "add", "path": "/status", "value": status}]
        if resource_version is not None:
            # Not "test": the API server answers 422 to a failed test, but 409 to an old resourceVersion.
            operations.insert(0, {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version})
        path = resource.path(namespace, name, "status")
        body = orjson.dumps(operations)
        request = Request("patch_status", resource.plural, "PATCH", path, _STRICT, body, _JSON_PATCH)
        return await self._change(request, resource.path(namespace))

    async def merge_patch(self, resource: Resource, name: str, namespace: str | None, body: Manifest) -> Manifest:
        """Merges `body` into the object (null removes); with metadata.resourceVersion only onto that version.

        Raises:
            Conflict: the object has changed since.
            NotFound: the object is gone.
        """
        path = resource.path(namespace, name)
        request = Request("patch", resource.plural, "PATCH", path, _STRICT, orjson.dumps(body), _MERGE_PATCH)
        return await self._change(request, resource.path(namespace))

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        version: str | None = None,
    ) -> bool:
        """Requests deletion. False if the object is already gone, or by `uid` another one has its name now.

        Raises:
            Conflict: it has changed since this resourceVersion.
        """
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        conditions = {"uid": uid, "resourceVersion": version}
        if told := {key: value for key, value in conditions.items() if value is not None}:
            options["preconditions"] = told
        path = resource.path(namespace, name)
        request = Request("delete", resource.plural, "DELETE", path, body=orjson.dumps(options))
        try:
            await self._change(request, resource.path(namespace))
        except NotFound:
            return False
        except Conflict:
            if uid is None:
                raise
            now = await self.get(resource, name, namespace)
            if now is not None and now["metadata"]["uid"] == uid:
                raise
            return False
        return True

    async def pod_log_tail(self, namespace: str, pod: str, container: str, lines: int, max_bytes: int) -> str:
        """The last lines of a container's log, at most `max_bytes` from the end; "" if there is none (yet).

        The text is the program's own, without colour codes: redact it before using it.
        """
        params = {"container": container, "tailLines": str(lines), "limitBytes": str(LOG_READ_MAX_BYTES)}
        request = Request("log", "pods", "GET", PODS.path(namespace, pod, "log"), params)
        tail = b""
        try:
            async with self._wire.stream(request) as body:
                # The server's own limitBytes keeps the beginning, so the end is cut here.
                async for chunk in body.iter_any():
                    tail = (tail + chunk)[-max_bytes:] if max_bytes > 0 else b""
        except (NotFound, Invalid):
            return ""  # no such pod or container, or it has not started
        return unstyled(tail.decode(errors="ignore"))

    async def post_to_service(self, namespace: str, name: str, port: str, path: str, body: bytes) -> bytes:
        """POST JSON to a Service through the API server's proxy, for callers outside of the pod network.

        Raises:
            Transient: there is no answer.
        """
        where = f"{SERVICES.path(namespace, f'{name}:{port}', 'proxy')}/{path.lstrip('/')}"
        return await self._wire.send(Request("create", "services/proxy", "POST", where, body=body))

    async def review_token(self, token: str, audience: str) -> TokenIdentity | None:
        """The owner of the token; None if it is not valid now for that audience."""
        body = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [audience]},
        }
        request = Request("create", TOKEN_REVIEWS.plural, "POST", TOKEN_REVIEWS.path(), body=orjson.dumps(body))
        status = _object(await self._wire.read(request)).get("status") or {}
        # An API server without audience support would leave `audiences` empty and accept any of its tokens.
        if not status.get("authenticated") or audience not in (status.get("audiences") or ()):
            return None
        return _identity(status.get("user") or {})

    async def _change(self, request: Request, collection: str) -> Manifest:
        with self._breaker.attempt(f"{request.verb} {collection}"):
            await self._wire.throttle()
            if self._guard is not None:
                self._guard()
            return _object(await self._wire.send(request))


def _object(body: bytes) -> Manifest:
    """Parses a body that must be an object.

    Raises:
        KubeError: it is not, for example because something in between has answered.
    """
    with suppress(orjson.JSONDecodeError):
        found = orjson.loads(body)
        if isinstance(found, dict):
            return found
    raise KubeError(200, "NotAnObject", "the API server answered with something that is not an object")


def owner_uids(obj: Mapping[str, Any]) -> set[str]:
    """UIDs of the object's owners."""
    return {owner["uid"] for owner in owners_of(obj)}


def version_of(obj: Mapping[str, Any]) -> int:
    """The resourceVersion. A number, as etcd has always used and Kubernetes guarantees since 1.35."""
    version = str(obj["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdecimal() else 0


def _identity(user: dict[str, Any]) -> TokenIdentity:
    """Reads system:serviceaccount:NAMESPACE:NAME and the claims of a token that is bound to a pod."""
    username = str(user.get("username") or "")
    kind, _, account = username.partition("system:serviceaccount:")
    namespace, _, name = account.partition(":")
    extra = user.get("extra") or {}
    is_account = not kind and bool(name)
    return TokenIdentity(
        username=username,
        uid=str(user.get("uid") or ""),
        groups=tuple(user.get("groups") or ()),
        namespace=namespace if is_account else None,
        service_account=name if is_account else None,
        pod_name=_first(extra.get("authentication.kubernetes.io/pod-name")),
        pod_uid=_first(extra.get("authentication.kubernetes.io/pod-uid")),
    )


def _first(values: list[str] | None) -> str | None:
    return values[0] if values else None


def secret_value(secret: Manifest, key: str) -> bytes | None:
    """One decoded key of a Secret, or None."""
    text = (secret.get("data") or {}).get(key)
    return None if text is None else base64.b64decode(text)
