"""Keeps the store as the cluster is, and wakes the objects that a change concerns: by watches, and by listing anew.

    first listing ──▶ kopf lists ──▶ kopf watches ── broken, and too old to go on ──▶ kopf lists ──▶ kopf watches
                  └─ deletions here, and here, are told by nobody ────────────────┘

So whenever kopf has listed, this lists after it: what the store has and the listing has not is gone.
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
from finetune_operator.runtime.store import Listing, Store

logger = logging.getLogger(__name__)

LISTED_SECONDS = 1.0
"""kopf's listing is over when it has told of no object for this long."""


AT_ONCE = 25
"""Objects of a listing that are taken in before other work gets its turn."""


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
        self._listed = asyncio.Event()

    def seen(self, resource: Resource, event_type: str | None, obj: Mapping[str, Any]) -> None:
        """One event of a watch; None is the type of what kopf's own listing has found."""
        if event_type is None:
            self._listed.set()
        if event_type == "DELETED":
            self._wake(resource, obj)  # while the store still knows whose it was
            self._store.discard(resource, obj)
        elif self._store.hear(resource, obj):
            self._wake(resource, obj)

    async def list_all(self) -> None:
        """Take everything in as it is now, and look at every object of ours.

        Raises:
            KubeError: a listing failed.
        """
        try:
            await self._take_in(told=True)
        finally:
            # Also of half a listing: what it has brought is news to nobody any more.
            for resource in OWN_KINDS:
                for namespace, name in self._store.addresses(resource):
                    self._enqueue(Key(resource.kind, namespace, name))

    async def catch_up(self) -> None:
        """Take everything in as it is now, and look at what the deletions concern that no watch has told.

        Raises:
            KubeError: a listing failed.
        """
        await self._take_in(told=False)

    async def _take_in(self, *, told: bool) -> None:
        """List everything into the store; `told` where every object of ours is looked at afterwards."""
        for resource in WATCHED:
            for namespace in self._namespaces if self._namespaces and resource.namespaced else (None,):
                listing = self._store.listing(resource, namespace, told=told)
                await self._list(listing, resource, namespace)
                for gone in listing.end():
                    self._wake(resource, gone)

    async def keep_up(self, resync_seconds: float) -> None:
        """List after each of kopf's own listings, and look at everything every `resync_seconds`, until cancelled."""
        await asyncio.gather(self._catch_up_forever(), self._resync_forever(resync_seconds))

    async def _catch_up_forever(self) -> None:
        while True:
            await self._listed.wait()
            while self._listed.is_set():
                self._listed.clear()
                await asyncio.sleep(LISTED_SECONDS)
            try:
                await self.catch_up()
            except KubeError as error:
                logger.warning("what was deleted before the watches began is not known yet: %s", error)
                self._listed.set()

    async def _resync_forever(self, seconds: float) -> None:
        """With jitter; a listing that fails is tried again at the next turn."""
        while True:
            await asyncio.sleep(seconds * random.uniform(0.9, 1.1))  # noqa: S311 - so that operators do not march
            try:
                await self.list_all()
            except KubeError as error:
                logger.warning("the resync could not list everything: %s", error)

    async def _list(self, listing: Listing, resource: Resource, namespace: str | None) -> None:
        """Page by page, a few objects at a time: all pods at once would be several times what is kept of them."""
        selector = CHILD_SELECTOR if resource in CHILDREN else None
        async for page in self._kube.pages(resource, namespace, label_selector=selector):
            if page.anew:
                listing.begin()
            for at in range(0, len(page.items), AT_ONCE):
                listing.take(page.items[at : at + AT_ONCE])
                await asyncio.sleep(0)

    def _wake(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        for key in concerned(resource, obj, self._store):
            self._enqueue(key)
