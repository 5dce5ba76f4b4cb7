"""What every reconciler works with, and how it reads objects and writes their status."""

import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from finetune_api.base import ApiModel
from finetune_api.catalogue import Catalogue
from finetune_api.connection import LLMConnectionSpec, LLMConnectionStatus
from finetune_api.job_status import Failure
from finetune_api.manifest import Manifest, annotations_of, finalizers_of, labels_of
from finetune_api.names import BEGUN_ANNOTATION
from finetune_api.policy import selects
from finetune_api.reasons import Reason
from finetune_operator.decide import ignored_fields
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.connection import lacking, with_resolved
from finetune_operator.decide.job.reported import REPORT_INTERVAL
from finetune_operator.decide.job.view import PATIENCE
from finetune_operator.decide.pods.refused import step_of_write
from finetune_operator.reconcilers import departed
from finetune_operator.reconcilers.departed import Departed
from finetune_operator.reconcilers.watched.reading import parse_spec, parse_status, with_unread, written_status
from finetune_operator.runtime.contested_statuses import ContestedStatuses
from finetune_operator.runtime.errors import REFUSALS, Conflict, Forbidden, KubeError, NotFound, Transient
from finetune_operator.runtime.kube import CONNECTIONS, NAMESPACES, Kube, Resource
from finetune_operator.runtime.queue import Key, Lane
from finetune_operator.runtime.refused_writes import RefusedWrites
from finetune_operator.runtime.store import Store
from finetune_operator.runtime.uptime import Clock

logger = logging.getLogger(__name__)

_FIELD_OF_STATUS = 'unknown field "status.'
_OTHER_DEFINITIONS = (
    ". The definitions on the cluster are older than the operator: apply those of its release (the chart's "
    "crds.install, or crds/); it is retried automatically"
)

_WRITING_ROUNDS = 4
_MARKS = {"annotations", "labels", "managedFields", "resourceVersion"}

Announce = Callable[[Mapping[str, Any], str, str, str], Awaitable[None]]
"""Posts an Event (regarding, type, reason, note) for `kubectl describe`. Never raises: Events are best effort."""


