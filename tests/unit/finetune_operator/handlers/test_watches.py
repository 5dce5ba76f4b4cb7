"""kopf as an informer: what is watched, what is passed on, and that nothing is written to any object."""

from typing import Any

import kopf

from finetune_operator.handlers.watches import make_registry, make_settings
from finetune_operator.reconcilers.observed import CHILD_SELECTOR, CHILDREN, WATCHED
from finetune_operator.runtime.kube import PODS
from finetune_operator.runtime.settings import Settings


def registry(seen: Any = lambda *_: None) -> kopf.OperatorRegistry:
    return make_registry(seen, Settings.from_environment({"POD_NAMESPACE": "finetune", "POD_NAME": "operator-0"}))


def test_each_watched_kind_has_one_handler_of_events_and_none_of_changes() -> None:
    made = registry()
    handlers = made._watching.get_all_handlers()
    assert sorted(str(handler.id) for handler in handlers) == sorted(resource.plural for resource in WATCHED)
    for other in (made._changing, made._spawning, made._indexing, made._webhooks):
        assert list(other.get_all_handlers()) == []


async def test_events_are_passed_on_with_type_and_object() -> None:
    taken: list[Any] = []
    made = registry(lambda *event: taken.append(event))
    (pods,) = [handler for handler in made._watching.get_all_handlers() if handler.id == "pods"]
    await pods.fn(event={"type": None, "object": {"metadata": {"name": "x"}}}, logger=None)  # type: ignore[call-arg]
    assert taken == [(PODS, None, {"metadata": {"name": "x"}})]


def test_children_are_watched_by_label_and_kopf_posts_and_scans_nothing() -> None:
    settings = make_settings(Settings())
    selectors = settings.watching.label_selectors
    assert set(selectors.values()) == {CHILD_SELECTOR}
    assert {selector.any_name for selector in selectors} == {resource.plural for resource in CHILDREN}
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.peering.standalone


def test_kopf_makes_no_copies_of_objects_to_find_out_what_has_changed() -> None:
    persistence = make_settings(Settings()).persistence
    body = kopf.Body({"metadata": {"name": "x"}, "spec": {"large": True}})
    essence = persistence.diffbase_storage.build(body=body)
    assert essence == {}
    assert persistence.progress_storage.clear(essence=essence) is essence
    assert persistence.diffbase_storage.fetch(body=body) is None
