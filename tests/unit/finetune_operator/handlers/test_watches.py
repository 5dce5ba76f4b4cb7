"""kopf as an informer: what is watched, what is passed on, and that nothing is written to any object."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import kopf
import pytest
from kopf._cogs.clients.errors import (
    APIClientError,
    APIError,
    APIForbiddenError,
    APINotFoundError,
    APIServerError,
    APITooManyRequestsError,
)
from kopf._cogs.clients.watching import Bookmark

from finetune_operator.handlers import watches
from finetune_operator.handlers.watches import make_registry, make_settings
from finetune_operator.reconcilers.watched.observed import CHILD_SELECTOR, CHILDREN
from finetune_operator.runtime.kube import JOBS, PODS, Resource
from finetune_operator.runtime.settings import Settings
from finetune_operator.runtime.store import Listing, Store

Event = Any


def pod(name: str, version: int = 1) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "a", "resourceVersion": str(version)}}


class ObjectEvents:
    """What a listener was told of one kind, in words."""

    def __init__(self, until: int) -> None:
        self.words: list[str] = []
        self.store = Store()
        self._until = until
        self.enough = asyncio.Event()

    def places(self) -> Iterator[tuple[Resource, str | None]]:
        yield PODS, "a"

    def start_listing(self, resource: Resource, namespace: str | None) -> Listing:
        self._say("listing")
        return self.store.listing(resource, namespace)

    def handle_event(self, resource: Resource, event_type: str | None, obj: Mapping[str, Any]) -> None:
        self._say(f"{event_type} {obj['metadata']['name']}")
        self.store.put(resource, obj)

    def end_listing(self, resource: Resource, namespace: str | None, listing: Listing) -> None:
        assert (resource, namespace) == (PODS, "a")
        self._say(f"without {[gone['metadata']['name'] for gone in listing.end()]}")

    def shut(self, namespace: str) -> bool:
        self._say(f"{namespace} is shut")
        return False

    def _say(self, word: str) -> None:
        self.words.append(word)
        if len(self.words) == self._until:
            self.enough.set()


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Listings and watches tell this, one stream after the other; an exception is raised."""

    def play(*planned: list[Event]) -> None:
        left = list(planned)

        async def stream(_: Any, resource: Resource, namespace: str | None) -> AsyncIterator[Event]:
            assert (resource, namespace) == (PODS, "a")
            for event in left.pop(0) if left else []:
                if isinstance(event, Exception):
                    raise event
                yield event
            if not left:
                await asyncio.Event().wait()

        monkeypatch.setattr(watches, "_stream", stream)

    return play


async def told(count: int) -> list[str]:
    settings = make_settings(Settings())
    settings.watching.reconnect_backoff = 0
    listener = ObjectEvents(count)
    watching = asyncio.create_task(watches.watch_all(settings, listener))
    async with asyncio.timeout(5):
        await listener.enough.wait()
    watching.cancel()
    return listener.words


async def test_a_listing_and_each_change_are_told(streams: Callable[..., None]) -> None:
    streams([
        {"type": None, "object": pod("x")},
        Bookmark.LISTED,
        {"type": "MODIFIED", "object": pod("x")},
        {"type": "DELETED", "object": pod("x")},
    ])  # fmt: skip
    assert await told(5) == ["listing", "None x", "without []", "MODIFIED x", "DELETED x"]


async def test_after_a_broken_watch_a_new_listing_tells_what_is_gone(streams: Callable[..., None]) -> None:
    streams(
        [{"type": None, "object": pod("x")}, {"type": None, "object": pod("y")}, Bookmark.LISTED],
        [{"type": None, "object": pod("y")}, Bookmark.LISTED],
    )
    assert (await told(7))[4:] == ["listing", "None y", "without ['x']"]


