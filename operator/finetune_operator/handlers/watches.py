"""kopf as informer: login, watches, shutdown. Watch events go to the observer; nothing is decided here.

kopf's event handlers are not used. Each event would pass a queue and a task per object, copies, causes and a dozen
records for change handlers, of which there are none here: half of the operator's work, and of its memory.
"""

import asyncio
import json
import logging
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import aiohttp
import kopf
from kopf._cogs.clients.errors import APIError, APIServerError, APITooManyRequestsError
from kopf._cogs.clients.fetching import fetch_objs
from kopf._cogs.clients.watching import Bookmark, watch_objs
from kopf._cogs.structs import references

from finetune_operator.handlers.observer import Observer
from finetune_operator.reconcilers.watched.observed import CHILD_SELECTOR, CHILDREN
from finetune_operator.runtime.errors import UNAUTHENTICATED, WentBack
from finetune_operator.runtime.kube import Resource
from finetune_operator.runtime.repeats import Repeats
from finetune_operator.runtime.service_account import ServiceAccount, is_in_cluster
from finetune_operator.runtime.settings import Settings

logger = logging.getLogger(__name__)

YIELD_EVERY = 25
"""Events that are handled before other tasks get their turn: a listing has hundreds."""

PAUSE_SECONDS = 1.0
"""Minimum time between two starts of a listing or watch: something that ends them at once would cause a busy loop."""

SHUT_SECONDS = 30.0
"""Seconds until a namespace that may not be watched is tried again."""

CHANGES = {"ADDED", "MODIFIED", "DELETED"}


class _WatchError(Exception):
    """A watch ended with an error; the message is the server's."""


class CannotWatch(Exception):
    """The API server refuses to list or watch a kind: the operator lost its rights, or the kind is gone."""


class _Shut(CannotWatch):
    """One namespace is refused: it was deleted together with its role binding, or the operator lost its rights."""


async def start(
    own: Settings, observer: Observer, stop: asyncio.Event
) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
    """Start kopf itself, which ends when `stop` is set, and the watches, which end when they are cancelled or fail."""
    settings = make_settings(own)
    before = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=make_registry(own),
        settings=settings,
        standalone=True,
        # Without an identity kopf asks the system for the user's name; a pod's user has none.
        identity=cast("Any", own.pod_name),
        clusterwide=True,
        stop_flag=stop,
    )
    shell = asyncio.create_task(kopf.run_tasks(tasks, ignored=before), name="kopf")
    return shell, asyncio.create_task(watch_all(settings, observer), name="watches")


async def watch_all(settings: kopf.OperatorSettings, observer: Observer) -> None:
    """Watch everything, until cancelled.

    Call it in the context of `kopf.spawn_tasks`, whose login is used.

    Raises:
        CannotWatch: a watch cannot go on.
    """
    watches = _Watches(settings, observer)
    places: dict[str | None, list[Resource]] = defaultdict(list)
    for resource, namespace in observer.places():
        places[namespace].append(resource)
    await _run_all(
        watches.of_kinds(kinds, None) if namespace is None else watches.of_namespace(kinds, namespace)
        for namespace, kinds in places.items()
    )