@dataclass(frozen=True)
class Context:
    """What all reconcilers share: clients, caches, clocks."""

    kube: Kube
    store: Store
    announce: Announce
    enqueue: Callable[[Key], None]
    """Has an object reconciled soon."""
    enqueue_after: Callable[[Key, float, Lane], None]
    """The same after so many seconds, in a lane."""
    guard: Callable[[], None]
    """Raises LeadershipLost if another replica may lead by now."""
    catalogue: Callable[[], Catalogue]
    """The currently known prices and dates of providers."""
    clock: Callable[[], datetime]
    seconds: Clock = time.monotonic
    report_interval: timedelta = REPORT_INTERVAL
    """Minimum time between two writes of a job's progress."""
    patience: timedelta = PATIENCE
    """How long a trainer may be silent before its job says so."""
    ipv6: bool = False
    """Whether the cluster's first address family is IPv6."""
    departed: Departed = field(default_factory=Departed)
    """Objects that are gone but have left something at a provider."""
    _connections: dict[str, tuple[int, LLMConnectionSpec | None]] = field(default_factory=dict)
    """Parsed connections with their versions: every reconcile of every job needs its connection."""

    @cached_property
    def _refused_writes(self) -> RefusedWrites:
        """Writes of statuses and finalizers that the API server refuses."""
        return RefusedWrites(self.seconds)

    @cached_property
    def _contested(self) -> ContestedStatuses:
        """Statuses that others write as well."""
        return ContestedStatuses(self.seconds)

    async def read(self, resource: Resource, key: Key) -> Manifest | None:
        """The object as last seen; if the store lacks it, the API is asked, since a watch may be late."""
        if departed.is_departed(key):
            return self.departed.get(key)
        namespace = key.namespace or None
        found = self.store.get(resource, key.name, namespace)
        if found is None:
            found = await self.kube.get(resource, key.name, namespace)
            if found is not None:
                self.store.put(resource, found)
        return found

    async def write_status(
        self,
        resource: Resource,
        obj: Manifest,
        old: ApiModel,
        new: ApiModel,
        *,
        notified: bool = False,
        memory: str = "",
    ) -> Manifest | None:
        """Write the status if it changed, onto the state that was read.

        Args:
            resource: the object's.
            obj: the object as it was read.
            old: its status then.
            new: its new status.
            notified: whether no reconcile is needed when the watch returns this write.
            memory: the field that the next step relies on: if the server stores another value of it, the whole write is
                reverted and counts as refused.

        Returns:
            The object with that status; None if it is gone.

        Raises:
            Conflict: the object has changed since; the queue repeats the reconcile.
            KubeError: another one of REFUSALS, for which an Event was posted. Until the next try is due, the last such
                error is raised again; after an edit of the object, or of its labels, it is tried at once.
            Contested: another writer changes it again and again; it is corrected every half minute.
        """
        if old == new:
            return obj
        if self.departed.has(obj):
            return self.departed.set_status(obj, with_unread(written_status(obj), old, new))
        metadata, namespace = obj["metadata"], obj["metadata"].get("namespace")
        state, marks = _state_id(obj), _marks_of(obj)
        self._refused_writes.check(state, marks)
        self._contested.check(metadata["uid"], obj.get("status"))
        body = with_unread(written_status(obj), old, new)
        try:
            written = await self._put_status(resource, obj, body)
            await self._require_stored(resource, obj, written, body, memory)
        except NotFound:
            self.store.remove(resource, namespace, metadata["name"])  # deleted meanwhile: nothing to write to
            return None
        except REFUSALS as refusal:
            self._refused_writes.refused(state, refusal, marks)
            if _FIELD_OF_STATUS in refusal.message:
                # Older definitions have dropped fields of a newer release; no watch event tells of that.
                await self.refresh(resource, metadata["name"], namespace)
            await self.announce_refusal(obj, "its status cannot be written", refusal)
            raise
        except Transient:
            self._contested.forget(metadata["uid"])
            raise
        self._contested.wrote(metadata["uid"], written.get("status"))
        self.store.put(resource, written, notified=notified)
        return written

    async def _put_status(self, resource: Resource, obj: Manifest, body: Manifest) -> Manifest:
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace")
        return await self._write_onto_latest(
            resource, obj, lambda version: self.kube.patch_status(resource, name, namespace, body, version)
        )

    async def _require_stored(
        self, resource: Resource, obj: Manifest, written: Manifest, body: Manifest, memory: str
    ) -> None:
        """Report what a webhook or policy has changed in a status that was written; for `memory` see write_status.

        The next reconcile may write the same again: that is limited like refused writes.

        Raises:
            Forbidden: it has changed the field `memory`.
        """
        found = written.get("status") or {}
        lost = [key for key, value in body.items() if not _equal_but_precision(found.get(key), value)]
        if not lost:
            return
        named = ", ".join(f"status.{key}" for key in lost)
        changed = Forbidden(200, "Changed", f"the API server takes it, and keeps other values of {named}")
        if memory in lost:
            back = await self._put_status(resource, written, written_status(obj))
            self._contested.wrote(obj["metadata"]["uid"], back.get("status"))
            self.store.put(resource, back)
            raise changed
        self._refused_writes.refused(_state_id(obj), changed, _marks_of(obj))
        await self.announce_refusal(obj, "its status is not as it was written", changed)

    def written_by_another(self, obj: Manifest) -> bool:
        """Whether the object's present status was written by someone else."""
        return self._contested.written_by_another(obj["metadata"]["uid"], obj.get("status"))

    def seconds_left_to_another(self, obj: Manifest) -> float:
        """Seconds for which another writer's status counts, for a caller that cannot see the object's state itself.

        A status of an earlier spec says nothing about this one, nor does one that was emptied.
        """
        metadata, status = obj["metadata"], obj.get("status") or {}
        if not status.get("conditions") or status.get("observedGeneration") != metadata.get("generation"):
            return 0
        return self._contested.seconds_left_to_another(metadata["uid"], status)

    def accept_status(self, obj: Manifest) -> None:
        """Treat the object's present status as correct, whoever wrote it."""
        self._contested.accept(obj["metadata"]["uid"], obj.get("status"))

    async def announce_event(self, obj: Mapping[str, Any], event: tuple[str, str, str] | None) -> None:
        """Post an Event (type, reason, note) about an object, if there is one."""
        if event is not None:
            await self.announce(obj, *event)

    async def announce_refusal(self, obj: Mapping[str, Any], what: str, refusal: KubeError) -> None:
        """Post an Event about a write that a policy or webhook refuses, where status cannot say it."""
        known = step_of_write(refusal.message)
        step = _OTHER_DEFINITIONS if _FIELD_OF_STATUS in refusal.message else f". {known}" if known else ""
        logger.warning("%s: %s%s", what, refusal.message, step)
        await self.announce(obj, "Warning", Reason.WRITE_REFUSED, f"{what}: {refusal.message}{step}")

    async def announce_ignored(self, obj: Mapping[str, Any], sentences: Iterable[str]) -> None:
        """Post an Event about fields that are allowed but have no effect."""
        text = "; ".join(sentences)
        if text:
            await self.announce(obj, "Warning", ignored_fields.EVENT, text)

    async def add_finalizer(
        self, resource: Resource, obj: Manifest, finalizer: str, note: str | None = None
    ) -> Manifest:
        """Put our finalizer on the object, unless it is there: from now on it stays until we remove that.

        Args:
            resource: the object's.
            obj: the object as it was read.
            finalizer: ours.
            note: where the work began, for BEGUN_ANNOTATION; None leaves the annotation as it is.

        Raises:
            Conflict: the object has changed since it was read.
            KubeError: another one of REFUSALS, for which an Event was posted; for the next try see write_status.
        """
        noted = note is None or annotations_of(obj).get(BEGUN_ANNOTATION) == note
        if finalizer in finalizers_of(obj) and noted:
            return obj
        notes = {} if noted else {BEGUN_ANNOTATION: note}
        return await self._with_finalizers(resource, obj, [*_other_finalizers(obj, finalizer), finalizer], notes)

    async def remove_finalizer(self, resource: Resource, obj: Manifest, finalizer: str) -> Manifest:
        """Remove our finalizer from the object, if it is there; an object that is gone needs nothing.

        Raises:
            Conflict: the object has changed since it was read.
            KubeError: another one of REFUSALS, for which an Event was posted; for the next try see write_status.
        """
        if finalizer not in finalizers_of(obj):
            return obj
        if self.departed.has(obj):
            await self.announce(obj, "Warning", "FinalizerRemoved", departed.SETTLED)
            self.enqueue(self.departed.settle(obj))
            return obj
        self.departed.expect_removal(obj)  # the watch event may come before the answer
        try:
            return await self._with_finalizers(resource, obj, *_after_release(obj, finalizer))
        except NotFound:
            self.store.remove(resource, obj["metadata"]["namespace"], obj["metadata"]["name"])
            return obj

    def require_finalizer_removable(self, obj: Manifest, finalizer: str) -> None:
        """Call before deleting at providers what belongs to the object: else each reconcile would ask them again.

        Raises:
            KubeError: `remove_finalizer` has to wait; the last refusal of the server.
        """
        if finalizer in finalizers_of(obj):
            self._refused_writes.check(_change_id(obj, *_after_release(obj, finalizer)), _marks_of(obj))

    async def _with_finalizers(
        self, resource: Resource, obj: Manifest, finalizers: list[str], notes: Mapping[str, str | None]
    ) -> Manifest:
        name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]

        def write(version: str) -> Awaitable[Manifest]:
            metadata = {"finalizers": finalizers, "resourceVersion": version}
            body = {"metadata": metadata | ({"annotations": notes} if notes else {})}
            return self.kube.merge_patch(resource, name, namespace, body)

        async with self.refusable(obj, _change_id(obj, finalizers, notes), "its finalizers cannot be changed"):
            patched = await self._write_onto_latest(resource, obj, write)
        self.store.put(resource, patched)
        return patched

    @asynccontextmanager
    async def refusable(self, obj: Manifest, write: str, what: str) -> AsyncIterator[None]:
        """Wrap a write that every reconcile repeats and that a policy or webhook may refuse.

        Args:
            obj: the object that it belongs to.
            write: identifies the write.
            what: for the Event about a refusal: what cannot be done.

        Raises:
            KubeError: one of REFUSALS, for which an Event was posted; for the next try see write_status.
        """
        self._refused_writes.check(write, _marks_of(obj))
        try:
            yield
        except REFUSALS as refusal:
            self._refused_writes.refused(write, refusal, _marks_of(obj))
            await self.announce_refusal(obj, what, refusal)
            raise

    async def _write_onto_latest(
        self, resource: Resource, obj: Manifest, write: Callable[[str], Awaitable[Manifest]]
    ) -> Manifest:
        """Write onto the version that was read, or onto a newer one that differs in labels and annotations only.

        Otherwise whoever writes those again and again would block every write.

        Raises:
            Conflict: something else has changed, or they change too fast.
        """
        for _ in range(_WRITING_ROUNDS):
            try:
                return await write(obj["metadata"]["resourceVersion"])
            except Conflict:
                now = await self.kube.get(resource, obj["metadata"]["name"], obj["metadata"].get("namespace"))
                if now is None or _without_marks(now) != _without_marks(obj):
                    raise
                obj = now
        return await write(obj["metadata"]["resourceVersion"])

    async def refresh(self, resource: Resource, name: str, namespace: str | None = None) -> None:
        """Update the store from the API, where a final answer must not rest on a watch that is a moment late."""
        found = await self.kube.get(resource, name, namespace)
        if found is not None:
            self.store.put(resource, found)

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        """The labels of a namespace, as far as they are known."""
        return labels_of(self.store.get(NAMESPACES, namespace) or {"metadata": {}})

    def is_ending(self, namespace: str) -> bool:
        """Whether a namespace is being deleted: nothing can be created there any more."""
        found = self.store.get(NAMESPACES, namespace) or {}
        return bool((found.get("status") or {}).get("phase") == "Terminating")

    def connection(self, name: str) -> LLMConnectionSpec | None:
        """A connection's spec, resolved; None if it does not exist or cannot be read (its own status says why)."""
        version = self.store.version(CONNECTIONS, name)
        read = self._connections.get(name)
        if version is not None and read is not None and read[0] == version:
            return read[1]
        found = self.store.get(CONNECTIONS, name)
        if found is None or version is None:
            self._connections.pop(name, None)
            return None
        spec = parse_spec(LLMConnectionSpec, found)[0]
        if spec is not None:
            spec = with_resolved(spec, parse_status(LLMConnectionStatus, found))
        self._connections[name] = version, spec
        return spec

    def lacking(self, name: str) -> Failure:
        """Why `connection` returns None for this name."""
        return lacking(name, is_there=self.has_connection(name))

    def has_connection(self, name: str) -> bool:
        """Whether a connection of this name exists, readable or not."""
        return self.store.get(CONNECTIONS, name) is not None

    def connection_created(self, name: str) -> datetime | None:
        """When the connection was created, if it exists."""
        found = self.store.get(CONNECTIONS, name)
        return moment(found["metadata"]["creationTimestamp"]) if found else None

    def connections_of(self, namespace: str) -> tuple[str, ...]:
        """Names of the connections whose namespaceSelector selects a namespace."""
        labels = self.labels_of(namespace)
        names = sorted(name for _, name in self.store.addresses(CONNECTIONS))
        specs = {name: self.connection(name) for name in names}
        return tuple(name for name, spec in specs.items() if spec and selects(spec.namespace_selector, labels))


