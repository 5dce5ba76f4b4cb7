"""One attempt of a job: who it is of, who is told of it, and who else takes part."""

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
    """What all of an attempt's work is given."""

    job: TrainerJob
    reporter: Reporter
    interruption: Interruption
    world: World
    followers: Trackers
    allow_local: bool
    """Whether datasets may be files of this machine."""
    moment: datetime | None = None
    """What time the run's conversations are written at; None until that is known."""

    def tell_followers(self, how: End) -> None:
        """The trackers' runs end as this attempt does; status has what they missed. Only the first rank has any."""
        if not self.world.is_first:
            return
        self.followers.end(how)
        self.tell_tracked()

    def tell_tracked(self) -> None:
        """Status has where the trackers' runs are, and what they lack."""
        if self.world.is_first and self.followers.tracked:
            self.reporter.update(trackers=self.followers.tracked)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Work whose end without a result the trackers hear of."""
        try:
            yield
        except Interrupted:
            self.tell_followers("Interrupted")
            raise
        except Exception:
            self.tell_followers("Failed")
            raise
