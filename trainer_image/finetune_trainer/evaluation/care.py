"""More care where the kernel has ended an attempt while it measured: memory was short, and no exception said so.

    ended once  → questions are asked one by one, losses computed row by row
    ended again → only what was done before is done: the tuned weights are worth more than what is said of them

Who is being asked stands in a file beside the answers. That it was for want of memory the operator tells
(`TrainerJob.short_of_memory`): a node that was lost ends an attempt as suddenly, and teaches nothing.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_api.reasons import Reason
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.kept import FOLDER
from finetune_trainer.storage.durable import note_in, whole_file

FILE = "asked.json"

_GIVEN_UP = 2
"""Ends after which nothing new is tried."""

_MORE = (
    "To have it measured, apply the job under a new name with more spec.resources.memory, shorter questions or fewer "
    "baselines, or ask an admin for more memory in the connection's podTemplate."
)


@dataclass
class Care:
    """Who was asked when attempts were ended. Use `of`."""

    path: Path
    interruption: Interruption
    learnt: str
    """What the tuned model learnt from, as a hash: what another one has met teaches nothing."""
    ends: int = 0
    """How many attempts have ended for want of memory while somebody was asked."""
    done: list[str] = field(default_factory=list)
    """Who was asked to the end."""
    now: str | None = None
    """Who is being asked."""

    @classmethod
    def of(cls, output: Path, learnt: str, interruption: Interruption, *, short_of_memory: bool) -> "Care":
        """As the attempt before left it; `short_of_memory` is how that one ended."""
        known = _read(output / FOLDER / FILE)
        if known.get("learnt") != learnt:
            known = {}
        ended = bool(short_of_memory and known.get("now"))
        done = [str(one) for one in known.get("done", ())]
        return cls(output / FOLDER / FILE, interruption, learnt, int(known.get("ends", 0)) + ended, done)

    @property
    def one_by_one(self) -> bool:
        """Whether rows do not share a batch."""
        return self.ends > 0

    @contextmanager
    def asking(self, who: str) -> Iterator[None]:
        """Work on an answer of `who`, or on its loss.

        Raises:
            TrainerError: OutOfMemory, it is not tried any more.
        """
        if self.ends >= _GIVEN_UP and who not in self.done:
            message = f"the kernel ended {self.ends} attempts for want of memory while the test set was asked"
            raise TrainerError(Reason.OUT_OF_MEMORY, message, _MORE)
        around, self.now = self.now, who
        self._write()
        try:
            yield
            self.done = [*dict.fromkeys((*self.done, who))]
        finally:
            self.now = around
            self._write()

    def _write(self) -> None:
        self.interruption.before_writing()
        told = {"learnt": self.learnt, "ends": self.ends, "done": self.done, "now": self.now}
        whole_file(self.path, json.dumps(told).encode())


def _read(path: Path) -> dict[str, Any]:
    found = note_in(path)
    return found if isinstance(found, dict) else {}
