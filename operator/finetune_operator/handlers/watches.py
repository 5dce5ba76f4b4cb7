"""kopf as informer: each event goes into the store and wakes the objects it concerns. Nothing is decided here."""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import kopf

from finetune_operator.reconcilers.observed import CHILD_SELECTOR, CHILDREN, WATCHED
from finetune_operator.runtime.kube import Resource
from finetune_operator.runtime.settings import Settings

Seen = Callable[[Resource, str | None, Mapping[str, Any]], None]
"""Called for each event with its type (None for objects of the first listing) and the object."""


def make_registry(seen: Seen, settings: Settings) -> kopf.OperatorRegistry:
    """A registry whose handlers only pass events on. No change handlers: kopf writes nothing to any object."""
    registry = kopf.OperatorRegistry()
    for resource in WATCHED:
        _watch(registry, resource, seen)
    _login(registry, settings)
    return registry


def _watch(registry: kopf.OperatorRegistry, resource: Resource, seen: Seen) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)
    async def pass_on(event: Mapping[str, Any], **_: Any) -> None:
        seen(resource, event["type"], event["object"])


def _login(registry: kopf.OperatorRegistry, settings: Settings) -> None:
    """One way to sign in, named: with none, kopf tries every client library that is installed."""
    if settings.kubeconfig is not None:
        os.environ["KUBECONFIG"] = str(settings.kubeconfig)

    @kopf.on.login(registry=registry, id="login")
    def login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)


class _NoDiffs(kopf.DiffBaseStorage):
    """No record of what was handled last: without change handlers nobody asks what has changed.

    Otherwise kopf copies every object of every event three times to find that out: a third of the operator's work.
    """

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """No record of how far handlers are: those of events have no progress."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: Any) -> Any:
        return essence


def make_settings(own: Settings) -> kopf.OperatorSettings:
    """Kopf's settings for an operator that keeps all state in its own objects' status."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # namespaces and kinds are fixed: no rights on CRDs are needed
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.progress_storage = _NoProgress()
    settings.networking.request_timeout = 30
    settings.watching.server_timeout = 240
    settings.watching.chunk_size = 500
    settings.watching.inactivity_timeout = own.watch_silence_seconds
    for resource in CHILDREN:
        selector = (resource.group, resource.version, resource.plural)
        settings.watching.label_selectors[selector] = CHILD_SELECTOR
    # A line for each event of each object says nothing that status does not.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    return settings
