"""The last seen state of watched objects, with indexes. Independent of kinds; decides nothing.

Objects are kept as JSON, not as dicts: ten thousand of them take a fifth of the memory. Reads may be stale by a watch's
delay; writes carry a resourceVersion where that matters, and a `listing`, made at each resync, drops what was deleted
during a gap of the watch.

`put_event` returns whether a watch event is news. The operator's own writes come back to it, Kubernetes writes fields
that nobody here reads, and a listing repeats known objects: none of them needs a reconcile.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from finetune_api.manifest import Manifest
from finetune_operator.runtime.errors import WentBack
from finetune_operator.runtime.kube import Resource, version_of

Indexer = Callable[[Manifest], Iterable[str]]
Address = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""

DELETIONS = 4096
"""How many deletions are remembered, with their versions: an API answer that arrives after the watch's DELETED event,
such as that to the write which removed the last finalizer, must not bring the object back."""


class _Kept:
    """One object: its JSON without resourceVersion, that version, its index keys, and the hash last notified."""

    __slots__ = ("data", "keys", "notified", "version")

    def __init__(self, data: bytes, version: int, keys: tuple[str, ...], notified: int | None) -> None:
        self.data = data
        self.version = version
        self.keys = keys
        self.notified = notified

    def object(self) -> Manifest:
        """A copy of the object."""
        obj: Manifest = orjson.loads(self.data)
        if self.version:
            obj["metadata"]["resourceVersion"] = str(self.version)
        return obj


class Store:
    """Watched objects by resource, namespace and name.

    Args:
        indexers: by resource: computes the index keys of an object.
        trims: by resource: returns the part of an object that is kept.
    """

    def __init__(
        self,
        indexers: Mapping[Resource, Indexer] | None = None,
        trims: Mapping[Resource, Callable[[Manifest], Manifest]] | None = None,
    ) -> None:
        self._indexers = indexers or {}
        self._trims = trims or {}
        self._objects: dict[Resource, dict[Address, _Kept]] = defaultdict(dict)
        self._index: dict[tuple[Resource, str], set[Address]] = defaultdict(set)
        self._deleted: dict[tuple[Resource, Address], int] = {}

    def put(self, resource: Resource, obj: Mapping[str, Any], *, notified: bool = False) -> bool:
        """Keep an object unless a newer state of it is known; returns whether it was kept.

        Args:
            resource: its resource.
            obj: its manifest.
            notified: whether everything it affects already knows this state: a watch event that repeats it is no news.
        """
        kept = self._keep(resource, obj)
        if kept is not None and notified:
            kept.notified = hash(kept.data)
        return kept is not None

    def put_event(self, resource: Resource, obj: Mapping[str, Any]) -> bool:
        """Keep the object of a watch event; returns whether it is news, that is, differs from the last one notified."""
        kept = self._keep(resource, obj)
        if kept is None:
            return False
        before, kept.notified = kept.notified, hash(kept.data)
        return before != kept.notified

    def remove(self, resource: Resource, namespace: str | None, name: str) -> None:
        """Forget an object that is gone."""
        address = (namespace or "", name)
        kept = self._objects[resource].pop(address, None)
        if kept is not None:
            self._reindex(resource, address, kept.keys, ())

    def discard(self, resource: Resource, obj: Mapping[str, Any]) -> bool:
        """Forget an object that was deleted at this version, unless a newer one of its name is known."""
        address = _address(obj)
        kept = self._objects[resource].get(address)
        if kept is not None and kept.version > version_of(obj):
            return False
        self.remove(resource, *address)
        self._deleted.pop((resource, address), None)  # so that it moves to the end: the oldest are dropped
        self._deleted[resource, address] = version_of(obj)
        if len(self._deleted) > DELETIONS:
            del self._deleted[next(iter(self._deleted))]
        return True

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Manifest | None:
        """An object as last seen."""
        kept = self._objects[resource].get((namespace or "", name))
        return None if kept is None else kept.object()

    def version(self, resource: Resource, name: str, namespace: str | None = None) -> int | None:
        """The resourceVersion of an object as last seen, without parsing it."""
        kept = self._objects[resource].get((namespace or "", name))
        return None if kept is None else kept.version

    def select(self, resource: Resource, index_key: str) -> list[Manifest]:
        """Objects with this index key, by namespace and name."""
        found = sorted(self._index.get((resource, index_key), ()))
        return [self._objects[resource][address].object() for address in found]

    def addresses(self, resource: Resource, index_key: str | None = None) -> list[Address]:
        """Addresses of all objects of a resource, or of those with this index key."""
        if index_key is None:
            return list(self._objects[resource])
        return sorted(self._index.get((resource, index_key), ()))

    def count(self, resource: Resource, index_key: str) -> int:
        """How many objects have this index key."""
        return len(self._index.get((resource, index_key), ()))

    def listing(self, resource: Resource, namespace: str | None = None) -> "Listing":
        """Start a full listing, of a namespace or of all. Call it before the request to the API."""
        known = self._objects[resource].items()
        before = {address: kept.version for address, kept in known if namespace in {None, address[0]}}
        deleted = {address: version for (of, address), version in self._deleted.items() if of == resource}
        return Listing(self, resource, before, deleted)

    def forget(self, resource: Resource, addresses: Mapping[Address, int]) -> list[Manifest]:
        """Remove, and return, the given objects that have not changed since these versions."""
        known = self._objects[resource]
        gone = sorted(at for at, version in addresses.items() if at in known and known[at].version == version)
        forgotten = [known[address].object() for address in gone]
        for namespace, name in gone:
            self.remove(resource, namespace, name)
        return forgotten

    def _keep(self, resource: Resource, obj: Mapping[str, Any]) -> _Kept | None:
        """Store the object and return its entry; None if a newer state was known."""
        address, version = _address(obj), version_of(obj)
        known = self._objects[resource].get(address)
        if known is not None and known.version > version:
            return None
        if version and version <= self._deleted.get((resource, address), 0):
            return None
        trim = self._trims.get(resource)
        trimmed = _plain(trim(dict(obj)) if trim else dict(obj), versioned=bool(version))
        keys = tuple(self._indexers[resource](trimmed)) if resource in self._indexers else ()
        # Copied: orjson's bytes keep the buffer that they were written into, which is three times as large.
        data = bytes(memoryview(orjson.dumps(trimmed)))
        if known is None:
            known = self._objects[resource][address] = _Kept(data, version, (), None)
        self._reindex(resource, address, known.keys, keys)
        known.data, known.version, known.keys = data, version, keys
        return known

    def _reindex(self, resource: Resource, address: Address, before: tuple[str, ...], keys: tuple[str, ...]) -> None:
        if before == keys:
            return
        for key in before:
            members = self._index[resource, key]
            members.discard(address)
            if not members:
                del self._index[resource, key]
        for key in keys:
            self._index[resource, key].add(address)


class Listing:
    """Collects the addresses of a listing while it is read: what it lacks at its end is gone."""

    def __init__(
        self, store: Store, resource: Resource, before: Mapping[Address, int], deleted: Mapping[Address, int]
    ) -> None:
        self._store = store
        self._resource = resource
        self._before = before  # what was created or changed later cannot be judged by this listing
        self._deleted = deleted
        self._listed: set[Address] = set()

    def begin(self) -> None:
        """Start over: the listing is repeated from its first page."""
        self._listed.clear()

    def has(self, obj: Mapping[str, Any]) -> None:
        """Add one object.

        Raises:
            WentBack: a later state of it was seen before this listing was requested, so the server was restored.
        """
        address = _address(obj)
        if 0 < version_of(obj) < max(self._before.get(address, 0), self._deleted.get(address, 0)):
            raise WentBack(f"{self._resource.plural} {'/'.join(part for part in address if part)}")
        self._listed.add(address)

    def end(self) -> list[Manifest]:
        """End the listing; returns what it lacks, after removing that from the store."""
        unlisted = {address: version for address, version in self._before.items() if address not in self._listed}
        self._before, self._listed = {}, set()
        return self._store.forget(self._resource, unlisted)


def _address(obj: Mapping[str, Any]) -> Address:
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _plain(obj: Manifest, *, versioned: bool) -> Manifest:
    """The object without fields that change although nothing else does; a non-numeric resourceVersion stays."""
    dropped = {"managedFields", "resourceVersion"} if versioned else {"managedFields"}
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k not in dropped}}