def _state_id(obj: Manifest) -> str:
    """Identifies the state of an object as its users wrote it: a write refused for one may be accepted for the next."""
    return f"{obj['metadata']['uid']}/{obj['metadata'].get('generation')}"


def _equal_but_precision(one: Any, other: Any) -> bool:
    """Equality but for precision: the server returns a large float as an integer with other last digits."""
    return bool(one == other or _with_floats(one) == _with_floats(other))


def _with_floats(part: Any) -> Any:
    return json.loads(json.dumps(part), parse_int=float)


def _marks_of(obj: Manifest) -> object:
    """What else policies may look at. Annotations of others are not stored and trigger no reconcile."""
    return obj["metadata"].get("labels"), annotations_of(obj)


def _other_finalizers(obj: Manifest, finalizer: str) -> list[str]:
    return [name for name in finalizers_of(obj) if name != finalizer]


def _after_release(obj: Manifest, finalizer: str) -> tuple[list[str], dict[str, str | None]]:
    """The finalizers and annotations of an object after our finalizer is removed."""
    notes: dict[str, str | None] = {BEGUN_ANNOTATION: None} if BEGUN_ANNOTATION in annotations_of(obj) else {}
    return _other_finalizers(obj, finalizer), notes


def _change_id(obj: Manifest, finalizers: list[str], notes: Mapping[str, str | None]) -> str:
    """Identifies one change of an object's finalizers: another change is tried at once."""
    return f"{_state_id(obj)}/{','.join(finalizers)}/{notes}"


def _without_marks(obj: Manifest) -> tuple[Any, ...]:
    """The object without the metadata that anybody may write."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _MARKS}
    return metadata, obj.get("spec"), obj.get("status")
