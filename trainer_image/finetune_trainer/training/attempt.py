"""One attempt of a job: its job, its reports and trackers, and the other ranks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from finetune_api.trainer import TrainerJob
from finetune_trainer.attempt.interruption import End, Interrupted, Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.attempt.trackers import Trackers
from finetune_trainer.computing.ranks import World


@dataclass(frozen=True)
class Attempt:
    """Passed to everything that works on an attempt."""

    job: TrainerJob
    reporter: Reporter
    interruption: Interruption
    world: World
    trackers: Trackers
    allow_local: bool
    """Whether datasets may be files of this machine."""
    moment: datetime | None = None
    """The time in the run's conversations; None until it is known."""

    def end_trackers(self, how: End) -> None:
        """End the trackers' runs, and report what they missed. Only the first rank has trackers."""
        if not self.world.is_first:
            return
        self.trackers.end(how)
        self.report_trackers()

    def report_trackers(self) -> None:
        """Report where the trackers' runs are, and their problems."""
        if self.world.is_first and self.trackers.tracked:
            self.reporter.update(trackers=self.trackers.tracked)

    @contextmanager
    def trackers_informed(self) -> Iterator[None]:
        """Tell the trackers if the block ends with an exception."""
        try:
            yield
        except Interrupted:
            self.end_trackers("Interrupted")
            raise
        except Exception:
            self.end_trackers("Failed")
            raise
