"""Keeps the store as the cluster is, and wakes the objects that a change concerns: by watches, and by listing anew.

A watch can miss a deletion when it breaks; the listing at each resync finds what the store should not have any more.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

from finetune_operator.reconcilers.observed import CHILD_SELECTOR, CHILDREN, OWN_KINDS, WATCHED, concerned
from finetune_operator.runtime.errors import KubeError
from finetune_operator.runtime.kube import Kube, Resource
from finetune_operator.runtime.queue import Key
from finetune_operator.runtime.store import Store

logger = logging.getLogger(__name__)


class Observer:
    """Feeds store and queue.

    Args:
        kube: for the listings.
        store: what reconcilers read.
        enqueue: takes the key of an object that is to be looked at.
        namespaces: to look after; empty for all.
    """

    def __init__(
        self, kube: Kube, store: Store, enqueue: Callable[[Key], None], namespaces: tuple[str, ...] = ()
    ) -> None:
        self._kube = kube
        self._store = store
        self._enqueue = enqueue
        self._namespaces = namespaces

    def seen(self, resource: Resource, event_type: str | None, obj: Mapping[str, Any]) -> None:
        """One event of a watch."""
        if event_type == "DELETED":
            self._wake(resource, obj)  # while the store still knows whose it was
            self._store.discard(resource, obj)
        elif self._store.put(resource, obj):
            self._wake(resource, obj)

    async def list_all(self) -> None:
        """Take everything in as it is now, and look at every object of ours.

        Raises:
            KubeError: a listing failed.
        """
        for resource in WATCHED:
            before = self._store.versions(resource)
            found = await self._list(resource)
            for namespace, name in self._store.replace(resource, found, before):
                self._wake(resource, {"metadata": {"namespace": namespace, "name": name}})
        for resource in OWN_KINDS:
            for namespace, name in self._store.addresses(resource):
                self._enqueue(Key(resource.kind, namespace, name))

    async def resync_forever(self, seconds: float) -> None:
        """List anew every so often, with jitter; a listing that fails is tried again at the next turn."""
        while True:
            await asyncio.sleep(seconds * random.uniform(0.9, 1.1))  # noqa: S311 - so that operators do not march
            try:
                await self.list_all()
            except KubeError as error:
                logger.warning("the resync could not list everything: %s", error)

    async def _list(self, resource: Resource) -> list[dict[str, Any]]:
        selector = CHILD_SELECTOR if resource in CHILDREN else None
        if not self._namespaces or not resource.namespaced:
            return await self._kube.list(resource, label_selector=selector)
        found: list[dict[str, Any]] = []
        for namespace in self._namespaces:
            found += await self._kube.list(resource, namespace, label_selector=selector)
        return found

    def _wake(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        for key in concerned(resource, obj, self._store):
            self._enqueue(key)
