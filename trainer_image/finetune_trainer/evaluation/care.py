"""Uses less memory after an attempt was OOM-killed during the evaluation, which raises no exception.

    killed once  → one question at a time, losses one row at a time
    killed again → only what was completed before is repeated: the tuned weights matter more than their evaluation

A file beside the answers says who is being asked. The operator tells whether memory was the cause
(`TrainerJob.short_of_memory`): an attempt on a lost node ends just as suddenly, but needs no such care.
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
from finetune_trainer.storage.durable import json_in, whole_file

FILE = "asked.json"

_GIVEN_UP = 2
"""Number of kills after which nothing new is tried."""

_MORE = (
    "To have it measured, apply the job under a new name with more spec.resources.memory, shorter questions or fewer "
    "baselines, or ask an admin for more memory in the connection's podTemplate."
)


@dataclass
class Care:
    """Who was being asked when attempts were killed. Create it with `of`."""

    path: Path
    interruption: Interruption
    trained_on: str
    """Hash of what the tuned model was trained on: records of another model are ignored."""
    ends: int = 0
    """How many attempts were OOM-killed while asking."""
    done: list[str] = field(default_factory=list)
    """Who was asked completely."""
    now: str | None = None
    """Who is being asked."""

    @classmethod
    def of(cls, output: Path, trained_on: str, interruption: Interruption, *, short_of_memory: bool) -> "Care":
        """The state left by the previous attempt; `short_of_memory` is whether that was OOM-killed."""
        known = _read(output / FOLDER / FILE)
        if known.get("learnt") != trained_on:
            known = {}
        ended = bool(short_of_memory and known.get("now"))
        done = [str(one) for one in known.get("done", ())]
        return cls(output / FOLDER / FILE, interruption, trained_on, int(known.get("ends", 0)) + ended, done)

    @property
    def one_row_at_a_time(self) -> bool:
        """Whether each row gets its own batch."""
        return self.ends > 0

    @contextmanager
    def asking(self, who: str) -> Iterator[None]:
        """Compute answers of `who`, or its loss, in this context.

        Raises:
            TrainerError: OutOfMemory, it will not be tried again.
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
        state = {"learnt": self.trained_on, "ends": self.ends, "done": self.done, "now": self.now}
        whole_file(self.path, json.dumps(state).encode())


def _read(path: Path) -> dict[str, Any]:
    found = json_in(path)
    return found if isinstance(found, dict) else {}
