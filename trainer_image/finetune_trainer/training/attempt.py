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
    followers: Trackers
    allow_local: bool
    """Whether datasets may be files of this machine."""
    moment: datetime | None = None
    """The time in the run's conversations; None until it is known."""

    def tell_followers(self, how: End) -> None:
        """End the trackers' runs, and report what they missed. Only the first rank has trackers."""
        if not self.world.is_first:
            return
        self.followers.end(how)
        self.tell_tracked()

    def tell_tracked(self) -> None:
        """Report where the trackers' runs are, and their problems."""
        if self.world.is_first and self.followers.tracked:
            self.reporter.update(trackers=self.followers.tracked)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Tell the trackers if the block ends with an exception."""
        try:
            yield
        except Interrupted:
            self.tell_followers("Interrupted")
            raise
        except Exception:
            self.tell_followers("Failed")
            raise
