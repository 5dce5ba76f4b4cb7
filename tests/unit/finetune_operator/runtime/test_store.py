"""The store: newest state wins, indexes follow, a listing is the truth of its own time."""

import tracemalloc
from typing import Any

import orjson
import pytest

from finetune_operator.runtime.errors import WentBack
from finetune_operator.runtime.kube import CONNECTIONS, PODS
from finetune_operator.runtime.store import Store


def pod(name: str, version: object = 1, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "a", "resourceVersion": str(version), "labels": labels, "managedFields": [1]}
    return {"metadata": metadata, "spec": {"large": True}}


def store() -> Store:
    return Store(indexers={PODS: lambda obj: [f"app/{obj['metadata']['labels'].get('app')}"]})


@pytest.mark.parametrize(("first", "second", "kept"), [(5, 6, True), (5, 5, True), (6, 5, False), (9, 10, True)])
def test_a_newer_state_replaces_an_older_one_and_never_the_other_way(first: int, second: int, kept: bool) -> None:
    known = store()
    assert known.put(PODS, pod("x", first, app="one"))
    assert known.put(PODS, pod("x", second, app="two")) is kept
    found = known.get(PODS, "x", "a")
    assert found is not None
    assert found["metadata"]["labels"]["app"] == ("two" if kept else "one")


def test_indexes_follow_their_objects() -> None:
    known = store()
    known.put(PODS, pod("x", 1, app="one"))
    known.put(PODS, pod("y", 1, app="one"))
    assert [p["metadata"]["name"] for p in known.select(PODS, "app/one")] == ["x", "y"]
    known.put(PODS, pod("x", 2, app="two"))
    assert known.addresses(PODS, "app/one") == [("a", "y")]
    assert known.addresses(PODS, "app/two") == [("a", "x")]
    known.remove(PODS, "a", "y")
    assert known.select(PODS, "app/one") == []
    assert known.count(PODS, "app/two") == 1
    assert known.count(PODS, "app/one") == 0


def test_what_is_read_is_a_copy() -> None:
    known = store()
    known.put(PODS, pod("x"))
    found = known.get(PODS, "x", "a")
    assert found is not None
    found["spec"]["large"] = False
    assert known.get(PODS, "x", "a") != found


def test_objects_are_trimmed_as_told_and_managed_fields_never_kept() -> None:
    known = Store(trims={PODS: lambda obj: {"metadata": obj["metadata"]}})
    known.put(PODS, pod("x"))
    kept = {key: value for key, value in pod("x")["metadata"].items() if key != "managedFields"}
    assert known.get(PODS, "x", "a") == {"metadata": kept}
    plain = store()
    plain.put(PODS, pod("x"))
    assert "managedFields" not in (plain.get(PODS, "x", "a") or {})["metadata"]


def test_objects_without_a_namespace_have_an_address_too() -> None:
    known = Store()
    known.put(CONNECTIONS, {"metadata": {"name": "local", "resourceVersion": "1"}})
    assert known.get(CONNECTIONS, "local") is not None
    assert known.addresses(CONNECTIONS) == [("", "local")]


def test_a_listing_drops_what_it_lacks_and_keeps_what_it_cannot_know() -> None:
    known = store()
    for name in ("gone", "stays", "changed"):
        known.put(PODS, pod(name, 1))
    listing = known.listing(PODS)
    known.put(PODS, pod("new", 3))
    known.put(PODS, pod("changed", 4))
    listing.has(pod("stays", 2))
    assert [gone["metadata"]["name"] for gone in listing.end()] == ["gone"]
    assert sorted(known.addresses(PODS)) == [("a", "changed"), ("a", "new"), ("a", "stays")]


def test_a_listing_that_begins_anew_knows_nothing_of_what_it_had() -> None:
    known = store()
    for name in ("gone", "stays"):
        known.put(PODS, pod(name, 1))
    listing = known.listing(PODS)
    listing.has(pod("gone", 1))
    listing.begin()
    listing.has(pod("stays", 1))
    assert [gone["metadata"]["name"] for gone in listing.end()] == ["gone"]


@pytest.mark.parametrize("deleted", [False, True], ids=["changed since", "deleted since"])
def test_a_listing_that_shows_an_older_state_than_was_seen_is_of_a_server_that_was_put_back(deleted: bool) -> None:
    known = store()
    known.put(PODS, pod("x", 7))
    if deleted:
        known.discard(PODS, pod("x", 8))
    listing = known.listing(PODS)
    with pytest.raises(WentBack, match=r"^pods a/x is older than it was: .*etcd, from a snapshot"):
        listing.has(pod("x", 6))


