"""A fake API server for the reconcilers: versions, optimistic locking, apply, deletion, and a watch that lags behind.

Without validation, garbage collection and controllers: tests act as these.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from finetune_api.manifest import Manifest
from finetune_api.names import FIELD_MANAGER
from finetune_operator.runtime.errors import Conflict, KubeError, NotFound, Transient
from finetune_operator.runtime.kube import PODS, Page, Resource

Event = tuple[Resource, str, Manifest]


class Killed(BaseException):
    """The operator's process was killed right before a request."""


class FakeKube:
    """Objects by resource, namespace and name. `requests` records the calls."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Resource, str, str], Manifest] = {}
        self.requests: list[tuple[str, str]] = []
        self.events: list[Event] = []
        """Watch events that are not delivered yet."""
        self.refusals: dict[tuple[str, str], KubeError] = {}
        """Errors to raise, by verb and plural."""
        self.failing_writes: list[bool] = []
        """For each of the next status writes, whether it fails."""
        self.killed_in: int | None = None
        """Number of requests answered before the operator is killed."""
        self.log = ""
        self.now = "2026-11-21T12:00:00Z"
        """creationTimestamp of new objects."""
        self.revision = 100

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Manifest | None:
        self._ask("get", resource)
        return copied(self.objects.get((resource, namespace or "", name)))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[Manifest]:
        self._ask("list", resource)
        return [
            copied(obj)
            for (kind, its_namespace, _), obj in self.objects.items()
            if kind is resource
            and namespace in {None, its_namespace}
            and _has_labels(obj, label_selector)
            and _has_fields(obj, field_selector)
        ]

    async def pages(
        self, resource: Resource, namespace: str | None = None, label_selector: str | None = None
    ) -> AsyncIterator[Page]:
        yield Page(await self.list(resource, namespace, label_selector), restarted=True)

    async def create(self, resource: Resource, body: Manifest) -> Manifest:
        self._ask("create", resource)
        if self._key(resource, body) in self.objects:
            raise Conflict(409, "AlreadyExists", "it exists")
        return self.put(resource, body)

    async def create_once(self, resource: Resource, body: Manifest) -> Manifest:
        try:
            return await self.create(resource, body)
        except Conflict:
            found = self.objects[self._key(resource, body)]
            if found["metadata"].get("ownerReferences") != body["metadata"]["ownerReferences"]:
                raise
            return copied(found)

    async def would_create(self, resource: Resource, body: Manifest) -> None:
        self._ask("would_create", resource)
        assert "name" not in body["metadata"]

    async def apply(self, resource: Resource, body: Manifest) -> Manifest:
        self._ask("apply", resource)
        present = self.objects.get(self._key(resource, body))
        written = copied(_merged(present, body) if present else body)
        if "selector" in body.get("spec", {}):  # a map that the API server replaces as a whole
            written["spec"]["selector"] = copied(body["spec"]["selector"])
        written["metadata"]["managedFields"] = [{"manager": FIELD_MANAGER, "operation": "Apply"}]
        return self.put(resource, written)

    async def patch_status(
        self,
        resource: Resource,
        name: str,
        namespace: str | None,
        status: Manifest,
        resource_version: str | None = None,
    ) -> Manifest:
        self._ask("patch_status", resource)
        if self.failing_writes and self.failing_writes.pop(0):
            raise Transient(503, "Unavailable", "no")
        present = self.objects.get((resource, namespace or "", name))
        if present is None:
            raise NotFound(404, "NotFound", "gone")
        if resource_version != present["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "changed meanwhile")
        return self.put(resource, {**present, "status": status})

    async def merge_patch(self, resource: Resource, name: str, namespace: str | None, body: Manifest) -> Manifest:
        self._ask("patch", resource)
        present = self.objects.get((resource, namespace or "", name))
        if present is None:
            raise NotFound(404, "NotFound", "gone")
        if body["metadata"].pop("resourceVersion") != present["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "changed meanwhile")
        patched: Manifest = copied(_merged(present, body))
        if "deletionTimestamp" in patched["metadata"] and not patched["metadata"].get("finalizers"):
            # The deletion is not a write: watches show the previous object, with its finalizers.
            self.drop(resource, name, namespace)
            return patched
        return self.put(resource, patched)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        version: str | None = None,
    ) -> bool:
        self._ask("delete", resource)
        present = self.objects.get((resource, namespace or "", name))
        if present is None or uid not in {None, present["metadata"]["uid"]}:
            return False
        if version not in {None, present["metadata"]["resourceVersion"]}:
            raise Conflict(409, "Conflict", "changed meanwhile")
        if present["metadata"].get("finalizers"):
            self.mark_deleted(resource, name, namespace)
        else:
            self.drop(resource, name, namespace)
        return True

    def mark_deleted(
        self, resource: Resource, name: str, namespace: str | None = "team-a", at: str = "2026-11-21T13:00:00Z"
    ) -> None:
        """Set the deletionTimestamp, as the deletion of an object with finalizers does."""
        present = self.objects[resource, namespace or "", name]
        metadata = present["metadata"] | {"deletionTimestamp": at}
        self.put(resource, {**present, "metadata": metadata})

    async def pod_log_tail(self, namespace: str, pod: str, container: str, lines: int, max_bytes: int) -> str:
        assert (container, lines > 0, max_bytes > 0) == ("trainer", True, True)
        self._ask("log", PODS)
        assert (PODS, namespace, pod) in self.objects
        return self.log

    def put(self, resource: Resource, body: Manifest) -> Manifest:
        """Write an object as any client would; a write without changes gives no event."""
        key = self._key(resource, body)
        present = self.objects.get(key)
        old = present["metadata"] if present else {"uid": f"uid-{self.revision:06}", "generation": 0}
        created = {"creationTimestamp": old.get("creationTimestamp", self.now)}
        new = copied({**body, "apiVersion": resource.api_version, "kind": resource.kind})
        kept = {"uid": old["uid"], "generation": old["generation"], "resourceVersion": old.get("resourceVersion", "")}
        new["metadata"] = created | new["metadata"] | kept
        if present is not None and new == present:
            return copied(present)
        self.revision += 1
        if present is None or new.get("spec") != present.get("spec"):
            new["metadata"]["generation"] += 1
        new["metadata"]["resourceVersion"] = str(self.revision)
        self.objects[key] = new
        self.events.append((resource, "MODIFIED" if present else "ADDED", copied(new)))
        return copied(new)

    def change(self, resource: Resource, name: str, namespace: str | None = "team-a", **fields: Any) -> Manifest:
        """Replace top-level fields of an object."""
        return self.put(resource, {**self.objects[resource, namespace or "", name], **fields})

    def drop(self, resource: Resource, name: str, namespace: str | None = "team-a") -> None:
        """Delete an object as any client would."""
        gone = self.objects.pop((resource, namespace or "", name))
        self.revision += 1
        gone["metadata"]["resourceVersion"] = str(self.revision)
        self.events.append((resource, "DELETED", gone))

    def take_events(self) -> Iterator[Event]:
        """Deliver the pending watch events, oldest first."""
        while self.events:
            yield self.events.pop(0)

    def asked(self, verb: str, plural: str) -> int:
        """How often a request was made."""
        return self.requests.count((verb, plural))

    def _ask(self, verb: str, resource: Resource) -> None:
        if self.killed_in is not None:
            self.killed_in -= 1
            if self.killed_in < 0:
                self.killed_in = None
                raise Killed
        self.requests.append((verb, resource.plural))
        if (verb, resource.plural) in self.refusals:
            raise self.refusals[verb, resource.plural]

    @staticmethod
    def _key(resource: Resource, body: Manifest) -> tuple[Resource, str, str]:
        return resource, body["metadata"].get("namespace") or "", body["metadata"]["name"]


def copied(value: Any) -> Any:
    """`deepcopy` in a tenth of its time: manifests contain only dicts, lists and immutable values."""
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}
    if isinstance(value, list):
        return [copied(one) for one in value]
    return value


def _merged(present: Any, wanted: Any) -> Any:
    """Merge maps; null deletes, everything else is replaced."""
    if not isinstance(wanted, dict):
        return wanted
    before = present if isinstance(present, dict) else {}
    merged = before | {key: _merged(before.get(key), value) for key, value in wanted.items()}
    return {key: value for key, value in merged.items() if key not in wanted or value is not None}


def _has_labels(obj: Manifest, selector: str | None) -> bool:
    labels = obj["metadata"].get("labels") or {}
    return all(labels.get(k) == v for k, _, v in (part.partition("=") for part in (selector or "").split(",") if part))


def _has_fields(obj: Manifest, selector: str | None) -> bool:
    def field(path: str) -> Any:
        value: Any = obj
        for step in path.split("."):
            value = (value or {}).get(step)
        return value

    return all(field(k) == v for k, _, v in (part.partition("=") for part in (selector or "").split(",") if part))
