"""kopf as informer: its login, its watches, its end. What watches tell goes to the observer; nothing is decided here.

Its handlers of events are not used. Each event would pass a queue and a task of its object, copies, causes and a dozen
records that serve handlers of changes, of which there are none here: half of the operator's work, and of its memory.
"""

import asyncio
import json
import logging
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

import aiohttp
import kopf
from kopf._cogs.clients.errors import APIError, APIServerError, APITooManyRequestsError
from kopf._cogs.clients.fetching import fetch_objs
from kopf._cogs.clients.watching import Bookmark, watch_objs
from kopf._cogs.structs import references

from finetune_operator.handlers.observer import Observer
from finetune_operator.reconcilers.observed import CHILD_SELECTOR, CHILDREN
from finetune_operator.runtime.errors import UNAUTHENTICATED, WentBack
from finetune_operator.runtime.kube import Resource
from finetune_operator.runtime.repeats import Repeats
from finetune_operator.runtime.service_account import ServiceAccount, is_in_cluster
from finetune_operator.runtime.settings import Settings
from finetune_operator.runtime.store import Listing

logger = logging.getLogger(__name__)

IN_A_ROW = 25
"""Events that are told before other work gets its turn: a listing comes by the hundreds."""

PAUSE_SECONDS = 1.0
"""Before what has just been begun is begun anew: whatever ends listings or watches at once would have us ask without
an end."""

SHUT_SECONDS = 30.0
"""Before a namespace that may not be watched is tried again."""

CHANGES = {"ADDED", "MODIFIED", "DELETED"}


class _Broken(Exception):
    """A watch says that it cannot go on; the message is the server's."""


class CannotWatch(Exception):
    """The API server refuses to list or watch a kind: rights were taken away, or the kind is gone."""


class _Shut(CannotWatch):
    """It refuses that in one namespace: that is gone, and its role binding with it, or its rights were taken away."""


async def start(
    own: Settings, observer: Observer, stop: asyncio.Event
) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
    """Begin: kopf itself, which ends when `stop` is set, and the watches, which end when they are cancelled or fail."""
    settings = make_settings(own)
    before = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=make_registry(own),
        settings=settings,
        standalone=True,
        # Unless it is told who it is, kopf asks the system for its user's name; a pod's user has none.
        identity=cast("Any", own.pod_name),
        clusterwide=True,
        stop_flag=stop,
    )
    shell = asyncio.create_task(kopf.run_tasks(tasks, ignored=before), name="kopf")
    return shell, asyncio.create_task(watch_all(settings, observer), name="watches")


async def watch_all(settings: kopf.OperatorSettings, observer: Observer) -> None:
    """Tell of everything that is watched, until cancelled.

    To be called in the context of `kopf.spawn_tasks`, whose login is used.

    Raises:
        CannotWatch: a watch cannot go on.
    """
    places: dict[str | None, list[Resource]] = defaultdict(list)
    for resource, namespace in observer.places():
        places[namespace].append(resource)
    watching = (
        _watch_kinds(settings, observer, kinds, None)
        if namespace is None
        else _watch_namespace(settings, observer, kinds, namespace)
        for namespace, kinds in places.items()
    )
    await _beside_each_other(watching)


async def _watch_namespace(
    settings: kopf.OperatorSettings, observer: Observer, kinds: Iterable[Resource], namespace: str
) -> None:
    """Watch one of several namespaces: where that is refused, the others are watched as before.

    Raises:
        CannotWatch: it is the last one, or refused for another reason than its rights.
    """
    clock = asyncio.get_running_loop().time
    refusals = Repeats(clock)
    while True:
        began = clock()
        try:
            await _watch_kinds(settings, observer, kinds, namespace)
        except _Shut as error:
            if not observer.shut(namespace):
                raise
            if clock() - began > SHUT_SECONDS:
                refusals.over()  # it was watched in between
            # Of many kinds any one is the first to be refused.
            if refusals.is_news(namespace):
                logger.error(  # noqa: TRY400 - a sentence says it all
                    "namespace %s cannot be watched: nothing is done there, and it is tried again every %g s. Was it "
                    "deleted, or recreated? helm upgrade gives the operator its rights there: %s",
                    namespace, SHUT_SECONDS, error,
                )  # fmt: skip
        await asyncio.sleep(SHUT_SECONDS)


async def _watch_kinds(
    settings: kopf.OperatorSettings, observer: Observer, kinds: Iterable[Resource], namespace: str | None
) -> None:
    await _beside_each_other(_watch(settings, observer, kind, namespace) for kind in kinds)