@dataclass(frozen=True)
class _Watches:
    """Lists and watches by kopf's client, whose events go to an observer."""

    settings: kopf.OperatorSettings
    observer: Observer

    async def of_namespace(self, kinds: Iterable[Resource], namespace: str) -> None:
        """Watch one of several namespaces: if it is refused, the others are still watched.

        Raises:
            CannotWatch: it is the last one, or it failed for another reason than missing rights.
        """
        clock = asyncio.get_running_loop().time
        refusals = Repeats(clock)
        while True:
            began = clock()
            try:
                await self.of_kinds(kinds, namespace)
            except _Shut as error:
                if not self.observer.shut(namespace):
                    raise
                if clock() - began > SHUT_SECONDS:
                    refusals.over()  # it was watched in between
                # Not by kind: any one of them may be refused first.
                if refusals.is_news(namespace):
                    logger.error(  # noqa: TRY400 - a sentence says it all
                        "namespace %s cannot be watched: nothing is done there, and it is tried again every %g s. Was "
                        "it deleted, or recreated? helm upgrade gives the operator its rights there: %s",
                        namespace, SHUT_SECONDS, error,
                    )  # fmt: skip
            await asyncio.sleep(SHUT_SECONDS)

    async def of_kinds(self, kinds: Iterable[Resource], namespace: str | None) -> None:
        """Watch kinds, until one of them cannot go on.

        Raises:
            CannotWatch: of that kind.
        """
        await _run_all(self._watch(kind, namespace) for kind in kinds)

    async def _watch(self, resource: Resource, namespace: str | None) -> None:
        """List and watch; list again if the watch cannot resume, which also finds what was deleted meanwhile."""
        while True:
            try:
                with suppress(APITooManyRequestsError, APIServerError):  # kopf has retried several times, with backoff
                    await self._observe(resource, namespace)
            except (_WatchError, aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as error:
                logger.warning("the watch of %s broke, they are listed again: %s", resource.plural, error)
            except WentBack as error:
                raise CannotWatch(str(error)) from error
            except kopf.LoginError as error:
                # kopf has logged in again and was refused again: a new process reads all credentials afresh.
                raise CannotWatch(f"{resource.plural}: 401 {UNAUTHENTICATED}") from error
            except APIError as error:
                if error.status != HTTPStatus.GONE:  # also the answer when the pages of a slow listing expire
                    kind = _Shut if error.status == HTTPStatus.FORBIDDEN and namespace else CannotWatch
                    raise kind(f"{resource.plural}: {error.status} {_explained(resource, error)}") from error
            await asyncio.sleep(self.settings.watching.reconnect_backoff)

    async def _observe(self, resource: Resource, namespace: str | None) -> None:
        """Pass a listing and the events after it to the observer, until the watch cannot resume."""
        listing, count = self.observer.start_listing(resource, namespace), 0
        async for event in _stream(self.settings, resource, namespace):
            if event is Bookmark.LISTED:
                self.observer.end_listing(resource, namespace, listing)
                continue
            if event["type"] is None:
                listing.has(event["object"])
            try:
                self.observer.handle_event(resource, event["type"], event["object"])
            except Exception:
                # One unreadable object must not hide all others; the resync tries it again.
                logger.exception("an event of %s was not understood", resource.plural)
            count += 1
            if count % YIELD_EVERY == 0:
                await asyncio.sleep(0)


async def _run_all(watching: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them until one fails, which ends the others.

    Raises:
        CannotWatch: that failure; of several, one that does not concern a single namespace.
    """
    found: list[CannotWatch] = []
    try:
        async with asyncio.TaskGroup() as group:
            for one in watching:
                group.create_task(one, name="watch")
    except* CannotWatch as several:
        found = [cast("CannotWatch", one) for one in several.exceptions]
    if found:
        # Not in the handler: Python before 3.11.4 puts it into a group of its own.
        raise min(found, key=lambda one: isinstance(one, _Shut))


def _explained(resource: Resource, error: APIError) -> str:
    if error.status != HTTPStatus.NOT_FOUND:
        return str(error.message)
    return (
        f"the cluster does not know them: apply the definition of {resource.kind} (crds/, or the chart's crds.install)"
    )


async def _stream(settings: kopf.OperatorSettings, resource: Resource, namespace: str | None) -> AsyncIterator[Any]:
    """A listing, then watches by kopf, which survive broken, silent and half-open connections, until one cannot resume.

    Raises:
        _WatchError: the server ended a watch with an error, other than that its version is too old.
    """
    reference = references.Resource(
        resource.group, resource.version, resource.plural, resource.kind, namespaced=resource.namespaced
    )
    place = references.NamespaceName(namespace) if namespace else None
    version: str | None = None
    async for chunk, listed in fetch_objs(settings=settings, resource=reference, namespace=place, logger=logger):
        version = listed
        for one in chunk:
            yield {"type": None, "object": one}
    yield Bookmark.LISTED
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        never = loop.create_future()  # it is never paused
        async for event in watch_objs(
            settings=settings, resource=reference, namespace=place, since=version, operator_pause_waiter=never
        ):
            obj: Any = event["object"]
            if event["type"] == "ERROR":
                if obj.get("code") == HTTPStatus.GONE:
                    return
                raise _WatchError(f"{obj.get('code')} {obj.get('message')}")
            version = obj["metadata"].get("resourceVersion", version)
            if event["type"] in CHANGES:  # bookmarks carry no object
                yield event
        if loop.time() - began < PAUSE_SECONDS:
            await asyncio.sleep(settings.watching.reconnect_backoff)


def make_registry(settings: Settings) -> kopf.OperatorRegistry:
    """A registry with one handler: kopf logs in, and writes nothing to any object.

    Exactly one login method, given by name: without one, kopf tries every client library that is installed.
    """
    registry = kopf.OperatorRegistry()
    folder, in_cluster = settings.service_account, settings.kubeconfig is None and is_in_cluster()
    if settings.kubeconfig is not None:
        os.environ["KUBECONFIG"] = str(settings.kubeconfig)

    @kopf.on.login(registry=registry, id="login")
    def login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
        if not in_cluster:
            return kopf.login_with_kubeconfig(settings=settings)
        account = ServiceAccount(folder)
        return kopf.ConnectionInfo(server=account.server, ca_path=str(account.ca), token=account.token)

    return registry


def make_settings(own: Settings) -> kopf.OperatorSettings:
    """Settings of kopf for an operator that keeps all state in the status of its own objects."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # namespaces and kinds are fixed: no rights on CRDs are needed
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.networking.request_timeout = 30
    settings.watching.server_timeout = 240
    settings.watching.reconnect_backoff = PAUSE_SECONDS
    settings.watching.chunk_size = 250  # reading a page of pods blocks the event loop
    settings.watching.inactivity_timeout = own.watch_silence_seconds
    for resource in CHILDREN:
        selector = (resource.group, resource.version, resource.plural)
        settings.watching.label_selectors[selector] = CHILD_SELECTOR
    return settings
