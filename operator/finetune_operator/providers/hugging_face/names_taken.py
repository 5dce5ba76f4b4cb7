"""Creates batch Jobs under fixed names: an existing object is ours, someone else's, or being deleted."""

from finetune_api.job_status import Failure
from finetune_api.manifest import Manifest, finalizers_of, labels_of, owners_of, wants_deletion
from finetune_api.names import JOB_UID_LABEL
from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import CannotMake
from finetune_operator.runtime.errors import Conflict
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS, Kube, Resource

_GC_FINALIZERS = {"foregroundDeletion", "orphan"}
"""Finalizers that Kubernetes' garbage collector removes."""


async def create_job(kube: Kube, manifest: Manifest) -> Manifest:
    """Create the batch Job, or return the existing one of an earlier call.

    Raises:
        CannotMake: another Job has its name and stays.
        Conflict: another Job has its name and is being deleted.
    """
    try:
        return await kube.create_once(JOBS, manifest)
    except Conflict:
        metadata = manifest["metadata"]
        found = await kube.get(JOBS, metadata["name"], metadata["namespace"])
        if found is None:
            raise
        if (uid := _uid_of_owner(manifest)) is not None and _uid_of_owner(found) == uid:
            return found  # ours, but its owner reference was removed
        raise taken(JOBS, found) from None


def taken(resource: Resource, found: Manifest) -> CannotMake | Conflict:
    """The error for a name that belongs to another object: Conflict, to retry, if that object is being deleted."""
    name, kind = found["metadata"]["name"], resource.kind
    held = _blocking_finalizers(found)
    if held:
        message = (
            f"{kind} {name} does not belong to this object; it is being deleted, and kept by its finalizers {held}"
        )
        step = f"Find out who has set them, and have them taken off {kind.lower()} {name}: then it continues."
        return CannotMake(Failure(reason=Reason.NAME_CONFLICT, message=message, next_step=step))
    if will_be_deleted(found):
        return Conflict(409, "AlreadyExists", f"{kind} {name} is being deleted")
    message = f"{kind} {name} exists already and does not belong to this object"
    step = f"Delete it (kubectl delete {kind.lower()} {name}), or apply this object under a new name."
    return CannotMake(Failure(reason=Reason.NAME_CONFLICT, message=message, next_step=step))


def will_be_deleted(child: Manifest) -> bool:
    """Whether another owner's object is deleted without help: with the earlier job or model of the name."""
    ours = {FINE_TUNE_JOBS.kind, FINE_TUNED_MODELS.kind}
    return wants_deletion(child) or any(owner["kind"] in ours for owner in owners_of(child))


def _blocking_finalizers(child: Manifest) -> str:
    """The finalizers that block its deletion, except those that Kubernetes removes itself."""
    if not wants_deletion(child):
        return ""
    return ", ".join(name for name in finalizers_of(child) if name not in _GC_FINALIZERS)


def _uid_of_owner(child: Manifest) -> str | None:
    return labels_of(child).get(JOB_UID_LABEL)