async def _beside_each_other(watching: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Until one of them cannot go on, which ends the others.

    Raises:
        CannotWatch: of that one; of several the one that more depends on.
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


async def _watch(
    settings: kopf.OperatorSettings, observer: Observer, resource: Resource, namespace: str | None
) -> None:
    """List and watch; list again where a watch was broken for too long to go on: what was deleted meanwhile is gone."""
    while True:
        listing = observer.listing(resource, namespace)
        try:
            with suppress(APITooManyRequestsError, APIServerError):  # kopf has waited and asked again several times
                await _tell(_stream(settings, resource, namespace), observer, resource, namespace, listing)
        except (_Broken, aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as error:
            logger.warning("the watch of %s broke, they are listed again: %s", resource.plural, error)
        except WentBack as error:
            raise CannotWatch(str(error)) from error
        except kopf.LoginError as error:
            # It has signed in anew, and been refused again: a new process reads all that it signs in with.
            raise CannotWatch(f"{resource.plural}: 401 {UNAUTHENTICATED}") from error
        except APIError as error:
            if error.status != HTTPStatus.GONE:  # so are the pages of a listing that took too long
                kind = _Shut if error.status == HTTPStatus.FORBIDDEN and namespace else CannotWatch
                raise kind(f"{resource.plural}: {error.status} {_said(resource, error)}") from error
        await asyncio.sleep(settings.watching.reconnect_backoff)


def _said(resource: Resource, error: APIError) -> str:
    if error.status != HTTPStatus.NOT_FOUND:
        return str(error.message)
    return (
        f"the cluster does not know them: apply the definition of {resource.kind} (crds/, or the chart's crds.install)"
    )


async def _tell(
    stream: AsyncIterator[Any], observer: Observer, resource: Resource, namespace: str | None, listing: Listing
) -> None:
    count = 0
    async for event in stream:
        if event is Bookmark.LISTED:
            observer.listed(resource, namespace, listing)
            continue
        if event["type"] is None:
            listing.has(event["object"])
        try:
            observer.seen(resource, event["type"], event["object"])
        except Exception:
            # One object that nobody can read must not hide all others; the resync looks at it again.
            logger.exception("an event of %s was not understood", resource.plural)
        count += 1
        if count % IN_A_ROW == 0:
            await asyncio.sleep(0)


async def _stream(settings: kopf.OperatorSettings, resource: Resource, namespace: str | None) -> AsyncIterator[Any]:
    """A listing, then watches by kopf that bear broken, silent and half-open connections, until one cannot go on.

    Raises:
        _Broken: a watch says so; not where it is only too old.
    """
    reference = references.Resource(
        resource.group, resource.version, resource.plural, resource.kind, namespaced=resource.namespaced
    )
    place = references.NamespaceName(namespace) if namespace else None
    version: str | None = None
    async for chunk, listed in fetch_objs(settings=settings, resource=reference, namespace=place, logger=logger):
        version = listed
        for obj in chunk:
            yield {"type": None, "object": obj}
    yield Bookmark.LISTED
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        never = loop.create_future()  # it is never paused
        async for event in watch_objs(
            settings=settings, resource=reference, namespace=place, since=version, operator_pause_waiter=never
        ):
            told: Any = event["object"]
            if event["type"] == "ERROR":
                if told.get("code") == HTTPStatus.GONE:
                    return
                raise _Broken(f"{told.get('code')} {told.get('message')}")
            version = told["metadata"].get("resourceVersion", version)
            if event["type"] in CHANGES:  # a bookmark is of no object
                yield event
        if loop.time() - began < PAUSE_SECONDS:
            await asyncio.sleep(settings.watching.reconnect_backoff)


def make_registry(settings: Settings) -> kopf.OperatorRegistry:
    """A registry of one handler: kopf signs in, and writes nothing to any object.

    One way to sign in, named: with none, kopf tries every client library that is installed.
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
    """Kopf's settings for an operator that keeps all state in its own objects' status."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # namespaces and kinds are fixed: no rights on CRDs are needed
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.networking.request_timeout = 30
    settings.watching.server_timeout = 240
    settings.watching.reconnect_backoff = PAUSE_SECONDS
    settings.watching.chunk_size = 250  # a page of pods stops all other work while it is read
    settings.watching.inactivity_timeout = own.watch_silence_seconds
    for resource in CHILDREN:
        selector = (resource.group, resource.version, resource.plural)
        settings.watching.label_selectors[selector] = CHILD_SELECTOR
    return settings
