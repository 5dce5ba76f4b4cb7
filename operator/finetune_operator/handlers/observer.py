"""Keeps the store as the cluster is, and wakes the objects that a change concerns: by watches, and by listing anew.

    kopf lists ──▶ begun: everything is looked at ──▶ kopf watches ── broken, and too old to go on ──▶ kopf lists
                                                      └── deletions here are told by nobody ─────────┘

So whenever kopf has listed, what the store had before and the listing has not is gone.

One of several namespaces that may not be watched (any more) takes nothing from the others: it is shut, which is to say
that nothing of it is known and nothing is done there, until all of it is listed again.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from finetune_api.manifest import wants_deletion
from finetune_operator.reconcilers.affected import affected, has_ended, is_only_asked_for, pause
from finetune_operator.reconcilers.observed import CHILD_SELECTOR, CHILDREN, WATCHED
from finetune_operator.runtime import metrics
from finetune_operator.runtime.errors import KubeError
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, NAMESPACES, OWN_KINDS, Kube, Resource
from finetune_operator.runtime.queue import Key, Lane
from finetune_operator.runtime.store import Listing, Store

logger = logging.getLogger(__name__)

AT_ONCE = 25
"""Objects of a listing that are taken in before other work gets its turn."""

OF_MANY = frozenset({CONNECTIONS, NAMESPACES})
"""One change of these may concern thousands of jobs."""


class Observer:
    """Feeds store and queue.

    Args:
        kube: for the listings.
        store: what reconcilers read.
        enqueue: takes the key of an object that is to be looked at, in how many seconds, and the lane where it waits.
        namespaces: to look after; empty for all.
        gone: told of each object of ours that was deleted, as it was last seen.
    """

    def __init__(
        self,
        kube: Kube,
        store: Store,
        enqueue: Callable[[Key, float, Lane], None],
        namespaces: tuple[str, ...] = (),
        gone: Callable[[Resource, Mapping[str, Any]], None] = lambda _resource, _obj: None,
    ) -> None:
        self._kube = kube
        self._store = store
        self._enqueue = enqueue
        self._namespaces = namespaces
        self._gone = gone
        self._unlisted = set(self.places())
        self._shut: set[str] = set()
        self._begun = asyncio.Event()

    def places(self) -> Iterator[tuple[Resource, str | None]]:
        """Every kind, in each namespace that is looked after."""
        for resource in WATCHED:
            for namespace in self._namespaces if self._namespaces and resource.namespaced else (None,):
                yield resource, namespace

    async def begun(self) -> None:
        """Wait until the cluster is known: every kind was listed once. Nothing is looked at before."""
        await self._begun.wait()

    def listing(self, resource: Resource, namespace: str | None) -> Listing:
        """A listing begins, whose objects are `seen` before it is `listed`."""
        return self._store.listing(resource, namespace)

    def seen(self, resource: Resource, event_type: str | None, obj: Mapping[str, Any]) -> None:
        """One event of a watch; None is the type of what its listing has found."""
        if event_type == "DELETED":
            self._wake(resource, obj)  # while the store still knows whose it was
            self._store.discard(resource, obj)
            self._gone(resource, obj)
        elif self._store.hear(resource, obj):
            if event_type == "ADDED" and is_only_asked_for(resource, obj, self._store):
                return
            self._wake(resource, obj, lane_of(resource, event_type, obj), pause(resource, obj, self._store))

    def listed(self, resource: Resource, namespace: str | None, listing: Listing) -> None:
        """A listing is over."""
        self._take_out(resource, listing)
        self._unlisted.discard((resource, namespace))
        if namespace in self._shut and not any(place == namespace for _, place in self._unlisted):
            self._shut.discard(namespace)
            metrics.UNWATCHED.remove(namespace)
            logger.info("namespace %s is watched again", namespace)
            if self._begun.is_set():
                self._look_at_everything(namespace)
        self._begin_where_all_is_listed()

    def shut(self, namespace: str) -> bool:
        """A namespace may not be watched; whether there is another one that may be."""
        self._shut.add(namespace)
        metrics.UNWATCHED.labels(namespace).set(1)
        for resource, place in self.places():
            if place == namespace:
                self._unlisted.add((resource, place))
                self._store.listing(resource, namespace).end()  # half of it, or as it was: nobody is to go by that
        self._begin_where_all_is_listed()
        return not self._shut.issuperset(self._namespaces)

    def is_shut(self, namespace: str) -> bool:
        """Whether nothing is known of a namespace, and nothing is to be done there."""
        return namespace in self._shut

    def _begin_where_all_is_listed(self) -> None:
        waits = any(place is None or place not in self._shut for _, place in self._unlisted)
        if not waits and not self._begun.is_set():
            self._begun.set()
            self._look_at_everything()

    async def list_all(self) -> None:
        """Take everything in as it is now, and look at every object of ours.

        Raises:
            KubeError: a listing failed.
        """
        try:
            for resource, namespace in self.places():
                if namespace not in self._shut:
                    await self._list(resource, namespace)
        finally:
            # Also of half a listing: what it has brought is news to nobody any more.
            self._look_at_everything()

    async def keep_up(self, resync_seconds: float) -> None:
        """Look at everything every `resync_seconds`, with jitter, until cancelled."""
        while True:
            await asyncio.sleep(resync_seconds * random.uniform(0.9, 1.1))  # noqa: S311 - so that operators do not march
            try:
                await self.list_all()
            except KubeError as error:
                logger.warning("the resync could not list everything: %s", error)

    async def _list(self, resource: Resource, namespace: str | None) -> None:
        """Page by page, a few objects at a time: all pods at once would be several times what is kept of them."""
        listing = self._store.listing(resource, namespace)
        selector = CHILD_SELECTOR if resource in CHILDREN else None
        async for page in self._kube.pages(resource, namespace, label_selector=selector):
            if page.anew:
                listing.begin()
            for count, obj in enumerate(page.items, 1):
                self._store.put(resource, obj, told=True)
                listing.has(obj)
                if count % AT_ONCE == 0:
                    await asyncio.sleep(0)
        self._take_out(resource, listing)

    def _take_out(self, resource: Resource, listing: Listing) -> None:
        """What a listing lacks is gone. Only of what was being deleted that was somebody's wish: etcd may be older."""
        for gone in listing.end():
            self._wake(resource, gone)
            if wants_deletion(gone):
                self._gone(resource, gone)

    def _look_at_everything(self, alone: str | None = None) -> None:
        """At all objects of ours, or at those of one namespace."""
        for resource in OWN_KINDS:
            for namespace, name in self._store.addresses(resource):
                if namespace not in self._shut and alone in {None, namespace}:
                    self._enqueue(Key(resource.kind, namespace, name), 0, Lane.SWEEP)

    def _wake(self, resource: Resource, obj: Mapping[str, Any], lane: Lane = Lane.OTHERS, seconds: float = 0) -> None:
        """Until everything is known, nothing is looked at; then everything is."""
        if self._begun.is_set():
            for key in affected(resource, obj, self._store):
                if key.namespace not in self._shut:
                    of_many = resource in OF_MANY and key.kind != resource.kind
                    self._enqueue(key, seconds, Lane.SWEEP if of_many else lane)


def lane_of(resource: Resource, event_type: str | None, obj: Mapping[str, Any]) -> Lane:
    """Where those whom the event concerns wait for their look."""
    if event_type == "ADDED" and resource is FINE_TUNE_JOBS:
        return Lane.NEW
    return Lane.ENDED if resource in CHILDREN and has_ended(obj) else Lane.OTHERS
