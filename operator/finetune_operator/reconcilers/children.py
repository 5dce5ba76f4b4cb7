"""Applies child objects that differ from their desired state.

If someone else changes one again and again (an autoscaler, a GitOps tool, a policy), it is corrected a few times at
once and then every half minute, and both are told: otherwise the two writers would overwrite each other for ever.
"""

from contextlib import suppress
from dataclasses import dataclass

from finetune_api.manifest import Manifest, annotations_of, kept_by, wants_deletion
from finetune_api.names import DIGEST_ANNOTATION
from finetune_operator.desired.compare import (
    differences,
    is_managed,
    is_ours,
    stamped,
    unstamped,
    with_transferred_fields,
)
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.watched.observed import CHILDREN
from finetune_operator.runtime.errors import REFUSALS, Conflict, KubeError
from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS, OWN_KINDS, Resource
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.queue import Key
from finetune_operator.runtime.token_bucket import TokenBuckets

Differences = frozenset[tuple[str, str]]

AT_ONCE = 3
PAUSE_SECONDS = 30.0
REMEMBERED = 4096

PUT_RIGHT: tuple[str, str] = ("Warning", "PutRight")
ALTERED: tuple[str, str] = ("Warning", "Altered")


class NameTaken(Exception):
    """The name of an object to create is taken by someone else's object."""


@dataclass(frozen=True)
class Contested:
    """Someone else changes an object that was corrected a moment ago: it is left alone for `seconds`."""

    note: str
    seconds: float


@dataclass(frozen=True)
class Ensured:
    """The object as it is now (None: it does not exist), and what was done."""

    present: Manifest | None
    applied: bool = False
    contested: Contested | None = None


