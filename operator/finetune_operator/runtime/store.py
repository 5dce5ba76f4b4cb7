"""The last seen state of watched objects, with indexes. Knows no kinds and decides nothing.

Objects are kept as JSON, not as dicts: ten thousand of them take a fifth of the memory. Whatever is read may be stale
by the time of a watch's delay; writes carry a resourceVersion where that matters, and `replace`, called at each
resync, drops what a watch gap has hidden.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from finetune_operator.runtime.kube import Resource

Manifest = dict[str, Any]
Indexer = Callable[[Manifest], Iterable[str]]
Address = tuple[str, str]
"""Namespace ("" where there is none) and name."""


class Store:
    """Watched objects by resource, namespace and name.

    Args:
        indexers: for a resource, the index keys of an object.
        trims: for a resource, what of an object is kept.
    """

    def __init__(
        self,
        indexers: Mapping[Resource, Indexer] | None = None,
        trims: Mapping[Resource, Callable[[Manifest], Manifest]] | None = None,
    ) -> None:
        self._indexers = indexers or {}
        self._trims = trims or {}
        self._objects: dict[Resource, dict[Address, bytes]] = defaultdict(dict)
        self._versions: dict[tuple[Resource, Address], int] = {}
        self._index: dict[tuple[Resource, str], set[Address]] = defaultdict(set)
        self._keys: dict[tuple[Resource, Address], tuple[str, ...]] = {}

    def put(self, resource: Resource, obj: Mapping[str, Any]) -> bool:
        """Keep an object unless a newer state of it is known; whether it was kept."""
        address = _address(obj)
        version = _version(obj)
        known = self._versions.get((resource, address))
        if known is not None and known > version:
            return False
        trimmed = self._trims.get(resource, _without_managed_fields)(dict(obj))
        self._objects[resource][address] = orjson.dumps(trimmed)
        self._versions[resource, address] = version
        self._reindex(resource, address, tuple(self._indexers[resource](trimmed)) if resource in self._indexers else ())
        return True

    def remove(self, resource: Resource, namespace: str | None, name: str) -> None:
        """Forget an object that is gone."""
        address = (namespace or "", name)
        self._objects[resource].pop(address, None)
        self._versions.pop((resource, address), None)
        self._reindex(resource, address, ())

    def discard(self, resource: Resource, obj: Mapping[str, Any]) -> bool:
        """Forget an object that was deleted in this state, unless a newer one of its name is known; whether it was."""
        address = _address(obj)
        if self._versions.get((resource, address), 0) > _version(obj):
            return False
        self.remove(resource, *address)
        return True

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Manifest | None:
        """An object as it was last seen."""
        data = self._objects[resource].get((namespace or "", name))
        return None if data is None else orjson.loads(data)

    def select(self, resource: Resource, index_key: str) -> list[Manifest]:
        """Objects that have an index key, by namespace and name."""
        found = sorted(self._index.get((resource, index_key), ()))
        return [orjson.loads(self._objects[resource][address]) for address in found]

    def addresses(self, resource: Resource, index_key: str | None = None) -> list[Address]:
        """Addresses of all objects of a resource, or of those that have an index key."""
        if index_key is None:
            return list(self._objects[resource])
        return sorted(self._index.get((resource, index_key), ()))

    def count(self, resource: Resource, index_key: str) -> int:
        """How many objects have an index key."""
        return len(self._index.get((resource, index_key), ()))

    def versions(self, resource: Resource) -> dict[Address, int]:
        """Which states of which objects are known: to be taken before a listing and given to `replace` after it."""
        return {address: self._versions[resource, address] for address in self._objects[resource]}

    def replace(
        self, resource: Resource, objects: Iterable[Mapping[str, Any]], before: Mapping[Address, int]
    ) -> list[Manifest]:
        """Take a whole listing in: newer states are kept, objects that it lacks are forgotten and returned.

        Args:
            resource: what was listed.
            objects: all that the listing has.
            before: `versions` of the time before the listing: what has come or changed since it cannot know.
        """
        listed = list(objects)
        for obj in listed:
            self.put(resource, obj)
        gone = before.keys() - {_address(obj) for obj in listed}
        gone = {address for address in gone if self._versions.get((resource, address)) == before[address]}
        forgotten = [orjson.loads(self._objects[resource][address]) for address in sorted(gone)]
        for namespace, name in gone:
            self.remove(resource, namespace, name)
        return forgotten

    def _reindex(self, resource: Resource, address: Address, keys: tuple[str, ...]) -> None:
        for key in self._keys.pop((resource, address), ()):
            members = self._index[resource, key]
            members.discard(address)
            if not members:
                del self._index[resource, key]
        for key in keys:
            self._index[resource, key].add(address)
        if keys:
            self._keys[resource, address] = keys


def _address(obj: Mapping[str, Any]) -> Address:
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _version(obj: Mapping[str, Any]) -> int:
    """The resourceVersion; Kubernetes promises since 1.35 what etcd has always given: versions are numbers."""
    version = str(obj["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdecimal() else 0


def _without_managed_fields(obj: Manifest) -> Manifest:
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}
