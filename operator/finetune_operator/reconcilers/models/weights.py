"""Deletes weights of versions: at their provider, or by a Job if they are on volume claims or in object stores."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from finetune_api.connection import HuggingFace, LLMConnectionSpec
from finetune_api.manifest import Manifest, has_condition, labels_of, wants_deletion
from finetune_api.model import ModelVersion
from finetune_api.names import MADE_BY_LABEL
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.pods.refused import refusal_of_pod, refusal_of_write
from finetune_operator.desired import prune_job
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.calls.errors import CannotMake, TryLater
from finetune_operator.providers.hugging_face.names_taken import create_job
from finetune_operator.providers.remote.hosting import named
from finetune_operator.providers.sdks import is_remote
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.watched.indexes import has_weights
from finetune_operator.runtime.errors import REFUSALS, Conflict
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, JOBS, owner_uids

logger = logging.getLogger(__name__)


LATE_AFTER = timedelta(seconds=60)
"""How long a pod may take to start before the reason is reported."""

Build = Callable[[Manifest, ModelVersion, HuggingFace], Manifest | None]
"""Builds the Job that deletes a version's folder; None if the folder is not the model's."""


class Weights:
    """Deletes weights. Idempotent: repeating it, also after a crash, deletes nothing else.

    Args:
        context: what reconcilers share.
        accounts: of the providers that store weights.
        observe: returns the state of a batch Job on this cluster.
    """

    def __init__(self, context: Context, accounts: Accounts, observe: Callable[[Manifest], Awaitable[Run]]) -> None:
        self._context = context
        self._accounts = accounts
        self._observe = observe

    async def delete(self, model: Manifest, version: ModelVersion, build: Build) -> bool:
        """Delete a version's weights; returns whether they are gone, or are not ours to delete, as adopted ones.

        Raises:
            ProviderError: they cannot be deleted now.
        """
        if version.adopted:
            return True
        connection = self._context.connection(version.connection)
        if is_at_provider(version, connection):
            if version.adopted is None:
                await self._announce_unproven(model, version)
                return True
            if await self._is_used_elsewhere(model, version):
                return True
            # In another account they would not be found, and be taken for deleted.
            await self._accounts.of(version.connection).require_models(version)
            await self._accounts.of(version.connection).call(lambda api: api.delete_model(named(version.artifact)))
            return True
        if connection is None:
            raise TryLater.because(self._context.lacking(version.connection))
        job = build(model, version, _require_here(version, connection))
        return job is None or await self._is_done(job)

    async def _is_used_elsewhere(self, model: Manifest, version: ModelVersion) -> bool:
        """Whether another model has the same provider model as a version, such as a copy in another namespace.

        If so an Event says that it stays; the last of these models deletes it.
        """
        found = self._context.store.select(FINE_TUNED_MODELS, has_weights(named(version.artifact)))
        others = (one for one in found if one["metadata"]["uid"] != model["metadata"]["uid"])
        if all(map(wants_deletion, others)):
            return False
        note = (
            f"{named(version.artifact)} of version {version.version} is not deleted: another FineTunedModel has it too"
        )
        await self._context.announce(model, "Warning", "Retained", note)
        return True

    async def _announce_unproven(self, model: Manifest, version: ModelVersion) -> None:
        """Say that weights stay, as an older release wrote the record, which does not prove that they are ours."""
        what = f"{named(version.artifact)} of version {version.version}"
        note = f"{what} is not deleted: status does not say that it was made here"
        await self._context.announce(model, "Warning", "Retained", note)

    def job_of(self, model: Manifest, version: ModelVersion) -> Manifest | None:
        """The Job that prunes a version; one of an earlier model of the same name does not count."""
        metadata = model["metadata"]
        job = self._context.store.get(JOBS, prune_job.name(metadata["name"], version.version), metadata["namespace"])
        return job if job is not None and metadata["uid"] in owner_uids(job) else None

    async def _is_done(self, job: Manifest) -> bool:
        """Whether the Job is done; creates it if it does not exist.

        Raises:
            TryLater: it failed, and blocks a retry while it exists; or the Job or its pod cannot be created.
        """
        name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        present = self._context.store.get(JOBS, name, namespace)
        if present is not None and owner_uids(job) <= owner_uids(present):
            if has_condition(present, "Failed", "True"):
                said = f"Job {name} failed; its pod's log says why; delete the Job to have it tried again"
                raise TryLater(Reason.ARTIFACT_FAILED, said)
            return has_condition(present, "Complete", "True") or await self._has_ended(present, job)
        if self._context.is_ending(namespace):
            return True  # its claims go with it
        await self._create(job)
        return False

    async def _has_ended(self, present: Manifest, wanted: Manifest) -> bool:
        """Whether the Job's work is done and only a sidecar that a policy added still runs: the Job is deleted then.

        A Job whose pod does not start, and which its connection would build differently by now, is deleted to be
        created again.

        Raises:
            TryLater: its pod does not start, or the Job may not be deleted.
        """
        metadata = present["metadata"]
        run = await self._observe(present)
        if run.state == "ResultUnknown":  # the container ended well; these pods send no report
            await self._end(metadata)
            return True
        if run.failure and _made_by(present) not in {None, _made_by(wanted)}:
            await self._end(metadata)
            return False
        if run.failure and self._context.clock() - moment(metadata["creationTimestamp"]) > LATE_AFTER:
            said = f"the pod of Job {metadata['name']}: {run.failure.message}"
            raise TryLater.because(run.failure.model_copy(update={"message": said}))
        return False

    async def _end(self, metadata: Manifest) -> None:
        try:
            await self._context.kube.delete(JOBS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except REFUSALS as refusal:
            raise TryLater.because(refusal_of_write(refusal.message)) from None

    async def _create(self, job: Manifest) -> None:
        """Create the Job; if an earlier model's Job of that name is still being deleted, wait for it.

        Raises:
            TryLater: a policy refuses it, or its name is taken by someone else's Job.
        """
        try:
            self._context.store.put(JOBS, await create_job(self._context.kube, job))
        except Conflict as going:
            logger.info("a Job that deletes weights waits: %s", going.message)  # its end triggers a reconcile
        except CannotMake as taken:
            raise TryLater.because(taken.failure) from None
        except REFUSALS as refusal:
            raise TryLater.because(refusal_of_pod(refusal.message)) from None


def _made_by(job: Manifest) -> str | None:
    return labels_of(job).get(MADE_BY_LABEL)


def is_at_provider(version: ModelVersion, connection: LLMConnectionSpec | None) -> bool:
    """Whether the provider deletes a version's weights; on a claim it does not, whatever the connection is."""
    if version.artifact.provider_model_id is not None:
        return True
    return is_remote(connection) and not (version.artifact.uri or "").startswith("pvc://")


def _require_here(version: ModelVersion, connection: LLMConnectionSpec) -> HuggingFace:
    """The connection's block for this cluster, which says where its weights are.

    Raises:
        TryLater: the connection leads to a provider by now.
    """
    if connection.hugging_face is None:
        leads = f"LLMConnection {version.connection} leads to {connection.provider} now"
        gone = TryLater(Reason.CONNECTION_NOT_FOUND, f"{leads}, and the weights are where it led to before")
        gone.next_step = "Ask an admin to restore the connection as it was; another place is for another LLMConnection."
        raise gone
    return connection.hugging_face