class Children:
    """Applies objects."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._turns = TokenBuckets(1 / PAUSE_SECONDS, AT_ONCE, context.seconds, REMEMBERED)
        self._known_differences: LRUCache[Differences] = LRUCache(REMEMBERED)
        """Objects that this process applied or found, with the differences that the server makes on its own."""
        self._last_refusals: LRUCache[KubeError] = LRUCache(REMEMBERED)
        """The server's last refusal of an object."""

    async def ensure(self, resource: Resource, owner: Manifest, wanted: Manifest) -> Ensured:
        """Apply a child of the owner unless it is as wanted.

        Raises:
            NameTaken: an object of that name exists that the operator did not create.
            KubeError: it was not written; until the next try is due, the server's last refusal is raised again.
        """
        wanted = stamped(wanted)
        metadata = wanted["metadata"]
        digest = metadata["annotations"][DIGEST_ANNOTATION]
        key = "/".join((resource.plural, metadata["namespace"], metadata["name"], digest))
        present = await self._present(resource, metadata)
        if present is not None and (finalizers := kept_by(present)):
            # An object being deleted is left alone, as other controllers do. Once it is gone it is created again.
            what = f"{resource.kind} {metadata['name']}"
            note = f"{what} is being deleted, and kept by its finalizers {finalizers}"
            return Ensured(present, contested=Contested(note, PAUSE_SECONDS))
        changed = self._changed(key, present, wanted)
        if present is not None and not changed:
            if self._known_differences.get(key) is None:
                self._known_differences.put(key, frozenset())
            return Ensured(present)
        # With another digest something else is wanted now, which is applied at once.
        was_applied = present is None or _stamp(present) in {None, digest}
        what = f"{resource.kind} {metadata['name']}"
        wait = self._turns.take(key) if was_applied else 0.0
        if wait > 0:
            if (refusal := self._last_refusals.get(key)) is not None:
                raise refusal.with_traceback(None)  # the same one each time
            return Ensured(present, contested=Contested(_contest_note(what, present, changed), wait))
        known = self._known_differences.get(key)
        is_recreated = present is None and known is not None
        if is_recreated and not await self._owner_exists(owner):
            return Ensured(None)
        written = await self._apply_and_store(key, resource, wanted)
        self._known_differences.put(key, frozenset(differences(written, wanted)))
        kept = changed & frozenset(differences(written, wanted))
        if was_applied and (corrected := changed - kept):
            what = f"was changed by somebody else and has been put right: {_paths(corrected)}"
            await self._announce_correction(owner, written, PUT_RIGHT, what)
        if was_applied and kept and known is not None:
            what = f"has what somebody else has added, and keeps it until it is taken out there: {_paths(kept)}"
            await self._announce_correction(owner, written, ALTERED, what)
        if is_recreated:
            what = "was deleted by somebody else and has been made again"
            await self._announce_correction(owner, written, PUT_RIGHT, what)
        return Ensured(written, applied=True)

    async def _apply_and_store(self, key: str, resource: Resource, wanted: Manifest) -> Manifest:
        try:
            written = await self._take_over_and_apply(resource, wanted)
        except REFUSALS as refusal:
            self._last_refusals.put(key, refusal)
            raise
        self._last_refusals.drop(key)
        self._context.store.put(resource, written)
        return written

    async def _take_over_and_apply(self, resource: Resource, wanted: Manifest) -> Manifest:
        """Apply an object, and first take over the fields that others have set on a copy of it (a restore, say).

        After a crash between the two it has no digest yet: the next reconcile does both.
        """
        kube, name, namespace = self._context.kube, wanted["metadata"]["name"], wanted["metadata"]["namespace"]
        for _ in range(AT_ONCE):
            found = await kube.get(resource, name, namespace)
            if found is not None and not found["metadata"].get("managedFields"):
                found = await kube.apply(resource, unstamped(wanted))  # so that the server tracks managedFields again
            if found is None or (managed := with_transferred_fields(found)) is None:
                break
            taken = {"resourceVersion": found["metadata"]["resourceVersion"], "managedFields": managed}
            with suppress(Conflict):  # someone has written it meanwhile: repeat with the new state
                await kube.merge_patch(resource, name, namespace, {"metadata": taken})
        return await kube.apply(resource, wanted)

    async def _owner_exists(self, owner: Manifest) -> bool:
        """Whether the owner still exists: its own watch may have broken before it was deleted.

        Otherwise what the garbage collector deletes would be created again: a server starts, a provider bills it.
        """
        resource = next(own for own in OWN_KINDS if own.kind == owner["kind"])
        metadata = owner["metadata"]
        found = await self._context.kube.get(resource, metadata["name"], metadata["namespace"])
        if found is None:
            self._context.store.remove(resource, metadata["namespace"], metadata["name"])
            return False
        if found["metadata"]["uid"] == metadata["uid"] and not wants_deletion(found):
            return True
        self._context.store.put(resource, found)
        self._context.enqueue(Key(resource.kind, metadata["namespace"], metadata["name"]))
        return False

    async def _announce_correction(self, owner: Manifest, child: Manifest, event: tuple[str, str], what: str) -> None:
        """Post an Event on the owner; on the child too if users edit such objects themselves, and look there."""
        own = f"{owner['kind']} {owner['metadata']['name']}"
        place = f"; change the spec of {own}"
        if child["kind"] == MODEL_DEPLOYMENTS.kind:
            place = f"; change spec.deployment.template of {own}, or set its spec.deployment.mode: Manual"
        note = f"{child['kind']} {child['metadata']['name']} {what}{'' if event is ALTERED else place}"
        await self._context.announce(owner, *event, note)
        if child["kind"] == MODEL_DEPLOYMENTS.kind:
            await self._context.announce(child, *event, note)

    def _changed(self, key: str, present: Manifest | None, wanted: Manifest) -> Differences:
        """Differences to `wanted`, without those that the server makes each time, for example a mutating policy."""
        found = frozenset(differences(present, wanted)) if present else frozenset()
        return found - (self._known_differences.get(key) or frozenset())

    async def _present(self, resource: Resource, metadata: Manifest) -> Manifest | None:
        """The object as it is. Only labelled children are watched: for others the API is asked.

        Raises:
            NameTaken: it is someone else's, which applying would take over.
        """
        found = self._context.store.get(resource, metadata["name"], metadata["namespace"])
        if resource not in CHILDREN or (found is not None and is_managed(found)):
            return found
        found = await self._context.kube.get(resource, metadata["name"], metadata["namespace"])
        if found is None:
            return None
        if not is_ours(found):
            raise NameTaken(f"{resource.kind} {metadata['name']} exists and was not made by this operator")
        return found


def _stamp(present: Manifest) -> str | None:
    """The digest of what was applied; None if someone has removed it."""
    return annotations_of(present).get(DIGEST_ANNOTATION)


def _contest_note(what: str, present: Manifest | None, changed: Differences) -> str:
    if present is None:
        return f"{what} is deleted again and again by somebody else"
    return f"{what} is changed again and again by somebody else ({_paths(changed)}): its managedFields tell by whom"


def _paths(changed: Differences) -> str:
    return ", ".join(sorted(path for path, _ in changed)[:3])
