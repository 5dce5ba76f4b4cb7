"""Keeps the store in step with the cluster, and enqueues the objects that a change affects: by watches and resyncs.

    kopf lists ──▶ synced: everything is reconciled ──▶ kopf watches ── broken, and too old to resume ──▶ kopf lists
                                                        └── no event tells of deletions in this gap ───┘

So whenever kopf has listed, what the store had before and the listing lacks is gone.

Where the operator watches several namespaces and may not watch one of them (any more), the others go on. The refused
one is shut: nothing is known of it and nothing is done there until all of it has been listed again.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from finetune_api.manifest import wants_deletion
from finetune_operator.reconcilers.watched.affected import affected, has_ended, is_expected_new_pod, reconcile_delay
from finetune_operator.reconcilers.watched.observed import CHILD_SELECTOR, CHILDREN, WATCHED
from finetune_operator.runtime import metrics
from finetune_operator.runtime.errors import KubeError
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, NAMESPACES, OWN_KINDS, Kube, Resource
from finetune_operator.runtime.queue import Key, Lane
from finetune_operator.runtime.store import Listing, Store

logger = logging.getLogger(__name__)

YIELD_EVERY = 25
"""Objects of a listing that are stored before other tasks get their turn."""

AFFECTS_MANY = frozenset({CONNECTIONS, NAMESPACES})
"""A change of one of these may affect thousands of jobs."""


class Observer:
    """Feeds the store and the queue.

    Args:
        kube: for the listings.
        store: what reconcilers read.
        enqueue: takes the key of an object to reconcile, the delay in seconds, and its lane.
        namespaces: the watched ones; empty for all.
        on_deleted: called with each watched object that was deleted, as it was last seen.
    """

    def __init__(
        self,
        kube: Kube,
        store: Store,
        enqueue: Callable[[Key, float, Lane], None],
        namespaces: tuple[str, ...] = (),
        on_deleted: Callable[[Resource, Mapping[str, Any]], None] = lambda _resource, _obj: None,
    ) -> None:
        self._kube = kube
        self._store = store
        self._enqueue = enqueue
        self._namespaces = namespaces
        self._on_deleted = on_deleted
        self._unlisted = set(self.places())
        self._shut: set[str] = set()
        self._synced = asyncio.Event()

    def places(self) -> Iterator[tuple[Resource, str | None]]:
        """Every kind, in each watched namespace."""
        for resource in WATCHED:
            for namespace in self._namespaces if self._namespaces and resource.namespaced else (None,):
                yield resource, namespace

    async def wait_until_synced(self) -> None:
        """Wait until every kind was listed once. Nothing is reconciled before that."""
        await self._synced.wait()

    def start_listing(self, resource: Resource, namespace: str | None) -> Listing:
        """Start a listing: pass its objects to `handle_event`, then the listing to `end_listing`."""
        return self._store.listing(resource, namespace)

    def handle_event(self, resource: Resource, event_type: str | None, obj: Mapping[str, Any]) -> None:
        """Handle one event of a watch; the type is None for objects of its initial listing."""
        if event_type == "DELETED":
            self._enqueue_affected(resource, obj)  # while the store still knows its owner
            self._store.discard(resource, obj)
            self._on_deleted(resource, obj)
        elif self._store.put_event(resource, obj):
            if event_type == "ADDED" and is_expected_new_pod(resource, obj, self._store):
                return
            self._enqueue_affected(
                resource, obj, lane_of(resource, event_type, obj), reconcile_delay(resource, obj, self._store)
            )

    def end_listing(self, resource: Resource, namespace: str | None, listing: Listing) -> None:
        """Handle the end of a listing."""
        self._drop_missing(resource, listing)
        self._unlisted.discard((resource, namespace))
        if namespace in self._shut and not any(place == namespace for _, place in self._unlisted):
            self._shut.discard(namespace)
            metrics.UNWATCHED.remove(namespace)
            logger.info("namespace %s is watched again", namespace)
            if self._synced.is_set():
                self._enqueue_all(namespace)
        self._set_synced_if_listed()

    def shut(self, namespace: str) -> bool:
        """Note that a namespace may not be watched; returns whether another one still may be."""
        self._shut.add(namespace)
        metrics.UNWATCHED.labels(namespace).set(1)
        for resource, place in self.places():
            if place == namespace:
                self._unlisted.add((resource, place))
                self._store.listing(resource, namespace).end()  # incomplete or outdated: nobody may rely on it
        self._set_synced_if_listed()
        return not self._shut.issuperset(self._namespaces)

    def is_shut(self, namespace: str) -> bool:
        """Whether the namespace cannot be watched, so that nothing is done there."""
        return namespace in self._shut

    def _set_synced_if_listed(self) -> None:
        is_missing = any(place is None or place not in self._shut for _, place in self._unlisted)
        if not is_missing and not self._synced.is_set():
            self._synced.set()
            self._enqueue_all()

    async def resync(self) -> None:
        """List everything again, and enqueue every object of our kinds.

        Raises:
            KubeError: a listing failed.
        """
        try:
            for resource, namespace in self.places():
                if namespace not in self._shut:
                    await self._list(resource, namespace)
        finally:
            # Also after half a listing: the store has its objects, so no watch event reports them as news.
            self._enqueue_all()

    async def resync_periodically(self, resync_seconds: float) -> None:
        """Resync every `resync_seconds`, with jitter, until cancelled."""
        while True:
            await asyncio.sleep(resync_seconds * random.uniform(0.9, 1.1))  # noqa: S311 - spreads several operators
            try:
                await self.resync()
            except KubeError as error:
                logger.warning("the resync could not list everything: %s", error)

    async def _list(self, resource: Resource, namespace: str | None) -> None:
        """Page by page, a few objects at a time: all pods at once take several times the memory of what is kept."""
        listing = self._store.listing(resource, namespace)
        selector = CHILD_SELECTOR if resource in CHILDREN else None
        async for page in self._kube.pages(resource, namespace, label_selector=selector):
            if page.restarted:
                listing.begin()
            for count, obj in enumerate(page.items, 1):
                self._store.put(resource, obj, notified=True)
                listing.has(obj)
                if count % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
        self._drop_missing(resource, listing)

    def _drop_missing(self, resource: Resource, listing: Listing) -> None:
        """Drop what a listing lacks; it was deleted only if that was requested: etcd may have been restored."""
        for gone in listing.end():
            self._enqueue_affected(resource, gone)
            if wants_deletion(gone):
                self._on_deleted(resource, gone)

    def _enqueue_all(self, only: str | None = None) -> None:
        """Enqueue all objects of our kinds, or those of one namespace."""
        for resource in OWN_KINDS:
            for namespace, name in self._store.addresses(resource):
                if namespace not in self._shut and only in {None, namespace}:
                    self._enqueue(Key(resource.kind, namespace, name), 0, Lane.SWEEP)

    def _enqueue_affected(
        self, resource: Resource, obj: Mapping[str, Any], lane: Lane = Lane.OTHERS, seconds: float = 0
    ) -> None:
        """Enqueue what a change affects. Before the first sync there is no need: everything is enqueued then."""
        if self._synced.is_set():
            for key in affected(resource, obj, self._store):
                if key.namespace not in self._shut:
                    affects_many = resource in AFFECTS_MANY and key.kind != resource.kind
                    self._enqueue(key, seconds, Lane.SWEEP if affects_many else lane)


def lane_of(resource: Resource, event_type: str | None, obj: Mapping[str, Any]) -> Lane:
    """The lane for the objects that an event affects."""
    if event_type == "ADDED" and resource is FINE_TUNE_JOBS:
        return Lane.NEW
    return Lane.ENDED if resource in CHILDREN and has_ended(obj) else Lane.OTHERS
