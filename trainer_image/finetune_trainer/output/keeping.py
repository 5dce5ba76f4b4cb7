"""A job's output folder, and how it outlives the pod: on a volume, or by uploads to an object store.

With a store the pod works in its scratch space. At the start it restores the newest snapshot or the finished artifact;
during the run a thread uploads changes; at the end it uploads the artifact and deletes the snapshots.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_api.job_status import ArtifactRef
from finetune_api.names import ARTIFACT_FOLDER, CHECKPOINTS_FOLDER, artifact_folder
from finetune_api.trainer import StoreRef, TrainerJob
from finetune_trainer.attempt.fence import AttemptFence, Fence, StoreFence
from finetune_trainer.attempt.interruption import Interrupted
from finetune_trainer.errors import TrainerError
from finetune_trainer.output.snapshots import Snapshots
from finetune_trainer.storage import artifact_store
from finetune_trainer.storage.durable import write_errors
from finetune_trainer.storage.store import Store
from finetune_trainer.training.checkpoint_names import newest_step

PERIOD_SECONDS = 5.0
"""How often the thread checks for changes to upload."""

LAST_PATIENCE_SECONDS = 600.0
"""How long to retry the upload of an artifact: the whole training depends on it."""

logger = logging.getLogger(__name__)


class OutputFolder:
    """A job whose output folder is on a volume: there is nothing to do."""

    def __init__(self, job: TrainerJob) -> None:
        self.job = job
        """The job; its artifact_uri is that of this attempt's artifact."""

    @property
    def fence(self) -> AttemptFence:
        """Tells whether a newer attempt has started."""
        return Fence(Path(self.job.output), self.job.attempt)

    def saved_step(self) -> int | None:
        """Step of the newest checkpoint that outlives the pod."""
        return newest_step(Path(self.job.output) / CHECKPOINTS_FOLDER)

    def publish(self, reference: ArtifactRef) -> ArtifactRef:
        """Store the finished artifact permanently."""
        return reference


class StoredOutput(OutputFolder):
    """A job whose output folder is scratch space, kept in an object store."""

    def __init__(self, job: TrainerJob, store: StoreRef) -> None:
        super().__init__(job)
        self._ref, self._store = store, Store(store)
        self._fence = StoreFence(self._store, job.attempt)
        self._snapshots = Snapshots(self._store, Path(job.output), job.attempt)
        self._stop, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="keeping", daemon=True)
        self._superseded = False

    @property
    def fence(self) -> AttemptFence:
        """As of the thread's last check: training does not wait for the store at each checkpoint."""
        return self

    def saved_step(self) -> int | None:
        """Step of the newest checkpoint in the store."""
        return self._snapshots.saved_step

    def take(self) -> bool:
        """Whether this is the newest attempt; `begin` has registered it."""
        return not self._superseded

    def is_superseded(self) -> bool:
        """Whether a newer attempt was seen."""
        return self._superseded

    def begin(self) -> None:
        """Register the attempt, restore what an earlier one left, and start the uploads.

        Raises:
            TrainerError: the store refuses access, or does not answer.
            Interrupted: there is a newer attempt.
        """
        with write_errors(Path(self.job.output)):
            Path(self.job.output).mkdir(parents=True, exist_ok=True)
        if not self._fence.take():
            raise Interrupted
        finished = artifact_store.newest(self._store)
        name = finished or artifact_folder(self.job.attempt)
        self.job = self.job.model_copy(update={"artifact_uri": f"{self._ref.uri}/{name}"})
        if finished:
            artifact_store.fetch(self._store, finished, Path(self.job.output) / ARTIFACT_FOLDER)
            self._forget()  # if that attempt was killed right after, its snapshots are still there
        else:
            self._snapshots.restore()
            self._thread.start()

    def publish(self, reference: ArtifactRef) -> ArtifactRef:
        """Upload the artifact; afterwards the snapshots are deleted.

        Raises:
            TrainerError: as `Store` raises it.
            Interrupted: there is a newer attempt.
        """
        self._end_thread()
        if self._fence.is_superseded():
            raise Interrupted
        patient = Store(self._ref, LAST_PATIENCE_SECONDS)
        artifact_store.keep(Path(self.job.output) / ARTIFACT_FOLDER, patient, self._name)
        self._over = True
        self._forget()
        return reference.model_copy(update={"uri": self.job.artifact_uri})

    def end(self) -> None:
        """Upload the last state of a run that ends without an artifact."""
        self._end_thread()
        if not self._over and self._thread.ident is not None:
            self._keep()

    @property
    def _name(self) -> str:
        return self.job.artifact_uri.rpartition("/")[2]

    def _forget(self) -> None:
        """Delete everything that is not needed beside the artifact."""

        def forget() -> None:
            artifact_store.forget_before(self._store, self._name)
            self._snapshots.forget()

        self._tried("what is not needed any more stays in the store", forget)

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            self._keep()

    def _end_thread(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        if not self._superseded and self._snapshots.changed():
            self._tried("the newest checkpoint is not in the store yet", self._take)

    def _take(self) -> None:
        self._superseded = self._fence.is_superseded()
        if not self._superseded:
            self._snapshots.take()

    def _tried(self, without: str, action: Callable[[], None]) -> None:
        """Log errors and continue: nothing that is already stored is lost."""
        try:
            action()
        except TrainerError as error:
            logger.warning("%s: %s", without, error.message)


@contextmanager
def output_of_rank_0(job: TrainerJob) -> Iterator[OutputFolder]:
    """The job's output folder, as an earlier attempt left it; changes are stored at the end.

    Raises:
        TrainerError: the store refuses access, or does not answer.
        Interrupted: there is a newer attempt.
    """
    if job.store is None:
        yield OutputFolder(job)
        return
    keeping = StoredOutput(job, job.store)
    try:
        keeping.begin()
        yield keeping
    finally:
        keeping.end()


@contextmanager
def output_of_other_rank(job: TrainerJob, rank: int) -> Iterator[OutputFolder]:
    """The same folder for ranks other than 0, which only read it: in other pods their first rank restores it.

    Raises:
        TrainerError: the store refuses access, or does not answer.
    """
    if job.store is not None and rank >= job.ranks_per_node and rank % job.ranks_per_node == 0:
        with write_errors(Path(job.output)):
            Path(job.output).mkdir(parents=True, exist_ok=True)
        Snapshots(Store(job.store), Path(job.output), job.attempt).restore()
    yield OutputFolder(job)
