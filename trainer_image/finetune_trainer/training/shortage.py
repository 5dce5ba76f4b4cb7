"""What to change after a GPU ran out of memory: passes are halved, for the rest of this attempt and the next ones.

    a pass fails      → the same step again with passes of half the size, in the same process; same gradients
    it fails again    → halved again for the next attempt; this one saves a checkpoint and ends as OutOfMemory
    a row alone fails → the next attempt uses activation checkpointing; if that fails too, nothing is left to try
    the optimizer's state does not fit → smaller passes do not help: the job ends, and is not retried

If only some of the ranks run out of memory, the others halve their passes too, after the step. What is halved is the
limit of passes; if actual passes are much smaller, as a rank's share of a step may be, it is halved until that has an
effect.

The lesson is saved beside the checkpoints: otherwise the next attempt would fail where this one did.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from finetune_api.job import FineTuneJobSpec, Hyperparameters
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.durable import json_in, whole_file
from finetune_trainer.training.passes import Cut

FILE = "memory.json"


@dataclass(frozen=True)
class Lesson:
    """Settings learned from out-of-memory errors of a job's attempts."""

    halvings: int = 0
    checkpointing: bool = False
    """Whether to use activation checkpointing although activations were estimated to fit."""

    @classmethod
    def read(cls, checkpoints: Path) -> Self:
        """The lesson saved beside a job's checkpoints; the default if there is none.

        Raises:
            TrainerError: ArtifactFailed or StoreUnavailable, it cannot be read.
        """
        try:
            return cls(**(json_in(checkpoints / FILE) or {}))
        except TypeError:
            return cls()

    def write(self, checkpoints: Path) -> None:
        """Save it atomically.

        Raises:
            TrainerError: ArtifactFailed, it cannot be written.
        """
        whole_file(checkpoints / FILE, json.dumps(asdict(self)).encode())

    def halved(self, times: int) -> "Lesson":
        """The same with smaller passes."""
        return replace(self, halvings=self.halvings + times)

    def harder(self, times: int) -> "Lesson | None":
        """The next thing to try: smaller passes, if `times` halvings achieve that; None if nothing is left."""
        if times:
            return self.halved(times)
        return None if self.checkpointing else replace(self, checkpointing=True)


def halved(cut: Cut, times: int) -> Cut:
    """The cut with passes of a half, a quarter, … of the size; a row is never split."""
    return replace(
        cut,
        token_budget=None if cut.token_budget is None else max(1, cut.token_budget >> times),
        rows_each=None if cut.rows_each is None else max(1, cut.rows_each >> times),
    )


def halvings_of(cut: Cut) -> range:
    """How many times the cut can be halved until each row has its own pass."""
    return range(1, max(cut.token_budget or 0, cut.rows_each or 0).bit_length() + 1)


def out_of_memory(step: int, tokens: int, lesson: Lesson, hyper: Hyperparameters) -> TrainerError:
    """The error of an attempt whose passes could not be made small enough."""
    tried = [f"passes halved {lesson.halvings} times"] if lesson.halvings else []
    tried += ["activations computed twice"] if lesson.checkpointing else []
    how = f", with {' and '.join(tried)}" if tried else ""
    return TrainerError(
        Reason.OUT_OF_MEMORY,
        f"the GPU's memory was not enough for a pass of {tokens} tokens in step {step}{how}",
        _advice(tokens, lesson, hyper),
    )


def no_room_for_optimizer(step: int, trained: int, spec: FineTuneJobSpec, *, shared_out: bool) -> TrainerError:
    """The error of a job whose optimizer state for `trained` bytes of weights does not fit.

    At that point no pass is in memory: smaller passes, or another attempt, would fail the same way.
    """
    return TrainerError(
        Reason.INSUFFICIENT_MEMORY,
        f"the GPU's memory was not enough for the optimizer in step {step}: beside the {trained / 2**30:.1f} GiB of "
        "weights that are trained and their gradients it keeps twice as much, however small the passes are",
        f"Use {_LESS_TRAINED[spec.method]}{', more GPUs' if shared_out else ''} or a larger GPU that nothing else "
        "uses, and apply the job under a new name.",
    )


_LESS_TRAINED = {"Full": "method: LoRA", "LoRA": "a smaller lora.r, method: QLoRA", "QLoRA": "a smaller lora.r"}
"""How to make the optimizer's state smaller, by method."""


def _advice(tokens: int, lesson: Lesson, hyper: Hyperparameters) -> str:
    rows = max(1, (hyper.micro_batch_size or 1) >> lesson.halvings)  # in the failed pass
    fewer = f"hyperparameters.microBatchSize below {rows}, " if rows > 1 else ""
    shorter = f"hyperparameters.maxSequenceLength below {tokens // rows}"
    return f"Use {fewer}{shorter}, method: QLoRA or a larger GPU, and apply the job under a new name."
