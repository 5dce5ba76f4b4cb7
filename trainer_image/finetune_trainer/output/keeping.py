"""A job's output folder, and what makes it outlive the pod: a volume by itself, an object store by uploads.

With a store the pod works on its scratch space. When it starts, the newest snapshot or the finished artifact comes
back; while it works, a thread uploads what is new; at the end the artifact goes up, and the snapshots go.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_api.job_status import ArtifactRef
from finetune_api.names import ARTIFACT_FOLDER, CHECKPOINTS_FOLDER, artifact_folder
from finetune_api.trainer import StoreRef, TrainerJob
from finetune_trainer.attempt.fence import Fence, Passable, StoreFence
from finetune_trainer.attempt.interruption import Interrupted
from finetune_trainer.errors import TrainerError
from finetune_trainer.output.snapshots import Snapshots
from finetune_trainer.storage import artifact_store
from finetune_trainer.storage.durable import write_errors
from finetune_trainer.storage.store import Store
from finetune_trainer.training.checkpoint_names import newest_step

PERIOD_SECONDS = 5.0
"""How often the thread looks whether there is anything new to upload."""

LAST_PATIENCE_SECONDS = 600.0
"""How long an artifact's upload is tried again: a whole training hangs on it."""

logger = logging.getLogger(__name__)


class Keeping:
    """A job whose output folder is on a volume: there is nothing to do."""

    def __init__(self, job: TrainerJob) -> None:
        self.job = job
        """The job; its artifact_uri is what the artifact here is called."""

    @property
    def fence(self) -> Passable:
        """Whether a newer attempt has begun."""
        return Fence(Path(self.job.output), self.job.attempt)

    def saved_step(self) -> int | None:
        """Step of the newest checkpoint that outlives the pod."""
        return newest_step(Path(self.job.output) / CHECKPOINTS_FOLDER)

    def publish(self, reference: ArtifactRef) -> ArtifactRef:
        """Bring the finished artifact to where it is kept."""
        return reference


class StoreKeeping(Keeping):
    """A job whose output folder is scratch, kept in an object store."""

    def __init__(self, job: TrainerJob, store: StoreRef) -> None:
        super().__init__(job)
        self._ref, self._store = store, Store(store)
        self._fence = StoreFence(self._store, job.attempt)
        self._snapshots = Snapshots(self._store, Path(job.output), job.attempt)
        self._stop, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="keeping", daemon=True)
        self._passed = False

    @property
    def fence(self) -> Passable:
        """As the thread last saw it: training does not wait for the store at each checkpoint."""
        return self

    def saved_step(self) -> int | None:
        """Of those in the store."""
        return self._snapshots.saved_step

    def take(self) -> bool:
        """Whether this is the newest attempt; it has said that it began."""
        return not self._passed

    def is_passed(self) -> bool:
        """Whether a newer attempt was seen."""
        return self._passed

    def begin(self) -> None:
        """Say that the attempt has begun, bring back what an earlier one left, and start the uploads.

        Raises:
            TrainerError: the store does not let it, or does not answer.
            Interrupted: there is a newer attempt.
        """
        with write_errors(Path(self.job.output)):
            Path(self.job.output).mkdir(parents=True, exist_ok=True)
        if not self._fence.take():
            raise Interrupted
        finished = artifact_store.newest(self._store)
        self._call_artifact(finished or artifact_folder(self.job.attempt))
        if finished:
            artifact_store.fetch(self._store, finished, Path(self.job.output) / ARTIFACT_FOLDER)
            self._forget()  # killed right then, that attempt has left what it needed on the way
        else:
            self._snapshots.restore()
            self._thread.start()

    def publish(self, reference: ArtifactRef) -> ArtifactRef:
        """Upload the artifact; afterwards the snapshots are gone.

        Raises:
            TrainerError: what Store raises.
            Interrupted: there is a newer attempt.
        """
        self._end_thread()
        if self._fence.is_passed():
            raise Interrupted
        patient = Store(self._ref, LAST_PATIENCE_SECONDS)
        artifact_store.keep(Path(self.job.output) / ARTIFACT_FOLDER, patient, self._name)
        self._over = True
        self._forget()
        return reference.model_copy(update={"uri": self.job.artifact_uri})

    def end(self) -> None:
        """Keep the last state of a run that ends without an artifact."""
        self._end_thread()
        if not self._over and self._thread.ident is not None:
            self._keep()

    @property
    def _name(self) -> str:
        return self.job.artifact_uri.rpartition("/")[2]

    def _forget(self) -> None:
        """Delete what is not needed beside the artifact."""

        def forget() -> None:
            artifact_store.forget_before(self._store, self._name)
            self._snapshots.forget()

        self._tried("what is not needed any more stays in the store", forget)

    def _call_artifact(self, name: str) -> None:
        self.job = self.job.model_copy(update={"artifact_uri": f"{self._ref.uri}/{name}"})

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            self._keep()

    def _end_thread(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        if not self._passed and self._snapshots.changed():
            self._tried("the newest checkpoint is not in the store yet", self._take)

    def _take(self) -> None:
        self._passed = self._fence.is_passed()
        if not self._passed:
            self._snapshots.take()

    def _tried(self, without: str, action: Callable[[], None]) -> None:
        """Trouble here loses nothing that is there already: the run continues."""
        try:
            action()
        except TrainerError as error:
            logger.warning("%s: %s", without, error.message)


@contextmanager
def kept(job: TrainerJob) -> Iterator[Keeping]:
    """The job's output folder, as an earlier attempt left it; what is new in it at the end is kept.

    Raises:
        TrainerError: the store does not let it, or does not answer.
        Interrupted: there is a newer attempt.
    """
    if job.store is None:
        yield Keeping(job)
        return
    keeping = StoreKeeping(job, job.store)
    try:
        keeping.begin()
        yield keeping
    finally:
        keeping.end()


@contextmanager
def followed(job: TrainerJob, rank: int) -> Iterator[Keeping]:
    """The same folder for a rank that writes nothing: in other pods than rank 0's the first one brings it back.

    Raises:
        TrainerError: the store does not let it, or does not answer.
    """
    if job.store is not None and rank >= job.ranks_per_node and rank % job.ranks_per_node == 0:
        with write_errors(Path(job.output)):
            Path(job.output).mkdir(parents=True, exist_ok=True)
        Snapshots(Store(job.store), Path(job.output), job.attempt).restore()
    yield Keeping(job)