def test_a_listing_that_a_watch_has_overtaken_is_no_older_server() -> None:
    known = store()
    known.put(PODS, pod("x", 7))
    known.put(PODS, pod("y", 7))
    listing = known.listing(PODS)
    known.put(PODS, pod("x", 9))
    known.discard(PODS, pod("y", 10))
    listing.has(pod("x", 7))
    listing.has(pod("y", 7))
    assert listing.end() == []
    assert known.version(PODS, "x", "a") == 9


def test_a_listing_of_one_namespace_says_nothing_of_another() -> None:
    known = store()
    known.put(PODS, pod("x", 1))
    assert known.listing(PODS, "another").end() == []
    assert [gone["metadata"]["name"] for gone in known.listing(PODS, "a").end()] == ["x"]


@pytest.mark.parametrize(("deleted", "gone"), [(8, False), (9, True), (10, True)])
def test_a_late_deletion_does_not_take_the_next_object_of_that_name_away(deleted: int, gone: bool) -> None:
    known = store()
    known.put(PODS, pod("x", 9))
    assert known.discard(PODS, pod("x", deleted)) is gone
    assert (known.get(PODS, "x", "a") is None) is gone
    assert known.discard(PODS, pod("unknown", 1))


@pytest.mark.parametrize(("answered", "back"), [(6, False), (7, False), (8, True)])
def test_an_answer_that_comes_after_the_deletion_does_not_bring_the_object_back(answered: int, back: bool) -> None:
    known = store()
    known.put(PODS, pod("x", 5))
    known.discard(PODS, pod("x", 7))
    assert known.put(PODS, pod("x", answered)) is back
    assert (known.get(PODS, "x", "a") is not None) is back


def test_of_deletions_only_the_last_ones_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.runtime.store.DELETIONS", 2)
    known = store()
    for name in ("x", "y", "z"):
        known.discard(PODS, pod(name, 7))
    assert [known.put(PODS, pod(name, 6)) for name in ("x", "y", "z")] == [True, False, False]


def test_a_removed_object_may_come_again_with_any_version() -> None:
    known = store()
    known.put(PODS, pod("x", 9))
    known.remove(PODS, "a", "x")
    known.remove(PODS, "a", "x")
    assert known.put(PODS, pod("x", 1))


def test_a_watch_has_news_only_where_something_that_is_kept_has_changed() -> None:
    known = store()
    assert known.put_event(PODS, pod("x", 1, app="one")), "nobody has told of it"
    assert not known.put_event(PODS, pod("x", 1, app="one")), "told again"
    assert not known.put_event(PODS, pod("x", 2, app="one")), "nothing but its version has changed"
    assert known.put_event(PODS, pod("x", 3, app="two"))
    assert not known.put_event(PODS, pod("x", 2, app="three")), "late"
    found = known.get(PODS, "x", "a")
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "3"


def test_what_was_read_on_the_way_is_still_news_when_the_watch_tells_it() -> None:
    known = store()
    known.put(PODS, pod("x", 1, app="one"))
    assert known.put_event(PODS, pod("x", 1, app="one")), "others whom it concerns have not been told"


def test_what_everybody_knows_is_no_news_when_the_watch_tells_it() -> None:
    known = store()
    known.put(PODS, pod("x", 1, app="one"), notified=True)
    assert not known.put_event(PODS, pod("x", 1, app="one"))
    assert known.listing(PODS).end()
    known.put(PODS, pod("y", 2, app="one"), notified=True)
    assert not known.put_event(PODS, pod("y", 2, app="one"))
    assert known.put_event(PODS, pod("x", 3, app="one")), "it was gone, and is another one"


def test_versions_are_known_without_reading_and_survive_where_they_are_no_numbers() -> None:
    known = store()
    known.put(PODS, pod("x", 7))
    known.put(PODS, pod("y", "not-a-number"))
    assert known.version(PODS, "x", "a") == 7
    assert known.version(PODS, "z", "a") is None
    assert (known.get(PODS, "y", "a") or {})["metadata"]["resourceVersion"] == "not-a-number"


def test_what_is_kept_of_an_object_takes_little_more_than_its_json() -> None:
    known = Store()
    objects = [pod(f"pod-{number}", number, note="x" * 1200) for number in range(100)]
    tracemalloc.start()
    for obj in objects:
        known.put(PODS, obj)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 1.5 * sum(len(orjson.dumps(obj)) for obj in objects)