@pytest.mark.parametrize(
    "error",
    [
        APITooManyRequestsError({"message": "later"}, status=429, headers={}),
        APIServerError({"message": "later"}, status=503, headers={}),
        APIClientError({"message": "The provided continue parameter is too old"}, status=410, headers={}),
        aiohttp.ClientConnectionError("reset"),
        aiohttp.ClientPayloadError("it broke off"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_half_a_listing_and_a_server_that_is_busy_are_tried_again(
    streams: Callable[..., None], error: Exception
) -> None:
    streams(
        [{"type": None, "object": pod("x")}],
        [error],
        [{"type": None, "object": pod("y")}, Bookmark.LISTED],
    )
    assert await told(6) == ["listing", "None x", "listing", "listing", "None y", "without ['x']"]


@dataclass
class Server:
    """Of pods: one listing after the other, and what each watch tells before it ends."""

    watches: list[list[Event]]
    listings: int = 0
    since: list[str | None] = field(default_factory=list)

    async def list(self, **_: Any) -> AsyncIterator[tuple[list[Event], str]]:
        self.listings += 1
        yield [pod("x")], "5"

    async def watch(self, since: str | None, **_: Any) -> AsyncIterator[Event]:
        self.since.append(since)
        for event in self.watches.pop(0) if self.watches else []:
            if isinstance(event, Exception):
                raise event
            yield event
        if not self.watches:
            await asyncio.Event().wait()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    def begin(*planned: list[Event]) -> Server:
        server = Server(list(planned))
        monkeypatch.setattr(watches, "fetch_objs", server.list)
        monkeypatch.setattr(watches, "watch_objs", server.watch)
        return server

    return begin


def refused(code: int) -> Event:
    return {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "by the test"}}


async def test_a_watch_that_ends_goes_on_from_what_it_told_last(serve: Callable[..., Server]) -> None:
    bookmark = {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": "7"}}}
    news = {"type": "MODIFIED", "object": {"metadata": {**pod("x")["metadata"], "resourceVersion": "9"}}}
    server = serve([], [bookmark], [{"type": "STRANGE", "object": pod("z")}, news])
    assert await told(4) == ["listing", "None x", "without []", "MODIFIED x"]
    assert server.since == ["5", "5", "7"]
    assert server.listings == 1


@pytest.mark.parametrize(
    "end",
    [refused(410), refused(500), refused(504), json.JSONDecodeError("half a line", '{"type"', 0)],
    ids=["too old", "no leader of etcd", "too large a version", "half a line"],
)
async def test_a_watch_that_cannot_go_on_is_no_reason_to_end(serve: Callable[..., Server], end: Event) -> None:
    server = serve([end], [])
    assert (await told(6))[3:] == ["listing", "None x", "without []"]
    assert server.listings == 2


async def test_watches_that_end_at_once_are_not_begun_without_a_pause(serve: Callable[..., Server]) -> None:
    server = serve(*([] for _ in range(10_000)))
    settings = make_settings(Settings())
    watching = asyncio.create_task(watches.watch_all(settings, ObjectEvents(0)))
    async with asyncio.timeout(5):
        while not server.since:  # noqa: ASYNC110 - a watch has no event for its beginning
            await asyncio.sleep(0)
    await asyncio.wait([watching], timeout=0.3)
    watching.cancel()
    assert len(server.since) == 1
    assert settings.watching.reconnect_backoff >= 1


async def test_other_work_gets_its_turn_while_a_listing_is_told(streams: Callable[..., None]) -> None:
    listed = 10 * watches.YIELD_EVERY
    streams([{"type": None, "object": pod(f"pod-{number}")} for number in range(listed)])
    telling, turns = asyncio.create_task(told(1 + listed)), 0
    while not telling.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 10


async def test_an_object_that_cannot_be_read_hides_no_other(streams: Callable[..., None]) -> None:
    streams([{"type": "ADDED", "object": {"metadata": {}}}, {"type": "ADDED", "object": pod("x")}])
    assert await told(2) == ["listing", "ADDED x"]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(APIForbiddenError, 403, "pods: 403 no$"), (APINotFoundError, 404, "pods: 404 .* apply the definition of Pod")],
)
async def test_a_watch_that_cannot_go_on_ends_all(
    streams: Callable[..., None], error: type[APIError], status: int, said: str
) -> None:
    streams([error({"message": "no"}, status=status, headers={})])
    with pytest.raises(watches.CannotWatch, match=said):
        await watches.watch_all(make_settings(Settings()), ObjectEvents(9))


class Namespaces:
    """A listener of pods in two namespaces, of which one may not be watched for a while."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.open = {"a", "b"}
        self.again = asyncio.Event()
        self.store = Store()

    def places(self) -> Iterator[tuple[Resource, str | None]]:
        yield from ((PODS, "a"), (JOBS, "a"), (PODS, "b"))

    def start_listing(self, resource: Resource, namespace: str | None) -> Listing:
        return self.store.listing(resource, namespace)

    def handle_event(self, _: Resource, __: str | None, ___: Mapping[str, Any]) -> None:
        raise AssertionError

    def end_listing(self, resource: Resource, namespace: str | None, _: Listing) -> None:
        self.words.append(f"{resource.plural} of {namespace}")
        if self.words.count("pods of a") == 2:
            self.again.set()

    def shut(self, namespace: str) -> bool:
        self.words.append(f"{namespace} is shut")
        self.open.discard(namespace)
        return bool(self.open)


async def test_a_namespace_that_may_not_be_watched_takes_no_other_with_it_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is deleted, and the operator's role binding with it: the work of all others goes on."""
    refusals = [APIForbiddenError({"message": "no"}, status=403, headers={})]

    async def stream(_: Any, resource: Resource, namespace: str | None) -> AsyncIterator[Event]:
        yield Bookmark.LISTED
        if (resource, namespace) == (PODS, "a") and refusals:
            raise refusals.pop()
        await asyncio.Event().wait()

    monkeypatch.setattr(watches, "_stream", stream)
    monkeypatch.setattr(watches, "SHUT_SECONDS", 0)
    listener = Namespaces()
    watching = asyncio.create_task(watches.watch_all(make_settings(Settings()), listener))
    async with asyncio.timeout(5):
        await listener.again.wait()
    assert not watching.done()
    watching.cancel()
    assert listener.words.count("pods of b") == 1, "it was watched all the time"
    after = listener.words[listener.words.index("a is shut") :]
    assert {"pods of a", "jobs of a"} <= set(after), "all of it is listed again"


async def test_a_namespace_that_stays_shut_is_not_told_of_at_each_try(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried twice a minute, for as long as the chart's values name what is gone."""
    kinds = itertools.cycle((PODS, JOBS))

    async def refused(_: Any, __: Any, namespace: str | None) -> None:
        if namespace == "a":
            raise watches._Shut(f"{next(kinds).plural}: 403 no")
        await asyncio.Event().wait()

    async def at_once(_: float, sleep: Any = asyncio.sleep) -> None:
        await sleep(0)

    monkeypatch.setattr(watches._Watches, "of_kinds", refused)
    monkeypatch.setattr(asyncio, "sleep", at_once)
    listener = Namespaces()
    watching = asyncio.create_task(watches.watch_all(make_settings(Settings()), listener))
    async with asyncio.timeout(5):
        while listener.words.count("a is shut") < 5:  # noqa: ASYNC110 - the listener is told, and tells nobody
            await asyncio.sleep(0)
    watching.cancel()
    assert caplog.text.count("namespace a cannot be watched") == 1


async def test_when_the_last_namespace_may_not_be_watched_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def stream(*_: Any) -> AsyncIterator[Event]:
        yield Bookmark.LISTED
        raise APIForbiddenError({"message": "no"}, status=403, headers={})

    monkeypatch.setattr(watches, "_stream", stream)
    with pytest.raises(watches.CannotWatch, match="403 no"):
        await watches.watch_all(make_settings(Settings()), Namespaces())


async def test_a_listing_that_is_older_than_what_was_seen_ends_all_as_nothing_that_is_known_holds(
    streams: Callable[..., None],
) -> None:
    """Whoever restores etcd from a snapshot takes its versions back: watches that go on from later ones are silent."""
    streams(
        [{"type": None, "object": pod("x", 7)}, Bookmark.LISTED],
        [{"type": None, "object": pod("x", 6)}, Bookmark.LISTED],
    )
    with pytest.raises(watches.CannotWatch, match="pods a/x is older than it was"):
        await watches.watch_all(make_settings(Settings()), ObjectEvents(9))


async def test_credentials_that_stay_refused_are_told_in_a_sentence(streams: Callable[..., None]) -> None:
    streams([kopf.LoginError("Consider installing an API client library")])
    with pytest.raises(watches.CannotWatch, match="pods: 401 the API server refuses"):
        await watches.watch_all(make_settings(Settings()), ObjectEvents(9))


def test_kopf_handles_nothing_by_itself() -> None:
    made = make_registry(Settings.from_environment({"POD_NAMESPACE": "finetune", "POD_NAME": "operator-0"}))
    for handlers in (made._watching, made._changing, made._spawning, made._indexing, made._webhooks):
        assert list(handlers.get_all_handlers()) == []
    assert [handler.id for handler in made._activities.get_all_handlers()] == ["login"]


def test_children_are_watched_by_label_and_kopf_posts_and_scans_nothing() -> None:
    settings = make_settings(Settings())
    selectors = settings.watching.label_selectors
    assert set(selectors.values()) == {CHILD_SELECTOR}
    assert {selector.any_name for selector in selectors} == {resource.plural for resource in CHILDREN}
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.peering.standalone
    assert isinstance(settings, kopf.OperatorSettings)
